"""The picture of a chain: true gradients by layer against the limits of the stored format, and the fate of entries."""

from __future__ import annotations

import math
import sys
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from gradkern._colours import FATE_COLOURS
from gradkern.formats import finfo
from gradkern.render import headline

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from gradkern.report import ChainReport

_ROLE = "grad_pre_activation"
_DARKEST = 40  # per cent per binade; a normal distribution has about 34 in its fullest
_NEAR = 40  # binades beyond the data, or beyond the format, that are still drawn
_FATE_COLOURS = {  # from below
    "kept": FATE_COLOURS["kept"], "subnormal": FATE_COLOURS["subnormal"], "flushed": FATE_COLOURS["flushed"],
    "cancelled": "#CC79A7", "inherited": "#8A8A8A", "structural": "#E6E6E6", "overflow": FATE_COLOURS["overflow"],
    "invalid": "#009E73",
}  # fmt: skip
_SUBNORMAL, _FLUSH, _OVERFLOW = "#FBF6CC", "#F6DCCB", "#DDDDDD"


def share_per_binade(report: ChainReport) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float64]]:
    """Share of the non-zero entries of each layer's gradient in every binade.

    Parameters
    ----------
    report : ChainReport
        True gradients are counted; stored ones where the reference chain did not run.

    Returns
    -------
    layers : array, (layers,)
    exponents : array, (binades,)
        Of the gradient times the loss scale.
    share : array, (binades, layers)
        Per cent; every column sums to 100, or to 0 where no entry is finite and non-zero.
    """
    log2_scale = int(math.log2(report.scale))
    rows = report.rows(_ROLE)
    binades = [(row.reference or row.stats).binades for row in rows]
    found = [exponents for exponents, counts in binades if counts.any()]
    low, high = (min(e[0] for e in found), max(e[-1] for e in found)) if found else (0, 0)
    share = np.zeros((high - low + 1, len(rows)))
    for column, (exponents, counts) in enumerate(binades):
        if counts.any():
            share[exponents - low, column] = 100 * counts / counts.sum()
    layers = np.array([row.layer for row in rows], dtype=np.int64)
    return layers, np.arange(low, high + 1, dtype=np.int64) + log2_scale, share


def format_limits(report: ChainReport) -> dict[str, float]:
    """Return log2 of the stored format's limits: largest finite, smallest normal, flush threshold.

    The flush threshold is that of the arithmetic: the smallest normal if it flushes subnormals, half the smallest
    subnormal for nearest even, the smallest subnormal for the other roundings.
    """
    arithmetic = report.arithmetic
    info = finfo(arithmetic.storage)
    flush = info.min_quantum - (arithmetic.rounding == "nearest_even")
    if arithmetic.subnormals == "flush":
        flush = info.min_exponent
    return {"largest finite": math.log2(info.max), "smallest normal": info.min_exponent, "flush threshold": flush}


def _view(exponents: NDArray[np.int64], share: NDArray[np.float64], limits: dict[str, float]) -> tuple[float, float]:
    """Bottom and top: the data, and the limits near it; data far beyond the limits is cut off."""
    occupied = exponents[share.any(axis=1)] if share.any() else np.zeros(1)
    top, bottom = limits["largest finite"], limits["flush threshold"]
    high = min(float(occupied.max()) + 1, top + _NEAR)
    low = max(float(occupied.min()), bottom - _NEAR)
    low, high = min(low, top), max(high, bottom)
    near = [value for value in limits.values() if low - _NEAR <= value <= high + _NEAR]
    return min([low, *near]) - 4, max([high, *near]) + 4


def _draw_limits(ax: Axes, limits: dict[str, float], view: tuple[float, float]) -> None:
    bottom, top = view
    normal, flush, largest = limits["smallest normal"], limits["flush threshold"], limits["largest finite"]
    ax.axhspan(min(flush, bottom), flush, color=_FLUSH, zorder=0, lw=0)
    ax.axhspan(flush, normal, color=_SUBNORMAL, zorder=0, lw=0)
    ax.axhspan(largest, max(largest, top), color=_OVERFLOW, zorder=0, lw=0)
    names = {"largest finite": largest, "flush threshold": flush}
    if normal != flush:
        names["smallest normal"] = normal
    for name, value in names.items():
        inside = bottom <= value <= top
        if inside:
            ax.axhline(value, color="black", lw=0.9, ls="-" if name != "smallest normal" else ":", zorder=2)
        where = value if inside else bottom if value < bottom else top
        arrow = "" if inside else "\u2193 " if value < bottom else "\u2191 "
        almost = "\\approx " if value == largest else ""
        label = f"{arrow}{name} ${almost}2^{{{value:.4g}}}$"
        align = "center" if inside else "bottom" if value < bottom else "top"
        if not inside and value == normal:
            continue  # beyond the view the flush threshold says it all
        _margin_text(ax, where, label, va=align)
    for name, low, high in (
        ("subnormal", flush, normal),
        ("flushed to zero", bottom, flush),
        ("overflow", largest, top),
    ):
        low, high = max(low, bottom), min(high, top)
        if high - low > 0.08 * (top - bottom):  # room between the names of the limits
            _margin_text(ax, (low + high) / 2, name, style="italic", color="#666666")


def _margin_text(ax: Axes, y: float, text: str, **style: Any) -> None:
    style = {"va": "center", "ha": "left", "fontsize": 8, **style}
    ax.text(1.008, y, text, transform=ax.get_yaxis_transform(), **style)


