"""`clip_adaptive`: each output row of a gradient clipped by the norm of the weights it is to change."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from gradkern import _core
from gradkern._arrays import read_in_place
from gradkern._backend import takes_device
from gradkern._clip_survey import LIFT, Floats, check_policy, limit, scaled, survey_rows
from gradkern._clipping import norm_of, settle
from gradkern.clip_result import ClipResult
from gradkern.errors import NonFiniteError
from gradkern.gradient_group import NORMS, GradientGroup, named


def _weight_norms(group: GradientGroup, weights: Any, function: str) -> Floats:
    """Norms of the rows of weights."""
    names, values = named(weights, function)
    if list(names) != list(group.names):
        raise ValueError(f"{function}: weights must have the names of grads {group.names[:5]}, got {names[:5]}")
    bits = [read_in_place(v, f"{function}: weights: {name}") for name, v in zip(names, values, strict=True)]
    for name, weight, shape in zip(names, bits, group._units.shapes, strict=True):
        if weight.shape != shape:
            raise ValueError(f"{function}: {name} has weights of shape {weight.shape} and grads of {shape}")
    core = _core.ClipGroup([b.bits for b in bits], [], [b.format_id for b in bits]).by_rows(group._units.rows)
    core.survey(NORMS[2], 0)
    nan, inf = core.nonfinite()
    norms = scaled(*core.norms())
    norms[inf != 0], norms[nan != 0] = np.inf, np.nan
    return norms


def _check_weights(norms: Floats, group: GradientGroup, function: str) -> None:
    bad = ~np.isfinite(norms)
    if bad.any():
        names = np.repeat(np.asarray(group.names, dtype=object), group._units.rows)
        error = NonFiniteError(
            f"{function}: weights: {names[bad][0]} holds NaN or infinity, so its norm bounds nothing"
        )
        error.tensor = str(names[bad][0])
        raise error


def _coefficients(allowed: Floats, mantissa: Floats, exponent: NDArray[np.int64]) -> Floats:
    """Return what brings norms down to those allowed; in a second row 2**LIFT times it where it is subnormal."""
    with np.errstate(all="ignore"):
        coefficient = np.minimum(scaled(allowed / mantissa, -exponent), 1.0)  # NaN stays
        coefficient[(mantissa == 0) | (mantissa <= scaled(allowed, -exponent))] = 1.0
        small = coefficient < 2.0**-1022
        lifted = coefficient
        if small.any():
            lifted = np.where(small, np.ldexp(np.ldexp(allowed, LIFT) / mantissa, -exponent), coefficient)
    return np.stack([coefficient, lifted])


@takes_device
def clip_adaptive(
    grads: Any, weights: Any, clip: float = 0.01, eps: float = 1e-3, *, nonfinite: str = "raise", out: Any = None,
    device: str | None = None,
) -> ClipResult:  # fmt: skip
    """Clip each output row of gradients to a fraction of the norm of its weights (AGC), in place.

    ``min(1, clip * max(|w|, eps) / |g|)``, rows being those of the first axis; vectors and numbers are a row each.

    Parameters
    ----------
    grads, nonfinite, out, device
        As for `clip_by_global_norm`.
    weights : arrays
        Of the same names and shapes, in any formats; only read.
    clip : float
        The fraction, not negative.
    eps : float
        Weights count as at least that long.

    Returns
    -------
    ClipResult
        Its coefficient is the smallest of all rows.

    Raises
    ------
    TypeError
        If an array cannot be read or written in place, or a number is none.
    ValueError
        If names or shapes differ, grads overlap, a number is negative or NaN, or an array is read-only.
    NonFiniteError
        If a gradient's entry is not finite and the policy is to raise, or a weight is not and the policy is another
        than to propagate.

    References
    ----------
    Brock, De, Smith, Simonyan, "High-performance large-scale image recognition without normalization", ICML 2021.

    Examples
    --------
    >>> grads = {"weight": np.array([[3.0, 4.0], [0.0, 0.0]])}
    >>> gk.clip_adaptive(grads, {"weight": np.ones((2, 2))}, clip=1.0).norm
    5.0
    """
    function = "clip_adaptive"
    check_policy(nonfinite, function)
    fraction, least = limit(clip, function, "clip"), limit(eps, function, "eps")
    group = GradientGroup._of(grads, function, out)
    units = group._units
    if not units.simple or units.counted != len(units.sources):
        raise ValueError(f"{function}: grads overlap, so their rows are not clear")
    norms = _weight_norms(group, weights, function)
    if nonfinite != "propagate":
        _check_weights(norms, group, function)
    allowed = np.maximum(norms, least) * fraction
    found = survey_rows(group)
    mantissa, exponent = found.core.norms()
    if nonfinite == "propagate" and found.nonfinite:
        nan, inf = found.core.nonfinite()
        mantissa[inf != 0], mantissa[nan != 0] = np.inf, np.nan
    return settle(
        found, _coefficients(allowed, mantissa, exponent), norm_of(found, nonfinite == "zero"), nonfinite, function
    )
