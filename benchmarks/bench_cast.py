"""cast with its report, beside casts that report nothing. 4 bytes read and 2 written an element.

pytest benchmarks/bench_cast.py --benchmark-enable
"""

from __future__ import annotations

import numpy as np
import pytest

import gradkern as gk

SIZE = 2**22
DATA = np.random.default_rng(0).standard_normal(SIZE).astype(np.float32) * np.float32(1e-5)


@pytest.mark.parametrize("fmt", ["float16", "bfloat16", "float8_e4m3fn"])
def test_gradkern(benchmark, fmt):
    benchmark.group = f"cast float32 -> {fmt}, {SIZE} elements"
    result = benchmark(lambda: gk.cast(DATA, fmt))
    np.testing.assert_array_equal(result.values, DATA.astype(gk.finfo(fmt).dtype))


@pytest.mark.parametrize("fmt", ["float16", "bfloat16", "float8_e4m3fn"])
def test_numpy_without_report(benchmark, fmt):
    benchmark.group = f"cast float32 -> {fmt}, {SIZE} elements"
    dtype = gk.finfo(fmt).dtype
    with np.errstate(all="ignore"):
        benchmark(lambda: DATA.astype(dtype))


@pytest.mark.parametrize("fmt", ["float16", "bfloat16", "float8_e4m3fn"])
def test_torch_without_report(benchmark, fmt):
    torch = pytest.importorskip("torch")
    benchmark.group = f"cast float32 -> {fmt}, {SIZE} elements"
    tensor, dtype = torch.from_numpy(DATA), getattr(torch, fmt)
    benchmark(lambda: tensor.to(dtype))
