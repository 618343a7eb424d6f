"""What the figures of the gallery share: a colour for each format, axes in powers of two, and the limits of float16."""

from __future__ import annotations

from typing import TYPE_CHECKING

from gradkern.formats import finfo
from gradkern.plot import _draw_limits

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.axis import Axis

# Okabe and Ito's colours, which colour-blind readers can tell apart, darkest first
COLOURS = {
    "float64": "#000000", "float32": "#0072B2", "float16": "#D55E00", "bfloat16": "#009E73",
    "float8_e5m2": "#CC79A7", "float8_e4m3fn": "#E69F00",
}  # fmt: skip


def powers_of_two(axis: Axis) -> None:
    """Label the ticks k of an axis as powers of two."""
    from matplotlib.ticker import FuncFormatter, MaxNLocator

    axis.set_major_locator(MaxNLocator(9, integer=True))
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"$2^{{{value:.0f}}}$"))


def limits_of_float16(ax: Axes, low: float, high: float) -> None:
    """Show log2 magnitudes from low to high, and where float16 flushes, loses digits and overflows."""
    info = finfo("float16")
    limits = {"largest finite": info.max_exponent + 1.0, "smallest normal": info.min_exponent}
    _draw_limits(ax, {**limits, "flush threshold": info.min_quantum - 1}, (low, high))
    ax.set_ylim(low, high)
    powers_of_two(ax.yaxis)
