"""What a `ChainReport` says, against answers known by hand, by brute force, or by conservation."""

from __future__ import annotations

import json
import re

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import gradkern as gk
from gradkern.report import FATES, GRADIENT_ROLES, ROLES

PRESETS = [info.name for info in gk.arithmetics()]


def scalar_chain(*weights: float) -> gk.MLP:
    return gk.MLP([gk.Dense([[w]], name=f"layers.{i}") for i, w in enumerate(weights)])


def random_report(**options: object) -> gk.ChainReport:
    net = gk.MLP.random(depth=6, width=7, activation="tanh", init="xavier_normal", bias_std=0.1)
    x = np.random.default_rng(1).standard_normal((5, 7))
    return gk.probe(net, x, **options)  # type: ignore[arg-type]


def kinds(report: gk.ChainReport) -> set[str]:
    return {finding.kind for finding in report.findings}


def finding(report: gk.ChainReport, kind: str) -> gk.Finding:
    return next(f for f in report.findings if f.kind == kind)


def test_rows_are_by_layer_and_row_finds_each() -> None:
    report = random_report()
    assert [row.layer for row in report.rows("grad_pre_activation")] == [1, 2, 3, 4, 5, 6]
    assert [row.layer for row in report.rows("activation")] == [0, 1, 2, 3, 4, 5, 6]
    assert sum(len(report.rows(role)) for role in ROLES) == len(report.layers)
    for row in report.layers:
        assert report.row(row.layer, row.role) is row
    with pytest.raises(ValueError, match="role: must be one of"):
        report.rows("gradient")
    with pytest.raises(KeyError, match="layer 7"):
        report.row(7, "grad_weight")


@pytest.mark.parametrize(("weight", "slope"), [(0.5, -1.0), (2.0, 1.0), (-0.25, -2.0), (1.0, 0.0)])
def test_decay_rate_of_a_scalar_chain_is_log2_of_its_weight(weight: float, slope: float) -> None:
    report = gk.probe(scalar_chain(*[weight] * 20), [[1.0]], arithmetic="float16")
    for role in ("grad_pre_activation", "pre_activation"):
        rate = report.decay_rate(role)
        assert (rate.bits_per_layer, rate.low, rate.high) == (slope, slope, slope)
    assert report.decay_rate().points == 20


def test_effective_depth_of_a_halving_chain() -> None:
    report = gk.probe(scalar_chain(*[0.5] * 40), [[1.0]], arithmetic="float16")
    assert report.effective_depth() == 25  # 2^0 .. 2^-24 are float16 numbers, 2^-25 ties to zero
    assert report.effective_depth("float16") == 25
    assert report.effective_depth("float16", scale=2.0**3) == 28
    assert report.effective_depth("float32") == 40
    assert report.effective_depth("float16", scale=2.0**16) == 0  # the loss's own gradient overflows
    with pytest.raises(ValueError, match="p must be between 0 and 1"):
        report.effective_depth(p=1.5)


def test_the_stored_chain_stalls_where_rounding_once_would_flush() -> None:
    # 0.75 * 2^-24 rounds back to 2^-24 for ever, while 0.75^k falls to 2^-25 or below at k = 61
    report = gk.probe(scalar_chain(*[0.75] * 80), [[1.0]], arithmetic="float16")
    assert report.effective_depth() == 80
    assert report.effective_depth("float16") == 61
    assert finding(report, "stalled").severity == "major"
    first = report.first("stalled")
    assert first is not None and first.stalled == 1


def allowed_scales(report: gk.ChainReport, fmt: str, lose: float, exponents: range) -> list[int]:
    """Cast every true gradient at every power of two."""
    rows = [row for row in report.layers if row.role in GRADIENT_ROLES]
    allowed = []
    for k in exponents:
        good = True
        for row in rows:
            assert row.reference is not None
            cast = gk.cast(row.truth, fmt, scale=2.0 ** (k + row.reference.exponent)).report
            good &= cast.overflow == 0 and cast.flushed <= lose * row.reference.nonzero
        if good:
            allowed.append(k)
    return allowed


