"""The figure of `effective_depth.md`: true gradients by layer."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from gradkern.lecture._draw import limits_of_float16

if TYPE_CHECKING:
    from matplotlib.axes import Axes


def draw(ax: Axes, found: dict[str, Any]) -> None:
    """Draw log2 of the true gradient of each layer, those that float16 keeps filled."""
    limits_of_float16(ax, -128, 8)
    report = found["report"]
    rows = report.rows("grad_pre_activation")
    layer, norm = np.array([row.layer for row in rows]), np.array([row.reference_log2_norm for row in rows])
    kept = layer > report.depth - report.effective_depth("float16")
    ax.plot(layer[~kept], norm[~kept], "o", ms=3, mfc="white", mec="#D55E00", label="flushed by float16")
    ax.plot(layer[kept], norm[kept], "o", ms=3, color="#0072B2", label="kept")
    ax.set(xlim=(0, 101), xlabel="layer (the loss is at the right)", ylabel="true gradient")
    ax.legend(loc="upper left", frameon=False)
