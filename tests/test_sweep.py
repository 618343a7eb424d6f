"""Sweeps: grids, points, executors, failures, back-pressure."""

from __future__ import annotations

import json
import math
import multiprocessing
import os
from concurrent.futures import BrokenExecutor, CancelledError, Executor, Future, ProcessPoolExecutor, ThreadPoolExecutor

import numpy as np
import pytest

import gradkern as gk
from gradkern.sweep_grid import Grid
from gradkern.sweep_point import measure_point

SMALL = {
    "depth": [3, 5],
    "width": 6,
    "activation": ["tanh", "relu"],
    "arithmetic": ["float16", "float8_e5m2"],
    "batch": 2,
}
GRID = {**SMALL, "seed": range(4)}


@pytest.fixture(scope="module")
def serial() -> gk.SweepResult:
    return gk.sweep(GRID)


def test_a_row_is_what_probe_says() -> None:
    point = gk.SweepPoint(30, 12, "sigmoid", "xavier_normal", 1.1, 0.1, "float16", 4.0, 5, 7)
    row = measure_point(point)
    net = gk.MLP.random(depth=30, width=12, activation="sigmoid", init="xavier_normal", gain=1.1, bias_std=0.1, seed=7)
    report = gk.probe(net, np.random.default_rng([7, 1]).standard_normal((5, 12)), arithmetic="float16", scale=4.0)
    for name, role in (("gradient", "grad_pre_activation"), ("weight", "grad_weight"), ("activation", "activation")):
        rate = report.decay_rate(role)
        assert (row[f"{name}_rate"], row[f"{name}_rate_low"], row[f"{name}_rate_high"]) == (
            rate.bits_per_layer, rate.low, rate.high
        )  # fmt: skip
    signals = report.rows("grad_pre_activation")
    assert row["gradient_bits"] == signals[0].reference_log2_norm - signals[-1].reference_log2_norm
    assert (row["effective_depth"], row["trainable_depth"]) == (
        report.effective_depth(), report.effective_depth(role="grad_weight")
    )  # fmt: skip
    gradients = [r for r in report.layers if r.role.startswith("grad")]
    fates = ("kept", "subnormal", "flushed", "cancelled", "inherited", "overflow", "invalid")
    assert all(row[fate] == sum(getattr(r, fate) for r in gradients) for fate in fates) and row["flushed"] > 0
    assert row["entries"] == sum(r.size for r in gradients) and row["loss"] == report.loss
    window = report.loss_scale_window()
    assert (row["log2_scale_low"], row["log2_scale_high"]) == (window.log2_low, window.log2_high)
    assert row["log2_scale_best"] is None and not window.exists
    assert row["severity"] == report.findings[0].severity == "major" and row["findings"].split()[0] == "flushed"
    assert row["error"] is None and (row["dead"], row["dead_units"], row["structural"]) == (False, 0.0, 0.0)


def test_a_row_names_the_first_overflow_and_the_scale_to_take() -> None:
    row = measure_point(gk.SweepPoint(depth=12, width=8, gain=8.0))
    assert (row["overflow_role"], row["severity"]) == ("pre_activation", "critical") and 3 <= row["overflow_layer"] <= 9
    healthy = measure_point(gk.SweepPoint(depth=4, width=8))
    assert healthy["overflow_layer"] is None and healthy["log2_scale_low"] <= healthy["log2_scale_best"]
    again = measure_point(gk.SweepPoint(depth=4, width=8, scale=2.0 ** healthy["log2_scale_best"]))
    assert again["flushed"] == again["overflow"] == 0


@pytest.mark.parametrize("width, depth", [(2, 6), (3, 8), (4, 20)])
def test_narrow_relu_nets_die_as_theory_says(width: int, depth: int) -> None:
    """One input, no biases: each layer is all zero with 2^-n, so all live with (1 - 2^-n)^L.

    Lu, Shin, Su, Karniadakis, Commun. Comput. Phys. 28 (2020) 1671.
    """
    draws = 300
    result = gk.sweep({"depth": depth, "width": width, "batch": 1, "seed": range(draws)})
    (row,) = result.quenched().rows
    theory = 1 - (1 - 2.0**-width) ** depth
    assert row["draws"] == draws
    assert abs(row["death_probability"] - theory) < 4 * math.sqrt(theory * (1 - theory) / draws)
    assert row["death_low"] <= row["death_probability"] <= row["death_high"]
    share = np.mean([r["dead_units"] for r in result.rows if not r["dead"]])
    assert 0.2 < share < 0.6  # about half of the units of a living net are off for one input


