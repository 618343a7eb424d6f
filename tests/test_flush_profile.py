"""What a format would make of a chain, predicted from one reference run, against casts of the truth and against reruns."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest

import gradkern as gk
from gradkern.flush_profile import COUNTS

FORMATS = ["float16", "bfloat16", "float8_e5m2", "float8_e4m3fn"]


@pytest.fixture(scope="module")
def reference() -> gk.ChainReport:
    net = gk.MLP.random(depth=24, width=48, activation="sigmoid", init="xavier_normal", seed=2)
    x = np.random.default_rng(1).standard_normal((32, 48))
    return gk.probe(net, x, arithmetic="float32", keep="tensors")


@pytest.mark.parametrize("scale", [1.0, 2.0**12, 2.0**-20])
@pytest.mark.parametrize("fmt", FORMATS)
def test_it_is_the_cast_of_every_true_tensor(reference: gk.ChainReport, fmt: str, scale: float) -> None:
    for role in ("grad_pre_activation", "grad_weight"):
        profile = reference.flush_profile(fmt, scale, role)
        assert (profile.format, profile.scale, profile.role) == (fmt, scale, role)
        for row, layer, fit in zip(reference.rows(role), profile.layers, profile.fits, strict=True):
            assert row.reference is not None and layer == row.layer
            cast = gk.cast(row.truth, fmt, scale=scale * 2.0**row.reference.exponent).report
            for name in ("flushed", "subnormal", "overflow"):
                bracket = getattr(fit, name)
                assert bracket.low <= getattr(cast, name) <= bracket.high, (row.name, name)
            assert fit.flushed == cast.flushed
            if fmt == "float16":
                assert (fit.subnormal, fit.overflow) == (cast.subnormal, cast.overflow)


def test_shares_sum_to_one(reference: gk.ChainReport) -> None:
    profile = reference.flush_profile("float16", 2.0**8)
    low = sum(profile.share(name)[0] for name in COUNTS)
    assert np.allclose(low, 1.0, atol=1e-12)  # float16 leaves nothing open
    open_ = reference.flush_profile("float8_e5m2")
    assert all(np.all(open_.share(name)[0] <= open_.share(name)[1]) for name in COUNTS)


@pytest.mark.parametrize("log2_scale", [0, 9])
def test_a_rerun_of_halving_chains_loses_exactly_what_is_predicted(log2_scale: int) -> None:
    """Powers of two are rounded nowhere, and what flushed stays zero as the truth goes on falling: once is as good as always."""
    net = gk.MLP([gk.Dense([[0.5]]) for _ in range(45)])
    gradients = 2.0 ** np.arange(-8.0, 6.0)[:, None]
    options = {"x": np.ones((14, 1)), "grad_output": gradients, "scale": 2.0**log2_scale}
    reference = gk.probe(net, arithmetic="float32", **options)
    run = gk.probe(net, arithmetic="float16", **options)
    profile = reference.flush_profile("float16")
    rows = run.rows("grad_pre_activation")
    assert [int(c) for c in profile.counts("flushed")] == [row.flushed + row.inherited for row in rows]
    assert [int(c) for c in profile.counts("subnormal")] == [row.subnormal for row in rows]
    assert [int(c) for c in profile.counts("overflow")] == [row.overflow for row in rows]
    assert sum(row.inherited for row in rows) > 100 and sum(row.subnormal for row in rows) > 100


@pytest.mark.parametrize("scale", [1.0, 2.0**10])
@pytest.mark.parametrize("fmt", ["float16", "float8_e5m2"])
def test_a_rerun_in_the_format_agrees_to_first_order(reference: gk.ChainReport, fmt: str, scale: float) -> None:
    net = gk.MLP.random(depth=24, width=48, activation="sigmoid", init="xavier_normal", seed=2)
    run = gk.probe(net, np.random.default_rng(1).standard_normal((32, 48)), arithmetic=fmt, scale=scale)
    rows, profile = run.rows("grad_pre_activation"), reference.flush_profile(fmt, scale)
    lost = sum(row.live - row.kept - row.subnormal for row in rows) / sum(row.live for row in rows)
    predicted = sum(int(c) for c in profile.counts("flushed")) / sum(profile.nonzero)
    assert predicted == pytest.approx(lost, abs=0.02) and 0.2 < lost < 0.9
    assert abs(reference.effective_depth(fmt, scale=scale) - run.effective_depth()) <= 1
    assert run.flush_profile().format == fmt and run.flush_profile().scale == scale  # the run's own by default


def test_forward_roles_carry_no_loss_scale(reference: gk.ChainReport) -> None:
    assert reference.flush_profile("float16", 2.0**20, "activation").scale == 1.0
    assert all(c == 0 for c in reference.flush_profile("float16", 2.0**20, "activation").counts("overflow"))


def test_refusals(reference: gk.ChainReport) -> None:
    for arguments, message in (
        (("float17",), "float17"), (("float16", 3.0), "power of two"), (("float16", 1.0, "gradient"), "role: must be one of"),
    ):  # fmt: skip
        with pytest.raises(ValueError, match=message):
            reference.flush_profile(*arguments)
    with pytest.raises(ValueError, match="name must be one of"):
        reference.flush_profile().counts("lost")
    bare = gk.probe(gk.MLP.random(depth=2, width=3), np.ones((1, 3)), reference=False)
    with pytest.raises(ValueError, match="needs the reference chain"):
        bare.flush_profile()


def test_it_is_shown_written_and_drawn(reference: gk.ChainReport) -> None:
    profile = reference.flush_profile("float8_e5m2", 2.0**4)
    text = repr(profile)
    assert text.startswith("FlushProfile: grad_pre_activation in float8_e5m2 at scale 2^4, rounded once")
    assert text.splitlines()[2].split()[0] == "24" and len(text.splitlines()) == 14
    assert profile._repr_html_().count("<tr>") == 13
    payload = json.loads(json.dumps(profile.to_dict(), allow_nan=False))
    assert len(payload["layers"]) == 24 and payload["layers"][0]["flushed"]["low"] == profile.fits[0].flushed
    frame = pytest.importorskip("pandas") and profile.to_frame()
    assert list(frame["layer"]) == profile.layers and (frame["flushed_low"] == frame["flushed_high"]).all()
    pytest.importorskip("matplotlib")
    ax = profile.plot()
    assert [c.get_label() for c in ax.collections] == list(COUNTS) and "2^4" in ax.get_title(loc="left")


def test_a_dead_layer_has_no_shares() -> None:
    net = gk.MLP([gk.Dense(np.eye(3), -10.0 * np.ones(3), "relu"), gk.Dense(np.eye(3))])
    low, high = gk.probe(net, np.ones((2, 3))).flush_profile().share("flushed")
    assert math.isnan(low[0]) and math.isnan(high[0]) and (low[1], high[1]) == (0.0, 0.0)
