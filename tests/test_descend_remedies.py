"""What each remedy changes of a run, and that `descend` applies it as one would by hand."""

from __future__ import annotations

import functools
import math

import numpy as np
import pytest
from conftest import bits

import gradkern as gk


def problem(seed: int = 0):
    rng = np.random.default_rng(seed)
    net = gk.MLP.random(widths=[6, 10, 10, 4], activation="tanh", bias_std=0.1, seed=seed)
    return net, rng.standard_normal((16, 6)), rng.standard_normal((16, 4))


def by_hand(net, x, y, steps, lr, arithmetic, *, clip=None, scaler=None, master=None):
    """The same training written out: probe, widen, treat, update, round a copy."""
    rule = gk.arithmetic(arithmetic)
    fmt, masters = master or rule.storage, []
    for layer in net.layers:
        masters += [gk.cast(layer.weight, fmt).values, gk.cast(layer.bias, fmt).values]
    losses = []
    for _ in range(steps):
        layers = [gk.Dense(w, b, "tanh") for w, b in zip(masters[::2], masters[1::2], strict=True)]
        scale = scaler.scale if scaler else 1.0
        report = gk.probe(gk.MLP(layers), x, loss="mse", target=y, arithmetic=rule, scale=scale, keep="tensors")
        losses.append(report.loss)
        rows = [report.row(n, role) for n in range(1, len(layers) + 1) for role in ("grad_weight", "grad_bias")]
        grads = {row.name: row.tensor.copy() for row in rows}
        if clip is not None or scaler is not None:
            grads = {name: g.astype(np.float32) for name, g in grads.items()}
        if scaler is not None and scaler.step(grads, clip, format=rule.storage).skipped:
            continue
        if scaler is None and clip is not None:
            gk.clip_by_global_norm(grads, clip)
        masters = [gk.sgd_update(w, g, lr).weight for w, g in zip(masters, grads.values(), strict=True)]
    return losses, masters


@pytest.mark.parametrize("arithmetic", ["float32", "float16", "bfloat16"])
@pytest.mark.parametrize("clip", [None, 0.2])
@pytest.mark.parametrize("scaled", [False, True])
@pytest.mark.parametrize("master", [None, "float32"])
def test_the_same_as_by_hand(arithmetic, clip, scaled, master):
    net, x, y = problem()
    first = 2.0**24 if arithmetic == "float16" else 2.0**10  # float16 skips some steps
    scalers = [gk.LossScaler(first, interval=3) if scaled else None for _ in range(2)]
    run = gk.descend(net, x, y, lr=0.4, steps=12, arithmetic=arithmetic, clip=clip, scaler=scalers[0],
                     master_weights=master)  # fmt: skip
    losses, masters = by_hand(net, x, y, 12, 0.4, arithmetic, clip=clip, scaler=scalers[1], master=master)
    assert list(run.losses) == losses
    for ours, theirs in zip(run.parameters.values(), masters, strict=True):
        assert np.array_equal(ours.bits, bits(theirs)) and ours.format == (master or gk.arithmetic(arithmetic).storage)
    if scaled:
        assert scalers[0].state_dict() == scalers[1].state_dict()
        skipped = [s.skipped for s in run.steps]
        assert any(skipped) == (arithmetic == "float16") and not all(skipped)
        assert all(s.record.skipped == s.skipped and s.record.scale == s.scale for s in run.steps)


def half(lr: float, arithmetic: str = "float16", **options):
    """One weight at 1.5 that would go to 1 if its updates survived: its gradient is 1, then less."""
    net = gk.MLP([gk.Dense(np.full((1, 256), 1.5), None, "identity")])
    x = np.full((1, 256), 1 / 16)
    return gk.descend(net, x, [[16.0]], lr=lr, steps=200, arithmetic=arithmetic, **options)


def test_stagnation_by_lost_updates_and_its_cures():
    """lr |g| below half an ulp of w = 1.5 in float16, 2^-11: nothing ever moves, but in wider weights or by chance."""
    lr, gradient = 2.0**-12, 2 * 8 / 16
    assert lr * gradient < 2.0**-11
    stuck = half(lr)
    assert stuck.verdict == "stalled" and set(stuck.lost_share) == {1.0} and set(stuck.losses) == {64.0}
    assert (stuck.findings[0].kind, stuck.findings[0].severity) == ("lost_updates", "major")
    assert np.array_equal(stuck.weights[0], np.full((1, 256), 1.5, np.float16))
    exact = half(lr, "float64")
    master, chance = half(lr, master_weights="float32"), half(lr, "float16[rounding=stochastic]")
    assert exact.losses[-1] < 64 * 0.9  # 2 lr per step of the output's distance
    assert master.losses[-1] == pytest.approx(exact.losses[-1], rel=0.01)
    assert chance.losses[-1] == pytest.approx(exact.losses[-1], rel=0.02)
    assert math.isclose(exact.losses[-1], 64 * (1 - 2 * lr) ** (2 * 199), rel_tol=1e-10)
    assert "lost_updates" not in [f.kind for f in (*master.findings, *chance.findings)]
    assert half(2.0**-1).verdict == "converged"  # a rate whose updates survive


