"""`probe` against torch autograd, against known chains of the seed documents, and its reference against mpmath."""

from __future__ import annotations

import _thread
import math
import threading
from fractions import Fraction
from itertools import pairwise

import mpmath
import numpy as np
import pytest
from conftest import (
    INF,
    NAN,
    SPECS,
    check_same_as_baseline,
    round_exactly,
    stored_chain,
    torch_tensors,
    true_chain,
    widened,
)
from hypothesis import given, settings
from hypothesis import strategies as st
from test_activation import PHI

import gradkern as gk

FATES = ("structural", "kept", "subnormal", "flushed", "cancelled", "inherited", "overflow", "invalid")


def scalar_net(w, depth, activation="identity"):
    return gk.MLP([gk.Dense([[w]], None, activation, name=f"layers.{i}") for i in range(depth)])


def random_net(rng, widths, activation, gain=1.0, bias=0.3):
    layers = [
        gk.Dense(gain * rng.standard_normal((o, i)) * math.sqrt(2 / i), bias * rng.standard_normal(o), activation)
        for i, o in pairwise(widths)
    ]
    return gk.MLP(layers)


def close(got, want):
    want = want.ravel()
    got = widened(got).ravel()
    size = np.abs(want).max()
    return size == 0 or (
        np.abs(got - want).max() <= 1e-12 * size and np.linalg.norm(got - want) <= 1e-12 * np.linalg.norm(want)
    )


@pytest.mark.parametrize("loss", ["sum", "mse", "cross_entropy", "classes", "grad_output"])
@pytest.mark.parametrize("activation, depth", [(a, d) for a in ("relu", "tanh", "gelu") for d in (5, 30, 100)])
def test_every_gradient_against_torch(activation, depth, loss):
    torch = pytest.importorskip("torch")
    rng = np.random.default_rng(depth)
    widths = [int(v) for v in rng.integers(3, 12, depth + 1)]
    net, x = random_net(rng, widths, activation), rng.standard_normal((6, widths[0]))
    shape = (6, widths[-1])
    target = {"mse": rng.standard_normal(shape), "cross_entropy": rng.dirichlet(np.ones(shape[1]), 6),
              "classes": rng.integers(0, shape[1], 6)}.get(loss)  # fmt: skip
    grad_output = rng.standard_normal(shape) if loss == "grad_output" else None
    name = "cross_entropy" if loss == "classes" else "sum" if grad_output is not None else loss
    truth, value = torch_tensors(torch, net, x, name, target, grad_output)
    report = gk.probe(net, x, loss=name, target=target, grad_output=grad_output, arithmetic="float64", keep="tensors")
    rows = {(row.layer, row.role): row for row in report.layers}
    for key, want in truth.items():
        assert close(rows[key].tensor, want), (key, "stored")
        assert close(rows[key].truth * 2.0 ** rows[key].reference.exponent, want), (key, "reference")
        assert rows[key].relative_error < 1e-12
    if grad_output is None:
        assert report.loss == pytest.approx(value, rel=1e-12) and report.reference_loss == pytest.approx(
            value, rel=1e-12
        )
    else:
        assert report.loss is None


def tensors_of(report, role):
    return [float(widened(row.tensor).ravel()[0]) for row in report.rows(role)]


GROWTH = [
    ("float16", 28),
    ("float8_e5m2", 28),
    ("float8_e4m3fn", 16),
    ("float32", 219),
    ("bfloat16", 219),
    ("float64", 1751),
]
DEATH = [
    ("float16", 25),
    ("bfloat16", 134),
    ("float32", 150),
    ("float64", 1075),
    ("float8_e5m2", 17),
    ("float8_e4m3fn", 10),
]


@pytest.mark.parametrize("fmt, layer", GROWTH)
def test_row_4_growth_overflows_first_at(fmt, layer):
    """Round once, from exact integers: the first t at which 1.5^t overflows; bfloat16's from its threshold."""
    spec = SPECS[fmt]
    exact = [t for t in range(1, layer + 2) if Fraction(3, 2) ** t > spec.overflow_from - (1 if spec.has_inf else 0)]
    assert exact[0] == layer
    if fmt != "float64":
        assert gk.cast([1.5 ** (layer - 1), 1.5**layer], fmt).report.first_overflow == 1


