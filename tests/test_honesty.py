"""Activation gradients and weight gradients change with depth each in its own way, and a report says so of each."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest

import gradkern as gk

DEPTH, WIDTH = 40, 64


def chain(activation: str, init: str, gain: float = 1.0, batch: int = 32, **options: object) -> gk.ChainReport:
    net = gk.MLP.random(depth=DEPTH, width=WIDTH, activation=activation, init=init, gain=gain, **options)  # type: ignore[arg-type]
    x = np.random.default_rng(0).standard_normal((batch, WIDTH))
    return gk.probe(net, x, arithmetic="float64")


def decay(report: gk.ChainReport) -> gk.Finding | None:
    return next((f for f in report.findings if f.kind in ("vanishing", "exploding")), None)


@pytest.mark.parametrize("activation", ["identity", "relu", "tanh", "sigmoid"])
def test_a_weight_gradient_is_an_outer_product(activation: str) -> None:
    """dL/dW_l = dz_l^T h_{l-1}: for a batch of one the norms multiply, exactly, in every layer."""
    report = chain(activation, "lecun_normal", 0.7, batch=1)
    for layer in range(1, DEPTH + 1):
        signal = report.row(layer, "grad_pre_activation").reference_log2_norm
        activations = report.row(layer - 1, "activation").reference_log2_norm
        assert report.row(layer, "grad_weight").reference_log2_norm == pytest.approx(signal + activations, abs=1e-9)
        assert report.row(layer, "grad_bias").reference_log2_norm == pytest.approx(signal, abs=1e-9)


@pytest.mark.parametrize("gain", [0.5, 2.0])
def test_orthogonal_linear_nets_have_equal_weight_gradients_in_all_layers(gain: float) -> None:
    """W = gain Q: gradients change by log2(gain) a layer exactly, and || dL/dW_l ||_F is the same number in every layer."""
    report = chain("identity", "orthogonal", gain)
    assert report.decay_rate().bits_per_layer == pytest.approx(math.log2(gain), abs=1e-12)
    assert report.decay_rate("grad_bias").bits_per_layer == pytest.approx(math.log2(gain), abs=1e-12)
    # dz_l^T h_{l-1} = gain^(L-1) (Q ... Q)^T dz_L^T x (Q ... Q)^T: isometries on both sides
    norms = [row.reference_log2_norm for row in report.rows("grad_weight")]
    assert np.ptp(norms) < 1e-9
    found = decay(report)
    assert found is not None and found.where == "the activation gradients"


@pytest.mark.parametrize(
    "activation, init, gain, bits",
    [
        ("identity", "lecun_normal", 0.5, -1.0),
        ("relu", "xavier_normal", 1.0, -0.5),  # half a bit a layer: half of the units of a He layer's double variance
        ("relu", "he_normal", 2.0, 1.0),
        ("leaky_relu(0.2)", "lecun_normal", 0.8, math.log2(0.8 * math.sqrt(1.04 / 2))),
        ("tanh", "lecun_normal", 0.5, -1.0),  # small activations: tanh is linear there
    ],
)
def test_activation_gradients_change_and_weight_gradients_do_not(
    activation: str, init: str, gain: float, bits: float
) -> None:
    reports = [chain(activation, init, gain, batch=4, seed=seed) for seed in range(12)]
    signals = np.array([r.decay_rate().bits_per_layer for r in reports])
    rates = np.array([r.decay_rate("grad_weight").bits_per_layer for r in reports])
    error = np.std(rates, ddof=1) / math.sqrt(len(reports))
    assert abs(np.mean(rates)) < 4 * error and error < 0.02
    # bits is for infinite width; the log of the squared norm falls by half its variance, 5 / n a layer for ReLU:
    # Hanin and Nica, Commun. Math. Phys. 376 (2020) 287
    assert abs(np.mean(signals) - bits) < 5 / (4 * WIDTH * math.log(2)) + 4 * np.std(signals) / math.sqrt(len(reports))
    report = reports[0]
    signal, weights = report.decay_rate(), report.decay_rate("grad_weight")
    found = decay(report)
    assert found is not None and found.kind == ("vanishing" if bits < 0 else "exploding")
    assert found.where == "the activation gradients" and found.severity == "minor"
    verb = "lose" if bits < 0 else "gain"
    assert f"activation gradients {verb} {abs(signal.bits_per_layer):.2f} bits per layer" in found.evidence
    assert f"weight gradients keep their size ({weights.bits_per_layer:+.2f} bits per layer)" in found.evidence
    for claim in ("not learn", "hardly", "no update"):
        assert claim not in str(found)


@pytest.mark.parametrize(
    "activation, init, gain, options, kind",
    [
        ("sigmoid", "xavier_normal", 1.0, {}, "vanishing"),  # activations stay near 1/2: nothing makes up for the loss
        ("tanh", "lecun_normal", 1.2, {"bias_std": 1.0}, "vanishing"),  # ordered phase: fed by the biases
        ("tanh", "lecun_normal", 3.0, {}, "exploding"),  # chaotic phase: saturated
    ],
)
def test_both_change_where_the_activations_keep_their_size(
    activation: str, init: str, gain: float, options: dict[str, float], kind: str
) -> None:
    report = chain(activation, init, gain, **options)
    signal, weights = report.decay_rate(), report.decay_rate("grad_weight")
    assert abs(signal.bits_per_layer - weights.bits_per_layer) < 0.05
    found = decay(report)
    assert found is not None and (found.kind, found.where) == (kind, "the whole chain")
    assert "keep their size" not in found.evidence and found.evidence.count("over the depth") == 2


def test_he_initialised_relu_has_no_such_finding() -> None:
    report = chain("relu", "he_normal")
    assert decay(report) is None


def test_the_summary_and_the_json_show_both_rates() -> None:
    report = chain("relu", "xavier_normal")
    signal, weights = report.decay_rate(), report.decay_rate("grad_weight")
    text = report.summary()
    assert str(signal) in text and f"of weight gradients {weights}" in text
    payload = json.loads(json.dumps(report.to_dict(), allow_nan=False))
    assert payload["decay_rate"]["bits_per_layer"] == signal.bits_per_layer
    assert payload["decay_rate_grad_weight"]["bits_per_layer"] == weights.bits_per_layer


def test_trainable_depth_counts_layers_whose_weights_get_a_gradient() -> None:
    """Gain 2^-1/2, orthogonal: activation gradients halve every two layers, the common weight gradient fits or does not."""
    net = gk.MLP([gk.Dense(2.0**-1 * np.eye(4)) for _ in range(40)])
    report = gk.probe(net, 2.0**20 * np.ones((1, 4)), arithmetic="bfloat16")
    # dz_l = 2^-(40 - l), h_{l-1} = 2^(20 - l + 1): every weight gradient is 2^-19, above float16's 2^-24
    assert report.effective_depth("float16") == 25
    assert report.effective_depth("float16", role="grad_weight") == 40
    assert report.effective_depth("float16", scale=2.0**-6, role="grad_weight") == 0
    assert report.effective_depth(role="grad_weight") == 40
    for role in ("weights", "activation", "grad_activation"):
        with pytest.raises(ValueError, match="role must be grad_pre_activation, grad_weight or grad_bias"):
            report.effective_depth(role=role)