@pytest.mark.parametrize("fmt", ["float16", "bfloat16", "float8_e5m2", "float8_e4m3fn"])
@pytest.mark.parametrize(
    ("activation", "gain", "lose"), [("tanh", 1.0, 1e-3), ("relu", 0.8, 0.05), ("identity", 1.5, 0.0)]
)
def test_loss_scale_window_is_what_brute_force_finds(fmt: str, activation: str, gain: float, lose: float) -> None:
    net = gk.MLP.random(depth=4, width=12, activation=activation, init="he_normal", gain=gain, seed=3)
    x = np.random.default_rng(2).standard_normal((8, 12))
    report = gk.probe(net, x, arithmetic="float16", keep="tensors")
    allowed = allowed_scales(report, fmt, lose, range(-160, 150))
    window = report.loss_scale_window(fmt, lose)
    assert window.exists == bool(allowed)
    if allowed:
        assert (window.low, window.high) == (2.0 ** allowed[0], 2.0 ** allowed[-1])
        assert window.best in [2.0**k for k in allowed]
        assert window.headroom_bits == allowed[-1] - allowed[0]
    else:
        assert "no loss scale fits" in window.why


@pytest.mark.parametrize("fmt", ["float32", "float16", "float8_e4m3fn"])
@pytest.mark.parametrize("gain", [0.5, 1.0, 3.0])
@pytest.mark.parametrize("lose", [0.0, 1e-3, 0.3])
def test_loss_scale_window_is_the_tightest_of_all_tensors(fmt: str, gain: float, lose: float) -> None:
    net = gk.MLP.random(depth=30, width=9, activation="tanh", init="xavier_normal", gain=gain, bias_std=0.2)
    report = gk.probe(net, np.random.default_rng(5).standard_normal((6, 9)), arithmetic="float32")
    gradients = [r.reference for role in GRADIENT_ROLES for r in report.rows(role) if r.reference and r.reference.amax]
    low = max(stats.smallest_scale(fmt, lose) or 0 for stats in gradients)
    high = min(stats.largest_scale(fmt) or 0 for stats in gradients)
    window = report.loss_scale_window(fmt, lose)
    assert (window.low, window.high, window.exists) == (2.0**low, 2.0**high, low <= high)


def test_loss_scale_window_names_the_tensors_that_conflict() -> None:
    report = gk.probe(scalar_chain(*[0.5] * 60), [[1.0]], arithmetic="float16")
    window = report.loss_scale_window()
    assert not window.exists
    assert "layer 0 grad_activation needs at least 2^36" in window.why  # 2^-60 * 2^36 = 2^-24
    assert report.loss_scale_window("bfloat16").exists


def test_forward_overflow_is_found_where_it_is_made() -> None:
    report = gk.probe(scalar_chain(300.0, 300.0, 1e-3), [[1.0]], arithmetic="float16")
    found = report.findings[0]
    assert (found.kind, found.severity, found.where) == ("overflow", "critical", "layer 2 (pre_activation)")
    assert "a loss scale cannot help" in found.remedy
    first = report.first("overflow")
    assert first is not None and (first.layer, first.role, first.overflow) == (2, "pre_activation", 1)
    assert report.row(2, "activation").overflow == 0 and report.row(2, "activation").inherited == 1


def test_saturating_overflow_does_not_reach_the_gradients() -> None:
    arithmetic = "float16[overflow=saturate]"
    report = gk.probe(scalar_chain(300.0, 300.0, 1e-3), [[1.0]], arithmetic=arithmetic)
    assert finding(report, "overflow").severity == "major"
    assert not any(row.nonfinite for row in report.layers)


def test_backward_overflow_by_the_loss_scale_is_cured_by_the_scale_it_names() -> None:
    net = scalar_chain(1.0, 1.0, 1.0)
    report = gk.probe(net, [[1.0]], arithmetic="float16", scale=2.0**17)
    found = report.findings[0]
    assert (found.kind, found.severity) == ("overflow", "critical")
    assert found.where.startswith("layer 3 (grad_")
    best = report.loss_scale_window().best
    assert best is not None and f"a loss scale of 2^{np.log2(best):g}" in found.remedy
    assert gk.probe(net, [[1.0]], arithmetic="float16", scale=best).findings == []


