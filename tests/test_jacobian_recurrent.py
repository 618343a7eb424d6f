"""`jacobian` of an RNN, d h_T / d h_0: against torch, and against steps whose products are known."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import gradkern as gk


def linear(step, steps, **options):
    hidden = len(step)
    net = gk.RNN(np.array(step, dtype=float), np.zeros((hidden, 1)), None, "identity")
    return gk.jacobian(net, np.zeros((steps, 1)), **options)


def random_net(seed, activation, hidden=6, inputs=3):
    return gk.RNN.random(
        hidden=hidden, inputs=inputs, activation=activation, init="xavier_normal", bias_std=0.3, seed=seed
    )


@pytest.mark.parametrize("with_initial", [False, True])
@pytest.mark.parametrize("activation", ["tanh", "relu", "sigmoid", "gelu"])
def test_against_torch(activation, with_initial):
    torch = pytest.importorskip("torch")
    phi = {"gelu": torch.nn.functional.gelu}.get(activation) or getattr(torch, activation)
    net, rng = random_net(4, activation), np.random.default_rng(1)
    x = rng.standard_normal((12, 3, 3))
    first = rng.standard_normal((3, 6)) if with_initial else np.zeros((3, 6))
    w, v, b = (torch.tensor(a) for a in (net.recurrent_weight, net.input_weight, net.bias))
    together = gk.jacobian(net, x, initial=first if with_initial else None)
    assert len(together) == 3 and together.depth == 12 and together.unit == "step"
    for sample in range(3):

        def last_state(h, sample=sample):
            for x_t in torch.tensor(x[:, sample]):
                h = phi(w @ h + v @ x_t + b)
            return h

        j = torch.autograd.functional.jacobian(last_state, torch.tensor(first[sample])).numpy()
        want = np.linalg.svd(j, compute_uv=False)
        found = together[sample]
        assert np.abs(np.exp2(found.log2_singular_values) - want).max() <= 1e-12 * want[0]
        alone = gk.jacobian(net, x[:, sample], 2, initial=first[sample])
        assert np.abs(np.exp2(alone.log2_singular_values) - want[:2]).max() <= 1e-8 * want[0]
        assert gk.jacobian(net, x[:, sample], initial=first[sample]).to_dict() == found.to_dict()


@pytest.mark.parametrize("k", [None, 1])
def test_a_nilpotent_step_is_not_explosive(k):
    for steps, kind in ((1, "explodes"), (2, "nilpotent"), (500, "nilpotent")):
        found = linear([[0, 2], [0, 0]], steps, k=k)
        assert found.kind == kind
        assert found.log2_singular_values[0] == pytest.approx(1 if steps == 1 else -math.inf, abs=1e-14)


def test_transient_growth_then_decay():
    """The power t is 0.5^t [[1, 200 t], [0, 1]], with singular values (sqrt(a^2 + 4) +- a) / 2 of a = 200 t."""
    found = linear([[0.5, 100], [0, 0.5]], 100)
    assert found.kind == "transient" and "to 2^6.6 after step 1, then decay" in found.summary()
    for step, log2 in enumerate(found.log2_growth, 1):
        assert log2 == pytest.approx(math.log2((math.hypot(200 * step, 2) + 200 * step) / 2) - step, abs=1e-12)


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 2**32), hidden=st.integers(1, 6), steps=st.integers(1, 12), gain=st.integers(-20, 20),
    activation=st.sampled_from(gk.activations()), k=st.sampled_from([None, 1]),
)  # fmt: skip
def test_the_bound_of_pascanu_holds(seed, hidden, steps, gain, activation, k):
    """Pascanu et al. 2013, eq. 6: ||d h_T / d h_0|| is at most the product of ||diag(f'(z_t)) W||, but for rounding."""
    rng = np.random.default_rng(seed)
    w = 2.0**gain * rng.standard_normal((hidden, hidden))
    net = gk.RNN(w, rng.standard_normal((hidden, 2)), rng.standard_normal(hidden), activation)
    found = gk.jacobian(net, rng.standard_normal((steps, 2)), k, per_layer=True)
    bounds = np.cumsum(found.log2_spectral_norm_per_layer)
    rounding = 1e-12 * np.maximum(1, np.abs(np.where(np.isfinite(bounds), bounds, 0)))
    assert (found.log2_growth <= bounds + rounding).all()
    if activation in ("identity", "relu", "tanh", "sigmoid"):  # gamma = max |f'| of Pascanu's lemma
        gamma = 0.25 if activation == "sigmoid" else 1.0
        bound = steps * math.log2(gamma * np.linalg.norm(w, 2))
        assert found.log2_singular_values[0] <= bound + 1e-12 * max(1, abs(bound))


def test_a_scalar_tanh_chain_decays_by_a_power_law():
    """Row 26: w = 1, every factor below 1, and yet no exponential.

    u = h^2 obeys 1/u' = 1/u + 2/3 + u/15 + ..., so u = 3 / (2 (t + c)) with c about 2.6 at t = 2000 for h_0 = 1, and the
    product of 1 - u falls like (t + c)^(-3/2). Between 2,000 and 20,000 steps c moves the slope by at most
    1.5 c / 2000 / ln 10 = 9e-4.
    """
    net = gk.RNN([[1.0]], [[0.0]], None, "tanh")
    found = gk.jacobian(net, np.zeros((20_000, 1)), initial=[1.0])
    slope = (found.log2_growth[19_999] - found.log2_growth[1_999]) / math.log2(10)
    assert slope == pytest.approx(-1.5, abs=9e-4)
    assert found.log2_singular_values[0] == pytest.approx(found.log2_growth[-1], abs=1e-9)


def test_states_beyond_the_range_of_float64():
    """h_t = 2^(3 t), and tanh's steps of the same size saturate instead."""
    found = linear([[8.0]], 3000)
    assert found.log2_singular_values[0] == 9000
    grown = gk.RNN([[8.0]], [[1.0]], [0.0], "relu")
    assert gk.jacobian(grown, np.ones((3000, 1))).log2_singular_values[0] == 9000
    assert gk.jacobian(grown, -np.ones((3000, 1))).kind == "nilpotent"


def test_words_pictures_and_plain_values():
    net = random_net(0, "tanh")
    x = np.random.default_rng(0).standard_normal((9, 2, 3))
    found = gk.jacobian(net, x[:, 0])
    text = repr(found)
    assert "9 steps" in text and "bits/step" in text and "step norms" in text and "layer" not in text
    assert found.to_dict()["unit"] == "step"
    assert "bits/step" in repr(gk.jacobian(net, x))
    pytest.importorskip("matplotlib")
    assert found.plot().get_xlabel() == "steps"


@pytest.mark.parametrize("steps, batch", [(1, 1), (1, 3), (5, 1)])
def test_single_steps_and_samples(steps, batch):
    net = random_net(2, "tanh", hidden=1, inputs=1)
    x = np.linspace(-1, 1, steps * batch).reshape(steps, batch, 1)
    found = gk.jacobian(net, x)
    assert found.samples == batch and found.widths == [1] * (steps + 1)


def test_a_batch_in_words_leaves_undefined_points_out():
    net, x = random_net(0, "tanh"), np.zeros((4, 2, 3))
    x[:, 1] = np.nan
    text = repr(gk.jacobian(net, x))
    rate = gk.jacobian(net, x[:, 0]).lyapunov[0]
    assert "1 vanishes, 1 undefined" in text and f"median {rate:+.3f} bits/step" in text
    assert repr(gk.jacobian(net, x[:, 1:])).endswith("1 undefined")


def test_nan_is_a_result():
    net = random_net(0, "tanh")
    for k in (None, 1):
        assert gk.jacobian(net, np.full((4, 3), np.nan), k).kind == "undefined"
        assert gk.jacobian(net, np.zeros((4, 3)), k, initial=[np.nan, 0, 0, 0, 0, 0]).kind == "undefined"
    infinite = gk.jacobian(gk.RNN([[1.0]], [[1.0]], None, "tanh"), [[1.0], [math.inf]])
    assert infinite.log2_singular_values[0] < -1074


@pytest.mark.parametrize("change, error, match", [
    ({"x": np.zeros(3)}, ValueError, r"jacobian: x has shape \(3,\), but RNN.input_weight has \(6, 3\)"),
    ({"x": np.zeros((0, 3))}, ValueError, "jacobian: x has shape .* at least one step"),
    ({"x": np.zeros((4, 0, 3))}, ValueError, "jacobian: x has shape .* one sample"),
    ({"initial": np.zeros(5)}, ValueError, r"jacobian: initial has shape \(5,\), h_0 is \(1, 6\)"),
    ({"k": 7}, ValueError, "k must be at most"),
    ({"net": gk.MLP.random(depth=1, width=3), "initial": np.zeros(3)}, TypeError, "for an RNN only, net is MLP"),
])  # fmt: skip
def test_bad_arguments(change, error, match):
    arguments = {"net": random_net(0, "tanh"), "x": np.zeros((4, 3)), **change}
    with pytest.raises(error, match=match):
        gk.jacobian(arguments.pop("net"), arguments.pop("x"), **arguments)
