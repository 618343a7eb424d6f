"""The figure of `deep_linear.md`: three chains in float16, as they are and as they should be."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np

from gradkern.lecture._draw import limits_of_float16

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_COLOURS = {1.5: "#D55E00", 0.9: "#0072B2", 0.5: "#000000"}


def draw(ax: Axes, found: dict[str, Any]) -> None:
    """Draw log2 of the true activations dashed, of the stored ones solid."""
    limits_of_float16(ax, -32, 20)
    note: dict[str, Any] = {"textcoords": "offset points", "fontsize": 9}
    for weight, colour in _COLOURS.items():
        rows = found["reports"][weight].rows("activation")
        true = np.array([row.reference_log2_norm for row in rows])
        stored = np.array([row.log2_norm for row in rows])
        last = int(np.isfinite(stored).sum()) - 1
        ax.plot(true, color=colour, lw=1.0, ls="--", zorder=3)
        ax.plot(stored[: last + 1], color=colour, lw=2.2, label=f"{weight}$^t$", zorder=4)
        if last + 1 < len(stored):
            end, up = ("zero", 8) if stored[last + 1] == -math.inf else ("infinite", -8)
            ax.plot(last, stored[last], "X", color=colour, ms=9, zorder=5)
            ax.annotate(
                f"{end} from layer {last + 1}", (last, stored[last]), (10, up), va="center", color=colour, **note
            )
        elif stored[-1] == stored[-2]:
            where = found["stalled"] - 1
            text = f"stalled from layer {where}"
            ax.annotate(text, (where, stored[-1]), (-2, -3), ha="right", va="top", color=colour, **note)
    ax.set(xlim=(0, 170), xlabel="layer t", ylabel="activation (dashed: true)")
    ax.legend(loc="upper right", bbox_to_anchor=(1.0, 0.9), frameon=False)
