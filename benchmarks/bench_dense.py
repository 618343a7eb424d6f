"""Dense forward with its events, beside plain products. 2 batch n_in n_out operations.

pytest benchmarks/bench_dense.py --benchmark-enable
"""

from __future__ import annotations

import numpy as np
import pytest

import gradkern as gk

BATCH = 64
RNG = np.random.default_rng(0)


def _operands(n, dtype):
    return RNG.standard_normal((BATCH, n)).astype(dtype), RNG.standard_normal((n, n)).astype(dtype) / np.sqrt(n)


@pytest.mark.parametrize("n", [64, 256, 1024])
@pytest.mark.parametrize("arithmetic", ["float32", "float64", "float16", "float16_pure"])
def test_gradkern(benchmark, n, arithmetic):
    dtype = gk.finfo(gk.arithmetic(arithmetic).storage).dtype
    x, w = _operands(n, dtype)
    w = w.astype(dtype)
    benchmark.group = f"dense forward {dtype.name}, batch {BATCH}, n {n}"
    out = benchmark(lambda: gk.dense_forward(x, w, arithmetic=arithmetic)).output
    truth = x.astype(np.float64) @ w.astype(np.float64).T
    bound = 4 * n * gk.finfo(gk.arithmetic(arithmetic).accumulate).epsilon * np.abs(truth).max() * 4
    assert np.abs(out - truth).max() <= bound + gk.finfo(dtype).epsilon * np.abs(truth).max()


@pytest.mark.parametrize("n", [64, 256, 1024])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_numpy(benchmark, n, dtype):
    x, w = _operands(n, dtype)
    benchmark.group = f"dense forward {dtype}, batch {BATCH}, n {n}"
    benchmark(lambda: x @ w.T)


@pytest.mark.parametrize("n", [64, 256, 1024])
@pytest.mark.parametrize("dtype", ["float32", "float64", "float16"])
def test_torch(benchmark, n, dtype):
    torch = pytest.importorskip("torch")
    x, w = (torch.from_numpy(a.astype(dtype)) for a in _operands(n, "float64"))
    benchmark.group = f"dense forward {dtype}, batch {BATCH}, n {n}"
    benchmark(lambda: torch.nn.functional.linear(x, w))