def test_order_defaults_and_duplicates() -> None:
    grid = Grid([{"depth": [2, 1], "seed": (0, 1)}, {"depth": np.array([1, 3]), "seed": 0, "gain": 1}])
    points = list(grid)
    assert len(grid) == len(points) == 6
    assert [(p.depth, p.seed) for p in points] == [(2, 0), (2, 1), (1, 0), (1, 1), (1, 0), (3, 0)]
    assert points[2] == points[4] and points[2].key == points[4].key
    assert len({p.key for p in points}) == 5
    result = gk.sweep([{"depth": [2, 1], "width": 3, "seed": (0, 1)}, {"depth": 1, "width": 3}])
    assert len(result) == 4 and [row["depth"] for row in result.rows] == [2, 2, 1, 1]


def test_keys_are_of_values_not_of_their_spelling() -> None:
    one = list(
        Grid({"gain": np.float32(2), "scale": 1024, "seed": np.int64(3), "bias_std": -0.0, "arithmetic": "float16"})
    )
    two = list(Grid({"arithmetic": gk.arithmetic("float16"), "gain": 2, "bias_std": 0, "scale": 2.0**10, "seed": 3}))
    assert one == two and one[0].key == two[0].key and len(one[0].key) == 20
    assert one[0].key == "46f51c599125e57cf554"  # of this kind of record for ever: files are resumed by it


@pytest.mark.parametrize("grid, error, message", [
    ({"deepth": 3}, ValueError, "grid may have depth, width.*got 'deepth'"),
    ({"depth": [3, 0]}, ValueError, "depth must be at least 1, got 0"),
    ({"depth": 2.5}, TypeError, "depth must be an integer"),
    ({"seed": -1}, ValueError, "seed must be at least 0, got -1"),
    ({"seed": True}, TypeError, "seed must be an integer"),
    ({"scale": 3}, ValueError, "scale must be a power of two"),
    ({"gain": [1.0, math.nan]}, ValueError, "gain must be finite, got nan"),
    ({"bias_std": -1}, ValueError, "bias_std must be finite and not negative"),
    ({"activation": ["tanh", "swish"]}, ValueError, "activation must be one of"),
    ({"activation": 3}, TypeError, "activation must be a name, got int"),
    ({"init": "magic"}, ValueError, "init must be one of he_normal|init must be one of normal"),
    ({"arithmetic": "float15"}, ValueError, "float15"),
    ({"depth": []}, ValueError, "depth is an empty list"),
    ([], ValueError, "grid is an empty list"),
    (3, TypeError, "grid must be a dict"),
    (["depth"], TypeError, "grid must be a dict"),
])  # fmt: skip
def test_grids_are_checked_before_anything_runs(tmp_path, grid, error, message) -> None:
    with pytest.raises(error, match=message):
        gk.sweep(grid, path=tmp_path / "rows.jsonl")
    assert not (tmp_path / "rows.jsonl").exists()


def test_other_arguments_are_checked(tmp_path) -> None:
    for options, error, message in (
        ({"executor": 4}, TypeError, "executor must have submit"), ({"in_flight": 0}, ValueError, "in_flight"),
        ({"path": tmp_path / "rows.csv"}, ValueError, "must end in .jsonl or .parquet"),
        ({"path": tmp_path / "no" / "rows.jsonl"}, ValueError, "no such folder"),
    ):  # fmt: skip
        with pytest.raises(error, match=message):
            gk.sweep({"depth": 1, "width": 2}, **options)


@pytest.mark.parametrize("kind", ["threads", "fork", "spawn"])
def test_rows_are_the_same_whoever_computes_them(serial: gk.SweepResult, kind: str) -> None:
    pool = ThreadPoolExecutor(3) if kind == "threads" else ProcessPoolExecutor(2, multiprocessing.get_context(kind))
    with pool:
        assert same(gk.sweep(GRID, pool, in_flight=5), serial)


def same(one: gk.SweepResult, two: gk.SweepResult) -> bool:
    return json.dumps(one.to_dict()) == json.dumps(two.to_dict())


class Instant(Executor):
    """Hands every future and its point to `answer`, at once; counts what it holds."""

    def __init__(self, answer) -> None:
        self.answer, self.held, self.most, self.submitted = answer, [], 0, 0

    def submit(self, function, point):
        future: Future = Future()
        self.submitted += 1
        self.held = [f for f in self.held if not f.done()] + [future]
        self.most = max(self.most, len(self.held))
        self.answer(self, future, point)
        return future


