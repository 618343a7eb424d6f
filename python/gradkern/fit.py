"""What any format at any loss scale would make of a tensor, from its binades alone.

Every threshold of a format is a significand times a power of two. The kernels count each binade in cells that begin at
`cell_edges`, where the formats' thresholds lie, so a count is exact unless a threshold falls inside a cell. Then it is a
bracket, the tightest that cells and extremes allow: both of its ends are reached by tensors of the same statistics.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from gradkern import _core
from gradkern._result import Result
from gradkern.bracket import Bracket as Bracket  # importable from here, too
from gradkern.formats import FormatInfo

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Cells = NDArray[np.int64]

_EDGES = np.array([*_core.cell_edges, 2.0])  # cell 0 is a power of two itself, cell 1 begins above it


@dataclass(frozen=True, repr=False)
class FormatFit(Result):
    """What a cast (nearest even) would make of the finite non-zero entries, as counts or the tightest honest brackets.

    Attributes
    ----------
    overflow : Bracket
        Entries that become infinite, or NaN where the format has no infinity.
    subnormal : Bracket
        Entries kept below the smallest normal, with fewer digits.
    flushed : Bracket
        Entries that become zero; always exact.
    kept : Bracket
        The others. `overflow`, `subnormal` and `kept` are exact for float16, tfloat32 and float32, and in float64 wherever
        nothing comes near its smallest normal. In other formats a bracket is as wide as the entries, the extremes
        apart, that share a cell of a binade with the threshold: values there and above them would be counted alike.
    """

    overflow: Bracket
    subnormal: Bracket
    flushed: Bracket
    kept: Bracket

    def plot(self, ax: Axes | None = None) -> Axes:
        """Draw the shares as one bar, hatched where the bracket leaves them open; matplotlib is loaded here."""
        from gradkern.plot_fit import plot_fits

        return plot_fits({"": self}, ax, title="What the cast makes of the non-zero entries")

    def __repr__(self) -> str:
        counts = ", ".join(f"{name} {getattr(self, name)}" for name in ("overflow", "subnormal", "flushed", "kept"))
        return f"FormatFit: {counts}"


@dataclass(frozen=True, repr=False)
class ScaleWindow(Result):
    """Loss scales, powers of two, at which nothing overflows and few enough entries flush.

    Attributes
    ----------
    exists : bool
        Whether there is one.
    low, high : float or None
        Smallest and largest loss scale of the window. None where there is no bound: no `low` where every entry may
        flush (``lose=1.0``), neither where no entry is finite and non-zero.
    best : float or None
        A scale inside, with headroom on both sides.
    log2_low, log2_high : int or None
        The same as exponents, which also reach where float64 does not.
    headroom_bits : int or None
        log2(high / low); None where one of them is.
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


Point = tuple[int, float]  # exponent and significand in [1, 2): ordered as the magnitudes are, of any size


def point(magnitude: float, shift: int) -> Point:
    """Return ``magnitude * 2**shift`` as exponent and significand."""
    significand, exponent = math.frexp(magnitude)
    return exponent - 1 + shift, 2 * significand


@dataclass(frozen=True)
class Magnitudes:
    """Cells of the binades from 2**first on, how many entries they hold, and the extreme magnitudes."""

    cells: Cells
    first: int
    total: int
    smallest: Point
    largest: Point

    def beyond(self, significand: float, exponent: int, *, equal: bool) -> Bracket:
        """Count the magnitudes above ``significand * 2**exponent``, with those that equal it or without."""
        threshold = exponent, significand
        if self.total == 0 or self.largest < threshold or (self.largest == threshold and not equal):
            return Bracket(0, 0)
        if self.smallest > threshold or (self.smallest == threshold and equal):
            return Bracket(self.total, self.total)
        row = exponent - self.first
        sure = int(self.cells[row + 1 :].sum())  # the extremes lie on both sides of it, so it lies within
        lower, upper = _EDGES[:-1], _EDGES[1:]
        inside = lower >= significand if equal else lower > significand
        inside[1] = significand <= 1  # cell 1 lies above 1
        touching = upper > significand
        touching[0] = inside[0]
        inside_count, possible = (int(self.cells[row][chosen].sum()) for chosen in (inside, touching))
        # the largest is beyond, the smallest is not
        return Bracket(max(sure + inside_count, 1), min(sure + possible, self.total - 1))


def fit_magnitudes(magnitudes: Magnitudes, info: FormatInfo) -> FormatFit:
    """Count what nearest-even rounding to a format does to magnitudes."""
    p = info.significand_bits
    total = magnitudes.total
    top = math.ldexp(info.max, -info.max_exponent) + 2.0**-p  # a tie rounds away from an odd significand
    overflow = magnitudes.beyond(top, info.max_exponent, equal=info.has_inf)
    # the largest subnormal plus half a quantum rounds up to the smallest normal
    normal = magnitudes.beyond(2 - 2.0 ** (1 - p), info.min_exponent - 1, equal=True)
    flushed = total - magnitudes.beyond(1.0, info.min_quantum - 1, equal=False)  # a tie with zero rounds to zero
    return FormatFit(overflow, total - normal - flushed, flushed, normal - overflow)


def headroom(amax: float, info: FormatInfo) -> int:
    """Return the largest k such that ``2**k * amax``, amax > 0, does not overflow in a format: binades to its edge."""
    mantissa, exponent = math.frexp(amax)
    k = info.max_exponent + 1 - exponent
    # beyond float64 nothing can be formed to be asked, and there amax is the largest there is
    return k - info.overflows(math.ldexp(mantissa, info.max_exponent + 1) if info.max_exponent < 1023 else amax)


def power_of_two(k: int) -> float:
    """Return 2.0**k; inf or 0.0 where float64 ends."""
    return math.ldexp(1.0, k) if k <= 1023 else math.inf


def _best(low: int | None, high: int) -> int:
    """Return a scale inside with headroom to overflow: the middle, or the nearest to 1 where nothing bounds it from below.

    Where float64 has no such number, the nearest that it has, if that lies inside.
    """
    if low is None:
        return max(min(high - 2, 0), min(high, -1022))
    best = max(low, high - max(2, (high - low) // 2)) if high - low >= 2 else high
    return max(low, min(max(best, -1022), high, 1023))


def window(fmt: str, low: int | None, high: int | None, low_name: str, high_name: str | None = None) -> ScaleWindow:
    """Make a `ScaleWindow` from the exponents of its two ends, None being no end, and the names of who sets them."""
    high_name = high_name or low_name
    if high is None:
        return ScaleWindow(True, None, None, 1.0, None, None, None, "no finite non-zero entry: every scale will do")
    ends = (None if low is None else power_of_two(low), power_of_two(high))
    bits = None if low is None else high - low
    if low is not None and low > high:
        why = (
            f"no loss scale fits {fmt}: {low_name} needs at least 2^{low} not to flush, "
            f"{high_name} overflows above 2^{high}"
        )
        return ScaleWindow(False, *ends, None, low, high, bits, why)
    best = _best(low, high)
    if not -1022 <= best <= 1023:
        span = f"at most 2^{high}" if low is None else f"2^{low} to 2^{high}"
        why = f"no loss scale fits {fmt}: it would have to be {span}, which is beyond float64"
        return ScaleWindow(False, *ends, None, low, high, bits, why)
    below = "every entry may flush" if low is None else f"{low_name} flushes below 2^{low}"
    return ScaleWindow(
        True, *ends, power_of_two(best), low, high, bits, f"{below}, {high_name} overflows above 2^{high}"
    )
