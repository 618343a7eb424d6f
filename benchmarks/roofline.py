"""The machine's own limits, measured in the same run as a benchmark: bytes read a second, multiply-adds a second.

``python benchmarks/roofline.py`` prints them for 1 and 2 threads.
"""

from __future__ import annotations

import numpy as np
from timing import medians

import gradkern as gk
from gradkern import _core


def read_bandwidth(mebibytes: int = 256, seconds: float = 1.0) -> float:
    """GB/s of reading an array far larger than the caches, on gradkern's threads."""
    data = np.ones(mebibytes * 2**20, np.uint8)
    return data.nbytes / medians({"read": lambda: _core.read_words(data)}, seconds)["read"] / 1e9


def multiply_add_peak(fmt: str, seconds: float = 1.0) -> float:
    """GFLOP/s of fused multiply-adds in registers, two operations each, on gradkern's threads."""
    count = 2**22
    wide = fmt == "float64"
    return 2 * _core.multiply_adds(count, wide) / medians({"fma": lambda: _core.multiply_adds(count, wide)}, seconds)[
        "fma"
    ] / 1e9  # fmt: skip


if __name__ == "__main__":
    for threads in (1, 2):
        gk.set_num_threads(threads)
        print(f"{threads} threads, {gk.info().isa}: read {read_bandwidth():.1f} GB/s", end="")
        for fmt in ("float32", "float64"):
            print(f", {fmt} {multiply_add_peak(fmt):.1f} GFLOP/s", end="")
        print()