@pytest.mark.parametrize("fmt, layer", GROWTH)
def test_row_4_stored_chain_forward_and_backward(fmt, layer):
    depth = layer + 12  # rounding a two-digit value every layer grows more slowly than 1.5^t
    want = stored_chain(1.5, fmt, depth)
    first = next(t for t, v in enumerate(want) if not math.isfinite(v))
    assert first == layer or fmt in ("float8_e5m2", "float8_e4m3fn", "bfloat16")
    forward = gk.probe(scalar_net(1.5, depth), [[1.0]], arithmetic=fmt, keep="tensors")
    assert np.array_equal(tensors_of(forward, "activation"), want, equal_nan=True)
    assert (forward.first("overflow").layer, forward.first("overflow").role) == (first, "pre_activation")
    norms = [row.reference_log2_norm for row in forward.rows("activation")]
    assert norms == pytest.approx([t * math.log2(1.5) for t in range(depth + 1)], rel=1e-13, abs=1e-13)
    backward = gk.probe(
        scalar_net(1.5, depth), [[0.0]], arithmetic=fmt, keep="tensors"
    )  # nothing overflows on the way up
    assert np.array_equal(tensors_of(backward, "grad_activation")[::-1], want, equal_nan=True)
    assert [row.layer for row in backward.rows("grad_activation") if row.overflow] == [depth - first]


def test_row_4_bfloat16_is_finite_at_100():
    report = gk.probe(scalar_net(1.5, 100), [[1.0]], arithmetic="bfloat16")
    assert report.first("overflow") is None
    assert 1.5**100 == 4.065611775352152e17
    assert (
        report.row(100, "activation").reference.amax * 2.0 ** report.row(100, "activation").reference.exponent
        == 1.5**100
    )


@pytest.mark.parametrize("fmt, layer", DEATH)
def test_row_5_and_6_halving_dies_at(fmt, layer):
    report = gk.probe(scalar_net(0.5, layer + 3), [[1.0]], arithmetic=fmt, keep="tensors")
    for values in (tensors_of(report, "activation"), tensors_of(report, "grad_activation")[::-1]):
        assert values[:layer] == [math.ldexp(1.0, -t) for t in range(layer)]  # exact until then
        assert values[layer:] == [0.0] * 4
    assert report.first("flushed").layer == layer
    for role, order in (("activation", 1), ("grad_activation", -1)):
        fates = [next(f for f in FATES if row.fates[f]) for row in report.rows(role)][::order]
        normal = -SPECS[fmt].emin
        assert fates[: normal + 1] == ["kept"] * (normal + 1)
        assert fates[normal + 1 : layer] == ["subnormal"] * (layer - normal - 1)
        assert fates[layer:] == ["inherited" if role == "activation" else "flushed"] + ["inherited"] * 3


def test_row_7_powers():
    for w, depth, want in ((0.6, 3, 0.216), (0.6, 15, 0.000470184984576), (1.6, 15, 1152.921504606846976)):
        for row in (
            gk.probe(scalar_net(w, depth), [[1.0]], arithmetic="float64", keep="tensors").rows("activation")[depth],
        ):
            assert row.tensor.ravel()[0] == pytest.approx(want, rel=depth * 2.0**-52)


def test_nine_tenths_stalls_when_stored_and_dies_when_rounded_once():
    """0.9^t in float16: 4 * 2^-24 from t = 142 for ever, against zero from t = 165."""
    report = gk.probe(scalar_net(0.9, 300), [[1.0]], arithmetic="float16", keep="tensors")
    values = tensors_of(report, "activation")
    assert values == stored_chain(0.9, "float16", 300)
    assert values[141] > 4 * 2.0**-24 and values[142:] == [4 * 2.0**-24] * 159
    assert not any(row.flushed for row in report.rows("activation"))
    assert [row.layer for row in report.rows("activation") if row.stalled] == list(range(143, 301))
    once = [round_exactly(float(Fraction(9, 10) ** t), "float16") for t in range(301)]
    assert once.index(0.0) == 165 and set(once[165:]) == {0.0}


def survivors(f, model, start, depth=100):
    """How many gradients start * f^0, f^1, ... are non-zero in float16, in either model."""
    if model == "stored":
        return sum(v != 0 for v in stored_chain(f, "float16", depth - 1, start))
    return sum(round_exactly(start * f**t, "float16") != 0 for t in range(depth))


@pytest.mark.parametrize("f", [0.42046, 0.425, 0.43, 0.438])
def test_row_17_twenty_of_a_hundred(f):
    """f^20 > 2^-25 >= f^21: twenty factors survive. Where each layer's own slope is the factor, dz of layer 100 carries
    one already and 20 layers of 100 train; where the weight is, dz of layer 100 carries none and it is 20 + 1."""
    assert f**20 > 2.0**-25 >= f**21 and 0.42045 < f <= 0.43816
    slope = gk.MLP([gk.Dense([[1.0]], None, f"leaky_relu({f})") for _ in range(100)])
    report = gk.probe(slope, [[-1.0]], arithmetic="float16")
    assert report.effective_depth("float16") == 20
    assert report.effective_depth("float16") == survivors(f, "once", f)
    report = gk.probe(scalar_net(f, 100), [[1.0]], arithmetic="float16")
    assert report.effective_depth("float16") == 21 == survivors(f, "once", 1.0)
    assert report.effective_depth() == survivors(f, "stored", 1.0)
    report = gk.probe(scalar_net(f, 100), [[1.0]], grad_output=[[f]], arithmetic="float16")
    assert report.effective_depth("float16") == 20
    assert report.effective_depth() == survivors(f, "stored", f)


