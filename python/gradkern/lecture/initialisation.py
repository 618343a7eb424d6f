"""The figure of `initialisation.md`: the size of the activations by layer."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from gradkern.lecture._draw import limits_of_float16

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_STYLES = {
    "normal": ("#000000", "-"), "he_normal": ("#0072B2", "-"), "xavier_normal": ("#D55E00", "-"),
    "lecun_normal": ("#000000", ":"),
}  # fmt: skip


def draw(ax: Axes, found: dict[str, Any]) -> None:
    """Draw log2 of the true root mean square."""
    limits_of_float16(ax, -32, 24)
    for init, (colour, style) in _STYLES.items():
        rows = found["reports"][init].rows("activation")
        rms = [row.reference_log2_norm - np.log2(row.size) / 2 for row in rows]
        ax.plot(rms, color=colour, ls=style, lw=2.0, label=init)
    ax.set(xlim=(0, 50), xlabel="layer", ylabel="true root mean square of the activations")
    ax.legend(loc="center right", bbox_to_anchor=(1.0, 0.72), frameon=False)
