"""The figure of `learning_rate.md`: the loss by step."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_STYLES = (("#D55E00", "-"), ("#0072B2", "-"), ("#000000", "--"))


def draw(ax: Axes, found: dict[str, Any]) -> None:
    """Draw the losses on a logarithmic axis, the last finite one of a run that ends marked."""
    for (colour, style), (lr, run) in zip(_STYLES, found["runs"].items(), strict=True):
        losses = np.asarray(run.losses)
        finite = int(np.isfinite(losses).cumprod().sum())
        ax.semilogy(losses[:finite], color=colour, ls=style, lw=2.0, label=f"lr {lr:g}: {run.verdict}")
        if finite < len(losses):
            last = (finite - 1, losses[finite - 1])
            ax.plot(*last, "X", color=colour, ms=9)
            ax.annotate("then infinite", last, (9, 0), textcoords="offset points", va="center", color=colour)
    ax.set(xlabel="step", ylabel="loss", xlim=(0, 39))
    ax.legend(loc="upper right", frameon=False)
