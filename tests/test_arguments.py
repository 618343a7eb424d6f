"""Numbers and names that are none are refused by the name of the argument."""

from __future__ import annotations

import json
import math
from fractions import Fraction

import numpy as np
import pytest

import gradkern as gk
from gradkern import _backend

NAN = math.nan
NET = gk.MLP.random(depth=1, width=3)
BAD_NUMBERS = [("2", TypeError), ("x", TypeError), (None, TypeError), (True, TypeError), (1j, TypeError), ([2.0], TypeError),
               (np.ones(2), TypeError), (np.bool_(True), TypeError), (b"2", TypeError), (np.complex64(2), TypeError),
               (NAN, ValueError), (math.inf, ValueError), (-1.0, ValueError), (10**400, ValueError)]  # fmt: skip


@pytest.mark.parametrize("value, error", [*BAD_NUMBERS, (0, ValueError), (3, ValueError), (0.3, ValueError)])
def test_scales_that_are_none(value, error):
    stats, x = gk.measure(np.ones(3)), np.ones(3)
    calls = {
        "measure": lambda: gk.measure(x, scale=value), "measure_many": lambda: gk.measure_many([x], scale=value),
        "fit": lambda: stats.fit("float16", value), "probe": lambda: gk.probe(NET, [[1.0] * 3], scale=value),
    }  # fmt: skip
    for function, call in calls.items():
        with pytest.raises(error, match=f"^{function}: scale must be "):
            call()
    if not (error is ValueError and value in (3, 0.3)):
        with pytest.raises(error, match=r"^cast: scale must be "):
            gk.cast(x, "float16", scale=value)


@pytest.mark.parametrize("value, error", [*BAD_NUMBERS, (1.5, ValueError)])
def test_fractions_that_are_none(value, error):
    stats = gk.measure(np.ones(3))
    report = gk.probe(NET, [[1.0] * 3])
    for owner in (stats, gk.measure_many([np.ones(3)]), report):
        with pytest.raises(error, match=r"^loss_scale_window: lose must be "):
            owner.loss_scale_window("float16", value)
    with pytest.raises(error, match=r"^smallest_scale: lose must be "):
        stats.smallest_scale("float16", value)


@pytest.mark.parametrize("value, error", BAD_NUMBERS)
def test_shares_of_a_depth_that_are_none(value, error):
    report = gk.probe(NET, [[1.0] * 3])
    recurrent = gk.probe(gk.RNN.random(hidden=2, inputs=2), np.ones((3, 1, 2)))
    with pytest.raises(error, match=r"^effective_depth: p must be "):
        report.effective_depth(p=value)
    with pytest.raises(error, match=r"^effective_horizon: p must be "):
        recurrent.effective_horizon("float16", p=value)


NOT_INTEGERS = [
    (1.5, TypeError),
    (2.0, TypeError),
    (True, TypeError),
    ("4", TypeError),
    (None, TypeError),
    (-1, ValueError),
]


@pytest.mark.parametrize("value, error", [*NOT_INTEGERS, (2**64, ValueError)])
def test_seeds_that_are_none(value, error):
    calls = {
        "cast": lambda: gk.cast(np.ones(2), "float16", seed=value), "Arithmetic": lambda: gk.Arithmetic(seed=value),
        "sgd_update": lambda: gk.sgd_update(np.ones(2), np.ones(2), 0.1, seed=value),
    }  # fmt: skip
    for function, call in calls.items():
        with pytest.raises(error, match=f"^{function}: seed must be "):
            call()


@pytest.mark.parametrize("seed", [np.int8(3), np.uint64(2**64 - 1), 0])
def test_seeds_of_numpy_are_seeds(seed):
    x, options = np.full(9, 1 + 2.0**-12), {"rounding": "stochastic"}
    assert np.array_equal(*(gk.cast(x, "float16", seed=s, **options).values for s in (seed, int(seed))))
    found = gk.Arithmetic("float16", seed=seed, **options)
    assert type(found.seed) is int and gk.arithmetic(str(found)) == found
    assert gk.sgd_update(np.ones(2), np.ones(2), 0.1, seed=seed).report.size == 2


@pytest.mark.parametrize("value, error", [*NOT_INTEGERS, (0, ValueError), (1025, ValueError)])
def test_numbers_of_threads_that_are_none(value, error):
    before = gk.get_num_threads()
    with pytest.raises(error, match=r"^set_num_threads: n must be "):
        gk.set_num_threads(value)
    assert gk.get_num_threads() == before
    gk.set_num_threads(np.int64(before))


