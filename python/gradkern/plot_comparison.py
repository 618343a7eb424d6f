"""The picture of a comparison: distances in ulps, relative errors and bias, by layer."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np

from gradkern._colours import LINE_COLOURS
from gradkern.formats import finfo
from gradkern.layer_row import GRADIENT_ROLES
from gradkern.plot import _figure
from gradkern.render_comparison import headline

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from gradkern.compared_pair import ComparedPair
    from gradkern.compared_tensor import ComparedTensor
    from gradkern.comparison import Comparison

_ROLES = ("pre_activation", "grad_pre_activation")  # solid forward, dashed backward
*_COLOURS, _REFERENCE = LINE_COLOURS
_HALF = 0.5  # ulp
_SHADED = 2  # more runs would hide one another


def _curve(
    pair: ComparedPair, role: str, value: Callable[[ComparedTensor], float], ax: Axes, colour: str, label: str = ""
) -> None:
    rows = pair.rows(role)
    layers, values = np.array([t.layer for t in rows]), np.array([value(t) for t in rows], np.float64)
    values[~np.isfinite(values)] = np.nan
    style = "--" if role in GRADIENT_ROLES else "-"
    ax.plot(layers, values, color=colour, ls=style, lw=1.6, marker="o" if len(rows) == 1 else "", label=label)


def _draw_distances(found: Comparison, ax: Axes) -> None:
    from matplotlib.ticker import FuncFormatter, NullLocator

    for pair, colour in zip(found.pairs, _colours(found), strict=True):
        for role in _ROLES:
            _curve(pair, role, lambda t: t.median_ulp, ax, colour, str(pair.other) if role in _ROLES[:1] else "")
            if len(found.pairs) <= _SHADED:
                rows = pair.rows(role)
                low, high = ([getattr(t, name) for t in rows] for name in ("median_ulp", "p99_ulp"))
                ax.fill_between([t.layer for t in rows], low, high, color=colour, alpha=0.12, lw=0)
    ax.axhline(_HALF, color=_REFERENCE, lw=0.9, ls=":", label="half an ulp")
    ax.set_yscale(
        "symlog", base=2, linthresh=_HALF, linscale=0.5
    )  # 0 is on the axis, half an ulp where it ends being linear
    ax.set_ylim(-0.1, None)
    ax.yaxis.set_minor_locator(NullLocator())
    ax.yaxis.set_major_formatter(
        FuncFormatter(lambda v, _: "0" if v == 0 else f"$2^{{{math.log2(v):.0f}}}$" if v > 0 else "")
    )
    ax.set_ylabel("median distance [ulp]" + ("\nshaded: to 99 %" if len(found.pairs) <= _SHADED else ""))


def _colours(found: Comparison) -> list[str]:
    return [_COLOURS[i % len(_COLOURS)] for i in range(len(found.pairs))]


def _draw_errors(found: Comparison, ax: Axes) -> None:
    for role in _ROLES:
        _curve(found.pairs[0], role, lambda t: t.reference_error, ax, _REFERENCE)
        for pair, colour in zip(found.pairs, _colours(found), strict=True):
            _curve(pair, role, lambda t: t.relative_error, ax, colour)
    for run, colour in zip(found.runs, [_REFERENCE, *_colours(found)], strict=True):
        ax.axhline(finfo(run.arithmetic.storage).epsilon / 2, color=colour, lw=0.9, ls=":")
    ax.set_yscale("log", nonpositive="mask")
    ax.set_ylabel("relative error\n(dotted: half an ulp)")


def _draw_bias(found: Comparison, ax: Axes) -> None:
    for role in _ROLES:
        for pair, colour in zip(found.pairs, _colours(found), strict=True):
            _curve(pair, role, lambda t: 100 * t.bias, ax, colour)
    ax.axhline(0, color=_REFERENCE, lw=0.6)
    ax.set(ylim=(-105, 105), ylabel="bias [%]\nlarger - smaller")


def plot_comparison(found: Comparison, ax: Axes | None = None) -> Axes:
    """Draw distances in ulps by layer, and beneath them relative errors against the true chain, and bias.

    Pre-activations are solid, their gradients dashed. Dotted lines are half an ulp: of a distance, and as a relative error of
    each run's format.

    Parameters
    ----------
    found : Comparison
    ax : matplotlib.axes.Axes, optional
        Where to draw the distances alone. Without it a figure is made, with errors and bias beneath.

    Returns
    -------
    matplotlib.axes.Axes
        The axes of the distances; ``.figure`` is the figure.

    Raises
    ------
    ImportError
        If matplotlib is not installed.
    """
    from matplotlib.ticker import MaxNLocator

    below: list[Axes] = []
    if ax is None:
        ax, *below = _figure().subplots(3, 1, sharex=True, height_ratios=(3, 2, 2))
    _draw_distances(found, ax)
    if below:
        ax.plot([], [], color=_REFERENCE, lw=1.6, label=f"{found.reference} (reference)")
        _draw_errors(found, below[0])
        _draw_bias(found, below[1])
    bottom = below[-1] if below else ax
    unit = found.pairs[0].unit
    bottom.set_xlabel(f"{unit} (solid: pre-activations, dashed: their gradients, which travel to the left)")
    bottom.xaxis.set_major_locator(MaxNLocator(12, integer=True, min_n_ticks=1))
    ax.set_title(headline(found), fontsize=9, loc="left")
    ax.legend(loc="upper left", bbox_to_anchor=(1.0, 1.0), frameon=False, fontsize=8, borderaxespad=0.2)
    return ax
