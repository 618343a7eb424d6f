"""Cases that once gave a wrong story: each is small enough to know the answer by hand."""

from __future__ import annotations

import pickle

import numpy as np
import pytest

import gradkern as gk


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_non_finite_input_is_a_finding_and_named_as_given(value: float) -> None:
    x = np.ones((3, 8))
    x[0, 0] = value
    findings = gk.probe(gk.MLP.random(depth=4, width=8, activation="tanh"), x).findings
    assert findings[0].kind == "nonfinite_input"
    assert "came with x" in findings[0].evidence


def test_non_finite_grad_output_is_a_finding() -> None:
    findings = gk.probe(gk.MLP.random(depth=2, width=2), np.ones((1, 2)), grad_output=[[np.nan, 1.0]]).findings
    assert findings[0].kind == "nonfinite_input" and "grad_output" in findings[0].evidence


def test_cross_entropy_gradient_with_targets_that_do_not_sum_to_one() -> None:
    torch = pytest.importorskip("torch")
    logits, target = np.array([[0.1, 0.5, -1.0], [2.0, 0.0, 1.0]]), np.array([[0.3, 0.3, 0.0], [0.0, 0.0, 0.0]])
    net = gk.MLP([gk.Dense(np.eye(3))])
    report = gk.probe(net, logits, loss="cross_entropy", target=target, arithmetic="float64", keep="tensors")
    z = torch.tensor(logits, requires_grad=True)
    torch.nn.functional.cross_entropy(z, torch.tensor(target)).backward()
    np.testing.assert_allclose(report.row(1, "grad_activation").tensor, z.grad.numpy(), rtol=1e-14, atol=1e-17)


@pytest.mark.parametrize("gap", [20.0, 30.0, 100.0])
def test_gradient_of_a_certain_class_does_not_cancel(gap: float) -> None:
    report = gk.probe([gk.Dense(np.eye(3))], [[gap, 0.0, 0.0]], loss="cross_entropy", target=[0], keep="tensors")
    row = report.row(1, "grad_activation")
    assert row.truth is not None
    other = np.exp(-gap) / (1 + 2 * np.exp(-gap))
    np.testing.assert_allclose(row.truth[0] * 2.0**row.reference.exponent, [-2 * other, other, other], rtol=1e-14)
    assert row.structural == 0


def test_saturated_tanh_is_not_structural() -> None:
    report = gk.probe([gk.Dense([[400.0]], None, "tanh"), gk.Dense([[1.0]])], [[1.0]])
    row = report.row(1, "grad_pre_activation")
    assert row.flushed == 1 and row.structural == 0
    assert "dead" not in {finding.kind for finding in report.findings}


def test_terms_below_the_accumulator_are_flushed_not_cancelled() -> None:
    net = [gk.Dense(np.full((1, 1024), 2.0**-13))]
    report = gk.probe(net, np.full((1, 1024), 2.0**-13), arithmetic="float16_pure")
    assert report.row(1, "pre_activation").flushed == 1


def test_annihilated_terms_are_cancelled() -> None:
    report = gk.probe([gk.Dense([[1.0, 1.0, -1.0]])], [[1e8, 1.0, 1e8]], arithmetic="float32")
    assert report.row(1, "pre_activation").cancelled == 1


def test_loss_scale_that_leaves_float64_is_overflow_and_underflow() -> None:
    high = gk.probe([gk.Dense([[1.0]])], [[1.0]], grad_output=[[1e300]], arithmetic="float64", scale=2.0**40)
    assert high.row(1, "grad_activation").overflow == 1 and high.row(1, "grad_activation").rounding.overflow == 1
    low = gk.probe([gk.Dense([[1.0]])], [[1.0]], grad_output=[[1e-300]], arithmetic="float64", scale=2.0**-100)
    assert low.row(1, "grad_activation").flushed == 1


def test_kept_tensors_have_their_shapes() -> None:
    net = gk.MLP.random(widths=[3, 5, 2], bias_std=1.0)
    report = gk.probe(net, np.ones((4, 3)), keep="tensors")
    shapes = {(row.layer, row.role): row.tensor.shape for row in report.layers if row.tensor is not None}
    assert shapes[0, "activation"] == (4, 3) and shapes[1, "activation"] == (4, 5)
    assert shapes[1, "grad_weight"] == shapes[1, "weight"] == (5, 3) and shapes[2, "grad_bias"] == (2,)


def test_fates_are_unknown_without_a_reference() -> None:
    row = gk.probe(gk.MLP.random(depth=1, width=2), np.ones((1, 2)), reference=False).layers[0]
    assert np.isnan(row.surviving)
    with pytest.raises(AttributeError, match="reference"):
        _ = row.kept


def test_a_net_is_a_value() -> None:
    weight = np.eye(2)
    net = gk.MLP([gk.Dense(weight)])
    weight[0, 0] = np.nan
    report = gk.probe(pickle.loads(pickle.dumps(net)), np.ones((1, 2)))
    assert report.loss == 2.0


def test_identity_passes_the_gradient_of_a_nan() -> None:
    assert gk.activation_backward([3.0], [np.nan], "identity")[0] == 3.0
