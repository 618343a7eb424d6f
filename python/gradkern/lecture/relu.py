"""The figure of `relu.md`: the share of networks that pass nothing."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_COLOURS = ("#000000", "#D55E00", "#0072B2")


def draw(ax: Axes, found: dict[str, Any]) -> None:
    """Draw the share counted as steps, the share expected dashed."""
    layer = np.arange(31)
    for colour, (width, deaths) in zip(_COLOURS, found["deaths"].items(), strict=True):
        share = 100 * np.mean(np.array(deaths)[:, None] <= layer, axis=0)
        ax.step(layer, share, where="post", color=colour, lw=2.0, label=f"width {width}")
        ax.plot(layer, 100 * (1 - (1 - 2.0**-width) ** layer), color=colour, lw=1.0, ls="--")
    ax.plot([], [], color="#666666", lw=1.0, ls="--", label="$1 - (1 - 2^{-n})^t$")
    ax.set(xlim=(0, 30), ylim=(0, 102), xlabel="layer t", ylabel="networks dead by layer t [%]")
    ax.legend(loc="center right", frameon=False)
