"""Loss scaling: torch's scales inside floor and ceiling, records that say why, and no gradient touched by a bad step."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import gradkern as gk

GOOD, BAD = np.array([1.0, -2.0], np.float32), np.array([1.0, np.inf], np.float32)


def run(scaler, outcomes):
    """Steps of one tensor, good or bad; a floor's error gives its record."""
    records = []
    for good in outcomes:
        try:
            records.append(scaler.step({"weight": (GOOD if good else BAD).copy()}))
        except gk.LossScaleFloorError as error:
            records.append(error.record)
    return records


@given(
    outcomes=st.lists(st.booleans(), max_size=60),
    interval=st.integers(1, 7),
    start=st.integers(-20, 20),
    growth=st.sampled_from([2.0, 4.0, 8.0]),
    backoff=st.sampled_from([0.5, 0.25]),
)
@settings(max_examples=150, deadline=None)
def test_scales_are_those_of_torch(outcomes, interval, start, growth, backoff):
    torch = pytest.importorskip("torch")
    parameter = torch.nn.Parameter(torch.zeros(2))
    optimizer = torch.optim.SGD([parameter], lr=0.0)
    theirs = torch.amp.GradScaler(
        "cpu", init_scale=2.0**start, growth_factor=growth, backoff_factor=backoff, growth_interval=interval
    )
    theirs.scale(torch.zeros(()))
    ours = gk.LossScaler(2.0**start, growth, backoff, interval, floor=2.0**-120, ceiling=2.0**120)
    for good in outcomes:
        if not 2.0**-100 < ours.scale < 2.0**100:
            break
        grads = (GOOD if good else BAD) * np.float32(ours.scale)
        parameter.grad = torch.from_numpy(grads.copy())
        theirs.step(optimizer)
        theirs.update()
        record = ours.step([grads])
        assert record.skipped is not good
        assert ours.scale == record.next_scale == theirs.get_scale()
        assert ours.clean == theirs.state_dict()["_growth_tracker"]
        if good:
            np.testing.assert_array_equal(grads, parameter.grad.numpy())


@pytest.mark.parametrize("name", ["initial", "growth", "backoff", "floor", "ceiling"])
@pytest.mark.parametrize("value", [3.0, 0.0, -2.0, math.inf, math.nan])
def test_only_powers_of_two(name, value):
    with pytest.raises(ValueError, match=f"LossScaler: {name} must be a power of two"):
        gk.LossScaler(**{name: value})


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"growth": 1.0}, "growth must be at least 2"),
        ({"backoff": 1.0}, "backoff must be at most 0.5"),
        ({"interval": 0}, "interval must be at least 1"),
        ({"hysteresis": 0}, "hysteresis must be at least 1"),
        ({"initial": 0.5}, "initial must lie between floor 1 and ceiling"),
        ({"initial": 2.0**25}, "initial must lie between"),
        ({"floor": 4.0, "ceiling": 2.0}, "floor 4 is above ceiling 2"),
    ],
)
def test_ranges(options, words):
    with pytest.raises(ValueError, match=words):
        gk.LossScaler(**options)


@pytest.mark.parametrize(
    ("name", "value"), [("initial", "4"), ("floor", True), ("interval", 2.0), ("hysteresis", True)]
)
def test_only_numbers(name, value):
    with pytest.raises(TypeError, match=f"LossScaler: {name} must be"):
        gk.LossScaler(**{name: value})


def test_a_good_step_unscales_in_place_and_clips():
    grads = {"a": np.array([3.0, 0.0], np.float32) * 1024, "b": np.array([4.0], np.float32) * 1024}
    record = gk.LossScaler(1024.0).step(grads, max_norm=1.0)
    assert (record.skipped, record.norm, record.coefficient, record.tensor) == (False, 5.0, 0.2, None)
    np.testing.assert_allclose(grads["a"], [0.6, 0], rtol=1e-7)
    np.testing.assert_allclose(grads["b"], [0.8], rtol=1e-7)


