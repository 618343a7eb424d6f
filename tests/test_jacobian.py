"""The full spectrum of `jacobian`: against exact products (mpmath), torch, and chains whose singular values are known."""

from __future__ import annotations

import math
from itertools import pairwise

import mpmath
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jacobian_truth import (
    chain_of,
    exact_log2_singular_values,
    exact_rank,
    gaussian_chain,
    product_bounds,
    rounding_bound,
)

import gradkern as gk
from gradkern._arrays import read
from gradkern._factors import Factor
from gradkern.jacobian import spectrum_of


def spectrum(weights):
    return gk.jacobian(chain_of(weights), np.zeros(weights[0].shape[1]))


def assert_exact(weights, bound=None):
    got, want = spectrum(weights).log2_singular_values, exact_log2_singular_values(weights)
    assert np.abs(got - want).max() <= (rounding_bound(weights) if bound is None else bound)


@pytest.mark.parametrize("seed", range(5))
def test_a_hundred_layers_against_the_exact_product(seed):
    """Every singular value of 100 Gaussian 4 x 4 layers: the smallest lies some 2^-140 below the largest."""
    weights = gaussian_chain(seed, [4] * 101)
    assert rounding_bound(weights) < 1e-9
    assert_exact(weights)


def test_the_naive_product_loses_what_is_found_here():
    weights = gaussian_chain(0, [4] * 101)
    want = exact_log2_singular_values(weights)
    naive = np.log2(np.linalg.svd(np.linalg.multi_dot(weights[::-1]), compute_uv=False))
    assert abs(naive[0] - want[0]) < 1e-10 and abs(naive[-1] - want[-1]) > 20
    assert_exact(weights)
    large = [2.0**20 * w for w in weights]
    with np.errstate(all="ignore"):
        assert not np.isfinite(np.linalg.multi_dot(large[::-1])).all()
    assert np.abs(spectrum(large).log2_singular_values - (want + 2000)).max() <= rounding_bound(weights)


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 2**32), widths=st.lists(st.integers(1, 7), min_size=2, max_size=12))
def test_non_square_layers_against_the_exact_product(seed, widths):
    weights = gaussian_chain(seed, widths)
    got, want = spectrum(weights), exact_log2_singular_values(weights)
    rank = min(widths)
    count = min(widths[0], widths[-1])
    assert got.rank == rank and got.log2_singular_values.shape == (count,)
    bounds = product_bounds(weights, want[:rank])
    assert (np.abs(got.log2_singular_values[:rank] - want[:rank]) <= bounds).all()
    assert (got.log2_singular_values[rank:] == -np.inf).all()
    assert (got.log2_condition == np.inf) == (rank < count)


def test_rows_and_columns_of_very_different_sizes():
    """Slopes of saturated units, and inputs in other units, change sizes by orders of magnitude: that costs no digits."""
    rng = np.random.default_rng(3)
    sizes = 10.0 ** -np.arange(0, 20, 4)
    dense = [rng.standard_normal((5, 5)) for _ in range(20)]
    bound = 100 * rounding_bound(dense)
    assert bound < 1e-9
    for weights in ([sizes[:, None] * w for w in dense], [w * sizes for w in dense],
                    [10.0 ** -rng.uniform(0, 12, (5, 1)) * w for w in dense]):  # fmt: skip
        got = spectrum(weights).log2_singular_values
        with mpmath.workprec(20000):
            product = mpmath.eye(5)
            for w in weights:
                product = mpmath.matrix(w.tolist()) * product
            want = [float(mpmath.log(v, 2)) for v in mpmath.svd_r(product, compute_uv=False)]
        assert np.abs(got - np.sort(want)[::-1]).max() <= bound


@pytest.mark.parametrize("k", [None, 2])
def test_tiny_and_huge_weights(k):
    """float64's smallest and largest numbers: diag(2^-1074, 1e-310) has no digits to lose."""
    tiny, huge = np.diag([2.0**-1074, 1e-310]), 1e308 * np.array([[1.0, 1.0], [1.0, -1.0]])
    found = gk.jacobian(chain_of([tiny] * 5), np.zeros(2), k, per_layer=True)
    want = np.array([math.log2(1e-310), -1074])
    assert found.log2_singular_values == pytest.approx(5 * want, abs=1e-9)
    assert found.log2_growth == pytest.approx(np.arange(1, 6) * want[0], abs=1e-9)
    assert found.log2_spectral_norm_per_layer == pytest.approx(want[0], abs=1e-9)
    found = gk.jacobian(chain_of([huge] * 5), np.zeros(2), k)
    assert found.log2_singular_values == pytest.approx([5 * (math.log2(1e308) + 0.5)] * 2, abs=1e-9)


