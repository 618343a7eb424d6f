"""The largest singular values of `jacobian` without a matrix: against the full spectrum, and the same bits everywhere."""

from __future__ import annotations

import ml_dtypes
import numpy as np
import pytest
from conftest import check_same_as_baseline
from jacobian_truth import chain_of, exact_log2_singular_values, gaussian_chain, rounding_bound

import gradkern as gk
from gradkern import _core
from gradkern._arrays import read

NETS = {
    "wide and shallow": {"widths": [70, 90, 80], "activation": "gelu", "init": "he_normal"},
    "narrowing": {"widths": [64, 33, 20, 7], "activation": "tanh", "init": "xavier_normal"},
    "deep relu": {"depth": 60, "width": 24, "activation": "relu", "init": "he_normal"},
    "deep sigmoid": {"depth": 80, "width": 12, "activation": "sigmoid", "init": "xavier_normal"},
    "isometric": {"depth": 30, "width": 20, "activation": "identity", "init": "orthogonal"},
}


@pytest.mark.parametrize("k", [1, 3, 5])
@pytest.mark.parametrize("name", NETS)
def test_the_largest_are_those_of_the_full_spectrum(name, k):
    """A residual of 1e-8 moves sigma by half of it at most; both agree to that, though by default they agree far better."""
    net = gk.MLP.random(**NETS[name], seed=3)
    x = np.random.default_rng(0).standard_normal(net.widths[0])
    full, top = gk.jacobian(net, x), gk.jacobian(net, x, k)
    assert top.log2_singular_values.shape == (k,) and top.residual <= 1e-8
    assert (top.rank, top.stable_rank, top.log2_condition, top.spectral_norm_per_layer) == (None,) * 4
    if name == "deep relu":  # few units live: the others are exact zeros
        assert np.array_equal(top.log2_singular_values == -np.inf, full.log2_singular_values[:k] == -np.inf)
    finite = np.isfinite(full.log2_singular_values[:k])
    difference = np.abs(top.log2_singular_values - full.log2_singular_values[:k])[finite]
    assert difference.max() <= 1e-8
    assert top.kind == full.kind
    assert (top.log2_growth <= full.log2_growth + 1e-9).all()
    assert top.log2_growth[-1] == pytest.approx(full.log2_growth[-1], abs=1e-8)


def test_values_far_below_the_largest():
    """2^-400 of the largest, which no Krylov space of float64 holds."""
    weights = gaussian_chain(1, [6] * 401)
    want = exact_log2_singular_values(weights)
    assert want[0] - want[4] > 400
    got = gk.jacobian(chain_of(weights), np.zeros(6), 5)
    assert np.abs(got.log2_singular_values - want[:5]).max() <= rounding_bound(weights)


@pytest.mark.parametrize("dtype", [np.float64, np.float32, np.float16, ml_dtypes.bfloat16, ml_dtypes.float8_e4m3fn])
def test_weights_of_any_format_are_taken_as_they_are(dtype):
    rng = np.random.default_rng(7)
    weights = [rng.standard_normal(s).astype(dtype) for s in ((30, 41), (530, 30), (9, 530))]
    product = np.linalg.multi_dot([w.astype(np.float64) for w in weights[::-1]])
    want = np.log2(np.linalg.svd(product, compute_uv=False))
    for k in (1, 3):
        got = gk.jacobian(chain_of(weights), np.zeros(41), k, tolerance=1e-12).log2_singular_values
        assert np.abs(got - want[:k]).max() <= 1e-12


@pytest.mark.parametrize("k", [1, 3])
def test_the_residual_is_what_it_says(k):
    """Of the largest singular value, from the product itself: || J^T J v - sigma^2 v || / sigma^2."""
    weights = gaussian_chain(2, [20, 30, 25])
    product = weights[1] @ weights[0]
    values = np.linalg.svd(product, compute_uv=False)
    previous = np.inf
    for iterations in (1, 2, 4, 8, 200):
        found = gk.jacobian(chain_of(weights), np.zeros(20), k, max_iterations=iterations, tolerance=1e-10)
        assert found.iterations <= iterations
        sigma = np.exp2(found.log2_singular_values)
        for value in sigma:  # some singular value is as near as the residual allows
            assert np.abs(values / value - 1).min() <= max(found.residual, 1e-13)
        error = abs(sigma[0] / values[0] - 1)
        assert error <= previous + 1e-13
        previous = error
    assert found.residual <= 1e-10 and found.iterations < 200