def test_no_more_points_are_in_flight_than_allowed() -> None:
    """200,000 points that nobody makes before their turn."""
    drawn = []

    def answer(pool: Instant, future: Future, point: gk.SweepPoint) -> None:
        if pool.submitted > 2000:
            raise RuntimeError("enough seen")
        drawn.append(point.seed)
        if len(pool.held) == 7:  # all that are allowed: only now one is finished
            pool.held[0].set_result({"key": str(pool.submitted), "error": None})

    pool = Instant(answer)
    with pytest.raises(RuntimeError, match="enough seen"):
        gk.sweep({"seed": range(200_000)}, pool, in_flight=7)
    assert pool.most == 7 and drawn == list(range(2000))


def test_a_point_that_fails_is_a_row_with_its_error(tmp_path) -> None:
    path = tmp_path / "rows.jsonl"
    grid = {"depth": 1, "width": [3, 10**8], "batch": 1}  # a matrix of 70 PiB
    result = gk.sweep(grid, path=path)
    assert [row["error"] is None for row in result.rows] == [True, False] and len(result.failed) == 1
    assert "Error: " in result.failed[0]["error"] and result.failed[0]["width"] == 10**8
    assert "2 points, 1 failed" in repr(result)
    with ThreadPoolExecutor(2) as pool:  # tried again, and kept beside the first
        gk.sweep(grid, pool, path=path)
    assert [json.loads(line)["width"] for line in path.read_text().splitlines()] == [3, 10**8, 10**8]
    row = json.loads(path.read_text().splitlines()[-1])
    path.write_text(json.dumps({**measure_point(gk.SweepPoint(1, 3, batch=1)), "error": "KilledWorker: lost"}) + "\n")
    assert gk.sweep({**grid, "width": 3}, path=path).failed == () and row["error"]


def test_errors_of_the_executor_are_rows_and_its_death_is_not(tmp_path) -> None:
    def answering(error: BaseException):
        def answer(pool: Instant, future: Future, point: gk.SweepPoint) -> None:
            if point.seed == 2:
                future.set_exception(error)
            else:
                future.set_result(measure_point(point))

        return Instant(answer)

    grid = {"depth": 1, "width": 2, "seed": range(5)}
    result = gk.sweep(grid, answering(ValueError("lost\non the way")))
    assert [row["seed"] for row in result.failed] == [2] and result.failed[0]["error"] == "ValueError: lost on the way"
    for error in (BrokenExecutor("dead"), CancelledError(), KeyboardInterrupt()):
        path = tmp_path / f"{type(error).__name__}.jsonl"
        with pytest.raises(type(error)):
            gk.sweep(grid, answering(error), path=path)
        assert [row["seed"] for row in gk.SweepResult.load(path).rows] == [0, 1, 3, 4]


def test_a_killed_process_of_a_pool_breaks_the_sweep_and_not_the_file(tmp_path) -> None:
    path, killed = tmp_path / "rows.jsonl", []

    def kill_one(done: int, total: int) -> None:
        if done == 6 and not killed:
            killed.append(next(iter(pool._processes)))
            os.kill(killed[0], 9)

    grid = {**GRID, "seed": range(40)}
    with ProcessPoolExecutor(2, multiprocessing.get_context("spawn")) as pool, pytest.raises(BrokenExecutor):
        gk.sweep(grid, pool, progress=kill_one, path=path, in_flight=8)
    kept = len(gk.SweepResult.load(path))
    assert 6 <= kept < 320
    fresh = []
    result = gk.sweep(grid, progress=lambda done, total: fresh.append(done), path=path)
    assert len(result) == 320 and not result.failed and fresh == list(range(1, 321))
    assert len(path.read_text().splitlines()) == 320


def test_progress_is_told_of_every_point(capsys) -> None:
    told = []
    gk.sweep({"depth": 1, "width": 2, "seed": range(3)}, progress=lambda done, total: told.append((done, total)))
    assert told == [(1, 3), (2, 3), (3, 3)]
    gk.sweep({"depth": 1, "width": 2})
    captured = capsys.readouterr()
    assert captured.out == captured.err == ""  # no bar where stderr is no terminal


def test_a_bar_is_drawn_on_a_terminal(monkeypatch, capsys) -> None:
    monkeypatch.setattr("sys.stderr.isatty", lambda: True)
    monkeypatch.setenv("TERM", "xterm")
    gk.sweep({"depth": 1, "width": 2, "seed": range(3)})
    assert "sweeping" in (drawn := capsys.readouterr().err) and "3/3" in drawn
    gk.sweep({"depth": 1, "width": 2}, progress=False)
    assert capsys.readouterr().err == ""