def test_equal_singular_values_and_clusters():
    rotation = np.array([[math.cos(1), -math.sin(1)], [math.sin(1), math.cos(1)]])
    assert_exact([rotation @ np.diag([1.0, 1.001]) for _ in range(300)])
    assert_exact([np.array([[1.0, 1.0], [0.0, 1.0]])] * 100)


def torch_activation(torch, name):
    f = torch.nn.functional
    special = {
        "identity": lambda z: z, "gelu_tanh": lambda z: f.gelu(z, approximate="tanh"), "sigmoid": torch.sigmoid,
        "tanh": torch.tanh, "leaky_relu(0.2)": lambda z: f.leaky_relu(z, 0.2), "elu(0.5)": lambda z: f.elu(z, 0.5),
        "softplus": lambda z: f.softplus(z, threshold=1000),  # by default it is linear from 20 on
    }  # fmt: skip
    return special[name] if name in special else getattr(f, name)


@pytest.mark.parametrize("activation", [*gk.activations(), "leaky_relu(0.2)", "elu(0.5)"])
def test_every_activation_against_torch(activation):
    torch = pytest.importorskip("torch")
    rng = np.random.default_rng(len(activation))
    widths = [5, 7, 4, 6, 3]
    net = gk.MLP([
        gk.Dense(rng.standard_normal((o, i)), rng.standard_normal(o), activation)
        for i, o in pairwise(widths)
    ])  # fmt: skip

    def forward(h):
        for layer in net.layers:
            z = torch.nn.functional.linear(h, torch.tensor(layer.weight), torch.tensor(layer.bias))
            h = torch_activation(torch, activation)(z)
        return h

    for x in rng.standard_normal((5, 5)):
        want = np.linalg.svd(torch.autograd.functional.jacobian(forward, torch.tensor(x)), compute_uv=False)
        got = np.exp2(gk.jacobian(net, x).log2_singular_values)
        assert np.abs(got - want).max() <= 1e-12 * want[0]


def test_orthogonal_chains_are_isometric():
    """W^T W = 1 to within n eps, so every singular value of L layers is 1 to within L n eps."""
    for width, depth in ((3, 400), (32, 200)):
        net = gk.MLP.random(depth=depth, width=width, activation="identity", init="orthogonal", seed=width)
        found = gk.jacobian(net, np.zeros(width))
        assert np.abs(found.log2_singular_values).max() <= depth * width * 2.0**-52
        assert found.kind == "steady" and found.stable_rank == pytest.approx(width, rel=1e-10)
        assert abs(found.log2_condition) <= 2 * depth * width * 2.0**-52


@pytest.mark.parametrize("depth", [1, 150, 4000])
def test_scalar_chains(depth):
    """Seeds' rows 4, 5, 18, 31: 0.5^L exactly, 1.5^L, and sigmoid's 1/4 a layer at z = 0."""
    assert spectrum([np.array([[0.5]])] * depth).log2_singular_values[0] == -depth
    grown = spectrum([np.array([[1.5]])] * depth).log2_singular_values[0]
    assert grown == pytest.approx(depth * math.log2(1.5), rel=1e-14 * math.sqrt(depth))
    shifted = gk.MLP([gk.Dense([[1.0]], [-0.5 if i else 0.0], "sigmoid") for i in range(depth)])  # z = 0 in every layer
    assert gk.jacobian(shifted, [0.0]).log2_singular_values[0] == -2 * depth


def test_a_thousand_sigmoid_layers_lose_two_bits_each_at_least():
    net = gk.MLP.random(depth=1000, width=4, activation="sigmoid", init="orthogonal", seed=2)
    found = gk.jacobian(net, np.ones(4))
    assert found.lyapunov[0] <= -2 and found.log2_norm_bound <= -2000 and found.kind == "vanishes"
    assert np.isfinite(found.log2_singular_values).all()


SHIFT = np.eye(4, k=1)
INTEGER = np.array([[1.0, 0, 0, 0], [2, 1, 0, 0], [-1, 3, 1, 0], [4, 0, 1, 1]])
INVERSE = np.round(np.linalg.inv(INTEGER))
NILPOTENT = {
    "two": np.array([[0.0, 2.0], [0.0, 0.0]]),
    "no zero row": np.array([[1.0, -1.0], [1.0, -1.0]]),
    "shift": SHIFT,
    "similar to a shift": INTEGER @ (8 * SHIFT) @ INVERSE,
}


