"""Statistics of a tensor: how they merge, travel, and answer for any format at any loss scale."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gradkern import _core
from gradkern._result import Result
from gradkern.cast import log2_sum
from gradkern.fit import FormatFit, Magnitudes, ScaleWindow, fit_magnitudes
from gradkern.formats import FormatLike, finfo

_COUNTS = ("size", "nan", "pos_inf", "neg_inf", "zero", "negative", "subnormal")
_FLOATS = ("amax", "amin", "mean", "std", "l1", "l2", "log2_l2", "scale", "finite", "mean_rest")
_Parts = tuple[float, float, float]


def log2_of_scale(scale: float, function: str) -> int:
    """Return k of a scale 2**k.

    Raises
    ------
    ValueError
        If the scale is not a positive power of two.
    """
    mantissa, exponent = math.frexp(scale) if scale > 0 and math.isfinite(scale) else (0.0, 0)
    if mantissa != 0.5:
        raise ValueError(f"{function}: scale must be a power of two, got {scale}")
    return exponent - 1


@dataclass(frozen=True, repr=False, eq=False)
class TensorStats(Result):
    """Statistics of one tensor from one read. True values are the measured ones times ``2**exponent``.

    Attributes
    ----------
    size, nan, pos_inf, neg_inf, zero, negative, subnormal : int
        Counts; `negative` and `subnormal` are among the finite non-zero entries.
    amax, amin : float
        Largest and smallest non-zero finite magnitude (0.0 and inf if there is none).
    mean, std : float
        Over finite entries; population standard deviation.
    l1, l2 : float
        Norms over finite entries. `l2` is right where squares would overflow or underflow.
    first_nonfinite : int or None
        Flat index.
    dtype : str
        Format of the tensor.
    exponent : int
        0 but for tensors of a reference chain, which outgrow float64.
    first_binade : int
        Exponent b of the first entry of `binades`, which counts 2**b <= |x| < 2**(b + 1).
    """

    size: int
    nan: int
    pos_inf: int
    neg_inf: int
    zero: int
    negative: int
    subnormal: int
    amax: float
    amin: float
    mean: float
    std: float
    l1: float
    l2: float
    log2_l2: float
    first_nonfinite: int | None
    dtype: str
    name: str | None
    scale: float
    exponent: int
    finite: float
    mean_rest: float = field(repr=False)
    deviations: _Parts = field(repr=False)
    squares: _Parts = field(repr=False)
    first_binade: int
    cells: NDArray[np.int64] = field(repr=False)

    @classmethod
    def from_summary(
        cls, summary: dict[str, Any], dtype: str, *, name: str | None = None, exponent: int = 0, scale: float = 1.0
    ) -> TensorStats:
        """Build from what the kernels count."""
        finite, deviations, squares = summary["finite"], tuple(summary["deviations"]), tuple(summary["squares"])
        first = summary["first_nonfinite"]
        stats = object.__new__(cls)
        # Past the setters of a frozen dataclass, which take most of the time of measuring a small tensor.
        vars(stats).update(
            size=summary["size"], nan=summary["nan"], pos_inf=summary["pos_inf"], neg_inf=summary["neg_inf"],
            zero=summary["zero"], negative=summary["negative"], subnormal=summary["subnormal"], amax=summary["amax"],
            amin=summary["amin"], mean=summary["mean"], std=_root(deviations, finite), l1=summary["l1"],
            l2=_root(squares, 1.0), log2_l2=log2_sum(squares) / 2 + exponent,
            first_nonfinite=first if first >= 0 else None, dtype=dtype, name=name, scale=scale, exponent=exponent,
            finite=finite, mean_rest=summary["mean_rest"], deviations=deviations, squares=squares,
            first_binade=summary["first_binade"], cells=summary["cells"],
        )  # fmt: skip
        return stats

    @property
    def binades(self) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Exponents and counts: entries with 2**exponent <= |true value| < 2**(exponent + 1)."""
        exponents = np.arange(len(self.cells), dtype=np.int64) + self.first_binade + self.exponent
        return exponents, self.cells.sum(axis=1)

    @property
    def nonzero(self) -> int:
        """Finite non-zero entries."""
        return int(self.cells.sum())

    @property
    def nonfinite(self) -> int:
        """NaN and infinite entries."""
        return self.nan + self.pos_inf + self.neg_inf

    @property
    def log2_amax(self) -> float:
        """log2 of the largest true magnitude; -inf where there is none."""
        return math.log2(self.amax) + self.exponent if self.amax > 0 else -math.inf

    def fit(self, fmt: FormatLike, scale: float = 1.0) -> FormatFit:
        """Count what a nearest-even cast of ``scale * x`` to a format would do, from the binades alone.

        Parameters
        ----------
        fmt : str or dtype
            The format.
        scale : float
            A power of two.

        Returns
        -------
        FormatFit
            `flushed` is exact always, `overflow` and `subnormal` for float16, tfloat32 and float32, too; the others are
            brackets where a cell holds the threshold (`gradkern.fit`).

        Raises
        ------
        ValueError
            If scale is not a power of two.
        """
        shift = self.exponent + log2_of_scale(scale, "fit")
        extremes = _shifted(self.amin, shift), _shifted(self.amax, shift)
        return fit_magnitudes(Magnitudes(self.cells, self.first_binade + shift, *extremes), finfo(fmt))

    def largest_scale(self, fmt: FormatLike) -> int | None:
        """Largest k such that 2**k times the largest magnitude does not overflow; None for an all-zero tensor."""
        if self.amax == 0:
            return None
        info = finfo(fmt)
        mantissa, exponent = math.frexp(self.amax)
        k = info.max_exponent + 1 - exponent
        if info.overflows(math.ldexp(mantissa, info.max_exponent + 1) if info.max_exponent < 1023 else self.amax):
            k -= 1
        return k - self.exponent

    def smallest_scale(self, fmt: FormatLike, lose: float = 1e-3) -> int | None:
        """Smallest k at which at most a fraction `lose` of the non-zero entries flush; None for an all-zero tensor."""
        counts: list[int] = self.cells.sum(axis=1).tolist()
        total = sum(counts)
        if total == 0:
            return None
        tie, first = finfo(fmt).min_quantum - 1, self.first_binade + self.exponent
        allowed = math.floor(lose * total)
        gone = 0  # entries below the binade in hand
        for exponent, (count, powers) in enumerate(zip(counts, self.cells[:, 0].tolist(), strict=True), first):
            if gone + powers > allowed:  # even exact powers of two must clear the tie
                return int(tie + 1 - exponent)
            if gone + count > allowed:
                return tie - exponent
            gone += count
        return tie - (first + len(counts) - 1)

    def loss_scale_window(self, fmt: FormatLike, lose: float = 1e-3) -> ScaleWindow:
        """Loss scales at which nothing overflows and at most a fraction `lose` of non-zero entries flush.

        Parameters
        ----------
        fmt : str or dtype
            The format that the scaled tensor is cast to.
        lose : float
            Fraction of the non-zero entries that may flush.

        Returns
        -------
        ScaleWindow
            If there is none, `why` names the formats that would fit.
        """
        from gradkern.joint_window import joint_window

        return joint_window([self], fmt, lose)

    def __add__(self, other: TensorStats) -> TensorStats:
        """Return the statistics of both tensors as one, this one's entries first.

        Counts and extrema are exact and the same in any order; moments are merged as in Chan, Golub and LeVeque (1983), so
        their bits depend on the order of the parts, and on nothing else. Name and dtype stay where both agree.

        Raises
        ------
        ValueError
            If the two carry different loss scales and float64 cannot hold both on one of them.
        """
        if not isinstance(other, TensorStats):
            return NotImplemented
        a, b = self, other._at(self.exponent)
        finite, mean, mean_rest, l1, deviations, squares = _core.merge_moments(a._moments, b._moments)
        filled = [s for s in (a, b) if len(s.cells)]
        low = min((s.first_binade for s in filled), default=0)
        high = max((s.first_binade + len(s.cells) for s in filled), default=0)
        cells = np.zeros((high - low, len(_core.cell_edges)), np.int64)
        for s in filled:
            start = s.first_binade - low
            cells[start : start + len(s.cells)] += s.cells
        first = a.first_nonfinite
        if first is None and b.first_nonfinite is not None:
            first = a.size + b.first_nonfinite
        summary: dict[str, Any] = {name: getattr(a, name) + getattr(b, name) for name in _COUNTS}
        summary |= {"amax": max(a.amax, b.amax), "amin": min(a.amin, b.amin), "finite": finite, "mean": mean, "l1": l1}
        summary |= {
            "mean_rest": mean_rest,
            "deviations": deviations,
            "squares": squares,
            "first_binade": low,
            "cells": cells,
        }
        summary["first_nonfinite"] = -1 if first is None else first
        dtype = a.dtype if a.dtype == b.dtype else "mixed"
        name = a.name if a.name == b.name else None
        return TensorStats.from_summary(summary, dtype, name=name, exponent=a.exponent, scale=a.scale)

    @property
    def _moments(self) -> tuple[float, float, float, float, _Parts, _Parts]:
        return self.finite, self.mean, self.mean_rest, self.l1, self.deviations, self.squares

    def _at(self, exponent: int) -> TensorStats:
        """Return the same statistics with measured values that are true ones times 2**-exponent."""
        k = self.exponent - exponent
        if k == 0:
            return self
        floats: dict[str, Any] = {
            name: _shifted(getattr(self, name), k) for name in ("amax", "amin", "mean", "mean_rest", "l1", "std", "l2")
        }
        floats |= {
            name: tuple(_shifted(part, 2 * k) for part in getattr(self, name)) for name in ("deviations", "squares")
        }
        moved = replace(self, exponent=exponent, first_binade=self.first_binade + k, **floats)
        back = tuple(_shifted(part, -2 * k) for part in moved.squares)
        if (_shifted(moved.amin, -k), _shifted(moved.amax, -k), back) != (self.amin, self.amax, self.squares):
            raise ValueError(
                f"add: loss scales 2^{-self.exponent} and 2^{-exponent} are too far apart for float64 "
                f"to hold {self.name or 'the second tensor'} on the first one's"
            )
        return moved

    def to_dict(self) -> dict[str, Any]:
        """Return the fields, and binades and cells as mappings from true exponent to counts; `from_dict` reverses it."""
        fields = super().to_dict()
        del fields["first_binade"]
        exponents, counts = self.binades
        filled = [
            (e, c, row) for e, c, row in zip(exponents.tolist(), counts.tolist(), self.cells.tolist(), strict=True) if c
        ]
        fields["binades"] = {e: c for e, c, _ in filled}
        fields["cells"] = {e: row for e, _, row in filled}
        fields["mean_rest"], fields["deviations"], fields["squares"] = (
            self.mean_rest,
            list(self.deviations),
            list(self.squares),
        )
        return fields

    @classmethod
    def from_dict(cls, fields: Mapping[str, Any]) -> TensorStats:
        """Build from what `to_dict` returned, through JSON or not: every field comes back with the same bits.

        Raises
        ------
        ValueError
            If a field is missing.
        """
        names = {f.name for f in dataclasses.fields(cls)} - {"first_binade"}
        missing = sorted(names - set(fields))
        if missing:
            raise ValueError(f"from_dict: no field {missing[0]!r} in these statistics")
        rows = {int(exponent): row for exponent, row in fields["cells"].items()}
        low, high = (min(rows), max(rows) + 1) if rows else (0, 0)
        cells = np.zeros((high - low, len(_core.cell_edges)), np.int64)
        for exponent, row in rows.items():
            cells[exponent - low] = row
        values = {name: fields[name] for name in names}
        values |= {name: float(fields[name]) for name in _FLOATS}  # infinity is a string in JSON
        values |= {name: tuple(map(float, fields[name])) for name in ("deviations", "squares")}
        return cls(**{**values, "cells": cells, "first_binade": low - fields["exponent"] if rows else 0})


def _root(parts: _Parts, count: float) -> float:
    """sqrt(sum / count) of a sum of squares that the kernels hold in three ranges."""
    big, medium, small = parts
    if big == 0 and small == 0:
        return math.sqrt(medium / count) if count else 0.0
    log2_root = (log2_sum(parts) - math.log2(count)) / 2
    return 2.0**log2_root if log2_root < 1024 else math.inf


def _shifted(value: float, k: int) -> float:
    """Return value * 2**k; infinite where float64 ends."""
    try:
        return math.ldexp(value, k)
    except OverflowError:
        return math.copysign(math.inf, value)
