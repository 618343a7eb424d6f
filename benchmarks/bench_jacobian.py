"""The largest singular value of a deep, wide chain: an iteration of `gk.jacobian(net, x, k=1)` beside bare passes.

A bare pass is one tangent forwards (W v) and one backwards (W^T u) by torch's float32 products, hand-written, neither
normalised nor measured. 1,000 layers of 1,024 in float32 are 4 GB, so a pass is bound by reading them. ``python
benchmarks/bench_jacobian.py [SECONDS [LAYERS]]`` prints a table for 1 and 2 threads, medians; ratios: time of an iteration
over time of the bare passes.
"""

from __future__ import annotations

import sys

import numpy as np
import pytest
from roofline import read_bandwidth
from timing import medians

import gradkern as gk
from gradkern._factors import factors_of
from gradkern._top_singular import krylov, tangent_of

WIDTH, LAYERS, ITERATIONS = 1024, 1000, 2


def chain(layers: int) -> gk.MLP:
    """A linear net in float32 that keeps the size of what passes, so that bare passes meet no subnormal numbers."""
    rng = np.random.default_rng(0)
    scale = np.float32(WIDTH**-0.5)
    return gk.MLP([gk.Dense(scale * rng.standard_normal((WIDTH, WIDTH), dtype=np.float32)) for _ in range(layers)])


def iterations(net: gk.MLP):
    """The power iteration alone: slopes are known, no tolerance ends it."""
    tangent = tangent_of(factors_of(net, np.zeros(WIDTH)))
    start = np.full((1, WIDTH), WIDTH**-0.5)
    return lambda: krylov(tangent, start, 1, 0.0, ITERATIONS)


def bare_passes(net: gk.MLP):
    import torch

    weights = [torch.from_numpy(np.asarray(layer.weight)) for layer in net.layers]
    start = torch.full((WIDTH,), WIDTH**-0.5)

    def passes():
        v = start
        for w in weights:
            v = w @ v
        u = start
        for w in reversed(weights):
            u = w.T @ u
        return v, u

    return passes


def validate() -> None:
    """The same largest singular value as that of the product."""
    net = chain(3)
    product = np.linalg.multi_dot([np.asarray(layer.weight, np.float64) for layer in net.layers[::-1]])
    found = gk.jacobian(net, np.zeros(WIDTH), 1)
    assert abs(found.log2_singular_values[0] - np.log2(np.linalg.norm(product, 2))) < 1e-8


def test_iteration(benchmark):
    validate()
    benchmark.group = f"40 layers x {WIDTH}, forwards and backwards"
    benchmark(iterations(chain(40)))


def test_torch_bare_passes(benchmark):
    pytest.importorskip("torch")
    benchmark.group = f"40 layers x {WIDTH}, forwards and backwards"
    benchmark(bare_passes(chain(40)))


def main(seconds: float = 8.0, layers: int = LAYERS) -> None:
    import torch

    validate()
    net = chain(layers)
    iterate, passes = iterations(net), bare_passes(net)
    gigabytes = 2 * layers * WIDTH * WIDTH * 4 / 1e9
    print(f"{layers} layers x {WIDTH}, float32, {gk.info().isa}")
    for threads in (1, 2):
        torch.set_num_threads(threads)
        gk.set_num_threads(threads)
        t = medians({"gradkern": iterate, "torch": passes}, seconds)
        mine = t["gradkern"] / ITERATIONS
        print(
            f"{threads} threads: iteration {1e3 * mine:.0f} ms ({gigabytes / mine:.1f} of {read_bandwidth():.1f} GB/s), "
            f"torch's bare passes {1e3 * t['torch']:.0f} ms, ratio {mine / t['torch']:.2f}"
        )


if __name__ == "__main__":
    main(*(kind(text) for kind, text in zip((float, int), sys.argv[1:], strict=False)))
