"""The figure of `saturation.md`: the slopes of sigmoid and tanh, true and in float16."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from gradkern.lecture._draw import limits_of_float16

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_COLOURS = {"sigmoid": "#0072B2", "tanh": "#D55E00"}


def draw(ax: Axes, found: dict[str, Any]) -> None:
    """Draw log2 of the slopes: true dashed, from z wide, from the stored output dotted, with the drops to zero."""
    limits_of_float16(ax, -32, 2)
    z = found["z"]
    for name, colour in _COLOURS.items():
        ax.plot(z, np.log2(found["slope"][name]), color=colour, lw=0.9, ls="--", label=f"{name}', true")
        for key, width, label in (("ours", 2.0, "from z"), ("usual", 1.7, "from its output")):
            values = found[key][name].astype(np.float64)
            log2 = np.log2(values, out=np.full(len(z), np.nan), where=values > 0)
            last = np.flatnonzero(values)[-1]
            ls = "-" if key == "ours" else ":"
            ax.plot(z, log2, color=colour, lw=width, ls=ls, label=f"{name}', float16, {label}")
            ax.vlines(z[last], -32, log2[last], color=colour, lw=width, ls=ls)
    ax.set(xlim=(-24, 24), xlabel="z (drops to zero are drawn at the right)", ylabel="slope")
    ax.legend(loc="upper left", frameon=False, fontsize=8)