@pytest.mark.parametrize("w, bits_per_layer", [(0.5, -1), (2.0, 1)])
def test_ten_thousand_layers_exactly(w, bits_per_layer):
    report = gk.probe(scalar_net(w, 10_000), [[1.0]], arithmetic="float64")
    assert [row.reference_log2_norm for row in report.rows("activation")] == [bits_per_layer * t for t in range(10_001)]
    backward = [row.reference_log2_norm for row in report.rows("grad_activation")][::-1]
    assert backward == [bits_per_layer * t for t in range(10_001)]
    rate = report.decay_rate()
    assert (rate.bits_per_layer, rate.low, rate.high) == (bits_per_layer, bits_per_layer, bits_per_layer)


def test_ten_thousand_sigmoid_layers():
    """sup sigma' = 1/4: at least two bits a layer, for any orthogonal weights, and no end of the range."""
    rng = np.random.default_rng(1)
    net = gk.MLP([gk.Dense(gk.init.orthogonal(4, 4, seed=rng), None, "sigmoid") for _ in range(10_000)])
    report = gk.probe(net, rng.standard_normal((2, 4)), arithmetic="float16")
    norms = np.array([row.reference_log2_norm for row in report.rows("grad_pre_activation")])
    assert np.all(np.isfinite(norms)) and np.all(np.diff(norms) >= 2) and norms[0] < -20_000
    rate = report.decay_rate()
    assert rate.bits_per_layer <= -2 and rate.low <= rate.high <= -2
    assert math.isfinite(report.decay_rate("grad_weight").bits_per_layer)


def test_masked_half_of_relu_is_structural():
    """Symmetric rows: exactly half of the units are masked for every sample, and that is not underflow."""
    half = np.random.default_rng(2).standard_normal((8, 6))
    net = gk.MLP([gk.Dense(np.concatenate([half, -half]), None, "relu"), gk.Dense(np.ones((3, 16)), None, "identity")])
    for arithmetic in ("float16", "bfloat16", "float32", "float8_e4m3fn"):
        report = gk.probe(net, np.random.default_rng(3).standard_normal((5, 6)), arithmetic=arithmetic)
        for row in (report.row(1, "activation"), report.row(1, "grad_pre_activation")):
            assert (row.structural, row.kept + row.subnormal) == (40, 40)
            assert row.flushed == row.cancelled == row.inherited == 0
        assert all(row.rounding.flushed == 0 for row in report.layers)


ARITHMETICS = ["float64", "float32", "tf32", "float16", "float16_pure", "bfloat16", "bfloat16_pure", "float8_e4m3fn",
               "float8_e5m2", "float16[overflow=saturate]", "float16[subnormals=flush]",
               "float8_e5m2[rounding=toward_zero]",
               "float16[rounding=stochastic,seed=4]", "bfloat16[derivative=stored_output]",
               "float8_e4m3fn[overflow=saturate]"]  # fmt: skip


@settings(max_examples=120, deadline=None)
@given(
    seed=st.integers(0, 2**32),
    widths=st.lists(st.integers(1, 5), min_size=2, max_size=6),
    activations=st.lists(st.sampled_from(gk.activations()), min_size=5, max_size=5),
    arithmetic=st.sampled_from(ARITHMETICS),
    gain=st.integers(-40, 40),
    scale=st.integers(-20, 40),
    poison=st.lists(st.sampled_from([NAN, INF, -INF, 0.0, 1e300, 1e-300, -1e6]), max_size=3),
    loss=st.sampled_from(["sum", "mse", "cross_entropy"]),
)
def test_attribution_sums_to_size(seed, widths, activations, arithmetic, gain, scale, poison, loss):
    rng = np.random.default_rng(seed)
    layers = [
        gk.Dense(2.0**gain * rng.standard_normal((o, i)), rng.standard_normal(o) if rng.random() < 0.5 else None, phi)
        for i, o, phi in zip(widths, widths[1:], activations, strict=False)
    ]
    x = rng.standard_normal((3, widths[0]))
    x.ravel()[: len(poison)] = poison[: x.size]
    target = {"mse": np.zeros((3, widths[-1])), "cross_entropy": np.zeros(3, int)}.get(loss)
    report = gk.probe(layers, x, loss=loss, target=target, arithmetic=arithmetic, scale=2.0**scale)
    biases = sum(layer.bias is not None for layer in layers)
    assert len(report.layers) == 2 + 6 * len(layers) + 2 * biases
    for row in report.layers:
        assert tuple(row.fates) == FATES and sum(row.fates.values()) == row.size == row.rounding.size
        nonfinite = row.stats.nonfinite
        assert row.overflow + row.invalid + row.inherited >= nonfinite
        assert row.flushed >= row.rounding.flushed and 0 <= row.stalled <= row.subnormal
        assert row.kept + row.subnormal + row.overflow >= row.stats.nonzero
        for fate in FATES:
            assert (row.first[fate] is None) == (row.fates[fate] == 0)


