"""The picture of backpropagation through time: what each step adds to dL/dW."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from gradkern.plot import _figure

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from gradkern.recurrent_report import Contributions


def plot_contributions(contributions: Contributions, ax: Axes | None = None) -> Axes:
    """Draw the true and the stored norm of each step's share, and the norm of their sum so far.

    Parameters
    ----------
    contributions : Contributions
    ax : matplotlib Axes, optional

    Returns
    -------
    Axes

    Raises
    ------
    ImportError
        If matplotlib is not installed.
    """
    ax = _figure().subplots() if ax is None else ax
    c = contributions
    lines = [("share of the step", c.log2_norm, "black", "-"), ("as stored", c.stored_log2_norm, "#D55E00", "--")]
    if np.isfinite(c.running_log2_norm).any():
        lines.append(("sum from the last step on", c.running_log2_norm, "#0072B2", ":"))
    for label, values, colour, style in lines:
        shown = np.where(np.isfinite(values), values, np.nan)
        ax.plot(c.steps, shown, color=colour, ls=style, lw=1.6, label=label, marker="o" if len(c) == 1 else "")
    ax.set(xlabel="step (the loss at the right: gradients travel to the left)", ylabel=r"$\log_2$ of the norm")
    ax.legend(loc="best", frameon=False)
    ax.grid(alpha=0.3)
    return ax
