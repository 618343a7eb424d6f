"""The picture of a table: every tensor's magnitudes by binade, beneath the ranges of the formats they might be cast to."""

from __future__ import annotations

import re
from collections.abc import Sequence
from itertools import groupby
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from gradkern._text import elided_names, printable
from gradkern.formats import FormatInfo, FormatLike, finfo
from gradkern.plot import _figure
from gradkern.table import StatsTable
from gradkern.tensor_stats import log2_of_scale

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_DARKEST = 40  # per cent per binade; a normal distribution has about 34 in its fullest
_NEAR = 16  # binades beyond the data in which a limit is still drawn
_TAIL = 1.0  # per cent of a tensor's entries that may lie to the left of the picture
_NAMED, _GROUPS = 110, 60  # rows with a name each; groups of rows where there are more
_COLOURS = ("#D55E00", "#0072B2", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")  # Okabe and Ito's
_NAME_LENGTH = 60  # of a row's name; beyond, its middle goes
_ROW, _RULER, _TALLEST = 0.145, 0.26, 15.0  # inches


def share_per_binade(table: StatsTable, scale: float = 1.0) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Share of the non-zero entries of each tensor in every binade.

    Returns
    -------
    exponents : array, (binades,)
        Of the tensors times the scale.
    share : array, (tensors, binades)
        Per cent; every row sums to 100, or to 0 where no entry is finite and non-zero.
    """
    binades = [stats.binades for stats in table.values()]
    found = [exponents[counts > 0] for exponents, counts in binades if counts.any()]
    low, high = (min(int(e[0]) for e in found), max(int(e[-1]) for e in found)) if found else (0, 0)
    share = np.zeros((len(binades), high - low + 1))
    for row, (exponents, counts) in enumerate(binades):
        inside = counts > 0
        share[row, exponents[inside] - low] = 100 * counts[inside] / max(counts.sum(), 1)
    return np.arange(low, high + 1, dtype=np.int64) + log2_of_scale(scale, "plot"), share


def limits(info: FormatInfo) -> tuple[int, int, int]:
    """Return log2 of the flush threshold, of the smallest normal, and of where overflow begins, for nearest even."""
    return info.min_quantum - 1, info.min_exponent, info.max_exponent + 1


def groups(names: Sequence[str], most: int = _GROUPS) -> list[tuple[str, int, int]]:
    """Divide many names into at most so many runs of one prefix: (prefix, first row, rows).

    Where even the first parts are too many, rows are named at equal distances.
    """
    parts = [re.split(r"(?=[. /])", name) for name in names]
    best: list[tuple[str, int, int]] = []
    for depth in range(1, max(map(len, parts), default=1) + 1):
        runs, start = [], 0
        for prefix, members in groupby("".join(part[:depth]) for part in parts):
            count = len(list(members))
            runs.append((prefix, start, count))
            start += count
        if len(runs) > most:
            break
        best = runs
    if len(best) >= 2:
        return best
    step = -(-len(names) // most)
    return [(names[first], first, 1) for first in range(0, len(names), step)]


def _view(exponents: NDArray[np.int64], share: NDArray[np.float64], infos: list[FormatInfo]) -> tuple[float, float]:
    """Left and right: the data, and the limits near it; a tensor's last per cent far below does not squeeze the rest."""
    rows = share[share.any(axis=1)]
    if not rows.size:
        return -20.0, 20.0
    inside = exponents[rows.any(axis=0)]
    body = exponents[np.argmax(np.cumsum(rows, axis=1) >= _TAIL, axis=1).min()]
    low, high = float(max(body - _NEAR, inside[0])), float(inside[-1] + 1)
    near = [v for info in infos for v in limits(info) if low - _NEAR <= v <= high + _NEAR]
    return min([low, *near]) - 1.5, max([high, *near]) + 1.5


def _clipped(value: float, view: tuple[float, float]) -> float:
    return min(max(value, view[0]), view[1])


def _draw_rulers(inset: Axes, infos: list[FormatInfo], view: tuple[float, float]) -> None:
    """Draw a bar per format above the heat map: pale where it is subnormal, full where it is normal."""
    inset.set(ylim=(len(infos) - 0.5, -0.7), xlim=view)
    inset.set_axis_off()
    for row, info in enumerate(infos):
        colour = _COLOURS[row % len(_COLOURS)]
        flush, normal, overflow = (_clipped(value, view) for value in limits(info))
        inset.barh(row, normal - flush, left=flush, height=0.56, color=colour, alpha=0.3, lw=0)
        inset.barh(row, overflow - normal, left=normal, height=0.56, color=colour, alpha=0.85, lw=0)
        inset.annotate(
            info.name, (0, row), (-6, 0), xycoords=("axes fraction", "data"), textcoords="offset points",
            ha="right", va="center", fontsize=8, color=colour, weight="bold",
        )  # fmt: skip
        _name_limits(inset, row, info, view)


def _name_limits(inset: Axes, row: int, info: FormatInfo, view: tuple[float, float]) -> None:
    flush, normal, overflow = limits(info)
    style: dict[str, Any] = {"va": "center", "fontsize": 7}
    room = 0.03 * (view[1] - view[0])
    if flush >= view[0] + 2 * room:
        inset.text(flush - 0.15 * room, row, f"$2^{{{flush}}}$", ha="right", color="#333333", **style)
    elif normal > max(flush, view[0]) + 2 * room:
        arrow = "" if flush >= view[0] else "\u2190 "
        inset.text(max(flush, view[0]), row, f"{arrow}$2^{{{flush}}}$", ha="left", color="#333333", **style)
    if view[0] + room < normal < view[1] - 2 * room:
        inset.text(normal + 0.15 * room, row, f"$2^{{{normal}}}$", ha="left", color="white", **style)
    if view[0] + 2 * room < overflow <= view[1]:
        inset.text(overflow - 0.15 * room, row, f"{info.max:.5g}", ha="right", color="white", **style)
    elif overflow > view[1]:
        inset.text(view[1] - 0.15 * room, row, f"to {info.max:.2g} \u2192", ha="right", color="white", **style)


def _draw_limits(ax: Axes, infos: list[FormatInfo], view: tuple[float, float]) -> None:
    for row, info in enumerate(infos):
        for value, dashes in zip(limits(info), ((0, (1, 1.5)), (0, (4, 2)), "-"), strict=True):
            if view[0] < value < view[1]:
                ax.axvline(value, color=_COLOURS[row % len(_COLOURS)], lw=0.9, ls=dashes, alpha=0.8, zorder=2)


def _name_rows(ax: Axes, names: list[str]) -> None:
    if len(names) <= _NAMED:
        shown, size = elided_names([printable(name) for name in names], _NAME_LENGTH), 7 if len(names) > 40 else 8
        ax.set_yticks(range(len(names)), shown, fontsize=size, parse_math=False)
        return
    runs = groups(names)
    centres = [first + (count - 1) / 2 for _, first, count in runs]
    shown = elided_names([printable(name) for name, _, _ in runs], _NAME_LENGTH)
    labels = [name if count == 1 else f"{name}  ({count})" for name, (_, _, count) in zip(shown, runs, strict=True)]
    ax.set_yticks(centres, labels, fontsize=7, parse_math=False)
    for _, first, count in runs:
        if count > 1:
            ax.axhline(first - 0.5, color="#999999", lw=0.4, zorder=3)


def _draw_remarks(ax: Axes, table: StatsTable, exponents: NDArray[np.int64], share: NDArray[np.float64]) -> None:
    """Mark tensors that hold NaN or inf, are all zero, or go on beyond the view."""
    left, right = ax.get_xlim()
    broken = [row for row, stats in enumerate(table.values()) if stats.nonfinite]
    if broken:
        ax.scatter([right] * len(broken), broken, marker="x", color="red", s=18, clip_on=False, zorder=6,
                   label="NaN or inf")  # fmt: skip
    zero = [row for row, stats in enumerate(table.values()) if not stats.nonzero]
    if zero:
        ax.scatter([left] * len(zero), zero, marker="o", facecolors="none", edgecolors="#666666", s=14, clip_on=False,
                   zorder=6, label="no finite non-zero entry")  # fmt: skip
    beyond = np.flatnonzero((share[:, exponents < left] > 0).any(axis=1))
    if beyond.size:
        lowest = exponents[(share > 0).any(axis=0)][0]
        ax.scatter([left] * beyond.size, beyond, marker="<", color="#D55E00", s=14, clip_on=False, zorder=6,
                   label=f"a few entries down to $2^{{{lowest}}}$")  # fmt: skip
    if broken or zero or beyond.size:
        ax.legend(loc="upper left", bbox_to_anchor=(0.0, 0.0), borderaxespad=4.4, ncols=3, frameon=False, fontsize=8)


def plot_table(table: StatsTable, ax: Axes | None = None, *, formats: Sequence[FormatLike], scale: float = 1.0) -> Axes:
    """Draw a heat map, one row per tensor and one column per binade, and the limits of formats.

    Dotted lines are flush thresholds, dashed ones smallest normals, full ones where overflow begins.

    Parameters
    ----------
    table : StatsTable
    ax : matplotlib.axes.Axes, optional
        Where to draw; without it a figure is made.
    formats : sequence of str or dtype
        Formats whose limits are drawn.
    scale : float
        A power of two that the tensors are multiplied by.

    Returns
    -------
    matplotlib.axes.Axes
        ``.figure`` is the figure.

    Raises
    ------
    ImportError
        If matplotlib is not installed.
    ValueError
        If the table is empty.
    """
    from matplotlib.ticker import FuncFormatter, MaxNLocator

    if not table:
        raise ValueError("plot: the table holds no tensors")
    names, infos = list(table), [finfo(fmt) for fmt in formats]
    exponents, share = share_per_binade(table, scale)
    view, own = _view(exponents, share, infos), ax is None
    above = _RULER * len(infos)  # inches
    if ax is None:
        figure, height = _figure(), min(max(_ROW * len(names), 0.4), _TALLEST - above)
        figure.set_size_inches(10, height + above + 1.3)
        rulers, ax = figure.subplots(2, 1, height_ratios=(max(above, 0.01), height))
    else:
        rulers = ax.inset_axes((0.0, 1.0, 1.0, above * ax.figure.dpi / ax.get_window_extent().height))
    edges = np.append(exponents, exponents[-1] + 1), np.arange(len(names) + 1) - 0.5
    visible = np.ma.masked_equal(share, 0)
    mesh = ax.pcolormesh(*edges, visible, cmap="Blues", vmin=-8, vmax=_DARKEST, zorder=1, rasterized=True)
    ax.set(xlim=view, ylim=(len(names) - 0.5, -0.5))
    _draw_limits(ax, infos, view)
    _draw_rulers(rulers, infos, view)
    _name_rows(ax, names)
    _draw_remarks(ax, table, exponents, share)
    ax.xaxis.set_major_locator(MaxNLocator(14, integer=True))
    ax.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"$2^{{{value:.0f}}}$"))
    times = "" if scale == 1 else f" \u00d7 $2^{{{log2_of_scale(scale, 'plot')}}}$"
    ax.set_xlabel(f"|entry|{times}   (dotted: flushed below; dashed: subnormal below; full: overflow)", fontsize=9)
    title = f"Magnitudes of {len(names):,} tensor{'s' * (len(names) != 1)}{times} against the ranges of the formats"
    rulers.set_title(title, fontsize=11, loc="left")
    if own and height > 1:
        bar = ax.figure.colorbar(mesh, ax=ax, label="share of entries [%]", pad=0.01, aspect=6 * height, extend="max")
        bar.ax.set_ylim(0, None)
    return ax