def test_rank_below_what_is_asked_for():
    rng = np.random.default_rng(0)
    weights = [rng.standard_normal((3, 9)), rng.standard_normal((8, 3))]
    found = gk.jacobian(chain_of(weights), np.zeros(9), 5)
    want = np.log2(np.linalg.svd(weights[1] @ weights[0], compute_uv=False)[:3])
    assert found.log2_singular_values[:3] == pytest.approx(want, abs=1e-8)
    assert (found.log2_singular_values[3:] == -np.inf).all()
    dead = gk.MLP([gk.Dense(np.eye(4), -np.ones(4), "relu")])
    for k in (1, 2):
        found = gk.jacobian(dead, np.zeros(4), k)
        assert (found.log2_singular_values == -np.inf).all() and found.kind == "nilpotent"


def test_layer_norms_on_request():
    weights = gaussian_chain(4, [12, 9, 14])
    found = gk.jacobian(chain_of(weights), np.zeros(12), 1, per_layer=True, tolerance=1e-10)
    assert found.spectral_norm_per_layer == pytest.approx([np.linalg.norm(w, 2) for w in weights], rel=1e-12)
    assert gk.jacobian(chain_of(weights), np.zeros(12), per_layer=False).spectral_norm_per_layer is None


@pytest.mark.parametrize("dtype", [np.float64, np.float32, np.float16, ml_dtypes.float8_e5m2])
def test_the_same_bits_everywhere(dtype, isa, threads):
    rng = np.random.default_rng(9)
    weights = [rng.standard_normal(s).astype(dtype) for s in ((37, 21), (70, 37), (19, 70), (600, 19), (230, 600))]
    factors = [(read(w, "w").pair, rng.standard_normal(len(w))) for w in weights]
    vectors = rng.standard_normal((18, 21))  # more than the kernel takes at once

    def compute():
        tangent = _core.Tangent(factors)
        images, there = tangent.forward(vectors)
        back, home = tangent.backward(images)
        layers = [(read(w, "w").pair, None, 6, 0.0) for w in weights]
        slopes = [s.tobytes() for s in _core.slopes(layers, vectors[0])]
        return [a.tobytes() for a in (images, there, back, home)], slopes

    check_same_as_baseline(("tangent", np.dtype(dtype).name), compute)
    images, there = _core.Tangent(factors).forward(vectors)
    product, triangle = vectors.T, np.eye(18)
    for (weight, (_, slope)), r in zip(zip(weights, factors, strict=True), there, strict=True):
        product, triangle = slope[:, None] * (weight.astype(np.float64) @ product), r @ triangle
    assert np.abs(product - images.T @ triangle).max() <= 1e-12 * np.abs(product).max()


def test_tangent_refuses_what_does_not_fit():
    pair = read(np.ones((3, 2)), "w").pair
    with pytest.raises(ValueError, match="slope for each row"):
        _core.Tangent([(pair, np.ones(2))])
    with pytest.raises(ValueError, match="factors do not chain"):
        _core.Tangent([(pair, np.ones(3)), (pair, np.ones(3))])
    with pytest.raises(ValueError, match="at least one factor"):
        _core.Tangent([])
    with pytest.raises(ValueError, match="wrong size"):
        _core.Tangent([(pair, np.ones(3))]).forward(np.ones((1, 3)))


def test_clusters_and_repeated_values():
    """Neighbours within a thousandth of one another, and a value that occurs twice."""
    net = gk.MLP.random(depth=10, width=120, activation="tanh", init="orthogonal", seed=1)
    x = np.full(120, 0.1)
    full = gk.jacobian(net, x, per_layer=False).log2_singular_values
    assert full[0] - full[8] < 0.02
    for k in (1, 3, 8):
        top = gk.jacobian(net, x, k)
        assert top.residual <= 1e-8 and np.abs(top.log2_singular_values - full[:k]).max() <= 1e-8
    twice = chain_of([np.diag([3.0, 3, 2, *np.ones(11)])])
    assert gk.jacobian(twice, np.zeros(14), 2).log2_singular_values == pytest.approx([np.log2(3)] * 2, abs=1e-8)


def test_values_lost_within_a_single_layer():
    """A saturated unit leaves 2^-120 of a vector, in one layer: no exact zero, and the full spectrum says the same."""
    rng = np.random.default_rng(0)
    slopes = np.array([1.0, 0.5, 2.0**-120])
    weights = [slopes[:, None] * rng.standard_normal((3, 6)), rng.standard_normal((5, 3))]
    full = gk.jacobian(chain_of(weights), np.zeros(6)).log2_singular_values
    got = gk.jacobian(chain_of(weights), np.zeros(6), 3).log2_singular_values
    assert -130 < full[2] < -110 and np.abs(got - full[:3]).max() <= 1e-8
