"""The figure of `through_time.md`: what each step adds to dL/dW, as it is and as float16 stores it."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np

from gradkern.lecture._draw import limits_of_float16

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_STYLES = (("#000000", "left"), ("#0072B2", "right"))


def draw(ax: Axes, found: dict[str, Any]) -> None:
    """Draw log2 of the shares, times the loss scale: true ones dashed, stored ones solid."""
    limits_of_float16(ax, -40, 20)
    for (colour, side), (scale, report) in zip(_STYLES, found["reports"].items(), strict=True):
        c, bits = report.contributions, math.log2(scale)
        back = report.steps - c.steps
        last = int(np.isfinite(c.stored_log2_norm).sum()) - 1
        label = f"loss scale $2^{{{bits:.0f}}}$"
        ax.plot(back, c.log2_norm + bits, color=colour, lw=1.0, ls="--")
        ax.plot(back[: last + 1], c.stored_log2_norm[: last + 1] + bits, color=colour, lw=2.2, label=label)
        end = (back[last], c.stored_log2_norm[last] + bits)
        ax.plot(*end, "X", color=colour, ms=9)
        note: dict[str, Any] = {"textcoords": "offset points", "fontsize": 9, "ha": side, "va": "center"}
        offset = (9, -2) if side == "left" else (-9, 2)
        ax.annotate(f"zero before step {c.steps[last]}", end, offset, color=colour, **note)
    ax.set(xlim=(60, 0), xlabel="steps before the last", ylabel="share, scaled (dashed: true)")
    ax.legend(loc="upper left", bbox_to_anchor=(0.0, 0.9), frameon=False)
