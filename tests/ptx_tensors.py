"""Tensors that kernels run on from their PTX: everyday numbers with hard ones among them."""

from __future__ import annotations

import numpy as np
from conftest import SPECS, adversarial, round_array

CHUNK = 16384  # entries of which a kernel leaves one partial result


def stored(values, fmt):
    """Values in a format, as its array."""
    with np.errstate(all="ignore"):
        return round_array(values, fmt).astype(SPECS[fmt].dtype)


def numbers(fmt, size, seed=0, wide=6):
    """Everyday numbers of a format with some hard ones among them."""
    rng = np.random.default_rng([seed, size])
    x = rng.standard_normal(size) * 2.0 ** rng.integers(-wide, wide // 2, size)
    hard = adversarial(fmt)
    places = rng.integers(0, size, size // 4)
    x[places] = rng.choice(hard, places.size)
    return stored(x, fmt)


def tensor(memory, array, misaligned=0):
    """The address of an array, moved by so many entries from where 16 bytes begin."""
    return memory.upload(array, misaligned * array.dtype.itemsize)