def test_flushed_gradients_and_those_that_inherit_them() -> None:
    report = gk.probe(scalar_chain(*[0.5] * 40), [[1.0]], arithmetic="float16")
    assert report.row(15, "grad_activation").flushed == 1  # W^T of 2^-24
    assert [report.row(k, "grad_pre_activation").inherited for k in (15, 14, 1)] == [1, 1, 1]
    assert report.row(16, "grad_pre_activation").subnormal == 1
    gradient = [f for f in report.findings if f.kind == "flushed" and "grad_activation" in f.where]
    assert len(gradient) == 1 and gradient[0].severity == "major"
    # the weight gradient 2^-39 flushes wherever neither of its factors has been flushed before it
    assert gradient[0].where == "layers 15-25 (grad_weight, grad_activation)"


def test_dead_relu() -> None:
    report = gk.probe(gk.MLP([gk.Dense(np.eye(3), -10.0 * np.ones(3), "relu")]), np.ones((2, 3)))
    assert kinds(report) == {"dead"}
    assert report.row(1, "grad_pre_activation").structural == 6
    assert report.row(1, "grad_pre_activation").surviving == 0.0
    assert report.effective_depth() == 0


def test_row_has_a_readable_repr() -> None:
    row = gk.probe(scalar_chain(0.5, 0.5), [[1.0]]).row(1, "grad_pre_activation")
    assert repr(row) == "LayerRow(layer 1 grad_pre_activation, 1 entries: 1 kept; log2 norm -1.00, true -1.00)"


def test_sigmoid_vanishes() -> None:
    net = gk.MLP.random(depth=20, width=16, activation="sigmoid", init="xavier_normal")
    report = gk.probe(net, np.random.default_rng(0).standard_normal((8, 16)), arithmetic="float32")
    assert kinds(report) == {"vanishing"}
    assert "sigmoid" in finding(report, "vanishing").remedy
    assert report.decay_rate().bits_per_layer < -1


def test_a_healthy_chain_has_no_findings() -> None:
    net = gk.MLP.random(depth=8, width=32, activation="tanh", init="xavier_normal")
    report = gk.probe(net, np.random.default_rng(0).standard_normal((16, 32)), arithmetic="bfloat16")
    assert report.findings == []
    assert report.effective_depth() == 8


def test_findings_come_most_severe_first() -> None:
    net = gk.MLP.random(depth=12, width=16, activation="relu", gain=4.0)
    report = gk.probe(net, np.random.default_rng(0).standard_normal((8, 16)), arithmetic="float16")
    order = [("critical", "major", "minor").index(f.severity) for f in report.findings]
    assert len(order) >= 2 and order[0] == 0 and order == sorted(order)


@settings(max_examples=60, deadline=None)
@given(
    depth=st.integers(1, 5), width=st.integers(1, 9), batch=st.integers(1, 4), seed=st.integers(0, 2**32),
    activation=st.sampled_from(gk.activations()), arithmetic=st.sampled_from(PRESETS), log2_gain=st.integers(-14, 14),
    log2_scale=st.integers(-20, 24), subnormals=st.sampled_from(["keep", "flush"]),
)  # fmt: skip
def test_every_entry_has_one_fate(
    depth: int, width: int, batch: int, seed: int, activation: str, arithmetic: str, log2_gain: int, log2_scale: int,
    subnormals: str,
) -> None:  # fmt: skip
    net = gk.MLP.random(depth=depth, width=width, activation=activation, gain=2.0**log2_gain, bias_std=0.1, seed=seed)
    x = np.random.default_rng(seed).standard_normal((batch, width))
    rule = f"{arithmetic}[subnormals={subnormals}]"
    report = gk.probe(net, x, arithmetic=rule, scale=2.0**log2_scale)
    assert report.layers
    for row in report.layers:
        assert set(row.fates) == set(FATES)
        assert sum(getattr(row, fate) for fate in FATES) == row.size, row.name
        assert min(row.fates.values()) >= 0
        assert row.rounding.size == row.size == row.stats.size
        for fate, count in row.fates.items():
            assert (row.first[fate] is None) == (count == 0), (row.name, fate)