def test_whatever_clipping_takes():
    arrays = {"a": np.array([8.0], np.float32), "b": {"c": np.array([16.0])}}
    group = gk.GradientGroup(arrays)
    scaler = gk.LossScaler(8.0)
    assert scaler.step(group).norm == pytest.approx(math.sqrt(5))
    assert (arrays["a"][0], arrays["b"]["c"][0]) == (1.0, 2.0)
    arrays["b"]["c"][0] = np.nan
    assert scaler.step(group).tensor == "b.c"
    torch = pytest.importorskip("torch")
    tensor = torch.tensor([8.0, 0.0], dtype=torch.bfloat16)
    assert gk.LossScaler(8.0).step([tensor]).norm == 1
    assert tensor.tolist() == [1.0, 0.0]
    with pytest.raises(TypeError, match="complex"):
        scaler.step([np.ones(2, complex)])
    with pytest.raises(ValueError, match="max_norm"):
        scaler.step(group, max_norm=-1.0)
    assert scaler.state_dict()["steps"] == 2


def test_a_bad_step_touches_nothing_and_names_the_first():
    bad = np.array([[1.0, 2.0], [np.nan, np.inf]], np.float32)
    grads = {"fine": np.ones(3, np.float32), "bad": bad, "worse": np.full(5, -np.inf, np.float32)}
    before = {name: g.tobytes() for name, g in grads.items()}
    record = gk.LossScaler().step(grads, max_norm=1e-3)
    assert {name: g.tobytes() for name, g in grads.items()} == before
    assert (record.skipped, record.tensor, record.index, record.nonfinite) == (True, "bad", 2, {"bad": 2, "worse": 5})
    assert (record.scale, record.next_scale, record.margin) == (2.0**16, 2.0**15, None)
    assert record.where == "bad[2] is the first of 7 entries that are NaN or infinite: worse 5 and bad 2"
    assert "skipped at scale 2^16, next 2^15" in repr(record)


@pytest.mark.parametrize(
    ("dtype", "largest", "margin"), [(np.float16, 65504.0, 0), (np.float16, 1.0, 15), (np.float32, 1.0, 127)]
)
def test_margin_is_how_often_the_scale_can_double(dtype, largest, margin):
    grads = np.array([largest, 0.25], dtype)
    with np.errstate(over="ignore"):
        assert np.isfinite(grads * dtype(2.0**margin)).all()
        assert not np.isfinite(grads * dtype(2.0**margin) * dtype(2)).all()
    assert gk.LossScaler(2.0**4).step([grads]).margin == margin


def test_margin_is_that_of_the_tensor_nearest_to_its_edge():
    grads = [np.array([2.0**100], np.float32), np.array([2.0**10], np.float16), np.array([0.0], np.float16)]
    assert gk.LossScaler(1.0).step(grads).margin == 5
    assert gk.LossScaler(1.0).step([np.zeros(3, np.float16)]).margin is None
    assert gk.LossScaler(1.0).step([]).margin is None


def test_margin_may_be_to_the_edge_of_a_narrower_format():
    grads = [np.array([2.0**10], np.float32), np.zeros(2)]
    assert gk.LossScaler(2.0**4).step(grads, format="float16").margin == 5
    assert gk.LossScaler(1.0).step([np.zeros(3)], format="float16").margin is None
    with pytest.raises(ValueError, match="float17"):
        gk.LossScaler(2.0).step(grads, format="float17")
    assert grads[0][0] == 2.0**6


def test_what_unscaling_flushes_is_counted():
    grads = np.array([2.0**-20, 1.0, 0.0, -(2.0**-24)], np.float16)
    assert gk.LossScaler(2.0**10).step([grads]).flushed == 0.5
    np.testing.assert_array_equal(grads, [0, 2.0**-10, 0, 0])


def test_the_floor_is_an_error_that_names_the_tensors():
    scaler = gk.LossScaler(2.0, floor=1.0)
    records = run(scaler, [False])
    assert records[0].next_scale == 1.0
    grads = {"weight": BAD.copy()}
    with pytest.raises(gk.LossScaleFloorError, match=r"floor, a loss scale of 2\^0: weight\[1\] is NaN") as caught:
        scaler.step(grads)
    assert isinstance(caught.value, gk.NonFiniteError)
    assert caught.value.record.skipped
    assert grads["weight"].tobytes() == BAD.tobytes()
    assert scaler.scale == 1.0
    assert not scaler.step({"weight": GOOD.copy()}).skipped  # it goes on


def test_a_scale_below_one_does_not_unscale_to_infinity():
    grads = [np.array([30000.0, 1.0], np.float16)]
    scaler = gk.LossScaler(0.25, floor=2.0**-4)
    with pytest.raises(gk.NonFiniteError, match=r"0\[0\] divided by a loss scale of 0\.25 is beyond the format"):
        scaler.step(grads)
    assert (grads[0].tolist(), scaler.state_dict()["steps"]) == ([30000.0, 1.0], 0)
    record = scaler.step(grads, max_norm=1.0)
    assert (record.norm, grads[0][0]) == (pytest.approx(120000), 1.0)
    wide = [np.array([30000.0], np.float32)]
    scaler.step(g for g in wide)
    assert wide[0][0] == 120000
    assert scaler.step([np.array([np.inf], np.float16)]).skipped


