"""A measured probe of a deep net, beside PyTorch's unmeasured step.

pytest benchmarks/bench_chain.py --benchmark-enable
"""

from __future__ import annotations

import numpy as np
import pytest

import gradkern as gk

DEPTH, WIDTH, BATCH = 100, 256, 64
GROUP = f"{DEPTH} layers x {WIDTH}, batch {BATCH}, forward and backward"
X = np.random.default_rng(0).standard_normal((BATCH, WIDTH)).astype(np.float32)


def _net():
    return gk.MLP.random(depth=DEPTH, width=WIDTH, activation="relu", init="he_normal")


@pytest.mark.parametrize("reference", [False, True], ids=["stored chain", "with reference chain"])
@pytest.mark.parametrize("arithmetic", ["float32", "float16"])
def test_gradkern_measured(benchmark, arithmetic, reference):
    benchmark.group = GROUP
    net = _net()
    report = benchmark(lambda: gk.probe(net, X, arithmetic=arithmetic, reference=reference))
    assert report.depth == DEPTH


def test_torch_unmeasured(benchmark):
    torch = pytest.importorskip("torch")
    benchmark.group = GROUP
    layers = []
    for layer in _net().layers:
        linear = torch.nn.Linear(WIDTH, WIDTH)
        linear.weight.data = torch.from_numpy(np.asarray(layer.weight, np.float32))
        layers += [linear, torch.nn.ReLU()]
    net, x = torch.nn.Sequential(*layers), torch.from_numpy(X)
    benchmark(lambda: net(x).sum().backward())
