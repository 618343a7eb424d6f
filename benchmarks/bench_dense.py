"""The three products of a dense layer, beside torch and NumPy, and as a share of the processor's multiply-add peak.

Operations: 2 batch n_in n_out each. ``pytest benchmarks/bench_dense.py --benchmark-enable`` times some shapes;
``python benchmarks/bench_dense.py [SECONDS]`` prints all of them for 1 and 2 threads, with ratios: time of the faster
rival over time of gradkern, above 1 where gradkern is the faster. float16 is beside torch's float16, which rounds its
sums as it likes; bfloat16 and float16_pure are beside our own float32.
"""

from __future__ import annotations

import statistics
import sys

import numpy as np
import pytest
from roofline import multiply_add_peak
from timing import let_blas_sleep, medians

import gradkern as gk
from gradkern import _core
from gradkern._arrays import as_bits_view

SQUARE = [(n, n, n) for n in (128, 256, 512, 1024, 2048)]
LAYERS = [(batch, n, n) for n in (64, 128, 256, 512) for batch in (32, 128, 256)]
PRODUCTS = ("forward", "input", "weight")


def operands(batch: int, n_in: int, n_out: int, fmt: str):
    """x, weight and grad_output."""
    rng = np.random.default_rng(0)
    dtype = gk.finfo(fmt).dtype
    scale = 1 / np.sqrt(n_in)
    shapes = ((batch, n_in), (n_out, n_in), (batch, n_out))
    return [(rng.standard_normal(s) * k).astype(dtype) for s, k in zip(shapes, (1, scale, 1), strict=True)]


def ours(product: str, x, w, dy, arithmetic: str):
    """The product alone, before rounding to storage: what the rivals compute."""
    a = gk.arithmetic(arithmetic)
    storage, inner, accumulate, _ = a.format_ids
    bits = {id(v): as_bits_view(v) for v in (x, w, dy)}
    left, left_t, right, right_t = {
        "forward": (x, False, w, True), "input": (dy, False, w, False), "weight": (dy, True, x, False),
    }[product]  # fmt: skip
    return lambda: _core.product(
        bits[id(left)], storage, left_t, bits[id(right)], storage, right_t, None, 0, inner, accumulate
    )


def theirs(product: str, x, w, dy):
    """The same of arrays or tensors with an @."""
    return {"forward": lambda: x @ w.T, "input": lambda: dy @ w, "weight": lambda: dy.T @ x}[product]


def validate(shape, arithmetic: str, fmt: str) -> None:
    x, w, dy = operands(*shape, fmt)
    wide = [np.asarray(v, np.float64) for v in (x, w, dy)]
    epsilon = gk.finfo(gk.arithmetic(arithmetic).accumulate).epsilon
    for product in PRODUCTS:
        got, truth = ours(product, x, w, dy, arithmetic)(), theirs(product, *wide)()
        length = {"forward": shape[1], "input": shape[2], "weight": shape[0]}[product]
        assert np.abs(got - truth).max() <= 4 * length * epsilon * np.abs(truth).max()


@pytest.mark.parametrize("product", PRODUCTS)
@pytest.mark.parametrize("arithmetic", ["float32", "float64", "float16", "bfloat16", "float16_pure"])
@pytest.mark.parametrize("n", [64, 256, 1024])
def test_gradkern(benchmark, product, arithmetic, n):
    fmt = gk.arithmetic(arithmetic).storage
    benchmark.group = f"dense {product}, {fmt}, batch 64, n {n}"
    validate((64, n, n), arithmetic, fmt)
    benchmark(ours(product, *operands(64, n, n, fmt), arithmetic))


@pytest.mark.parametrize("product", PRODUCTS)
@pytest.mark.parametrize("fmt", ["float32", "float64"])
@pytest.mark.parametrize("n", [64, 256, 1024])
def test_numpy(benchmark, product, fmt, n):
    benchmark.group = f"dense {product}, {fmt}, batch 64, n {n}"
    benchmark(theirs(product, *operands(64, n, n, fmt)))


@pytest.mark.parametrize("product", PRODUCTS)
@pytest.mark.parametrize("fmt", ["float32", "float64", "float16"])
@pytest.mark.parametrize("n", [64, 256, 1024])
def test_torch(benchmark, product, fmt, n):
    torch = pytest.importorskip("torch")
    benchmark.group = f"dense {product}, {fmt}, batch 64, n {n}"
    benchmark(theirs(product, *map(torch.from_numpy, operands(64, n, n, fmt))))


def ratios(shape, fmt: str, seconds: float) -> dict[str, tuple[float, float]]:
    """Per product: GFLOP/s, and how much faster than the faster of torch and NumPy."""
    import torch

    values, result = operands(*shape, fmt), {}
    for product in PRODUCTS:
        t = medians({
            "gradkern": ours(product, *values, fmt),
            "torch": theirs(product, *map(torch.from_numpy, values)),
            "numpy": theirs(product, *values) if fmt != "float16" else theirs(product, *map(torch.from_numpy, values)),
        }, seconds)  # fmt: skip
        rival = min(t["torch"], t["numpy"]) if fmt != "float16" else t["torch"]
        result[product] = 2e-9 * np.prod(shape) / t["gradkern"], rival / t["gradkern"]
    return result


def against_own_float32(arithmetic: str, n: int, seconds: float) -> float:
    """Time of our float32 over that of a narrower arithmetic, forward."""
    fmt = gk.arithmetic(arithmetic).storage
    t = medians({
        "own": ours("forward", *operands(128, n, n, fmt), arithmetic),
        "float32": ours("forward", *operands(128, n, n, "float32"), "float32"),
    }, seconds)  # fmt: skip
    return t["float32"] / t["own"]


def main(seconds: float = 0.6) -> None:
    import torch
    from threadpoolctl import threadpool_limits

    for threads in (1, 2):
        torch.set_num_threads(threads)
        gk.set_num_threads(threads)
        threadpool_limits(threads)
        for fmt in ("float32", "float64", "float16"):
            peak = multiply_add_peak("float64" if fmt == "float64" else "float32", 0.3)
            print(f"\n{threads} threads, {gk.info().isa}, {fmt}, peak {peak:.0f} GFLOP/s: % of it, ratio")
            every = []
            for shape in (SQUARE if fmt != "float16" else SQUARE[:2]) + LAYERS[:: 1 if fmt != "float16" else 4]:
                row = ratios(shape, fmt, seconds)
                every += [ratio for _, ratio in row.values()]
                cells = "  ".join(f"{name} {100 * rate / peak:3.0f} % {r:5.2f}" for name, (rate, r) in row.items())
                print(f"  {'x'.join(map(str, shape)):15} {cells}", flush=True)
            print(f"  geometric mean {statistics.geometric_mean(every):.2f}, least {min(every):.2f}")
        for arithmetic in ("bfloat16", "float16", "float16_pure"):
            line = ", ".join(f"{n}: {against_own_float32(arithmetic, n, seconds):.2f}" for n in (64, 256, 512))
            print(f"  {arithmetic} beside our own float32, batch 128: {line}")


if __name__ == "__main__":
    let_blas_sleep()
    main(*map(float, sys.argv[1:]))
