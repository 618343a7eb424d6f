"""The figure of `powers.md`: the powers of 1.5, and where each format overflows."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from gradkern.formats import finfo
from gradkern.lecture._draw import COLOURS

if TYPE_CHECKING:
    from matplotlib.axes import Axes


def draw(ax: Axes, found: dict[str, Any]) -> None:
    """Draw log2 of the power against the number of factors, both on logarithmic axes."""
    from matplotlib.ticker import FuncFormatter, NullLocator

    norms = np.array([row.reference_log2_norm for row in found["true"]])
    ax.loglog(range(8, len(norms)), norms[8:], color="black", lw=1.2)
    at: dict[int, list[str]] = {}
    for fmt in found["names"]:
        at.setdefault(found["once"][fmt], []).append(fmt)
    for once, names in at.items():
        limit, colour = finfo(names[0]).max_exponent + 1, COLOURS[names[0]]
        ax.plot([8, once, once], [limit, limit, 4], color=colour, lw=1.0, ls="--")
        ax.plot(once, limit, "o", color=colour, ms=7)
        ax.annotate(" and ".join(names), (once, limit), (9, -4), textcoords="offset points", va="top", color=colour,
                    bbox={"fc": "white", "ec": "none", "pad": 0})  # fmt: skip
    ax.set_xticks(list(at), map(str, at))
    ax.set_yticks([finfo(names[0]).max_exponent + 1 for names in at.values()])
    ax.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"$2^{{{value:.0f}}}$"))
    for axis in (ax.xaxis, ax.yaxis):
        axis.set_minor_locator(NullLocator())
    ax.set(xlim=(8, 5000), ylim=(4, 2000), xlabel="factors t (both axes logarithmic)", ylabel="$1.5^t$")
