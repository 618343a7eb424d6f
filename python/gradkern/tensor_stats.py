"""Statistics of a tensor: how they merge, travel, and answer for any format at any loss scale."""

from __future__ import annotations

import html
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from gradkern._arguments import fraction
from gradkern._arguments import log2_of_scale as log2_of_scale  # importable from here, too
from gradkern._result import Result
from gradkern._text import printable
from gradkern.cast import log2_sum
from gradkern.fit import FormatFit, Magnitudes, ScaleWindow, fit_magnitudes, headroom, point
from gradkern.formats import FormatLike, finfo

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Parts = tuple[float, float, float]  # a sum of squares, in the ranges of `gradkern._merging`


@dataclass(frozen=True, repr=False, eq=False)
class TensorStats(Result):
    """Statistics of one tensor from one read.

    Magnitudes and moments are in the units of the tensor as it was given. What it says of true values, those divided by the
    loss scale that the tensor carries, is named so here: `fit` and `loss_scale_window` cast true values, times a scale of
    their own. So ``stats.fit(fmt, stats.scale)`` is what a cast of the given tensor would do.

    Attributes
    ----------
    size, nan, pos_inf, neg_inf, zero, negative, subnormal : int
        Counts; `negative` and `subnormal` (of the tensor as given, in its own format) are among the finite non-zero entries.
    amax, amin : float
        Largest and smallest non-zero finite magnitude (0.0 and inf if there is none).
    mean, std : float
        Over finite entries; population standard deviation.
    l1, l2 : float
        Norms over finite entries. `l2` is right where squares would overflow or underflow.
    log2_l2 : float
        log2 of the norm of the true values.
    first_nonfinite : int or None
        Flat index.
    dtype : str
        Format of the tensor; ``mixed`` for a total over several.
    name : str or None
        As given.
    scale : float
        The loss scale that the tensor carries: true values are the given ones divided by it.
    exponent : int
        True values are the given ones times ``2**exponent``: -log2(scale), but for tensors of a reference chain, which
        outgrow float64.
    first_binade : int
        Exponent b of the first entry of `cells`, which counts 2**b <= |x| < 2**(b + 1) of the tensor as given; `binades`
        has the exponents of the true values.
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
    deviations: Parts = field(repr=False)
    squares: Parts = field(repr=False)
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
        """Count what a nearest-even cast of ``scale`` times the true values to a format would do, from the binades alone.

        Parameters
        ----------
        fmt : str or dtype
            The format.
        scale : float
            A power of two.

        Returns
        -------
        FormatFit
            Counts, or brackets where a cell holds the threshold (`gradkern.fit`).

        Raises
        ------
        TypeError
            If scale is no number.
        ValueError
            If scale is not a power of two, or there is no such format.
        """
        shift = self.exponent + log2_of_scale(scale, "fit")
        extremes = point(self.amin, shift), point(self.amax, shift)
        return fit_magnitudes(Magnitudes(self.cells, self.first_binade + shift, self.nonzero, *extremes), finfo(fmt))

    def largest_scale(self, fmt: FormatLike) -> int | None:
        """Largest k such that 2**k times the largest true magnitude does not overflow; None for an all-zero tensor."""
        if self.amax == 0:
            return None
        return headroom(self.amax, finfo(fmt)) - self.exponent

    def smallest_scale(self, fmt: FormatLike, lose: float = 1e-3) -> int | None:
        """Smallest k at which at most a fraction `lose` of the non-zero entries flush; None where all may: no k is too small."""
        lose = fraction(lose, "smallest_scale", "lose")
        counts: list[int] = self.cells.sum(axis=1).tolist()
        total = sum(counts)
        tie, first = finfo(fmt).min_quantum - 1, self.first_binade + self.exponent
        allowed = math.floor(lose * total)
        gone = 0  # entries below the binade in hand
        for exponent, (count, powers) in enumerate(zip(counts, self.cells[:, 0].tolist(), strict=True), first):
            if gone + powers > allowed:  # even exact powers of two must clear the tie
                return int(tie + 1 - exponent)
            if gone + count > allowed:
                return tie - exponent
            gone += count
        return None

    def loss_scale_window(self, fmt: FormatLike, lose: float = 1e-3) -> ScaleWindow:
        """Loss scales at which nothing overflows and at most a fraction `lose` of non-zero entries flush.

        Parameters
        ----------
        fmt : str or dtype
            The format that the scaled tensor is cast to.
        lose : float
            Fraction of the non-zero entries that may flush. If all may (1.0), no scale is too small and `low` is None.

        Returns
        -------
        ScaleWindow
            Of scales for the true values. If there is none, `why` names the formats that would fit.

        Raises
        ------
        TypeError
            If lose is no number.
        ValueError
            If lose is not between 0 and 1, or there is no such format.
        """
        from gradkern.joint_window import joint_window

        return joint_window([self], fmt, lose)

    def __add__(self, other: TensorStats) -> TensorStats:
        """Return the statistics of both tensors as one, this one's entries first.

        Counts and extrema are exact and the same in any order; moments are merged as in Chan, Golub and LeVeque (1983), so
        their bits depend on the order of the parts, and on nothing else. The name stays where both agree. The result is on
        this one's scale where float64 holds both there, else on the other's, else on one between them.

        Raises
        ------
        ValueError
            If the two are of different formats, or their scales are so far apart that float64 cannot hold both on one.
        """
        if not isinstance(other, TensorStats):
            return NotImplemented
        from gradkern._merging import merged

        return merged(self, other)

    def to_dict(self) -> dict[str, Any]:
        """Return the fields, and binades and cells as mappings from true exponent to counts; `from_dict` reverses it."""
        from gradkern._saved_stats import fields_of

        return fields_of(self)

    @classmethod
    def from_dict(cls, fields: Mapping[str, Any]) -> TensorStats:
        """Build from what `to_dict` returned, through JSON or not: every field comes back with the same bits.

        Raises
        ------
        ValueError
            If a field is missing, is not what it should be, or contradicts another; names it.
        """
        from gradkern._saved_stats import stats_from

        return stats_from(fields)

    def save(self, path: str | Path) -> None:
        """Write the statistics as JSON (gzip if the name ends in .gz), or as .npz.

        Raises
        ------
        ValueError
            If the name ends in none of .json, .json.gz and .npz.
        OSError
            If the file cannot be written.
        """
        from gradkern._saved_file import write

        write(Path(path), "gradkern_stats", self.to_dict())

    @classmethod
    def load(cls, path: str | Path) -> TensorStats:
        """Read what `save` wrote.

        Raises
        ------
        ValueError
            If the file is missing, or does not hold the statistics of a tensor; names the field that is wrong.
        """
        from gradkern._saved_file import read

        return read(Path(path), "gradkern_stats", "TensorStats", cls.from_dict)

    def plot(self, ax: Axes | None = None, formats: Sequence[FormatLike] | None = None, scale: float = 1.0) -> Axes:
        """Draw how many entries lie in each binade, with the limits of formats; matplotlib is loaded here.

        Parameters
        ----------
        ax : matplotlib.axes.Axes, optional
            Where to draw; without it a figure is made.
        formats : sequence of str or dtype, optional
            Those whose limits are drawn. Default: float16, bfloat16 and both 8-bit ones.
        scale : float
            A power of two that the true values are multiplied by.

        Returns
        -------
        matplotlib.axes.Axes
            ``.figure`` is the figure.
        """
        from gradkern.plot_fit import plot_stats

        return plot_stats(self, ax, formats=formats, scale=scale)

    def __repr__(self) -> str:
        scaled = f", times a loss scale of {self.scale:g}" if self.scale != 1 else ""
        named = f" {printable(self.name)}:" if self.name else ":"
        head = f"TensorStats{named} {self.size:,} entr{'y' if self.size == 1 else 'ies'}, {self.dtype}{scaled}"
        if self.nonzero:
            span = (
                f"  |x| {self.amin:.4g} to {self.amax:.4g}, mean {self.mean:.4g}, std {self.std:.4g}, l2 {self.l2:.4g}"
            )
            head = f"{head}\n{span}"
        counts = {
            "zero": self.zero, "negative": self.negative, "subnormal": self.subnormal, "NaN": self.nan,
            "inf": self.pos_inf, "-inf": self.neg_inf,
        }  # fmt: skip
        found = ", ".join(f"{word} {count:,}" for word, count in counts.items() if count)
        first = "" if self.first_nonfinite is None else f", first NaN or inf at {self.first_nonfinite:,}"
        return f"{head}\n  {found}{first}" if found else head

    def _repr_html_(self) -> str:
        return f"<pre>{html.escape(repr(self))}</pre>"


def _root(parts: Parts, count: float) -> float:
    """sqrt(sum / count) of a sum of squares that the kernels hold in three ranges."""
    big, medium, small = parts
    if not count:
        return 0.0
    if big == 0 and small == 0:
        return math.sqrt(medium / count)
    if big:
        return math.sqrt((big + math.ldexp(medium, -1200)) / count) * 2.0**600
    if medium > 2.0**-900:
        return math.sqrt((medium + math.ldexp(small, -1200)) / count)
    return math.sqrt((small + math.ldexp(medium, 1200)) / count) * 2.0**-600
