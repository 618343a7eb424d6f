"""The machine's own limits, measured in the same run as a benchmark: bytes read a second, and fused multiply-adds a second.

python benchmarks/roofline.py
"""

from __future__ import annotations

import statistics
import time

import numpy as np


def _median_seconds(run, repeats: int = 7) -> float:
    run()
    samples = []
    for _ in range(repeats):
        start = time.perf_counter()
        run()
        samples.append(time.perf_counter() - start)
    return statistics.median(samples)


def read_bandwidth(mebibytes: int = 256) -> float:
    """GB/s of a NumPy sum over an array far larger than the caches (one thread)."""
    data = np.ones(mebibytes * 2**20 // 8)
    return data.nbytes / _median_seconds(lambda: data.sum()) / 1e9


def product_rate(n: int = 1024, dtype: type = np.float32) -> float:
    """GFLOP/s of NumPy's matrix product, 2 n^3 operations: the practical peak of the machine's BLAS."""
    rng = np.random.default_rng(0)
    a, b = rng.standard_normal((n, n)).astype(dtype), rng.standard_normal((n, n)).astype(dtype)
    return 2 * n**3 / _median_seconds(lambda: a @ b) / 1e9


if __name__ == "__main__":
    print(f"read bandwidth  {read_bandwidth():8.1f} GB/s, one thread")
    print(f"float32 product {product_rate():8.1f} GFLOP/s, NumPy, n = 1024")
    print(f"float64 product {product_rate(dtype=np.float64):8.1f} GFLOP/s, NumPy, n = 1024")
