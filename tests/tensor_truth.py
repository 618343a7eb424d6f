"""What statistics and fits must be, from exact rationals; and tensors to try them on."""

from __future__ import annotations

import math
from fractions import Fraction

import ml_dtypes
import numpy as np
import pytest
from conftest import NARROW, SPECS
from hypothesis import strategies as st

SOURCES = ["float64", "float32", *NARROW]
COUNTS = ("size", "nan", "pos_inf", "neg_inf", "zero", "negative", "subnormal", "first_nonfinite", "amax", "amin")


def reference(x):
    """Every field of a measurement, from exact rationals."""
    x = np.asarray(x)
    smallest_normal = float(ml_dtypes.finfo(x.dtype).smallest_normal)
    with np.errstate(invalid="ignore"):  # signalling NaN
        values = x.astype(np.float64).ravel()
    finite = values[np.isfinite(values)]
    magnitudes = np.abs(finite[finite != 0])
    exact = [Fraction(v) for v in finite.tolist()]
    mean = sum(exact, Fraction(0)) / len(exact) if exact else Fraction(0)
    squares = sum((v * v for v in exact), Fraction(0))
    about = sum(((v - mean) ** 2 for v in exact), Fraction(0))
    bad = np.flatnonzero(~np.isfinite(values))
    return {
        "size": values.size,
        "nan": int(np.isnan(values).sum()),
        "pos_inf": int((values == np.inf).sum()),
        "neg_inf": int((values == -np.inf).sum()),
        "zero": int((values == 0).sum()),
        "negative": int((finite < 0).sum()),
        "subnormal": int((magnitudes < smallest_normal).sum()),
        "first_nonfinite": int(bad[0]) if bad.size else None,
        "amax": float(magnitudes.max(initial=0)),
        "amin": float(magnitudes.min(initial=math.inf)),
        "mean": float(mean),
        "l1": to_float(sum(map(abs, exact), Fraction(0))),
        "l2": root(squares),
        "std": root(about / len(exact)) if exact else 0.0,
    }


def to_float(x: Fraction) -> float:
    try:
        return float(x)
    except OverflowError:
        return math.inf


def root(x: Fraction) -> float:
    """Correctly rounded enough: of a rational of any size."""
    if x == 0:
        return 0.0
    shift = 2 * ((200 - x.numerator.bit_length() + x.denominator.bit_length()) // 2)
    scaled = x * Fraction(2) ** shift
    return to_float(Fraction(math.isqrt(int(scaled))) / Fraction(2) ** (shift // 2))


def assert_matches(stats, x):
    truth = reference(x)
    for name in COUNTS:
        assert getattr(stats, name) == truth[name], name
    for name in ("l1", "l2", "std"):
        assert getattr(stats, name) == pytest.approx(truth[name], rel=1e-12, abs=5e-324), name
    assert abs(stats.mean - truth["mean"]) <= 1e-12 * truth["l1"] / max(1, stats.size) + 5e-324


def random_bits(fmt, size, seed=0):
    dtype = np.dtype(SPECS[fmt].dtype)
    return np.random.default_rng(seed).integers(0, 256, size * dtype.itemsize, dtype=np.uint8).view(dtype)


def normal(fmt, size, seed=0, scale=0.02):
    return (np.random.default_rng(seed).standard_normal(size) * scale).astype(SPECS[fmt].dtype)


def cast_for_real(x, fmt, k):
    """Overflow, subnormal, flushed, kept of 2**k * x, from exact rationals."""
    spec = SPECS[fmt]
    normal = Fraction(2) ** spec.emin
    quantum = normal / 2 ** (spec.p - 1)
    counts = [0, 0, 0, 0]
    for value in np.asarray(x, np.float64).ravel().tolist():
        if not math.isfinite(value) or value == 0:
            continue
        v = abs(Fraction(value)) * Fraction(2) ** k
        if v > spec.overflow_from or (v == spec.overflow_from and spec.has_inf):
            counts[0] += 1
        elif v <= quantum / 2:
            counts[2] += 1
        elif v < normal - quantum / 2:
            counts[1] += 1
        else:
            counts[3] += 1
    return counts


def edges():
    """Values at, just above and just below every threshold of every format, at any power of two."""
    significands = [
        1.0,
        1.25,
        1.5,
        1.75,
        1.8125,
        1.875,
        2 - 2**-7,
        2 - 2**-8,
        2 - 2**-10,
        2 - 2**-11,
        2 - 2**-23,
        2 - 2**-24,
    ]
    return st.builds(
        lambda s, e, step, sign: sign * math.ldexp(s + step * 2.0**-40, e),
        st.sampled_from(significands), st.integers(-160, 130), st.sampled_from([-1, 0, 0, 1]), st.sampled_from([-1, 1]),
    )  # fmt: skip