def test_scales_stop_at_floor_and_ceiling():
    assert [r.next_scale for r in run(gk.LossScaler(8.0, growth=4.0, interval=1, ceiling=64.0), [True] * 3)] == [
        32,
        64,
        64,
    ]
    assert [r.next_scale for r in run(gk.LossScaler(8.0, backoff=0.25, floor=1.0), [False] * 3)] == [2, 1, 1]
    assert run(gk.LossScaler(1.0, floor=0.25), [False])[0].next_scale == 0.5


def test_hysteresis_lets_overflows_pass_until_the_scale_grows():
    scaler = gk.LossScaler(2.0**10, interval=2, hysteresis=2)
    outcomes = [False, True, False, False, True, True, False, False]
    assert [math.log2(r.next_scale) for r in run(scaler, outcomes)] == [10, 10, 9, 8, 8, 9, 9, 8]


def megatron(outcomes, scale, interval, hysteresis, floor):
    """The rules of Megatron-LM's DynamicGradScaler: overflows, in a row or not, use up its patience; growth restores it."""
    scales, clean, patience = [], 0, hysteresis
    for finite in outcomes:
        clean = clean + 1 if finite else 0
        patience -= not finite
        if not finite and patience <= 0:
            scale = max(scale / 2, floor)
        if clean == interval:
            clean, patience, scale = 0, hysteresis, scale * 2
        scales.append(scale)
    return scales


@given(st.lists(st.booleans(), max_size=40), st.integers(1, 4), st.integers(1, 4))
@settings(max_examples=200, deadline=None)
def test_hysteresis_is_that_of_megatron(outcomes, interval, hysteresis):
    scaler = gk.LossScaler(interval=interval, hysteresis=hysteresis, floor=2.0**-40, ceiling=2.0**60)
    want = megatron(outcomes, 2.0**16, interval, hysteresis, 2.0**-40)
    assert [r.next_scale for r in run(scaler, outcomes)] == want


STEPS = st.lists(st.booleans(), max_size=40)


@given(STEPS, STEPS, st.integers(1, 4), st.integers(1, 3), st.integers(0, 6))
@settings(max_examples=100, deadline=None)
def test_states_travel_and_traces_replay(before, after, interval, hysteresis, room):
    options = {"interval": interval, "hysteresis": hysteresis, "floor": 2.0**-room, "ceiling": 2.0**room}
    scaler, again = gk.LossScaler(1.0, **options), gk.LossScaler(1.0, **options)
    records = run(scaler, before)
    saved = json.loads(json.dumps(scaler.state_dict()))
    assert again.replay(gk.StepRecord.from_dict(json.loads(json.dumps(r.to_dict()))) for r in records)[-1:] == (
        [scaler.state_dict()] if before else []
    )
    resumed = gk.LossScaler()
    resumed.load_state_dict(saved)
    assert repr(run(resumed, after)) == repr(run(scaler, after)) == repr(run(again, after))
    assert resumed.state_dict() == scaler.state_dict() == again.state_dict()


def test_a_trace_of_another_scaler_is_refused():
    records = run(gk.LossScaler(interval=1), [True, True])
    with pytest.raises(ValueError, match=r"step 0 goes on at scale 2\^17, this scaler at 2\^16"):
        gk.LossScaler().replay(records)
    with pytest.raises(ValueError, match=r"step 1 starts at scale 2\^17"):
        gk.LossScaler(interval=1).replay(records[1:])


