"""What a format makes of many tensors, counted for all of them at once.

The rules are those of `gradkern.fit`, which answers for one tensor in microseconds: here they run over arrays, so that a
table of twenty thousand is judged in a fraction of a second. The tests hold both against each other.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from gradkern import _core
from gradkern.fit import Bracket, FormatFit
from gradkern.formats import FormatLike, finfo
from gradkern.tensor_stats import TensorStats, log2_of_scale

Ints = NDArray[np.int64]
Bools = NDArray[np.bool_]

COUNTS = ("overflow", "subnormal", "flushed", "kept")
_EDGES = np.array([*_core.cell_edges, 2.0])  # cell 0 is a power of two itself, cell 1 begins above it


@dataclass(frozen=True)
class Brackets:
    """A count of every tensor that lies between `low` and `high`."""

    low: Ints
    high: Ints

    def __sub__(self, other: Brackets) -> Brackets:
        return Brackets(self.low - other.high, self.high - other.low)

    def __getitem__(self, index: int) -> Bracket:
        return Bracket(int(self.low[index]), int(self.high[index]))


@dataclass(frozen=True)
class Fits:
    """A `FormatFit` of every tensor."""

    overflow: Brackets
    subnormal: Brackets
    flushed: Brackets
    kept: Brackets

    def __getitem__(self, index: int) -> FormatFit:
        return FormatFit(self.overflow[index], self.subnormal[index], self.flushed[index], self.kept[index])


class Columns:
    """The binades and extremes of tensors, one array each.

    Parameters
    ----------
    tensors : sequence of TensorStats
    """

    def __init__(self, tensors: Sequence[TensorStats]) -> None:
        filled = [stats.cells for stats in tensors if len(stats.cells)]
        self._cells = np.concatenate(filled) if filled else np.zeros((0, len(_EDGES) - 1), np.int64)
        self._running = np.concatenate([[0], np.cumsum(self._cells.sum(axis=1))])  # entries before each row
        rows = np.array([len(stats.cells) for stats in tensors], np.int64)
        self._end = np.cumsum(rows)
        self._begin = self._end - rows
        self._exponent = np.array([stats.exponent for stats in tensors], np.int64)
        self._first = np.array([stats.first_binade for stats in tensors], np.int64) + self._exponent
        self._amin, self._amax = (
            np.array([getattr(stats, name) for stats in tensors], np.float64) for name in ("amin", "amax")
        )
        self.nonzero: Ints = self._running[self._end] - self._running[self._begin]

    def __len__(self) -> int:
        return len(self._begin)

    def fits(self, fmt: FormatLike, scale: float = 1.0) -> Fits:
        """Count what `TensorStats.fit` counts, for every tensor.

        Raises
        ------
        ValueError
            If scale is not a power of two, or there is no such format.
        """
        info, shift = finfo(fmt), log2_of_scale(scale, "fit")
        p = info.significand_bits
        total = Brackets(self.nonzero, self.nonzero)
        top = math.ldexp(info.max, -info.max_exponent) + 2.0**-p
        overflow = self._beyond(top, info.max_exponent, shift, equal=info.has_inf)
        normal = self._beyond(2 - 2.0 ** (1 - p), info.min_exponent - 1, shift, equal=True)
        flushed = total - self._beyond(1.0, info.min_quantum - 1, shift, equal=False)
        return Fits(overflow, total - normal - flushed, flushed, normal - overflow)

    def _beyond(self, significand: float, exponent: int, shift: int, *, equal: bool) -> Brackets:
        """Count as `Magnitudes.beyond` does, after a multiplication by 2**shift."""
        over, under = (self._order(x, exponent - shift, significand) for x in (self._amax, self._amin))
        some = (self.nonzero > 0) & ((over > 0) | ((over == 0) & equal))
        every = some & ((under > 0) | ((under == 0) & equal))
        low, high = (np.where(every, self.nonzero, 0) for _ in range(2))
        cut = np.flatnonzero(some & ~every)  # the extremes lie on both sides, so the threshold lies within
        row = (self._begin + exponent - shift - self._first)[cut]
        sure = self._running[self._end[cut]] - self._running[row + 1]
        lower, upper = _EDGES[:-1], _EDGES[1:]
        inside = lower >= significand if equal else lower > significand
        inside[1] = significand <= 1
        touching = upper > significand
        touching[0] = inside[0]
        found = self._cells[row]
        low[cut] = np.maximum(sure + found[:, inside].sum(axis=1), 1)
        high[cut] = np.minimum(sure + found[:, touching].sum(axis=1), self.nonzero[cut] - 1)
        return Brackets(low, high)

    def _order(self, magnitudes: NDArray[np.float64], exponent: int, significand: float) -> Ints:
        """Return 1, 0 or -1 where true magnitudes are above, at or below ``significand * 2**exponent``, of any size."""
        fractions, exponents = np.frexp(magnitudes)
        binades = exponents - 1 + self._exponent - exponent
        return np.where(binades != 0, np.sign(binades), np.sign(2 * fractions - significand)).astype(np.int64)

    def smallest_scales(self, fmt: FormatLike, lose: float) -> tuple[Ints, Bools]:
        """Exponents of `TensorStats.smallest_scale`, and whether there is a bound: none where all entries may flush."""
        tie = finfo(fmt).min_quantum - 1
        allowed = np.floor(lose * self.nonzero).astype(np.int64)
        before = self._running[self._begin]
        row = np.searchsorted(self._running[1:], before + allowed, side="right")  # the first with more than may go
        bound = row < self._end
        row = np.where(bound, row, 0)
        exponent = self._first + row - self._begin
        if not len(self._cells):
            return np.zeros(len(self), np.int64), bound
        stuck = (
            self._running[row] - before + self._cells[row, 0] > allowed
        )  # even exact powers of two must clear the tie
        return np.where(bound, tie - exponent + stuck, 0), bound

    def largest_scales(self, fmt: FormatLike) -> tuple[Ints, Bools]:
        """Exponents of `TensorStats.largest_scale`, and whether there is a bound: none without a non-zero entry."""
        info = finfo(fmt)
        mantissa, exponent = np.frexp(self._amax)
        top = math.ldexp(info.max, -info.max_exponent - 1) + 2.0 ** -(info.significand_bits + 1)
        over = mantissa >= top if info.has_inf else mantissa > top
        return info.max_exponent + 1 - exponent - over - self._exponent, self._amax > 0

    def ends(self, fmt: FormatLike, lose: float) -> list[int]:
        """Tensors that set the ends of the joint window, in order: the one that must grow most, and the largest."""
        need, bound = self.smallest_scales(fmt, lose)
        found = set()
        if bound.any():
            found.add(int(np.argmax(np.where(bound, need, np.iinfo(np.int64).min))))
        mantissa, exponent = np.frexp(self._amax)
        if (self._amax > 0).any():
            true = np.where(self._amax > 0, exponent + self._exponent, np.iinfo(np.int64).min)
            tied = np.flatnonzero(true == true.max())
            found.add(int(tied[np.argmax(mantissa[tied])]))
        return sorted(found)

    def most_served(self, fmt: FormatLike, lose: float) -> tuple[float, int]:
        """Return the scale at which the most tensors neither overflow nor flush, the nearest to 1, and how many those are."""
        least, most = -1022, 1023
        (low, below), (high, above) = self.smallest_scales(fmt, lose), self.largest_scales(fmt)
        low = np.where(below, np.maximum(low, least), least)  # without a bound, every scale will do
        high = np.where(above, np.minimum(high, most), most)
        open_ = low <= high
        steps = np.bincount(low[open_] - least, minlength=most - least + 2)
        steps = steps - np.bincount(high[open_] + 1 - least, minlength=most - least + 2)
        served, scales = np.cumsum(steps)[:-1], np.arange(least, most + 1)
        best = max(np.flatnonzero(served == served.max()), key=lambda i: (-abs(scales[i]), scales[i]))
        return 2.0 ** int(scales[best]), int(served[best])
