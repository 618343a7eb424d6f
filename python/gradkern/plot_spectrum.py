"""The picture of a spectrum: growth of the product by depth, and singular values by index."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from gradkern.plot import _figure
from gradkern.render_spectrum import headline

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from gradkern.spectrum import Spectrum

_BLUE, _RED = "#0072B2", "#D55E00"


def _draw_growth(ax: Axes, spectrum: Spectrum) -> None:
    depth = np.arange(spectrum.depth + 1)
    growth = np.atleast_2d(spectrum.log2_growth)
    start = np.concatenate([np.zeros((len(growth), 1)), growth], axis=1)
    start[~np.isfinite(start)] = np.nan
    ax.plot(depth, start.T, color=_BLUE, lw=1.4, alpha=max(0.15, 1 / len(growth)))
    ax.plot([], [], color=_BLUE, lw=1.4, label="norm of the product" if spectrum.rank is not None else "top vector")
    if spectrum.log2_spectral_norm_per_layer is not None:
        bound = np.cumsum(np.atleast_2d(spectrum.log2_spectral_norm_per_layer), axis=1).max(axis=0)
        bound[~np.isfinite(bound)] = np.nan
        ax.plot(depth, [0.0, *bound], color=_RED, lw=1.2, ls="--", label="product of the norms (bound)")
    ax.axhline(0, color="black", lw=0.6)
    low, high = np.nanmin(start, initial=0.0), np.nanmax(start, initial=0.0)
    margin = max(1.0, 0.15 * (high - low))  # the bound, often far above, may leave the picture
    ax.set_ylim(low - margin, high + margin)
    ax.set(xlabel=f"{spectrum.unit}s", ylabel="log2 of the norm", xlim=(0, spectrum.depth))
    ax.legend(frameon=False, fontsize=8)


def _draw_values(ax: Axes, spectrum: Spectrum) -> None:
    from matplotlib.ticker import MaxNLocator

    log2 = np.atleast_2d(spectrum.log2_singular_values).copy()
    log2[~np.isfinite(log2)] = np.nan
    index = np.arange(1, log2.shape[1] + 1)
    ax.plot(index, log2.T, color=_BLUE, marker=".", ms=4, lw=0.8, alpha=max(0.15, 1 / len(log2)))
    ax.axhline(0, color="black", lw=0.6)
    ax.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    ax.set(xlabel="index", ylabel="log2 of the singular value")


def plot_spectrum(spectrum: Spectrum, ax: Axes | None = None) -> Axes:
    """Draw the growth by depth; without `ax` in a figure of its own, with the singular values beside it.

    Raises
    ------
    ImportError
        If matplotlib is not installed.
    """
    if ax is None:
        figure = _figure()
        figure.set_size_inches(10, 4)
        ax, beside = figure.subplots(1, 2)
        _draw_values(beside, spectrum)
        figure.suptitle(headline(spectrum), fontsize=11, x=0.01, ha="left")
    _draw_growth(ax, spectrum)
    return ax