@pytest.mark.parametrize("name", NILPOTENT)
def test_a_nilpotent_step_is_not_explosive(name):
    """Row 15: a spectral norm above 1 is necessary for explosion, not sufficient."""
    step = NILPOTENT[name]
    power = next(p for p in range(1, 9) if not np.linalg.matrix_power(step, p).any())
    for depth in (power - 1, power, 50):
        found = spectrum([step] * depth)
        assert (found.kind == "nilpotent") == (depth >= power)
        assert found.rank == np.linalg.matrix_rank(np.linalg.matrix_power(step, depth))
        if name == "two":
            assert found.spectral_norm_per_layer[0] == 2 and found.log2_norm_bound == depth
    assert (found.log2_singular_values == -np.inf).all() and (found.log2_growth[power - 1 :] == -np.inf).all()
    assert "exactly zero" in found.summary() and "explodes" not in found.summary()


def test_transient_growth_then_decay():
    """[[0.5, 100], [0, 0.5]]: the power L is 0.5^L [[1, 200 L], [0, 1]], whose norm is largest at L = 1."""
    step = np.array([[0.5, 100.0], [0.0, 0.5]])
    found = spectrum([step] * 100)
    assert found.kind == "transient" and "grows, then vanishes" in found.summary()
    for depth, log2 in enumerate(found.log2_growth, 1):
        a = 200.0 * depth  # singular values of [[1, a], [0, 1]]: (sqrt(a^2 + 4) +- a) / 2
        assert log2 == pytest.approx(math.log2((math.hypot(a, 2) + a) / 2) - depth, abs=1e-12)
    assert found.log2_growth.argmax() == 0 and found.log2_growth[0] > 6
    assert found.log2_singular_values[1] == pytest.approx(-200 - found.log2_singular_values[0], abs=1e-11)
    assert found.log2_singular_values == pytest.approx(exact_log2_singular_values([step] * 100), abs=1e-11)


@settings(max_examples=100, deadline=None)
@given(
    seed=st.integers(0, 2**32), widths=st.lists(st.integers(1, 5), min_size=2, max_size=7), spread=st.integers(0, 60)
)
def test_the_rank_is_that_of_the_exact_product(seed, widths, spread):
    """Small integers times powers of two: many products of reduced rank, some of them zero."""
    rng = np.random.default_rng(seed)
    weights = [
        rng.integers(-1, 2, (o, i)) * 2.0 ** rng.integers(-spread, spread + 1, (o, 1)) for i, o in pairwise(widths)
    ]
    assert spectrum(weights).rank == exact_rank(weights)


def test_relu_loses_rank_and_says_so():
    net = gk.MLP.random(depth=6, width=5, activation="relu", init="he_normal", seed=4)
    for x in np.random.default_rng(0).standard_normal((8, 5)):
        h, factors = x, []
        for layer in net.layers:
            z = np.asarray(layer.weight) @ h
            factors.append((z > 0)[:, None] * np.asarray(layer.weight))
            h = np.maximum(z, 0)
        found = gk.jacobian(net, x)
        assert found.rank == exact_rank(factors) < 5
        assert (found.log2_singular_values[found.rank :] == -np.inf).all() and found.log2_condition == np.inf


def test_a_batch_is_a_stack_of_points():
    net = gk.MLP.random(widths=[6, 9, 4, 5], activation="relu", bias_std=0.1, seed=1)
    x = np.random.default_rng(1).standard_normal((7, 6))
    together = gk.jacobian(net, x)
    assert len(together) == together.samples == 7 and together.log2_singular_values.shape == (7, 5)
    for sample, point in enumerate(x):
        alone, chosen = gk.jacobian(net, point), together[sample]
        assert alone.to_dict() == chosen.to_dict()
        assert together.rank[sample] == alone.rank and together.kind[sample] == alone.kind
    assert together[-1].to_dict() == together[6].to_dict()


def test_layer_norms_growth_and_stable_rank():
    weights = gaussian_chain(5, [6, 8, 7, 5])
    found = spectrum(weights)
    products = [weights[0], weights[1] @ weights[0], weights[2] @ weights[1] @ weights[0]]
    values = np.linalg.svd(products[2], compute_uv=False)
    assert found.spectral_norm_per_layer == pytest.approx([np.linalg.norm(w, 2) for w in weights], rel=1e-13)
    assert found.log2_growth == pytest.approx([math.log2(np.linalg.norm(p, 2)) for p in products], abs=1e-13)
    assert found.stable_rank == pytest.approx((values**2).sum() / values[0] ** 2, rel=1e-12)
    assert found.log2_norm_bound == pytest.approx(sum(math.log2(np.linalg.norm(w, 2)) for w in weights), abs=1e-12)
    assert found.lyapunov == pytest.approx(np.log2(values[:5]) / 3, abs=1e-11)


