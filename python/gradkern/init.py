"""Weight initialisations. Each returns a float64 array (n_out, n_in) from NumPy's PCG64 generator and a seed."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gradkern.activation import activation_code

Weight = NDArray[np.float64]
Seed = "int | np.random.Generator"


def _generator(seed: Any) -> np.random.Generator:
    return seed if isinstance(seed, np.random.Generator) else np.random.default_rng(seed)


def _fan(n: int) -> int:
    """Return a size after checking it: it divides the variance."""
    return _shape(n, n)[0]


def _shape(n_out: int, n_in: int) -> tuple[int, int]:
    if n_out < 1 or n_in < 1:
        raise ValueError(f"init: n_out and n_in must be at least 1, got {n_out} and {n_in}")
    return int(n_out), int(n_in)


def normal(n_out: int, n_in: int, *, gain: float = 1.0, seed: Any = 0) -> Weight:
    """N(0, gain^2)."""
    return gain * _generator(seed).standard_normal(_shape(n_out, n_in))


def uniform(n_out: int, n_in: int, *, gain: float = 1.0, seed: Any = 0) -> Weight:
    """U(-gain, gain)."""
    return gain * _generator(seed).uniform(-1.0, 1.0, _shape(n_out, n_in))


def he_normal(n_out: int, n_in: int, *, gain: float = 1.0, seed: Any = 0) -> Weight:
    """N(0, gain^2 2 / n_in): He, Zhang, Ren, Sun 2015."""
    return normal(n_out, n_in, gain=gain * math.sqrt(2 / _fan(n_in)), seed=seed)


def he_uniform(n_out: int, n_in: int, *, gain: float = 1.0, seed: Any = 0) -> Weight:
    """U(-b, b), b = gain sqrt(6 / n_in): He, Zhang, Ren, Sun 2015."""
    return uniform(n_out, n_in, gain=gain * math.sqrt(6 / _fan(n_in)), seed=seed)


def xavier_normal(n_out: int, n_in: int, *, gain: float = 1.0, seed: Any = 0) -> Weight:
    """N(0, gain^2 2 / (n_in + n_out)): Glorot and Bengio 2010."""
    return normal(n_out, n_in, gain=gain * math.sqrt(2 / (_fan(n_in) + _fan(n_out))), seed=seed)


def xavier_uniform(n_out: int, n_in: int, *, gain: float = 1.0, seed: Any = 0) -> Weight:
    """U(-b, b), b = gain sqrt(6 / (n_in + n_out)): Glorot and Bengio 2010."""
    return uniform(n_out, n_in, gain=gain * math.sqrt(6 / (_fan(n_in) + _fan(n_out))), seed=seed)


def lecun_normal(n_out: int, n_in: int, *, gain: float = 1.0, seed: Any = 0) -> Weight:
    """N(0, gain^2 / n_in): LeCun, Bottou, Orr, Müller 1998."""
    return normal(n_out, n_in, gain=gain * math.sqrt(1 / _fan(n_in)), seed=seed)


def orthogonal(n_out: int, n_in: int, *, gain: float = 1.0, seed: Any = 0) -> Weight:
    """Gain times a Haar-distributed matrix with orthonormal rows or columns: Saxe, McClelland, Ganguli 2014."""
    rows, columns = _shape(n_out, n_in)
    gaussian = _generator(seed).standard_normal((max(rows, columns), min(rows, columns)))
    q, r = np.linalg.qr(gaussian)
    q = q * np.sign(np.diag(r))
    return gain * np.ascontiguousarray(q if rows >= columns else q.T)


def identity(n_out: int, n_in: int, *, gain: float = 1.0, seed: Any = 0) -> Weight:
    """Gain times the identity (ones on the main diagonal where it is not square); ``seed`` is not used."""
    return gain * np.eye(*_shape(n_out, n_in))


def torch_default(n_out: int, n_in: int, *, gain: float = 1.0, seed: Any = 0) -> Weight:
    """U(-b, b), b = gain / sqrt(n_in): what torch.nn.Linear does."""
    return uniform(n_out, n_in, gain=gain / math.sqrt(_fan(n_in)), seed=seed)


INITIALISATIONS: dict[str, Callable[..., Weight]] = {
    f.__name__: f
    for f in (
        normal, uniform, he_normal, he_uniform, xavier_normal, xavier_uniform, lecun_normal, orthogonal, identity,
        torch_default,
    )
}  # fmt: skip

_GAINS = {
    "identity": 1.0,
    "sigmoid": 1.0,
    "tanh": 5 / 3,
    "relu": math.sqrt(2),
    "leaky_relu": math.sqrt(2 / (1 + 0.01**2)),
    "selu": 0.75,
}


def gain(activation: str) -> float:
    """Return the usual gain of an activation, as torch.nn.init.calculate_gain tabulates it.

    ``"leaky_relu(a)"`` gives sqrt(2 / (1 + a^2)).

    Raises
    ------
    ValueError
        If no gain is in common use for this activation.
    """
    base, bracket, _ = activation.partition("(")
    if base == "leaky_relu" and bracket:
        return math.sqrt(2 / (1 + activation_code(activation, "gain")[1] ** 2))
    if base not in _GAINS or bracket:
        raise ValueError(f"gain: must be one of {', '.join(_GAINS)}, got {activation!r}")
    return _GAINS[base]
