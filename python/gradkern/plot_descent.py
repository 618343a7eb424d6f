"""The picture of a descent: loss and norms by step, and the norms of the weight gradients by step and layer."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from gradkern.plot import _figure
from gradkern.render_descent import conclusion, headline

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from gradkern.trajectory import Trajectory

_COLOURS = {"loss": "#000000", "weights": "#0072B2", "gradients": "#D55E00", "update wanted": "#009E73"}
_SPAN = 60  # binades of the colour bar at most


def curves(run: Trajectory) -> dict[str, NDArray[np.float64]]:
    """log2 of the loss and of the global norms, by step; NaN where one is zero, NaN or infinite."""
    with np.errstate(all="ignore"):
        values = {
            "loss": np.log2(run.losses),
            "weights": np.array([s.log2_weight_norm for s in run.steps]),
            "gradients": np.array([s.log2_gradient_norm for s in run.steps]),
            "update wanted": np.array([s.update.log2_wanted for s in run.steps]),
        }
    return {name: np.where(np.isfinite(v), v, np.nan) for name, v in values.items()}


def plot_descent(run: Trajectory, ax: Axes | None = None) -> Axes:
    """Draw loss and norms by step, and beneath them log2 of the norm of each layer's weight gradient.

    Parameters
    ----------
    run : Trajectory
    ax : matplotlib.axes.Axes, optional
        Where to draw loss and norms alone. Without it a figure is made, with the map beneath.

    Returns
    -------
    matplotlib.axes.Axes
        The axes of loss and norms; ``.figure`` is the figure.

    Raises
    ------
    ImportError
        If matplotlib is not installed.
    """
    from matplotlib.ticker import FuncFormatter, MaxNLocator

    below = None
    if ax is None:
        ax, below = _figure().subplots(2, 1, sharex=True, height_ratios=(3, 2))
    steps = np.array([s.step for s in run.steps])
    marker = "o" if len(steps) == 1 else ""
    for name, values in curves(run).items():
        if np.isfinite(values).any():
            ax.plot(steps, values, color=_COLOURS[name], lw=1.8, marker=marker, label=name)
    _mark(run, ax)
    ax.set_ylabel("loss; 2-norms")
    ax.yaxis.set_major_locator(MaxNLocator(8, integer=True))
    ax.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"$2^{{{value:.0f}}}$"))
    ax.set_xlim(steps[0] - 0.5, steps[-1] + 0.5)
    ax.set_title(f"{headline(run)}\n{conclusion(run)}", fontsize=9, loc="left", pad=22)
    if ax.get_legend_handles_labels()[0]:
        ax.legend(loc="lower left", bbox_to_anchor=(0.0, 1.0), ncols=5, frameon=False, fontsize=8, borderaxespad=0.2)
    if below is not None:
        _draw_map(run, below, steps)
    (below or ax).set_xlabel("step")
    (below or ax).xaxis.set_major_locator(MaxNLocator(12, integer=True, min_n_ticks=1))
    return ax


def _mark(run: Trajectory, ax: Axes) -> None:
    origin = run.first_nonfinite
    if origin is not None:
        label = f"first NaN or inf: layer {origin.layer} {origin.role}"
        ax.axvline(origin.step, color="#CC79A7", lw=1.2, ls="--", label=label)


def _draw_map(run: Trajectory, ax: Axes, steps: NDArray[np.int64]) -> None:
    from matplotlib import colormaps
    from matplotlib.ticker import MaxNLocator

    norms = run.log2_norms("grad_weight").T
    finite = norms[np.isfinite(norms)]
    top = float(finite.max()) if finite.size else 0.0
    bottom = max(float(finite.min()), top - _SPAN) if finite.size else 0.0
    top = max(top, bottom + 1)
    shown = np.where(np.isneginf(norms), bottom - 1, norms)  # all zero: below the bar
    edges = np.append(steps - 0.5, steps[-1] + 0.5), np.arange(run.depth + 1) + 0.5
    colours = colormaps["viridis"].with_extremes(under="white")
    mesh = ax.pcolormesh(*edges, np.ma.masked_invalid(shown), cmap=colours, vmin=bottom, vmax=top, rasterized=True)
    ax.set_facecolor("#000000")  # NaN or inf
    ax.yaxis.set_major_locator(MaxNLocator(8, integer=True, min_n_ticks=1))
    ax.set(ylabel="layer", ylim=(0.5, run.depth + 0.5))
    ax.figure.colorbar(
        mesh, ax=ax, label="log2 norm of the weight gradient\n(black: NaN or inf, white: zero)", pad=0.01, extend="min"
    )
