"""The figure of `formats.md`: how many digits survive a cast."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np

from gradkern.lecture._draw import COLOURS, powers_of_two

if TYPE_CHECKING:
    from matplotlib.axes import Axes


def draw(ax: Axes, found: dict[str, Any]) -> None:
    """Draw the signal to quantisation noise in bits."""
    for fmt in found["names"]:
        bits = np.array(found["lost"][fmt]) / (20 * math.log10(2))
        bits[~np.isfinite(bits) | (bits < 0)] = 0
        ax.step(found["binades"], bits, where="post", color=COLOURS[fmt], lw=2.0, label=fmt)
    powers_of_two(ax.xaxis)
    ax.set(xlim=(found["binades"][0], found["binades"][-1]), ylim=(0, None), xlabel="magnitude", ylabel="bits right")
    ax.legend(loc="center", bbox_to_anchor=(0.78, 0.4), frameon=False)
