"""`clip_adaptive`: each output row of a gradient clipped by the norm of the weights it is to change."""

from __future__ import annotations

from typing import Any

import numpy as np

from gradkern import _core
from gradkern._arrays import read_in_place
from gradkern._backend import takes_device
from gradkern._clip_survey import LIFT, Found, check_policy, limit, survey
from gradkern._clipping import norm_of, rows_of, settle
from gradkern.clip_result import ClipResult
from gradkern.gradient_group import GradientGroup, named


def _weight_norms(group: GradientGroup, weights: Any, rows: list[int], function: str) -> Any:
    """Norms of the rows of weights, as mantissas and exponents."""
    names, values = named(weights, function)
    if list(names) != list(group.names):
        raise ValueError(f"{function}: weights must have the names of grads {group.names[:5]}, got {names[:5]}")
    bits = [read_in_place(v, f"{function}: weights: {name}") for name, v in zip(names, values, strict=True)]
    for name, weight, source in zip(names, bits, group._units.sources, strict=True):
        if weight.shape != source.shape:
            raise ValueError(f"{function}: {name} has weights of shape {weight.shape} and grads of {source.shape}")
    core = _core.ClipGroup([b.bits for b in bits], [], [b.format_id for b in bits], rows)
    return core.survey(1, len(core))[0]


def _by_rows(found: Found, rows: list[int]) -> Found:
    """Survey again, by rows."""
    units = found.group._units
    core = _core.ClipGroup(list(units.sources), list(units.targets), units.formats.tolist(), rows)
    records, _ = core.survey(1, 0)
    wide = np.repeat(found.wide, rows)
    return Found(found.group, core, wide, records, found.total, found.exponent, found.nonfinite)


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
        If a gradient's entry is not finite and the policy is to raise.

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
    whole = survey(grads, 2, 1.0, function, out)
    units = whole.group._units
    if not units.simple or units.counted != len(units.sources):
        raise ValueError(f"{function}: grads overlap, so their rows are not clear")
    rows = rows_of(units)
    weight = _weight_norms(whole.group, weights, rows, function)
    found = _by_rows(whole, rows)
    records = found.records
    mantissa, exponent = records["mantissa"].copy(), records["exponent"]
    if nonfinite == "propagate":
        mantissa[records["inf"] != 0], mantissa[records["nan"] != 0] = np.inf, np.nan
    with np.errstate(all="ignore"):
        allowed = np.maximum(np.ldexp(weight["mantissa"], weight["exponent"]), least) * fraction
        lifted = np.ldexp(np.ldexp(allowed, LIFT) / mantissa, -exponent)
        coefficients = np.minimum([np.ldexp(allowed / mantissa, -exponent), lifted], 1.0)  # NaN stays
    coefficients[:, (mantissa == 0) | (mantissa <= np.ldexp(allowed, -exponent))] = 1.0
    return settle(found, coefficients, norm_of(whole, nonfinite == "zero"), nonfinite, function, whole.norms())
