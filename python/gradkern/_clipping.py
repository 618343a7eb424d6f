"""The second pass of every clipping: factors, then one call of the kernels that writes, then the result."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from gradkern import _faults
from gradkern._arrays import on_host
from gradkern._clip_survey import LIFT, Floats, Found, refuse, times_power
from gradkern.clip_result import ClipResult, NonFinite, NormsByName
from gradkern.fit import headroom
from gradkern.formats import FormatInfo, finfo, formats

_FORMATS = formats()


def _significant(x: Floats) -> Floats:
    """Round to float32's 24 bits, at any exponent."""
    with np.errstate(all="ignore"):
        single = x.astype(np.float32)
    sizes = np.abs(single)
    if sizes.min(initial=1.0) >= 2.0**-126 and sizes.max(initial=1.0) < math.inf:
        return single.astype(np.float64)
    mantissa, exponent = np.frexp(x)
    found: Floats = np.ldexp(np.rint(np.ldexp(mantissa, 24)), exponent - 24)
    return found


@dataclass
class Factors:
    """What each unit is multiplied by: first * second."""

    first: Floats
    second: Floats
    write: NDArray[np.bool_]


def factors_of(found: Found, coefficients: Floats, nonfinite: str) -> Factors:
    """Coefficients over the scale: 24 bits of them where the product is in float32, all where it is in float64."""
    wide, unscale = found.wide, math.ldexp(1.0, -found.exponent)
    kept = _significant(coefficients[0])
    second = np.ones(len(kept))
    with np.errstate(all="ignore"):
        first = kept * unscale
    if wide.any():
        with np.errstate(all="ignore"):
            kept = np.where(wide, coefficients[0], kept)
            first = kept * unscale
            small = wide & (coefficients[0] < 2.0**-1022) & (coefficients[1] != 0)
            split = wide & ~small & (np.abs(first) < 2.0**-1022) & (kept != 0)  # digits of the factor would be lost
        second[split], first[split] = unscale, kept[split]
        power = max(-found.exponent - LIFT, -1022)  # the rest of it goes to the other factor
        second[small] = math.ldexp(1.0, power)
        first[small] = np.ldexp(coefficients[1][small], -found.exponent - LIFT - power)
    write = first * second != 1
    if nonfinite == "zero" and found.nonfinite:
        write |= found.spoiled()
    return Factors(first, second, write)


def _product(x: Floats, factor: float, fmt: FormatInfo) -> Floats:
    """Multiply as the kernels do, before rounding to storage."""
    found: Floats = x * factor if fmt.name == "float64" else (x * factor).astype(np.float32).astype(np.float64)
    return found


def overflowing(found: Found, factors: Factors) -> dict[str, NonFinite]:
    """Tensors with entries that a scale below 1 enlarges beyond their format."""
    units = found.group._units
    if found.exponent >= 0:
        return {}
    result: dict[str, NonFinite] = {}
    for name, unit in zip(found.group.names, units.records, strict=True):
        if unit >= units.counted:
            continue
        fmt = finfo(_FORMATS[units.formats[unit]])
        factor = float(factors.first[unit] * factors.second[unit])
        with np.errstate(all="ignore"):
            if not fmt.overflows(float(_product(found.records["amax"][unit], factor, fmt))):
                continue
            values = _product(np.abs(on_host(units.sources[unit]).astype(np.float64).ravel()), factor, fmt)
            beyond = values >= fmt.overflow_threshold if fmt.has_inf else values > fmt.overflow_threshold
            where = np.flatnonzero(beyond)
        result[name] = NonFinite(len(where), int(where[0]), 0, len(where))
    return result


def scale(found: Found, factors: Factors, zero: bool) -> tuple[int, int, int, int]:
    """Write, in one call: no signal comes between. Counts flushed, subnormal, overflow and zeroed."""
    units = found.group._units
    write = np.ones_like(factors.write) if units.copied else factors.write
    if not write.any():
        return 0, 0, 0, 0
    _faults.point("decided")
    counts: tuple[int, int, int, int] = found.core.scale(factors.first, factors.second, write, zero, units.back)
    _faults.point("scaled")
    return counts


def margin_of(found: Found) -> int | None:
    """How often every tensor could be doubled before an entry overflows; None where all are zero."""
    amax, ids = found.records["amax"], found.group._units.formats
    kinds = found.group._formats
    largest = {i: float((amax if len(kinds) == 1 else amax[ids == i]).max(initial=0.0)) for i in kinds}
    rooms = [headroom(x, finfo(_FORMATS[i])) for i, x in largest.items() if x > 0]
    return min(rooms, default=None)


def everywhere(found: Found, coefficient: tuple[float, float]) -> Floats:
    """Give every unit the same coefficient."""
    return np.repeat(np.array(coefficient)[:, None], found.counted, axis=1)


def norm_of(found: Found, finite: bool) -> float:
    """Norm over all units; that of the finite entries, or inf or NaN if one is."""
    if not finite and found.nonfinite:
        return math.nan if found.total["nan"][0] else math.inf
    return times_power(*found.mantissa_exponent)


def result_of(
    found: Found, *, coefficient: float, clipped: bool, skipped: bool, norm: float,
    counts: tuple[int, int, int, int] = (0, 0, 0, 0), nonfinite: dict[str, NonFinite] | None = None,
    norms: Floats | None = None, changed: int = 0,
) -> ClipResult:  # fmt: skip
    """Gather the result."""
    group = found.group
    if norms is None:
        norms = found.norms()
        if not group._units.simple:
            norms = norms[np.array(group._units.records, np.int64)]
    flushed, subnormal, overflow, zeroed = counts
    return ClipResult(
        norm=norm, coefficient=coefficient, clipped=clipped, skipped=skipped,
        norms=NormsByName(group.names, norms),
        nonfinite=found.nonfinite if nonfinite is None else nonfinite,
        flushed=flushed, subnormal=subnormal, overflow=overflow, zeroed=zeroed, changed=changed,
        amax=float(found.total["amax"][0]), margin=margin_of(found),
        size=int(found.total["size"][0]), scale=math.ldexp(1.0, found.exponent),
        arrays=group._result(),
    )  # fmt: skip


def settle(
    found: Found, coefficients: Floats, norm: float, nonfinite: str, function: str, norms: Floats | None = None
) -> ClipResult:
    """Apply the policy, then the coefficients of each unit that counts: rows of them and of them lifted."""
    if found.nonfinite and nonfinite == "raise":
        raise refuse(found.nonfinite, function)
    factors = factors_of(found, coefficients, nonfinite)
    if nonfinite in ("raise", "skip"):
        beyond = overflowing(found, factors) if not found.nonfinite else {}
        if beyond and nonfinite == "raise":
            raise refuse(beyond, function, "beyond its format without the scale")
        if found.nonfinite or beyond:
            scale_nothing(found)
            return result_of(
                found, coefficient=1.0, clipped=False, skipped=True, norm=norm, nonfinite=found.nonfinite or beyond,
                norms=norms,
            )  # fmt: skip
    counts = scale(found, factors, nonfinite == "zero")
    least = float(np.min(coefficients[0], initial=1.0))
    return result_of(
        found, coefficient=least, clipped=not least >= 1, skipped=False, norm=norm, counts=counts, norms=norms
    )


def scale_nothing(found: Found) -> None:
    """Give copies of the arrays where copies were asked for."""
    units = found.group._units
    if units.copied:
        for source, target in zip(units.sources, units.targets, strict=True):
            target[...] = source
        for owner, key, values in units.back:
            owner[key] = values
