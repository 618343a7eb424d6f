"""Clipping of gradients that cannot corrupt them: decided before anything is written, and then written in one go."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from gradkern._backend import check_device
from gradkern._clipping import check_policy, coefficient_of, limit, norm_of, settle, survey
from gradkern.clip_result import ClipResult


def clip_by_global_norm(
    arrays: Any, max_norm: float | None, *, p: float = 2, scale: float = 1.0, eps: float = 0.0,
    nonfinite: str = "raise", out: Any = None, device: str | None = None,
) -> ClipResult:  # fmt: skip
    """Divide gradients by a loss scale and clip them to a global norm, in place.

    One pass reads: finiteness, the largest magnitude, and the norms. A second one writes, only if something has to
    change; before it, every decision is made, and it cannot be interrupted. With ``norm <= max_norm`` and a scale of 1
    nothing is written.

    Parameters
    ----------
    arrays : mapping, iterable of arrays or of pairs (name, array), GradientGroup, or one array
        Gradients of NumPy (ml_dtypes included) or PyTorch on the CPU, of any float formats, layouts and shapes. None is left
        out. Where arrays overlap, each entry counts once and is clipped once.
    max_norm : float or None
        Not negative. None: only unscale and check.
    p : {1, 2, inf}
        Which norm.
    scale : float
        The loss scale that the arrays carry, a power of two: they are divided by it.
    eps : float
        The coefficient is ``max_norm / (norm + eps)`` where that is below 1. ``1e-6`` is what torch adds.
    nonfinite : {"raise", "skip", "zero", "propagate"}
        What to do about NaN and infinity: raise an error that names the first, nothing being modified; modify nothing and
        say so; set them to zero and clip the rest by its norm; or multiply by what the norm makes of the coefficient, as torch
        does. Entries that a scale below 1 would enlarge beyond their format are treated likewise by the first two.
    out : arrays or "new", optional
        Where to write instead: arrays of the same names, shapes and formats, or new ones, in the result's `arrays`. JAX
        arrays need it.
    device : {None, "cpu"}
        Where to compute.

    Returns
    -------
    ClipResult

    Raises
    ------
    TypeError
        If an array cannot be read or written in place, or a number is none.
    ValueError
        If max_norm or eps is negative or NaN, an option is unknown, the scale is no power of two, or an array is read-only.
    NonFiniteError
        If an entry is not finite and the policy is to raise; it has ``tensor``, ``index`` and ``count``.

    Notes
    -----
    The norm is summed in float64 and scaled where powers would leave it (Blue 1978): it is right at any size. The coefficient
    is a float64, rounded to 24 bits for all formats but float64; the product is in float32 (float64), rounded to storage once.

    References
    ----------
    Pascanu, Mikolov, Bengio, "On the difficulty of training recurrent neural networks", ICML 2013. Blue, "A portable Fortran
    program to find the Euclidean norm of a vector", ACM TOMS 4 (1978).

    Examples
    --------
    >>> grads = {"weight": np.array([3.0, 0.0]), "bias": np.array([4.0])}
    >>> gk.clip_by_global_norm(grads, 1.0).coefficient
    0.2
    """
    function = "clip_by_global_norm"
    check_device(device, function)
    check_policy(nonfinite, function)
    most = None if max_norm is None else limit(max_norm, function, "max_norm")
    added = limit(eps, function, "eps")
    found = survey(arrays, p, scale, function, out)
    norm = norm_of(found, nonfinite == "zero")
    coefficient = 1.0
    if most is not None:
        mantissa, exponent = found.mantissa_exponent
        if not math.isfinite(norm) and found.nonfinite:
            mantissa, exponent = norm, 0
        coefficient = coefficient_of(most, mantissa, exponent, added)
    coefficients = np.full(found.group._units.counted, coefficient)
    return settle(found, coefficients, norm, nonfinite, function)
