"""Draws docs/matrix_units.png: how much of a long sum of one sign each matrix unit truncates away.

``python docs/matrix_units_figure.py [PATH]``. Products of uniform numbers in [0, 1); the mean of (computed - exact) / exact.
"""

from __future__ import annotations

import math
import sys
from pathlib import Path

import numpy as np

import gradkern as gk

OUTPUTS = 24  # a side
LENGTHS = [2**k for k in range(4, 14)]
RESTARTED = "restart:128"
LINES = [
    *(("float16", unit, "ascending") for unit in ("volta", "ampere", "hopper", "float32")),
    *(("float8_e4m3fn", unit, "ascending") for unit in ("ada", "hopper.wgmma", "blackwell.tcgen05")),
    ("float8_e4m3fn", "hopper.wgmma", RESTARTED),
]


def bias(fmt: str, unit: str, length: int, order: str = "ascending", seed: int = 0) -> float:
    """Mean relative signed error of the float32 sums."""
    rng = np.random.default_rng(seed)
    dtype = gk.finfo(fmt).dtype
    a, b = (rng.uniform(0, 1, shape).astype(dtype) for shape in ((OUTPUTS, length), (length, OUTPUTS)))
    exact = a.astype(np.float64) @ b.astype(np.float64)
    return float(np.mean((gk.mma(a, b, unit=unit, order=order) - exact) / exact))


def draw(path: Path) -> None:
    """Write the picture."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(figsize=(7, 5), layout="constrained")
    for fmt, unit, order in LINES:
        values = [
            abs(bias(fmt, unit, k, order)) or math.nan for k in LENGTHS
        ]  # an exact sum has no place in logarithms
        label = f"{fmt}, fma chain in float32" if unit == "float32" else f"{fmt} on {unit}"
        label += ", restarted every 128" if order == RESTARTED else ""
        dashed = unit == "float32" or order == RESTARTED
        axes.loglog(LENGTHS, values, "--" if dashed else "-", marker="o", markersize=3, label=label)
    axes.set_xscale("log", base=2)
    axes.set_xlabel("products in the sum")
    axes.set_ylabel("|mean relative error|")
    axes.set_title("Truncation makes long sums of one sign too small")
    figure.legend(fontsize=8, loc="outside lower center", ncols=2)
    axes.grid(alpha=0.3)
    figure.savefig(path, dpi=120)


if __name__ == "__main__":
    draw(Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).with_name("matrix_units.png"))
