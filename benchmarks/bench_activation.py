"""Activations, forward and backward, beside torch. 4 bytes read and 4 written an element (12 in all backward).

pytest benchmarks/bench_activation.py --benchmark-enable
"""

from __future__ import annotations

import numpy as np
import pytest

import gradkern as gk

SIZE = 2**20
Z = np.random.default_rng(0).standard_normal(SIZE).astype(np.float32)
ONES = np.ones_like(Z)
NAMES = ["relu", "tanh", "sigmoid", "gelu"]


@pytest.mark.parametrize("name", NAMES)
def test_forward(benchmark, name):
    benchmark.group = f"{name} forward, float32, {SIZE} elements"
    assert np.isfinite(benchmark(lambda: gk.activation_forward(Z, name))).all()


@pytest.mark.parametrize("name", NAMES)
def test_backward(benchmark, name):
    benchmark.group = f"{name} backward, float32, {SIZE} elements"
    assert np.isfinite(benchmark(lambda: gk.activation_backward(ONES, Z, name))).all()


@pytest.mark.parametrize("name", NAMES)
def test_torch_forward(benchmark, name):
    torch = pytest.importorskip("torch")
    benchmark.group = f"{name} forward, float32, {SIZE} elements"
    function = torch.nn.functional.gelu if name == "gelu" else getattr(torch, name)
    z = torch.from_numpy(Z)
    benchmark(lambda: function(z))


@pytest.mark.parametrize("name", NAMES)
def test_torch_backward(benchmark, name):
    torch = pytest.importorskip("torch")
    benchmark.group = f"{name} backward, float32, {SIZE} elements"
    function = torch.nn.functional.gelu if name == "gelu" else getattr(torch, name)
    z, ones = torch.from_numpy(Z).requires_grad_(), torch.from_numpy(ONES)
    h = function(z)
    benchmark(lambda: torch.autograd.grad(h, z, ones, retain_graph=True))
