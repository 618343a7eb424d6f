"""Clipping of gradients that cannot corrupt them: decided before anything is written, and then written in one go."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from gradkern._backend import takes_device
from gradkern._clip_survey import check_policy, coefficients_of, coefficients_of_each, limit, survey
from gradkern._clipping import everywhere, norm_of, settle
from gradkern.clip_result import ClipResult
from gradkern.gradient_group import READ_ONLY, GradientGroup


@takes_device
def clip_by_global_norm(
    arrays: Any, max_norm: float | None, *, p: float = 2, scale: float = 1.0, eps: float = 0.0,
    nonfinite: str = "raise", out: Any = None, device: str | None = None,
) -> ClipResult:  # fmt: skip
    """Divide gradients by a loss scale and clip them to a global norm, in place.

    One pass reads: finiteness, the largest magnitude, and the norms. A second one writes, only if something has to
    change; before it, every decision is made, and it cannot be interrupted. With ``norm <= max_norm`` and a scale of 1
    nothing is written. On a device both passes run there; the norms are waited for.

    Parameters
    ----------
    arrays : mapping, iterable of arrays or of pairs (name, array), GradientGroup, or one array
        Gradients of NumPy (ml_dtypes included) or PyTorch on the CPU, of any float formats, layouts and shapes; or all of
        them on one device, C-contiguous. None is left out. Where arrays overlap, each entry counts once and is clipped once;
        on a device they may be the same, but not overlap in part.
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
    device : {None, "cpu", "cuda", "simt"}
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
    return clip_together(arrays, max_norm, p, scale, eps, nonfinite, out)


def clip_together(
    arrays: Any, max_norm: float | None, p: float, scale: float, eps: float = 0.0, nonfinite: str = "skip",
    out: Any = None, function: str = "clip_by_global_norm",
) -> ClipResult:  # fmt: skip
    """Do what `clip_by_global_norm` does for a function of another name, which messages begin with."""
    check_policy(nonfinite, function)
    most = None if max_norm is None else limit(max_norm, function, "max_norm")
    added = limit(eps, function, "eps")
    found = survey(arrays, p, scale, function, out)
    norm = norm_of(found, nonfinite == "zero")
    coefficient = 1.0, 1.0
    if most is not None:
        whole = found.mantissa_exponent if math.isfinite(norm) or not found.nonfinite else (norm, 0)
        coefficient = coefficients_of(most, *whole, added)
    return settle(found, everywhere(found, coefficient), norm, nonfinite, function)


@takes_device
def global_norm(arrays: Any, p: float = 2, *, scale: float = 1.0, device: str | None = None) -> float:
    """Return the norm of all arrays together, right at any size and format.

    Parameters
    ----------
    arrays, p, scale
        As for `clip_by_global_norm`; nothing is written, so any arrays will do.
    device : {None, "cpu", "cuda", "simt"}
        Where to compute.

    Returns
    -------
    float
        Infinity or NaN if an entry is.

    Raises
    ------
    TypeError, ValueError
        As for `clip_by_global_norm`.

    Examples
    --------
    >>> gk.global_norm([np.full(1000, 4000.0, np.float16)])
    126491.10640673517
    """
    reads = None if isinstance(arrays, GradientGroup) else READ_ONLY
    return norm_of(survey(arrays, p, scale, "global_norm", reads), finite=False)


def _each(
    arrays: Any, most: Any, name: str, function: str, options: dict[str, Any], per_entry: bool = False
) -> ClipResult:
    """Clip each array by its own norm, or by its norm over the root of its size."""
    check_policy(options["nonfinite"], function)
    bound, added = limit(most, function, name), limit(options["eps"], function, "eps")
    found = survey(arrays, options["p"], options["scale"], function, options["out"])
    records = found.records[: found.counted]
    mantissa, exponent = records["mantissa"], records["exponent"] - found.exponent
    if options["nonfinite"] == "propagate":
        spoiled = records["nan"] + records["inf"] > 0
        mantissa = np.where(spoiled, np.where(records["nan"] > 0, np.nan, np.inf), mantissa)
        exponent[spoiled] = 0
    if per_entry:
        mantissa = mantissa / np.sqrt(np.maximum(records["size"], 1))
    coefficients = coefficients_of_each(bound, mantissa, exponent, added)
    norm = norm_of(found, options["nonfinite"] == "zero")
    return settle(found, coefficients, norm, options["nonfinite"], function)


@takes_device
def clip_by_norm(
    arrays: Any, max_norm: float, *, p: float = 2, scale: float = 1.0, eps: float = 0.0, nonfinite: str = "raise",
    out: Any = None, device: str | None = None,
) -> ClipResult:  # fmt: skip
    """Clip each array to a norm of its own, in place.

    Parameters
    ----------
    arrays, p, scale, eps, nonfinite, out, device
        As for `clip_by_global_norm`. Arrays that overlap in part are clipped as one.
    max_norm : float
        Not negative.

    Returns
    -------
    ClipResult
        Its coefficient is the smallest.

    Raises
    ------
    TypeError, ValueError, NonFiniteError
        As `clip_by_global_norm` does; no array is modified.

    Examples
    --------
    >>> grads = {"weight": np.array([3.0, 4.0]), "bias": np.array([0.5])}
    >>> gk.clip_by_norm(grads, 1.0).arrays["bias"]
    array([0.5])
    """
    options = {"p": p, "scale": scale, "eps": eps, "nonfinite": nonfinite, "out": out}
    return _each(arrays, max_norm, "max_norm", "clip_by_norm", options)


@takes_device
def clip_by_block_rms(
    arrays: Any, threshold: float, *, scale: float = 1.0, eps: float = 0.0, nonfinite: str = "raise", out: Any = None,
    device: str | None = None,
) -> ClipResult:  # fmt: skip
    """Clip each array to a root mean square, in place, as Adafactor does its updates.

    Parameters
    ----------
    arrays, scale, eps, nonfinite, out, device
        As for `clip_by_norm`.
    threshold : float
        Not negative. The coefficient is ``threshold / (rms + eps)`` where that is below 1.

    Returns
    -------
    ClipResult
        Its norms are the arrays' 2-norms.

    Raises
    ------
    TypeError, ValueError, NonFiniteError
        As `clip_by_global_norm` does; no array is modified.

    References
    ----------
    Shazeer, Stern, "Adafactor: Adaptive learning rates with sublinear memory cost", ICML 2018.
    """
    options = {"p": 2, "scale": scale, "eps": eps, "nonfinite": nonfinite, "out": out}
    return _each(arrays, threshold, "threshold", "clip_by_block_rms", options, per_entry=True)