def test_scalars_of_other_libraries_are_numbers():
    for scale in (np.float32(4), np.int8(4), np.array(4.0), Fraction(4), 4):
        stats = gk.measure(np.ones(3), scale=scale)
        assert type(stats.scale) is float and stats.exponent == -2 and json.dumps(stats.to_dict())
    torch = pytest.importorskip("torch")
    assert gk.measure(np.ones(3), scale=torch.tensor(4.0)).scale == 4.0


def test_a_report_has_its_own_scale():
    report = gk.probe(NET, [[1.0] * 3], scale=8.0)
    with pytest.raises(ValueError, match=r"^measure_many: scale must be 1 for a report, .* got 8"):
        gk.measure_many(report, scale=8)
    assert len(gk.measure_many(report)) > 0


def test_names_and_formats_are_checked():
    with pytest.raises(TypeError, match=r"^measure: name must be a string or None, got int"):
        gk.measure(np.ones(3), name=3)
    for call in (gk.measure(np.ones(3)).fit, gk.measure(np.ones(3)).loss_scale_window):
        for fmt in ("float12", None, 3, "mixed"):
            with pytest.raises(ValueError, match=r"^format: must be one of"):
                call(fmt)


def test_an_instruction_set_is_refused_by_who_asked_for_it():
    with pytest.raises(gk.UnsupportedIsaError, match=r"^select_isa: 'nope' cannot be used here; built in: base"):
        _backend.select_isa("nope")


@pytest.mark.parametrize("value, error", [(-1, ValueError), ("a", TypeError), (1.5, TypeError)])
def test_seeds_of_draws_that_are_none(value, error):
    for function, draw in (("MLP.random", gk.MLP.random), ("RNN.random", gk.RNN.random)):
        with pytest.raises(error, match=rf"^{function}: seed must be .*, got {value!r}$"):
            draw(seed=value)
    with pytest.raises(error, match=r"^he_normal: seed must be "):
        gk.init.he_normal(2, 2, seed=value)


def test_a_generator_is_a_seed_that_goes_on():
    generator = np.random.default_rng(3)
    drawn = gk.init.normal(2, 2, seed=generator)
    np.testing.assert_array_equal(drawn, gk.init.normal(2, 2, seed=3))
    assert not np.array_equal(drawn, gk.init.normal(2, 2, seed=generator))


@pytest.mark.parametrize("load, kind", [(gk.MLP.load, "MLP"), (gk.RNN.load, "RNN")])
@pytest.mark.parametrize("value", [{"0.weight": np.ones((2, 2))}, None, 3])
def test_models_that_are_no_path(load, kind, value):
    got = type(value).__name__
    with pytest.raises(
        TypeError, match=rf"^{kind}\.load: path must be a str or a Path, got {got}; .* go into {kind}\("
    ):
        load(value)


def test_callbacks_that_are_none():
    x = np.ones((2, 3))
    calls = {
        "probe: progress": lambda: gk.probe(NET, x, progress=3),
        "compare: progress": lambda: gk.compare(NET, x, arithmetics=["float32", "float16"], progress=3),
        "descend: progress": lambda: gk.descend(NET, x, x, lr=0.1, steps=1, progress=3),
        "descend: callback": lambda: gk.descend(NET, x, x, lr=0.1, steps=1, callback=3),
        "measure_many: progress": lambda: gk.measure_many([x], progress=3),
        "sweep: progress": lambda: gk.sweep({"depth": 1, "width": 2}, progress=3),
    }  # fmt: skip
    for start, call in calls.items():
        with pytest.raises(TypeError, match=f"^{start} must be a (bool, a )?callable or None, got 3$"):
            call()


@pytest.mark.parametrize("value", [None, 3])
def test_runs_that_are_no_sequence(value):
    with pytest.raises(TypeError, match=f"^compare: arithmetics must be a sequence .*, got {type(value).__name__}$"):
        gk.compare(NET, np.ones((2, 3)), arithmetics=value)


def test_devices_that_are_no_sequence():
    with pytest.raises(TypeError, match=r"^compare: device must be a string, a sequence of them or None, got int$"):
        gk.compare(NET, np.ones((2, 3)), arithmetics="float16", device=3)
