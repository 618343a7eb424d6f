"""The figure of `clipping.md`: what float16 makes of a network's gradients, by loss scale."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from gradkern._colours import FATE_COLOURS
from gradkern.lecture._draw import powers_of_two

if TYPE_CHECKING:
    from matplotlib.axes import Axes


def draw(ax: Axes, found: dict[str, Any]) -> None:
    """Draw the shares of the entries, and the window of scales."""
    scales, size, window = list(found["fits"]), found["total"].nonzero, found["window"]
    shares = [[100 * int(getattr(found["fits"][k], fate)) / size for k in scales] for fate in FATE_COLOURS]
    ax.stackplot(scales, *shares, colors=list(FATE_COLOURS.values()), labels=list(FATE_COLOURS), lw=0)
    for end in (window.log2_low, window.log2_high):
        ax.axvline(end, color="black", lw=1.0, ls="--")
    ax.annotate(
        "scales that serve\nevery tensor",
        ((window.log2_low + window.log2_high) / 2, 50),
        ha="center",
        va="center",
        fontsize=9,
    )
    powers_of_two(ax.xaxis)
    ax.set(xlim=(scales[0], scales[-1]), ylim=(0, 100), xlabel="loss scale", ylabel="gradient entries [%]")
    ax.legend(loc="center left", bbox_to_anchor=(1.0, 0.5), frameon=False)
