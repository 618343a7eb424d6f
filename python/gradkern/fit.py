"""What any format at any loss scale would make of a tensor, from its binades alone.

Every threshold of a format is a significand times a power of two. The kernels count each binade in cells that begin at
`cell_edges`, where the formats' thresholds lie, so a count is exact unless a threshold falls inside a cell.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from gradkern import _core
from gradkern._result import Result
from gradkern.formats import FormatInfo

Cells = NDArray[np.int64]

_EDGES = np.array([*_core.cell_edges, 2.0])  # cell 0 is a power of two itself, cell 1 begins above it


@dataclass(frozen=True)
class Bracket:
    """A count that lies between `low` and `high`; exact where they agree."""

    low: int
    high: int

    @property
    def exact(self) -> bool:
        """Whether the cells decide."""
        return self.low == self.high

    def __sub__(self, other: Bracket) -> Bracket:
        return Bracket(self.low - other.high, self.high - other.low)

    def __str__(self) -> str:
        return f"{self.low:,}" if self.exact else f"{self.low:,}..{self.high:,}"


@dataclass(frozen=True, repr=False)
class FormatFit(Result):
    """How many non-zero finite entries a cast (nearest even) would lose, as counts or honest brackets."""

    overflow: Bracket
    subnormal: Bracket
    flushed: Bracket
    kept: Bracket


@dataclass(frozen=True, repr=False)
class ScaleWindow(Result):
    """Loss scales, powers of two, at which nothing overflows and few enough entries flush.

    Attributes
    ----------
    exists : bool
        Whether there is one.
    low, high : float or None
        Smallest and largest loss scale of the window; None where there is no bound.
    best : float or None
        A scale inside, with headroom on both sides.
    log2_low, log2_high : int or None
        The same as exponents, which also reach where float64 does not.
    headroom_bits : int or None
        log2(high / low).
    why : str
        What bounds the window, or why there is none.
    """

    exists: bool
    low: float | None
    high: float | None
    best: float | None
    log2_low: int | None
    log2_high: int | None
    headroom_bits: int | None
    why: str


@dataclass(frozen=True)
class Magnitudes:
    """Cells of the binades from 2**first on, and the extreme magnitudes where they are float64 numbers."""

    cells: Cells
    first: int
    smallest: float
    largest: float

    @property
    def total(self) -> int:
        """Non-zero finite entries."""
        return int(self.cells.sum())

    def beyond(self, significand: float, exponent: int, *, equal: bool) -> Bracket:
        """Count the magnitudes above ``significand * 2**exponent``, with those that equal it or without."""
        row = exponent - self.first
        sure = int(self.cells[max(row + 1, 0) :].sum())
        if not 0 <= row < len(self.cells):
            return Bracket(sure, sure)
        threshold = power_of_two(exponent - 1) * significand * 2
        cells = self.cells[row]
        lower, upper = _EDGES[:-1], _EDGES[1:]
        inside = lower >= significand if equal else lower > significand
        inside[1] = significand <= 1  # cell 1 lies above 1
        touching = upper > significand
        touching[0] = inside[0]
        possible = int(cells[touching].sum())
        inside_count = int(cells[inside].sum())
        # the extremes know more where the threshold cuts the first or the last binade
        if threshold < math.inf and self.smallest > threshold:
            inside_count = possible
        elif sure == 0 and (self.largest < threshold or (self.largest == threshold and not equal)):
            possible = inside_count
        elif sure == 0 and inside_count == 0 and possible:
            inside_count = 1
        return Bracket(sure + inside_count, sure + possible)


def fit_magnitudes(magnitudes: Magnitudes, info: FormatInfo) -> FormatFit:
    """Count what nearest-even rounding to a format does to magnitudes."""
    p = info.significand_bits
    total = Bracket(magnitudes.total, magnitudes.total)
    top = math.ldexp(info.max, -info.max_exponent) + 2.0**-p  # a tie rounds away from an odd significand
    overflow = magnitudes.beyond(top, info.max_exponent, equal=info.has_inf)
    # the largest subnormal plus half a quantum rounds up to the smallest normal
    normal = magnitudes.beyond(2 - 2.0 ** (1 - p), info.min_exponent - 1, equal=True)
    flushed = total - magnitudes.beyond(1.0, info.min_quantum - 1, equal=False)  # a tie with zero rounds to zero
    return FormatFit(overflow, total - normal - flushed, flushed, normal - overflow)


def power_of_two(k: int) -> float:
    """Return 2.0**k; inf or 0.0 where float64 ends."""
    return math.ldexp(1.0, k) if k <= 1023 else math.inf


def window(fmt: str, low: int | None, high: int | None, low_name: str, high_name: str | None = None) -> ScaleWindow:
    """Make a `ScaleWindow` from the exponents of its two ends and the names of the tensors that set them."""
    high_name = high_name or low_name
    if low is None or high is None:
        return ScaleWindow(True, None, None, 1.0, None, None, None, "no finite non-zero entry: every scale will do")
    ends = (power_of_two(low), power_of_two(high))
    if low > high:
        why = (
            f"no loss scale fits {fmt}: {low_name} needs at least 2^{low} not to flush, "
            f"{high_name} overflows above 2^{high}"
        )
        return ScaleWindow(False, *ends, None, low, high, high - low, why)
    best = max(low, high - max(2, (high - low) // 2)) if high - low >= 2 else high
    best = max(low, min(best, 1023))
    why = f"{low_name} flushes below 2^{low}, {high_name} overflows above 2^{high}"
    if not -1022 <= best <= 1023:
        why = f"no loss scale fits {fmt}: it would have to be 2^{low} to 2^{high}, which is beyond float64"
        return ScaleWindow(False, *ends, None, low, high, high - low, why)
    return ScaleWindow(True, *ends, power_of_two(best), low, high, high - low, why)