@pytest.mark.parametrize("arithmetic, value", [
    ("float8_e4m3fn", 464.0), ("float8_e4m3fn", 465.0), ("float8_e4m3fn[overflow=saturate]", 464.0),
    ("float16", 65519.0),
    ("float8_e4m3fn[overflow=saturate]", 465.0), ("float16[overflow=saturate]", 65520.0),
    ("float16[rounding=toward_zero]", 65530.0), ("float16[rounding=toward_zero]", 65536.0),
])  # fmt: skip
def test_fate_and_rounding_agree_on_what_overflow_is(arithmetic, value):
    row = gk.probe(scalar_net(1.0, 1), [[value]], arithmetic=arithmetic).layers[0]
    assert row.overflow == row.rounding.overflow


@pytest.mark.parametrize("arithmetic", ["float64", "float32", "tf32", "float16", "float16_pure", "float8_e5m2",
                                        "float16[rounding=stochastic,seed=3]"])  # fmt: skip
def test_every_kept_tensor_has_the_same_bits(arithmetic, isa, threads):
    rng = np.random.default_rng(5)
    net = random_net(rng, [13, 40, 33, 7, 65, 9], "gelu")
    x = rng.standard_normal((37, 13))

    def compute():
        report = gk.probe(net, x, arithmetic=arithmetic, keep="tensors", scale=64.0)
        return [(r.layer, r.role, r.tensor.tobytes(), r.truth.tobytes(), r.relative_error, repr(r.rounding.to_dict()))
                for r in report.layers]  # fmt: skip

    check_same_as_baseline(("probe", arithmetic), compute)


@pytest.mark.parametrize("gain", [-120, -30, 30, 120])
@pytest.mark.parametrize("name", ["gelu", "silu", "softplus", "elu", "elu(0.5)", "selu", "tanh", "sigmoid", "mish"])
@pytest.mark.parametrize("bias", [0.0, 1.0])
def test_reference_chain_far_outside_float64(name, gain, bias):
    """Against mpmath: linear layers up to 2^+-1080, the activation, then more of the same."""
    rng = np.random.default_rng(abs(gain))
    every = 9 if abs(gain) == 120 else 3
    layers = [
        gk.Dense(
            2.0**gain * rng.standard_normal((3, 3)), bias * rng.standard_normal(3), "identity" if i % every else name
        )
        for i in range(1, 16)
    ]
    x = rng.standard_normal((1, 3))  # one row: saturated rows of opposite sign would cancel beyond any float64
    report = gk.probe(layers, x, arithmetic="float64", keep="tensors")
    rows = {(row.layer, row.role): row for row in report.layers}
    for key, want in true_chain(gk.MLP(layers), x, PHI).items():
        size = max(map(abs, want))
        if size < mpmath.ldexp(1, -6000):  # exp(-2^200) and the like: zero for any finite exponent
            continue
        exponent = rows[key].reference.exponent
        got = [mpmath.ldexp(mpmath.mpf(v), exponent) for v in rows[key].truth.ravel().tolist()]
        worst = max(abs(g - w) for g, w in zip(got, want, strict=True)) / size
        assert worst < 1e-12, (key, float(worst), exponent)


def test_exception_in_progress_ends_the_run():
    seen = []

    def progress(done, total):
        seen.append((done, total))
        if done == 7:
            raise LookupError("here")

    with pytest.raises(LookupError, match="here"):
        gk.probe(scalar_net(0.5, 5), [[1.0]], progress=progress)
    assert seen == [(i, 10) for i in range(8)]
    seen.clear()
    gk.probe(scalar_net(0.5, 3), [[1.0]], progress=lambda done, total: seen.append((done, total)))
    assert seen == [(i, 6) for i in range(7)]


def test_ctrl_c_ends_the_run():
    net = gk.MLP.random(depth=4000, width=32)
    timer = threading.Timer(0.15, _thread.interrupt_main)
    timer.start()
    with pytest.raises(KeyboardInterrupt):
        for _ in range(100):
            gk.probe(net, np.ones((16, 32)))
    timer.join()