@pytest.mark.parametrize("ending", ["json", "json.gz", "npz"])
@pytest.mark.parametrize("scale", [1.0, 2.0**40])
def test_save_and_load_give_the_same_report(tmp_path, ending: str, scale: float) -> None:  # type: ignore[no-untyped-def]
    report = random_report(scale=scale, arithmetic="float16[rounding=stochastic,seed=3]")
    path = tmp_path / f"report.{ending}"
    report.save(path)
    loaded = gk.ChainReport.load(path)
    assert loaded.to_dict() == report.to_dict()
    assert loaded.arithmetic == report.arithmetic
    assert loaded.summary() == report.summary()


def test_load_refuses_what_is_not_a_report(tmp_path) -> None:  # type: ignore[no-untyped-def]
    good = tmp_path / "good.json.gz"
    random_report().save(good)
    raw = good.read_bytes()
    damaged = raw[:500] + bytes([raw[500] ^ 255]) + raw[501:]
    cases = {
        "cut.json.gz": raw[:100], "damaged.json.gz": damaged, "text.json": b"hello",
        "list.json": b"[1]", "bare.json": b'{"gradkern_report": 2}', "future.json": b'{"gradkern_report": 99}',
    }  # fmt: skip
    for name, content in cases.items():
        (tmp_path / name).write_bytes(content)
        with pytest.raises(ValueError, match=r"ChainReport\.load: .* holds no saved ChainReport"):
            gk.ChainReport.load(tmp_path / name)


def _strictly(text: bytes) -> dict:  # type: ignore[type-arg]
    """Parse as a parser without NaN and Infinity, which no JSON has."""

    def refuse(literal: str) -> None:
        raise AssertionError(f"{literal} is not JSON")

    return json.loads(text, parse_constant=refuse)  # type: ignore[no-any-return]


@pytest.mark.parametrize("recurrent", [False, True])
def test_saved_reports_are_strict_json(tmp_path, recurrent: bool) -> None:  # type: ignore[no-untyped-def]
    """Also where values are NaN and infinite; those saved as literals still load."""
    net = gk.RNN.random(hidden=3, inputs=2) if recurrent else gk.MLP.random(depth=2, width=2)
    x = np.zeros((4, 2, 2)) if recurrent else np.full((3, 2), 1e300)
    report = gk.probe(net, x, arithmetic="float16", scale=2.0**40)
    path = tmp_path / "report.json"
    report.save(path)
    _strictly(path.read_bytes())
    text = path.read_text()
    literals = {"nan": "NaN", "inf": "Infinity", "-inf": "-Infinity"}
    former = re.sub('"(nan|-?inf)"(?!:)', lambda value: literals[value[1]], text)
    assert former != text
    for name, content in (("report.json", text), ("former.json", former), ("former.txt", former)):
        (tmp_path / name).write_text(content)
        loaded = gk.ChainReport.load(tmp_path / name)
        assert loaded.to_dict() == report.to_dict() and type(loaded) is type(report)
        np.testing.assert_equal(list(loaded.records), [dict(r) for r in report.records])
    with pytest.raises(ValueError, match=r"save: the name must end in .* got 'report\.txt'"):
        report.save(tmp_path / "report.txt")


@pytest.mark.parametrize("scale", [1.0, 2.0**40])
def test_to_dict_is_strict_json(scale: float) -> None:
    report = random_report(scale=scale)
    text = json.dumps(report.to_dict(), allow_nan=False)
    back = json.loads(text)
    assert len(back["layers"]) == len(report.layers)
    assert [f["kind"] for f in back["findings"]] == [f.kind for f in report.findings]
    assert back["layers"][0]["stats"]["size"] == report.layers[0].size
    binades = back["layers"][0]["stats"]["binades"]
    assert sum(binades.values()) == report.layers[0].stats.nonzero


