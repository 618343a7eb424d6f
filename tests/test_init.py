"""Initialisations against torch's own, and against what they are for: keeping mean squares from layer to layer."""

from __future__ import annotations

import hashlib
import math
import subprocess
import sys

import numpy as np
import pytest

import gradkern as gk
from gradkern.init import INITIALISATIONS

N_OUT, N_IN = 60, 40
NODES, WEIGHTS = np.polynomial.hermite_e.hermegauss(100)  # even: exact for phi(z)^2 = z^2 on half a line, too
WEIGHTS = WEIGHTS / WEIGHTS.sum()


def test_all_of_the_contract_are_there() -> None:
    assert list(INITIALISATIONS) == [
        "normal", "uniform", "he_normal", "he_uniform", "xavier_normal", "xavier_uniform", "lecun_normal", "orthogonal",
        "identity", "torch_default",
    ]  # fmt: skip
    for name, draw in INITIALISATIONS.items():
        assert getattr(gk.init, name) is draw


@pytest.mark.parametrize(
    "name", ["he_normal", "he_uniform", "xavier_normal", "xavier_uniform", "lecun_normal", "torch_default"]
)
def test_the_distribution_is_that_of_torch(name: str) -> None:
    """Kolmogorov and Smirnov's test of two samples of 48,000 weights each, and the same bounds."""
    torch, stats = pytest.importorskip("torch"), pytest.importorskip("scipy.stats")
    torch.manual_seed(1)
    fill = {
        "he_normal": torch.nn.init.kaiming_normal_, "he_uniform": torch.nn.init.kaiming_uniform_,
        "xavier_normal": torch.nn.init.xavier_normal_, "xavier_uniform": torch.nn.init.xavier_uniform_,
        "lecun_normal": lambda w: torch.nn.init.kaiming_normal_(w, nonlinearity="linear"),
    }  # fmt: skip
    theirs, mine = [], []
    for seed in range(20):
        if name == "torch_default":
            weight = torch.nn.Linear(N_IN, N_OUT, dtype=torch.float64).weight.detach()
        else:
            weight = fill[name](torch.empty(N_OUT, N_IN, dtype=torch.float64))
        theirs.append(weight.numpy().ravel())
        mine.append(getattr(gk.init, name)(N_OUT, N_IN, seed=seed).ravel())
    one, two = np.concatenate(mine), np.concatenate(theirs)
    assert stats.ks_2samp(one, two).pvalue > 1e-4
    if name.endswith(
        ("uniform", "default")
    ):  # the largest of n uniform draws is within 12 / n of the bound, but for e^-12
        assert np.abs(one).max() == pytest.approx(np.abs(two).max(), rel=12 / one.size)


@pytest.mark.parametrize("name", list(INITIALISATIONS))
def test_gain_multiplies_and_seeds_reproduce(name: str) -> None:
    draw = INITIALISATIONS[name]
    plain = draw(7, 5, seed=3)
    assert plain.shape == (7, 5) and plain.dtype == np.float64
    assert np.allclose(draw(7, 5, gain=0.3, seed=3), 0.3 * plain, rtol=1e-15, atol=0)
    assert np.array_equal(draw(7, 5, seed=3), plain)
    assert np.array_equal(draw(7, 5, seed=np.random.default_rng(3)), plain)


def test_networks_are_the_same_in_another_process() -> None:
    code = (
        "import gradkern as gk, hashlib\n"
        "net = gk.MLP.random(depth=3, width=9, init='orthogonal', bias_std=0.5, seed=11)\n"
        "print(hashlib.sha256(b''.join(l.bias.tobytes() for l in net.layers)).hexdigest())\n"
    )
    net = gk.MLP.random(depth=3, width=9, init="orthogonal", bias_std=0.5, seed=11)
    mine = hashlib.sha256(b"".join(layer.bias.tobytes() for layer in net.layers)).hexdigest()
    assert (
        subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip() == mine
    )


@pytest.mark.parametrize("gain", [1.0, 0.7])
@pytest.mark.parametrize("shape", [(9, 9), (12, 5), (5, 12)])
def test_orthogonal_keeps_norms(shape: tuple[int, int], gain: float) -> None:
    """Every singular value is the gain."""
    values = np.linalg.svd(gk.init.orthogonal(*shape, gain=gain, seed=4), compute_uv=False)
    assert np.abs(values - gain).max() < 1e-14


@pytest.mark.parametrize("slope", [None, 0.01, 0.2, 1.0])
def test_the_gain_of_relu_keeps_the_mean_square(slope: float | None) -> None:
    """gain^2 E phi(z)^2 = 1 for z from N(0, 1): He, Zhang, Ren, Sun 2015, equation 14."""
    name = "relu" if slope is None else f"leaky_relu({slope})"
    z = np.ascontiguousarray(NODES)
    mean_square = float(WEIGHTS @ gk.activation_forward(z, name, arithmetic="float64") ** 2)
    assert gk.init.gain(name) ** 2 * mean_square == pytest.approx(1, rel=1e-12)
    if slope is not None:
        assert gk.init.gain(name) == math.sqrt(2 / (1 + slope**2))


@pytest.mark.parametrize("activation", ["relu", "leaky_relu(0.2)", "identity"])
def test_with_its_gain_a_network_keeps_its_size(activation: str) -> None:
    """Lecun's variance times the activation's gain: no bits a layer, but for those of finite width."""
    grid = {
        "depth": 30,
        "width": 100,
        "activation": activation,
        "init": "lecun_normal",
        "batch": 4,
        "arithmetic": "float32",
    }
    rows = gk.sweep({**grid, "gain": gk.init.gain(activation), "seed": range(16)}).rows
    for name in ("gradient_rate", "activation_rate"):
        rates = np.array([row[name] for row in rows])
        error = np.std(rates, ddof=1) / math.sqrt(len(rates))
        # the log of the squared norm falls by half its variance, 5 / n a layer at most: Hanin and Nica 2020
        assert abs(np.mean(rates)) < 4 * error + 5 / (4 * 100 * math.log(2)) and error < 0.02
