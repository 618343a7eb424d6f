"""Pictures of one tensor by binade against the limits of formats, and of what a cast makes of tensors."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from gradkern._arguments import log2_of_scale
from gradkern._colours import FATE_COLOURS
from gradkern._text import printable
from gradkern.fit import FormatFit
from gradkern.formats import FormatLike, finfo
from gradkern.plot import _figure
from gradkern.plot_table import _COLOURS, limits
from gradkern.table import FORMATS
from gradkern.tensor_stats import TensorStats

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Floats = NDArray[np.float64]

_NEAR = 24  # binades beyond the data in which a limit is still drawn
# what the limits of a format are, in the order of `limits`
_LINES = {"flushed below": (0, (1, 1.5)), "subnormal below": (0, (4, 2)), "overflow from": "-"}
_TALLEST = 40  # inches


def plot_stats(
    stats: TensorStats, ax: Axes | None = None, *, formats: Sequence[FormatLike] | None = None, scale: float = 1.0
) -> Axes:
    """Draw how many entries lie in each binade, and the limits of formats that are near.

    Raises
    ------
    ImportError
        If matplotlib is not installed.
    TypeError
        If scale is no number.
    ValueError
        If scale is not a power of two, or a format is none.
    """
    from matplotlib.ticker import FuncFormatter, MaxNLocator

    shift = log2_of_scale(scale, "plot")
    infos = [finfo(fmt) for fmt in (FORMATS if formats is None else formats)]
    exponents, counts = stats.binades
    exponents = exponents + shift
    ax = _figure().subplots() if ax is None else ax
    ax.bar(exponents, counts, width=1, align="edge", color="#BBBBBB", edgecolor="white", lw=0.3, zorder=2)
    filled = exponents[counts > 0] if counts.any() else np.zeros(1, np.int64)
    low, high = int(filled.min()), int(filled.max()) + 1
    drawn = []
    for row, info in enumerate(infos):
        colour, width = _COLOURS[row % len(_COLOURS)], max(3.6 - 0.8 * row, 1.2)  # the wider show where limits agree
        for limit, (what, dashes) in zip(limits(info), _LINES.items(), strict=True):
            if low - _NEAR <= limit <= high + _NEAR:
                label = f"{info.name}: {what} $2^{{{limit}}}$"
                ax.axvline(limit, color=colour, ls=dashes, lw=width, label=label, zorder=3)
                drawn.append(limit)
    ax.set_xlim(min([low, *drawn]) - 1.5, max([high, *drawn]) + 1.5)
    ax.xaxis.set_major_locator(MaxNLocator(12, integer=True))
    ax.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"$2^{{{value:.0f}}}$"))
    ax.set(xlabel="|true value|" + (f" \u00d7 $2^{{{shift}}}$" if shift else ""), ylabel="entries per binade")
    lost = [f"{count:,} {word}" for word, count in (("zero", stats.zero), ("NaN or inf", stats.nonfinite)) if count]
    title = ", ".join([printable(stats.name or "one tensor"), f"{stats.size:,} entries", *lost])
    ax.set_title(title, fontsize=11, loc="left", parse_math=False)
    if drawn:
        ax.legend(loc="upper left", bbox_to_anchor=(1.0, 1.0), frameon=False, fontsize=8)
    return ax


def _parts(fits: Sequence[FormatFit]) -> tuple[list[tuple[str | None, str, Floats]], Floats]:
    """Return name, colour and counts of the parts of a bar, and their sum; parts without a name are in doubt between two.

    Two thresholds may be in doubt: the smallest normal, between subnormal and kept, and overflow, between kept and it.
    """
    low, high = (
        {fate: np.array([getattr(getattr(fit, fate), end) for fit in fits], np.float64) for fate in FATE_COLOURS}
        for end in ("low", "high")
    )
    doubt = {"subnormal": high["subnormal"] - low["subnormal"], "kept": high["overflow"] - low["overflow"]}
    parts: list[tuple[str | None, str, Floats]] = []
    for fate, colour in FATE_COLOURS.items():
        parts.append((fate, colour, low[fate]))
        if fate in doubt:
            parts.append((None, colour, doubt[fate]))
    return parts, np.sum([counts for _, _, counts in parts], axis=0)


def plot_fits(fits: Mapping[str, FormatFit], ax: Axes | None = None, *, title: str) -> Axes:
    """Draw a bar for each fit: the shares flushed, subnormal, kept and overflowing, hatched where brackets leave them open.

    Raises
    ------
    ImportError
        If matplotlib is not installed.
    ValueError
        If there is no fit.
    """
    if not fits:
        raise ValueError("plot: there are no tensors to draw")
    if ax is None:
        figure = _figure()
        figure.set_size_inches(10, min(1.4 + 0.3 * len(fits), _TALLEST))
        ax = figure.subplots()
    rows = np.arange(len(fits))
    parts, total = _parts(list(fits.values()))
    left = np.zeros(len(fits))
    for name, colour, counts in parts:
        share, open_ = 100 * counts / np.maximum(total, 1), name is None
        style: dict[str, Any] = (
            {"color": "white", "edgecolor": colour, "hatch": "////"} if open_ else {"color": colour, "label": name}
        )
        if counts.any() or not open_:
            ax.barh(rows, share, left=left, lw=0, height=0.7, **style)
        left = left + share
    ax.set_yticks(rows, [printable(name) for name in fits], fontsize=8, parse_math=False)
    ax.set(xlim=(0, 100), ylim=(len(fits) - 0.5, -0.5), xlabel="non-zero entries [%]")
    ax.set_title(title, fontsize=11, loc="left")
    ax.legend(loc="upper left", bbox_to_anchor=(1.0, 1.0), frameon=False, fontsize=8)
    return ax