@settings(max_examples=200, deadline=None)
@given(
    seed=st.integers(0, 2**32),
    widths=st.lists(st.integers(1, 6), min_size=2, max_size=8),
    activations=st.lists(st.sampled_from(gk.activations()), min_size=7, max_size=7),
    gain=st.integers(-30, 30),
    k=st.sampled_from([None, 1]),
)
def test_the_bounds_of_pascanu_hold(seed, widths, activations, gain, k):
    """The norm of a product is at most the product of the norms, at every depth, but for the rounding of both."""
    rng = np.random.default_rng(seed)
    net = gk.MLP([
        gk.Dense(2.0**gain * rng.standard_normal((o, i)), rng.standard_normal(o), phi)
        for i, o, phi in zip(widths, widths[1:], activations, strict=False)
    ])  # fmt: skip
    found = gk.jacobian(net, rng.standard_normal(widths[0]), k, per_layer=True)
    bounds = np.cumsum(found.log2_spectral_norm_per_layer)
    rounding = 1e-12 * np.maximum(1, np.abs(np.where(np.isfinite(bounds), bounds, 0)))
    assert (found.log2_growth <= bounds + rounding).all()
    assert found.log2_singular_values[0] <= found.log2_growth[-1] + rounding[-1]
    assert found.log2_norm_bound == pytest.approx(bounds[-1], rel=1e-14)
    if found.spectral_norm_per_layer.max() < 0.99:
        assert found.kind in ("vanishes", "nilpotent", "transient")


def test_steps_that_share_a_weight():
    """What a recurrent net's steps are: factors of one W and many slopes."""
    rng = np.random.default_rng(8)
    w = rng.standard_normal((4, 4))
    slopes = rng.uniform(0.1, 1, (60, 4))
    bits = read(w, "w")
    found = spectrum_of([Factor.of(bits, slope) for slope in slopes])
    assert_exact([slope[:, None] * w for slope in slopes])
    assert found.log2_singular_values == pytest.approx(
        spectrum([slope[:, None] * w for slope in slopes]).log2_singular_values, abs=1e-10
    )


def test_nan_is_a_result():
    net = gk.MLP.random(depth=3, width=4, activation="tanh", init="xavier_normal")
    for k in (None, 1, 2):
        found = gk.jacobian(net, [np.nan, 0, 0, 0], k)
        assert found.kind == "undefined" and np.isnan(found.log2_singular_values).all()
        assert "NaN" in found.summary()
    saturated = gk.jacobian(net, [1e300, 0, 0, 0])
    assert np.isfinite(saturated.log2_singular_values).all() or saturated.rank < 4


@pytest.mark.parametrize("change, error, match", [
    ({"x": np.zeros(3)}, ValueError, r"x has shape \(3,\), but layers.0.weight has \(4, 4\)"),
    ({"x": np.zeros((0, 4))}, ValueError, "x has shape"),
    ({"x": "text"}, TypeError, "jacobian: x"),
    ({"net": 3}, TypeError, "jacobian: net must be an MLP"),
    ({"k": 5}, ValueError, r"k must be at most min\(n_in, n_out\) = 4, got 5"),
    ({"k": 0}, ValueError, "k must be at least 1"),
    ({"k": 1.5}, TypeError, "k must be an integer"),
    ({"tolerance": 0.0}, ValueError, "tolerance must be positive"),
    ({"max_iterations": 0}, ValueError, "max_iterations must be at least 1"),
    ({"seed": -1}, ValueError, "jacobian: seed must be at least 0, got -1"),
    ({"seed": "a"}, TypeError, "jacobian: seed must be an integer"),
    ({"device": "abacus"}, ValueError, "device"),
])  # fmt: skip
def test_bad_arguments(change, error, match):
    arguments = {"net": gk.MLP.random(depth=2, width=4), "x": np.zeros(4), **change}
    with pytest.raises(error, match=match):
        gk.jacobian(arguments.pop("net"), arguments.pop("x"), **arguments)


def test_a_saturated_row_of_a_wide_layer():
    """The third row points where no other does, at 2^-120 of their size: right to the last digits all the same."""
    rng = np.random.default_rng(0)
    sizes = np.array([1.0, 0.5, 2.0**-120])[:, None]
    weights = [sizes * rng.standard_normal((3, 6)), rng.standard_normal((5, 3))]
    with mpmath.workprec(1000):
        product = mpmath.matrix(weights[1].tolist()) * mpmath.matrix(weights[0].tolist())
        values = sorted(mpmath.svd_r(product.T, compute_uv=False), reverse=True)[:3]
        want = [float(mpmath.log(v, 2)) for v in values]
    assert np.abs(spectrum(weights).log2_singular_values[:3] - want).max() <= 1e-12
