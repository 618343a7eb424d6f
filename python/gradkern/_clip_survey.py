"""The first pass of every clipping: arguments checked, arrays read once, what was found, and the coefficient of it."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gradkern import _faults
from gradkern._arguments import log2_of_scale, number
from gradkern.clip_result import NonFinite
from gradkern.errors import NonFiniteError
from gradkern.gradient_group import NORMS, GradientGroup

POLICIES = ("raise", "skip", "zero", "propagate")
LIFT = 1000  # bits: a coefficient of 2**-1273 still has all its digits, and what it multiplies does not overflow
Floats = NDArray[np.float64]


def check_policy(nonfinite: str, function: str) -> None:
    """Refuse an unknown policy."""
    if nonfinite not in POLICIES:
        raise ValueError(f"{function}: nonfinite must be one of {', '.join(POLICIES)}, got {nonfinite!r}")


def norm_id(p: Any, function: str) -> int:
    """Return the kernels' number of a norm."""
    found = NORMS.get(p) if isinstance(p, int | float) and not isinstance(p, bool) else None
    if found is None:
        raise ValueError(f"{function}: p must be 1, 2 or inf, got {p!r}")
    return found


def limit(value: Any, function: str, name: str, zero: bool = True) -> float:
    """Return a number that is not negative, nor NaN."""
    found = number(value, function, name)
    if math.isnan(found):
        raise ValueError(f"{function}: {name} must not be NaN")
    if not (found >= 0 if zero else found > 0):
        raise ValueError(f"{function}: {name} must {'not be negative' if zero else 'be positive'}, got {value}")
    return found


def coefficients_of(most: float, mantissa: float, exponent: int, eps: float) -> tuple[float, float]:
    """Return the coefficient, and 2**LIFT times it, which has all its digits where the coefficient is subnormal."""
    found = _coefficient(most, mantissa, exponent, eps)
    return found, _coefficient(times_power(most, LIFT), mantissa, exponent, eps) if found < 2.0**-1022 else found


def _coefficient(most: float, mantissa: float, exponent: int, eps: float) -> float:
    """Most / (norm + eps) in float64, 1 if that is more; the norm, mantissa * 2**exponent, may be beyond float64."""
    norm = times_power(mantissa, exponent)
    if math.isinf(norm) and not math.isinf(mantissa):
        found = times_power(most / mantissa, -exponent)
    elif norm == 0 or (eps == 0 and norm <= most):
        return 1.0
    else:
        found = most / (norm + eps)
    return 1.0 if found >= 1 else found  # NaN stays


def coefficients_of_each(most: float, mantissa: Floats, exponent: NDArray[np.int64], eps: float) -> Floats:
    """Return `coefficients_of` for each of many norms: a row of coefficients and one of them lifted."""
    found = _coefficients(most, mantissa, exponent, eps)
    lifted, small = found.copy(), found < 2.0**-1022
    lifted[small] = _coefficients(times_power(most, LIFT), mantissa[small], exponent[small], eps)
    return np.array([found, lifted])


def _coefficients(most: float, mantissa: Floats, exponent: NDArray[np.int64], eps: float) -> Floats:
    with np.errstate(all="ignore"):
        norm = np.ldexp(mantissa, exponent)
        beyond = np.isinf(norm) & ~np.isinf(mantissa)
        found: Floats = np.where(beyond, np.ldexp(most / mantissa, -exponent), most / (norm + eps))
    found[(norm == 0) | (found >= 1) | ((eps == 0) & (norm <= most))] = 1.0
    return found


def times_power(x: float, exponent: int) -> float:
    """Multiply by 2**exponent; infinite beyond float64."""
    try:
        return math.ldexp(x, exponent)
    except OverflowError:
        return math.copysign(math.inf, x)


def scaled(x: Floats, exponent: NDArray[np.int64]) -> Floats:
    """Multiply by 2**exponent, which takes long and is mostly 1; infinite beyond float64."""
    if not exponent.any():
        return x
    with np.errstate(all="ignore"):
        found: Floats = np.ldexp(x, exponent)
    return found


@dataclass
class Found:
    """What the first pass found.

    Attributes
    ----------
    core : ClipGroup
        The kernels' view of what is to be scaled: the units, or their rows.
    wide : array of bool
        Which of those that are to be scaled are float64.
    records, total : structured arrays
        Of each unit, and of all together.
    exponent : int
        log2 of the loss scale.
    """

    group: GradientGroup
    core: Any
    wide: NDArray[np.bool_]
    records: NDArray[Any]
    total: NDArray[Any]
    exponent: int
    nonfinite: dict[str, NonFinite]
    by_rows: bool = False

    @property
    def counted(self) -> int:
        """How many units, or rows, make up the whole."""
        return len(self.wide)

    @property
    def mantissa_exponent(self) -> tuple[float, int]:
        """The norm of the finite entries divided by the scale, as two numbers."""
        return float(self.total["mantissa"][0]), int(self.total["exponent"][0]) - self.exponent

    def spoiled(self) -> NDArray[np.bool_]:
        """Which of those that are to be scaled hold NaN or infinity."""
        nan, inf = self.core.nonfinite() if self.by_rows else (self.records["nan"], self.records["inf"])
        found: NDArray[np.bool_] = (nan + inf)[: self.counted] != 0
        return found

    def norms(self) -> Floats:
        """Norms of the units, divided by the scale."""
        return scaled(self.records["mantissa"], self.records["exponent"] - self.exponent)


def survey(arrays: Any, p: Any, scale: Any, function: str, out: Any = None) -> Found:
    """Read all arrays once."""
    norm, exponent = norm_id(p, function), log2_of_scale(scale, function)
    group = GradientGroup._of(arrays, function, out)
    units = group._units
    units.load()
    records, total = units.core.survey(norm, units.counted)
    nonfinite = _nonfinite_of(group, records)
    _faults.point("surveyed")
    return Found(group, units.core, group._is_float64[: units.counted], records, total, exponent, nonfinite)


def survey_rows(group: GradientGroup) -> Found:
    """Read all arrays of a group once, by rows, which are what is to be scaled; each array is a unit."""
    units, core = group._units, group._units.by_rows
    units.load()
    records, total = core.survey(NORMS[2], len(core))
    nonfinite = _nonfinite_of(group, records)
    _faults.point("surveyed")
    wide = np.repeat(group._is_float64, units.rows)
    return Found(group, core, wide, records, total, 0, nonfinite, by_rows=True)


def _nonfinite_of(group: GradientGroup, records: NDArray[Any]) -> dict[str, NonFinite]:
    bad = records["nan"] + records["inf"]
    found = {}
    if bad.any():
        for name, unit in zip(group.names, group._units.records, strict=True):
            if bad[unit]:
                row = records[unit]
                found[name] = NonFinite(int(bad[unit]), int(row["first_nonfinite"]), int(row["nan"]), int(row["inf"]))
    return found


def refuse(found: dict[str, NonFinite], function: str, what: str = "NaN or infinite") -> NonFiniteError:
    """Make the error that names the first tensor and entry."""
    name, first = next(iter(found.items()))
    count = sum(f.count for f in found.values())
    entries = "the only entry that is" if count == 1 else f"the first of {count} entries that are"
    what = what.replace("its", "their") if count > 1 else what
    tensors = f" in {len(found)} tensors" if len(found) > 1 else ""
    error = NonFiniteError(f"{function}: {name}[{first.first}] is {entries} {what}{tensors}; nothing was modified")
    error.tensor, error.index, error.count = name, first.first, count
    return error
