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
ULPS = 4  # docs/numerics.md: 3.5 for gelu', less for the others
CROSSING = {"gelu": 0.11}  # phi' crosses zero: its error is relative to a quarter of its two terms there


def torch_function(name):
    torch = pytest.importorskip("torch")
    return torch.nn.functional.gelu if name == "gelu" else getattr(torch, name)


def validate(name: str) -> None:
    """Both directions agree with torch in float64, by units in the last place of float32."""
    function, torch = torch_function(name), pytest.importorskip("torch")
    z = torch.from_numpy(Z.astype(np.float64)).requires_grad_()
    h = function(z)
    h.sum().backward()
    forward = gk.activation_forward(Z, name), h.detach().numpy(), 0.0
    backward = gk.activation_backward(ONES, Z, name), z.grad.numpy(), CROSSING.get(name, 0.0)
    for mine, theirs, least in (forward, backward):
        ulp = np.spacing(np.maximum(np.abs(theirs), least).astype(np.float32))
        assert (np.abs(mine - theirs) <= ULPS * ulp).all(), name


@pytest.mark.parametrize("name", NAMES)
def test_forward(benchmark, name):
    benchmark.group = f"{name} forward, float32, {SIZE} elements"
    validate(name)
    benchmark(lambda: gk.activation_forward(Z, name))


@pytest.mark.parametrize("name", NAMES)
def test_backward(benchmark, name):
    benchmark.group = f"{name} backward, float32, {SIZE} elements"
    validate(name)
    benchmark(lambda: gk.activation_backward(ONES, Z, name))


@pytest.mark.parametrize("name", NAMES)
def test_torch_forward(benchmark, name):
    torch = pytest.importorskip("torch")
    benchmark.group = f"{name} forward, float32, {SIZE} elements"
    function, z = torch_function(name), torch.from_numpy(Z)
    benchmark(lambda: function(z))


@pytest.mark.parametrize("name", NAMES)
def test_torch_backward(benchmark, name):
    torch = pytest.importorskip("torch")
    benchmark.group = f"{name} backward, float32, {SIZE} elements"
    function = torch_function(name)
    z, ones = torch.from_numpy(Z).requires_grad_(), torch.from_numpy(ONES)
    h = function(z)
    benchmark(lambda: torch.autograd.grad(h, z, ones, retain_graph=True))