def test_rounding_a_tie_to_even_moves_every_second_weight():
    """lr g is exactly half an ulp: 1 + 1 ulp goes down to 1 or up to 1 + 2 ulp, 1 and 1 + 2 ulp stay."""
    ulp = 2.0**-10
    weight = np.float16(1 + ulp * np.arange(4))
    result = gk.sgd_update(weight, np.full(4, 1.0), -ulp / 2)
    assert np.array_equal(result.weight, np.float16(1 + ulp * np.array([0, 2, 2, 4]))) and result.report.lost == 2


def test_clipping_breaks_the_loop():
    net = gk.MLP([gk.Dense([[1.5]], None, "identity") for _ in range(4)])
    options = {"lr": 0.05, "steps": 400, "arithmetic": "float16"}
    loop = gk.descend(net, [[1.0]], [[1.0]], **options | {"lr": 0.2})
    clipped = gk.descend(net, [[1.0]], [[1.0]], **options, clip=0.5)
    assert loop.verdict == "overflowed" and clipped.verdict == "converged"
    assert clipped.steps[0].coefficient == pytest.approx(0.5 / 2.0 ** clipped.steps[0].log2_gradient_norm, rel=1e-6)
    wanted = [s.update.log2_wanted for s in clipped.steps]
    assert max(wanted) <= math.log2(0.05 * 0.5) + 1e-6


def test_clippers_of_every_kind_are_called_on_true_gradients():
    net, x, y = problem()
    options = {"lr": 0.1, "steps": 5, "arithmetic": "float16", "scaler": 2.0**6}
    by_value = gk.descend(net, x, y, clip=functools.partial(gk.clip_by_value, low=-0.01, high=0.01), **options)
    assert all(2.0**s.update.log2_wanted <= 0.001 * math.sqrt(s.update.size) * 1.0001 for s in by_value.steps)
    clipper = gk.QuantileClipper(0.5)
    run = gk.descend(net, x, y, clip=clipper, **options)
    assert run.clip == "QuantileClipper"
    norms = [2.0**s.log2_gradient_norm for s in run.steps]
    assert list(clipper.state_dict()["history"]) == pytest.approx(norms, rel=1e-6)


def test_a_clipper_that_refuses_leaves_the_gradients_alone():
    net = gk.MLP([gk.Dense([[1.0]], None, "identity")])
    run = gk.descend(net, [[math.inf]], [[0.0]], lr=0.1, steps=2, clip=gk.QuantileClipper(), arithmetic="float32")
    assert math.isnan(run.steps[0].coefficient) and run.verdict == "overflowed"


def test_a_loss_scale_saves_gradients_that_flush():
    """2 (w x - y) x = -2^-25 is rounded to zero in float16; at a loss scale of 2^10 it is not."""
    net, x, y = gk.MLP([gk.Dense([[0.0]], None, "identity")]), [[2.0**-20]], [[2.0**-6]]
    options = {"lr": 2.0**20, "steps": 3, "arithmetic": "float16"}
    plain = gk.descend(net, x, y, **options)
    assert plain.verdict == "stalled" and plain.findings[0].kind == "flushed"
    scaled = gk.descend(net, x, y, scaler=2.0**10, **options)
    assert scaled.steps[0].log2_gradient_norm == -25 and scaled.steps[0].update.log2_wanted == -5
    assert float(scaled.weights[0][0, 0]) > 0


def test_a_scaler_skips_and_the_run_survives():
    net, x, y = problem()
    scaler = gk.LossScaler(2.0**24, interval=1000)
    run = gk.descend(net, x, y, lr=0.1, steps=30, arithmetic="float16", scaler=scaler)
    skipped = [s.skipped for s in run.steps]
    count = sum(skipped)
    assert 0 < count < 10 and skipped == [True] * count + [False] * (30 - count)
    assert scaler.scale == 2.0 ** (24 - count) and run.first_nonfinite.cause == "overflow"
    assert run.verdict == "descends" and run.findings[0].kind == "skipped"
    assert len({s.loss for s in run.steps[: count + 1]}) == 1  # no weight moved


def test_a_scaler_at_its_floor_ends_the_run_without_an_exception():
    net = gk.MLP([gk.Dense([[1.0]], None, "identity")])
    run = gk.descend(net, [[300.0]], [[-300.0]], lr=0.1, steps=9, arithmetic="float16", scaler=gk.LossScaler(4.0))
    assert [s.scale for s in run.steps] == [4.0, 2.0, 1.0] and "floor" in run.stopped
    assert run.verdict == "overflowed" and run.findings[0].kind == "loss_scale_floor"


def test_saturation_keeps_a_run_finite():
    net = gk.MLP([gk.Dense([[1.5]], None, "identity") for _ in range(4)])
    run = gk.descend(net, [[1.0]], [[1.0]], lr=0.2, steps=6, arithmetic="float16[overflow=saturate]")
    assert np.isfinite(run.losses).all() and run.first_nonfinite is None and run.events("overflow").sum() > 0
    assert run.verdict == "diverged"