def test_to_frame_has_a_line_for_every_row() -> None:
    pytest.importorskip("pandas")
    report = random_report()
    frame = report.to_frame()
    assert len(frame) == len(report.layers)
    assert list(frame["role"]) == [row.role for row in report.layers]
    assert list(frame["flushed"]) == [row.flushed for row in report.layers]
    assert np.array_equal(frame["log2_norm"], [row.log2_norm for row in report.layers], equal_nan=True)


def test_without_a_reference_only_what_rounding_counts_is_known() -> None:
    report = random_report(reference=False)
    assert not report.has_reference and report.reference_loss is None
    assert report.findings == []
    assert all(row.reference is None and np.isnan(row.relative_error) for row in report.layers)
    assert np.isfinite(report.decay_rate().bits_per_layer)
    for method in (report.effective_depth, report.loss_scale_window):
        with pytest.raises(ValueError, match="needs the reference chain"):
            method()
    assert json.loads(json.dumps(report.to_dict(), allow_nan=False))["effective_depth"] is None


def test_overflow_is_found_without_a_reference() -> None:
    report = random_report(reference=False, scale=2.0**40)
    assert kinds(report) == {"overflow"}
    first = report.first("overflow")
    assert first is not None and first.role == "grad_activation" and first.layer == 6


def test_first_knows_every_event_and_refuses_others() -> None:
    report = random_report()
    for event in (*FATES, "stalled"):
        row = report.first(event)
        if row is not None:
            earlier = report.layers[: report.layers.index(row)]
            assert getattr(row, event) > 0 and all(getattr(r, event) == 0 for r in earlier)
    assert report.first("kept") is report.layers[0]
    with pytest.raises(ValueError, match="first: event must be one of"):
        report.first("explosion")


@pytest.mark.parametrize(
    ("fmt", "value", "advice"),
    [("float16", 1e30, "scale x down, or a format with more range (bfloat16)"),
     ("float16", 1e300, "scale x down, or a format with more range (float64)"),
     ("bfloat16", 1e39, "scale x down, or a format with more range (float64)"),
     ("float32", 1e39, "scale x down, or a format with more range (float64)")],
)  # fmt: skip
def test_advice_for_an_overflow_is_a_format_that_holds_the_number(fmt, value, advice):
    net = gk.MLP.random(depth=1, width=4, activation="tanh", seed=0)
    assert gk.probe(net, np.full((1, 4), value), arithmetic=fmt).findings[0].remedy.endswith(advice)


def test_no_format_is_advised_beyond_float64():
    net = gk.MLP.random(depth=50, width=4, activation="identity", gain=1e30, seed=0)
    worst = gk.probe(net, np.ones((2, 4)), arithmetic="float64").findings[0]
    assert worst.kind == "overflow" and worst.remedy.endswith("a smaller init or gain")


def test_saturated_units_ask_for_smaller_weights():
    net = gk.MLP.random(depth=40, width=16, activation="tanh", init="normal", gain=30.0, seed=0)
    (decay,) = (f for f in gk.probe(net, np.ones((4, 16))).findings if f.kind == "vanishing")
    assert decay.remedy.startswith("smaller weights: ") and "tanh is flat" in decay.remedy
    smaller = gk.MLP.random(depth=40, width=16, activation="tanh", init="xavier_normal", seed=0)
    steep = gk.probe(smaller, np.ones((4, 16)))
    assert not any(f.remedy.startswith("smaller weights") for f in steep.findings)
    assert steep.decay_rate().bits_per_layer > -2.0


@pytest.mark.parametrize("rows", [-np.ones((2, 4)), np.full((2, 4), np.nan), np.full((2, 4), np.inf)])
def test_a_target_that_is_no_probability_is_refused(rows):
    net = gk.MLP.random(depth=2, width=4, seed=0)
    with pytest.raises(ValueError, match=r"target of cross_entropy must hold .* or probabilities; row 0 holds"):
        gk.probe(net, np.ones((2, 4)), loss="cross_entropy", target=rows)


def test_the_name_of_a_loss_and_its_value_are_apart():
    report = gk.probe(gk.MLP.random(depth=2, width=4, seed=0), np.ones((2, 4)), loss="cross_entropy", target=[0, 1])
    assert re.search(r"loss \(cross_entropy\) \d", repr(report))