@pytest.mark.parametrize(
    ("change", "error", "words"),
    [
        ({"scale": 3.0}, ValueError, "scale must be a power of two"),
        ({"floor": 2.0**20}, ValueError, "scale must lie between"),
        ({"clean": -1}, ValueError, "clean must be at least 0, got -1"),
        ({"steps": 1.5}, TypeError, "steps must be an integer, got 1.5"),
        ({"overflows": True}, TypeError, "overflows must be an integer, got True"),
        ({"more": 1}, ValueError, "unknown entry 'more'"),
    ],
)
def test_saved_states_are_checked(change, error, words):
    scaler = gk.LossScaler()
    before = scaler.state_dict()
    with pytest.raises(error, match=words):
        scaler.load_state_dict({**before, **change})
    with pytest.raises(ValueError, match="no interval"):
        scaler.load_state_dict({name: value for name, value in before.items() if name != "interval"})
    assert scaler.state_dict() == before


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"scale": 3.0}, "scale must be a power of two"),
        ({"skipped": "no"}, "skipped"),
        ({"norm": "x"}, "norm"),
        ({"nonfinite": []}, "nonfinite"),
    ],
)
def test_saved_records_are_checked(change, words):
    record = gk.LossScaler().step([BAD.copy()]).to_dict()
    assert gk.StepRecord.from_dict(record).to_dict() == record
    with pytest.raises(ValueError, match=words):
        gk.StepRecord.from_dict({**record, **change})
    del record["margin"]
    with pytest.raises(ValueError, match="no margin"):
        gk.StepRecord.from_dict(record)


def test_a_scale_from_statistics():
    gradients = {"a": np.full(8, 2.0**-30), "b": np.full(8, 2.0**-20)}
    for stats in (gk.measure_many(gradients), gk.measure(gradients["a"])):
        scaler = gk.LossScaler.from_stats(stats, "float16", interval=7)
        window = stats.loss_scale_window("float16")
        assert scaler.scale == window.best
        assert scaler.state_dict()["interval"] == 7
        assert scaler.state_dict()["ceiling"] >= window.best
    assert gk.LossScaler.from_stats(gk.measure([2.0**20]), "float16").scale < 1
    with pytest.raises(ValueError, match="initial must lie between"):
        gk.LossScaler.from_stats(gk.measure([2.0**20]), "float16", floor=1.0)


def test_no_scale_names_the_tensors_that_conflict():
    table = gk.measure_many({"tiny": np.full(8, 2.0**-40), "fine": np.ones(3), "huge": np.full(8, 2.0**10)})
    with pytest.raises(ValueError, match=r"no loss scale fits float16: tiny needs .* huge overflows"):
        gk.LossScaler.from_stats(table, "float16")


def test_texts():
    scaler = gk.LossScaler(interval=3)
    record = scaler.step({"w": np.array([3.0, 4.0], np.float32) * 2**16}, max_norm=1.0)
    assert repr(scaler) == (
        "LossScaler: 2^16 (2^0 to 2^24), step 1; times 2^1 after 3 clean steps (1 so far), times 2^-1 after 1 overflow"
    )
    assert repr(record).splitlines()[0] == "StepRecord 0: taken at scale 2^16, next 2^16"
    assert "norm 5, clipped by 0.2, 109 binades to overflow" in repr(record)
    assert "\x1b" not in repr(gk.LossScaler().step({"a\x1b[31m": BAD.copy()}))
    assert record.to_frame().loc[0, "norm"] == 5.0


@pytest.mark.parametrize("stats", [3, {"weight": gk.measure(np.ones(3))}])
def test_statistics_that_are_none(stats):
    got = type(stats).__name__
    with pytest.raises(
        TypeError, match=rf"^LossScaler\.from_stats: stats must be a TensorStats, .*, got {got}; measure"
    ):
        gk.LossScaler.from_stats(stats, "float16")


@pytest.mark.parametrize(
    "records, what", [([1], r"records\[0\] must be a StepRecord"), (1, "records must be an iterable")]
)
def test_records_that_are_none(records, what):
    with pytest.raises(TypeError, match=rf"^LossScaler\.replay: {what}.*, got int$"):
        gk.LossScaler().replay(records)


@pytest.mark.parametrize("state", [None, 3, ["scale"]])
def test_a_state_that_is_no_mapping(state):
    with pytest.raises(TypeError, match=r"^LossScaler\.load_state_dict: the state must be a mapping, as "):
        gk.LossScaler().load_state_dict(state)


@pytest.mark.parametrize(
    ("grads", "options", "words"),
    [
        ([np.ones(2)], {"max_norm": -1}, "max_norm must not be negative, got -1"),
        ([np.ones(2)], {"p": 3}, "p must be 1, 2 or inf, got 3"),
        ([3], {}, r"grads\[0\]: not an array, got int"),
    ],
)
def test_a_step_is_refused_by_its_own_name(grads, options, words):
    with pytest.raises((TypeError, ValueError), match=rf"^LossScaler\.step: {words}$"):
        gk.LossScaler().step(grads, **options)
