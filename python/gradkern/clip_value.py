"""`clip_by_value`: entries moved between two bounds."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from gradkern import _core, _faults
from gradkern._arguments import number
from gradkern._arrays import as_bits_view
from gradkern._backend import takes_device
from gradkern._clip_survey import check_policy, refuse, survey
from gradkern._clipping import norm_of, result_of, scale_nothing
from gradkern.clip_result import ClipResult
from gradkern.formats import finfo, format_ids, formats


def _inward(bound: float, fmt: str, up: bool) -> float:
    """Round a bound to a format, up or down."""
    info = finfo(fmt)
    if math.isinf(bound):
        return bound
    if abs(bound) > info.max:
        toward_zero = up == (bound < 0)
        return math.copysign(info.max if toward_zero else math.inf, bound)
    stored = np.empty((), info.dtype)
    _core.convert(np.array(bound).view(np.uint64), format_ids()["float64"], as_bits_view(stored), format_ids()[fmt],
                  1.0, 1, 0, 0, 0, 0)  # fmt: skip
    found = float(stored)  # rounded toward zero
    if found == bound or up == (bound < 0):
        return found
    bits = as_bits_view(stored)
    bits += bits.dtype.type(1)  # one step away from zero
    return math.copysign(float(stored), bound)


def _bounds(low: float, high: float, ids: list[int], function: str) -> dict[int, tuple[float, float]]:
    found = {}
    for fmt in ids:
        name = formats()[fmt]
        found[fmt] = _inward(low, name, up=True), _inward(high, name, up=False)
        if not found[fmt][0] <= found[fmt][1]:
            raise ValueError(f"{function}: no {name} lies between low {low} and high {high}")
    return found


@takes_device
def clip_by_value(
    arrays: Any, low: float, high: float, *, nonfinite: str = "raise", out: Any = None, device: str | None = None
) -> ClipResult:
    """Move entries below low or above high there, in place.

    Parameters
    ----------
    arrays, out, device
        As for `clip_by_global_norm`.
    low, high : float
        Bounds; infinite ones bound nothing. In a format that lacks them, entries are moved to the nearest values between.
    nonfinite : {"raise", "skip", "zero", "propagate"}
        As for `clip_by_global_norm`: an error that names the first NaN or infinity, nothing being modified; modify nothing; or
        count them as zeros. Where they propagate, infinity is moved to its bound and NaN stays.

    Returns
    -------
    ClipResult
        ``changed`` counts the entries moved; the coefficient is 1, and norms are those before.

    Raises
    ------
    TypeError
        If an array cannot be read or written in place, or a number is none.
    ValueError
        If low is above high, one is NaN, a format has no value between, or an array is read-only.
    NonFiniteError
        If an entry is not finite and the policy is to raise.

    Examples
    --------
    >>> gk.clip_by_value(np.array([-3.0, 0.5, 2.0]), -1.0, 1.0).changed
    2
    """
    function = "clip_by_value"
    check_policy(nonfinite, function)
    least, most = number(low, function, "low"), number(high, function, "high")
    for name, bound in (("low", least), ("high", most)):
        if math.isnan(bound):
            raise ValueError(f"{function}: {name} must not be NaN")
    if least > most:
        raise ValueError(f"{function}: low must not be above high, got {low} and {high}")
    found = survey(arrays, 2, 1.0, function, out)
    units = found.group._units
    bounds = _bounds(least, most, found.group._formats, function)
    if found.nonfinite and nonfinite == "raise":
        raise refuse(found.nonfinite, function)
    norm = norm_of(found, nonfinite == "zero")
    if found.nonfinite and nonfinite == "skip":
        scale_nothing(found)
        return result_of(found, coefficient=1.0, clipped=False, skipped=True, norm=norm)
    lows = np.array([bounds[f][0] for f in units.formats[: found.counted]], np.float64)
    highs = np.array([bounds[f][1] for f in units.formats[: found.counted]], np.float64)
    records = found.records[: found.counted]
    write = (records["amax"] > np.minimum(-lows, highs)) | (records["nan"] + records["inf"] != 0) | units.copied
    zeroed = changed = 0
    if write.any():
        _faults.point("decided")
        zeroed, _, _, changed = found.core.clamp(lows, highs, write, nonfinite == "zero", units.back)
        _faults.point("scaled")
    counts = (0, 0, 0, zeroed)
    return result_of(
        found, coefficient=1.0, clipped=changed > 0, skipped=False, norm=norm, counts=counts, changed=changed
    )