def _draw_cut(ax: Axes, exponents: NDArray[np.int64], share: NDArray[np.float64], view: tuple[float, float]) -> None:
    """Say how far the data goes on beyond the view."""
    occupied = exponents[share.any(axis=1)]
    if occupied.size and occupied[0] < view[0]:
        _margin_text(ax, view[0], f"\u2193 down to $2^{{{occupied[0]}}}$", va="bottom", style="italic", color="#666666")
    if occupied.size and occupied[-1] + 1 > view[1]:
        _margin_text(ax, view[1], f"\u2191 up to $2^{{{occupied[-1] + 1}}}$", va="top", style="italic", color="#666666")


def _draw_rms(ax: Axes, report: ChainReport, view: tuple[float, float]) -> None:
    rows = report.rows(_ROLE)
    layers = np.array([row.layer for row in rows])
    shift = np.array([math.log2(report.scale) - math.log2(row.size) / 2 for row in rows])
    stored = np.array([row.log2_norm for row in rows]) + shift
    if report.has_reference:
        true = np.array([row.reference_log2_norm for row in rows]) + shift
        if np.isfinite(true).any():
            ax.plot(layers, _gaps(true), color="black", lw=1.4, ls="--", label="true rms", zorder=5)
    if np.isfinite(stored).any():
        marker = "o" if len(layers) == 1 else ""
        ax.plot(layers, _gaps(stored), color="#D55E00", lw=2.0, marker=marker, label="stored rms", zorder=4)
    height = view[1] - view[0]
    for where, y, symbol, label in (
        (np.isnan(stored), view[1] - 0.02 * height, "x", "NaN or inf stored"),
        (np.isneginf(stored), view[0] + 0.02 * height, "v", "all stored as zero"),
    ):
        if where.any():
            ax.scatter(
                layers[where], np.full(where.sum(), y), marker=symbol, s=14, color="#D55E00", label=label, zorder=5
            )


def _gaps(values: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.where(np.isfinite(values), values, np.nan)


def _draw_fates(ax: Axes, report: ChainReport) -> None:
    rows = report.rows(_ROLE)
    present = [fate for fate in _FATE_COLOURS if any(row.fates[fate] for row in rows)]
    shares = [[100 * row.fates[fate] / row.size for row in rows] for fate in present]
    edges = np.arange(len(rows) + 1) + 0.5
    ax.stackplot(
        edges, *([*share, share[-1]] for share in shares), labels=present, step="post", lw=0,
        colors=[_FATE_COLOURS[fate] for fate in present],
    )  # fmt: skip
    ax.set(ylim=(0, 100), ylabel="entries [%]")
    handles, labels = ax.get_legend_handles_labels()
    ax.legend(handles[::-1], labels[::-1], loc="center left", bbox_to_anchor=(1.0, 0.5), frameon=False, fontsize=8)


def _figure() -> Figure:
    """Return a figure that needs no display; one of pyplot's where the user works with pyplot."""
    options: dict[str, Any] = {"figsize": (10, 6), "dpi": 130, "layout": "constrained"}
    if "matplotlib.pyplot" in sys.modules:
        import matplotlib.pyplot

        return matplotlib.pyplot.figure(**options)
    from matplotlib.figure import Figure

    return Figure(**options)


def plot_chain(report: ChainReport, ax: Axes | None = None) -> Axes:
    """Draw the magnitudes of the true gradients by layer, the limits of the stored format, and the fate of the entries.

    Parameters
    ----------
    report : ChainReport
        Without a reference the stored gradients are drawn, and no fates.
    ax : matplotlib.axes.Axes, optional
        Where to draw the magnitudes alone. Without it a figure is made, with the fates beneath.

    Returns
    -------
    matplotlib.axes.Axes
        The axes of the magnitudes; ``.figure`` is the figure.

    Raises
    ------
    ImportError
        If matplotlib is not installed.
    """
    from matplotlib.ticker import FuncFormatter, MaxNLocator

    below, own = None, ax is None
    if ax is None:
        figure = _figure()
        if report.has_reference:
            ax, below = figure.subplots(2, 1, sharex=True, height_ratios=(3, 1))
        else:
            ax = figure.subplots()
    layers, exponents, share = share_per_binade(report)
    limits = format_limits(report)
    view = _view(exponents, share, limits)
    edges = np.append(layers - 0.5, layers[-1] + 0.5), np.append(exponents, exponents[-1] + 1)
    visible = np.ma.masked_equal(share, 0)
    mesh = ax.pcolormesh(*edges, visible, cmap="Blues", vmin=-8, vmax=_DARKEST, zorder=1, rasterized=True)
    _draw_limits(ax, limits, view)
    _draw_cut(ax, exponents, share, view)
    _draw_rms(ax, report, view)
    kind = "true" if report.has_reference else "stored"
    ax.set(ylim=view, xlim=(layers[0] - 0.5, layers[-1] + 0.5), ylabel=f"|{kind} gradient \u00d7 loss scale|")
    ax.yaxis.set_major_locator(MaxNLocator(9, integer=True))
    ax.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"$2^{{{value:.0f}}}$"))
    ax.xaxis.set_major_locator(MaxNLocator(12, integer=True, min_n_ticks=1))
    title = f"Gradients of the pre-activations against the limits of {report.arithmetic.storage}"
    ax.set_title(f"{title}\n{headline(report)}", fontsize=11, loc="left", pad=24)
    ax.legend(loc="lower left", bbox_to_anchor=(0.0, 1.0), ncols=4, frameon=False, fontsize=8, borderaxespad=0.2)
    if own:
        bar = ax.figure.colorbar(
            mesh, ax=ax, label=f"share of a {report.unit}'s entries per binade [%]", pad=0.01, aspect=30, extend="max"
        )
        bar.ax.set_ylim(0, None)
    if below is not None:
        _draw_fates(below, report)
    (below or ax).set_xlabel(
        f"{report.unit} (the input at the left, the loss at the right: gradients travel to the left)"
    )
    return ax
