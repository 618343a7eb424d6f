"""Weight initialisations. Each returns a float64 array (n_out, n_in) from NumPy's PCG64 generator and a seed.

``n_out`` and ``n_in`` are at least 1, ``gain`` multiplies, ``seed`` is an integer or a ``numpy.random.Generator``, which goes
on. A size or seed that is no integer and a gain that is no number are a TypeError, a size below 1 and a negative seed a
ValueError.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import wraps
from typing import Any, TypeVar, cast

import numpy as np
from numpy.typing import NDArray

from gradkern._arguments import generator_of, number, positive_integer
from gradkern.activation import activation_code

Weight = NDArray[np.float64]
Draw = TypeVar("Draw", bound=Callable[..., Weight])


def _checked(draw: Draw) -> Draw:
    """Check sizes and gain before they are computed with, by the name of the initialisation."""

    @wraps(draw)
    def checked(n_out: int, n_in: int, *, gain: float = 1.0, seed: Any = 0) -> Weight:
        sizes = (positive_integer(n, draw.__name__, name) for n, name in ((n_out, "n_out"), (n_in, "n_in")))
        return draw(*sizes, gain=number(gain, draw.__name__, "gain"), seed=generator_of(seed, draw.__name__))

    return cast("Draw", checked)


@_checked
def normal(n_out: int, n_in: int, *, gain: float = 1.0, seed: Any = 0) -> Weight:
    """N(0, gain^2)."""
    drawn: Weight = seed.standard_normal((n_out, n_in))
    return gain * drawn


@_checked
def uniform(n_out: int, n_in: int, *, gain: float = 1.0, seed: Any = 0) -> Weight:
    """U(-gain, gain)."""
    drawn: Weight = seed.uniform(-1.0, 1.0, (n_out, n_in))
    return gain * drawn


@_checked
def he_normal(n_out: int, n_in: int, *, gain: float = 1.0, seed: Any = 0) -> Weight:
    """N(0, gain^2 2 / n_in): He, Zhang, Ren, Sun 2015."""
    return normal(n_out, n_in, gain=gain * math.sqrt(2 / n_in), seed=seed)


@_checked
def he_uniform(n_out: int, n_in: int, *, gain: float = 1.0, seed: Any = 0) -> Weight:
    """U(-b, b), b = gain sqrt(6 / n_in): He, Zhang, Ren, Sun 2015."""
    return uniform(n_out, n_in, gain=gain * math.sqrt(6 / n_in), seed=seed)


@_checked
def xavier_normal(n_out: int, n_in: int, *, gain: float = 1.0, seed: Any = 0) -> Weight:
    """N(0, gain^2 2 / (n_in + n_out)): Glorot and Bengio 2010."""
    return normal(n_out, n_in, gain=gain * math.sqrt(2 / (n_in + n_out)), seed=seed)


@_checked
def xavier_uniform(n_out: int, n_in: int, *, gain: float = 1.0, seed: Any = 0) -> Weight:
    """U(-b, b), b = gain sqrt(6 / (n_in + n_out)): Glorot and Bengio 2010."""
    return uniform(n_out, n_in, gain=gain * math.sqrt(6 / (n_in + n_out)), seed=seed)


@_checked
def lecun_normal(n_out: int, n_in: int, *, gain: float = 1.0, seed: Any = 0) -> Weight:
    """N(0, gain^2 / n_in): LeCun, Bottou, Orr, Müller 1998."""
    return normal(n_out, n_in, gain=gain * math.sqrt(1 / n_in), seed=seed)


@_checked
def orthogonal(n_out: int, n_in: int, *, gain: float = 1.0, seed: Any = 0) -> Weight:
    """Gain times a Haar-distributed matrix with orthonormal rows or columns: Saxe, McClelland, Ganguli 2014."""
    gaussian = seed.standard_normal((max(n_out, n_in), min(n_out, n_in)))
    q, r = np.linalg.qr(gaussian)
    q = q * np.sign(np.diag(r))
    return gain * np.ascontiguousarray(q if n_out >= n_in else q.T)


@_checked
def identity(n_out: int, n_in: int, *, gain: float = 1.0, seed: Any = 0) -> Weight:
    """Gain times the identity (ones on the main diagonal where it is not square); ``seed`` is not used."""
    return gain * np.eye(n_out, n_in)


@_checked
def torch_default(n_out: int, n_in: int, *, gain: float = 1.0, seed: Any = 0) -> Weight:
    """U(-b, b), b = gain / sqrt(n_in): what torch.nn.Linear does."""
    return uniform(n_out, n_in, gain=gain / math.sqrt(n_in), seed=seed)


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

    Parameters
    ----------
    activation : str
        ``"leaky_relu(a)"`` gives sqrt(2 / (1 + a^2)).

    Returns
    -------
    float

    Raises
    ------
    TypeError
        If the activation is no name.
    ValueError
        If no gain is in common use for this activation.
    """
    if not isinstance(activation, str):
        raise TypeError(f"gain: activation must be a name, got {activation!r}")
    base, bracket, _ = activation.partition("(")
    if base == "leaky_relu" and bracket:
        return math.sqrt(2 / (1 + activation_code(activation, "gain")[1] ** 2))
    if base not in _GAINS or bracket:
        raise ValueError(f"gain: must be one of {', '.join(_GAINS)}, got {activation!r}")
    return _GAINS[base]
