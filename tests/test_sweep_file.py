"""Files of sweeps: torn lines, kills, interrupts, other grids, other writers, Parquet."""

from __future__ import annotations

import json
import math
import os
import signal
import subprocess
import sys
import time

import pytest

import gradkern as gk
from gradkern.sweep_file import Journal

GRID = {"depth": [3, 5], "width": 5, "activation": ["tanh", "relu"], "batch": 2, "seed": range(3)}


def same(one: gk.SweepResult, two: gk.SweepResult) -> bool:
    return json.dumps(one.to_dict()) == json.dumps(two.to_dict())


def depths(path) -> list[int]:
    return [json.loads(line)["depth"] for line in path.read_text().splitlines()]


def counted(grid, path) -> int:
    """Points that a sweep into this file computes."""
    before = path.read_bytes().count(b"\n") if path.exists() else 0
    gk.sweep(grid, path=path)
    return path.read_bytes().count(b"\n") - before


def test_lines_are_strict_json_and_carry_every_bit(tmp_path) -> None:
    path = tmp_path / "rows.jsonl"
    result = gk.sweep({**GRID, "depth": [1, 2, 4], "bias_std": 0.3}, path=path)

    def refuse(name: str) -> None:
        raise AssertionError(name)

    lines = [json.loads(line, parse_constant=refuse) for line in path.read_text().splitlines()]
    assert [line["key"] for line in lines] == [row["key"] for row in result.rows]
    assert lines[0]["gradient_rate"] == "nan" and lines[6]["gradient_rate_high"] == "inf"  # one layer, two layers
    loaded = gk.SweepResult.load(path)
    assert same(loaded, result)
    assert math.isnan(loaded.rows[0]["gradient_rate"]) and loaded.rows[6]["gradient_rate_low"] == -math.inf


@pytest.mark.parametrize("torn", [1, 7, 200])
def test_a_torn_last_line_is_computed_again(tmp_path, torn) -> None:
    path = tmp_path / "rows.jsonl"
    whole = gk.sweep(GRID, path=path)
    raw = path.read_bytes()
    last = raw.rstrip(b"\n").rfind(b"\n") + 1
    path.write_bytes(raw[: last + torn])
    assert len(gk.SweepResult.load(path)) == 11  # reading leaves it as it is
    assert path.read_bytes() == raw[: last + torn]
    assert same(gk.sweep(GRID, path=path), whole) and path.read_bytes() == raw
    path.write_bytes(raw[:torn])  # the very first line
    assert same(gk.sweep(GRID, path=path), whole) and path.read_bytes() == raw


@pytest.mark.parametrize(
    "foreign", [b"no newline", b"line one\n", b'{"a": 1}\n', b'["key"]\n', b'{"key": 3}\n', b"\x00\xff\n", b"{}"]
)
def test_foreign_files_are_refused_and_left_alone(tmp_path, foreign) -> None:
    path = tmp_path / "notes.jsonl"
    path.write_bytes(foreign)
    with pytest.raises(ValueError, match=r"notes\.jsonl.* is no (row|file) of a sweep"):
        gk.sweep(GRID, path=path)
    assert path.read_bytes() == foreign
    (tmp_path / "table.parquet").write_bytes(foreign)
    pytest.importorskip("pyarrow")
    with pytest.raises(ValueError, match=r"table\.parquet is no file of a sweep"):
        gk.sweep(GRID, path=tmp_path / "table.parquet")


def test_a_broken_line_within_is_named(tmp_path) -> None:
    path = tmp_path / "rows.jsonl"
    gk.sweep(GRID, path=path)
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join([*lines[:4], b'{"key": "abc", "dep\n', *lines[4:]]))
    with pytest.raises(ValueError, match="line 5, is no row of a sweep"):
        gk.SweepResult.load(path)


def test_another_grid_takes_what_it_shares_and_leaves_the_rest(tmp_path) -> None:
    path = tmp_path / "rows.jsonl"
    assert counted(GRID, path) == 12
    assert counted(GRID, path) == 0
    assert counted({**GRID, "depth": [5, 7]}, path) == 6
    assert counted({**GRID, "width": 6, "seed": 0}, path) == 4
    result = gk.sweep({**GRID, "depth": [7, 5]}, path=path)
    assert [row["depth"] for row in result.rows] == [7] * 6 + [5] * 6  # the grid's points in its order, no others
    assert len(gk.SweepResult.load(path)) == 22 and depths(path)[12:18] == [7] * 6


def test_two_sweeps_do_not_share_a_file(tmp_path) -> None:
    path = tmp_path / "rows.jsonl"
    first = Journal(path)
    with pytest.raises(ValueError, match="another sweep is writing"):
        gk.sweep(GRID, path=path)
    first.close(False)
    assert counted(GRID, path) == 12


SCRIPT = """
import sys, multiprocessing, time
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
import gradkern as gk

if __name__ == "__main__":
    kind, path = sys.argv[1:]
    grid = {"depth": [20, 40], "width": 24, "activation": ["tanh", "relu"], "batch": 2, "seed": range(40)}
    pools = {"none": lambda: None, "threads": lambda: ThreadPoolExecutor(2),
             "spawn": lambda: ProcessPoolExecutor(2, multiprocessing.get_context("spawn"))}
    wait = lambda done, total: done < 100 or time.sleep(600)  # until it is stopped
    gk.sweep(grid, pools[kind](), path=path, in_flight=6, progress=wait)
"""
LONG = {"depth": [20, 40], "width": 24, "activation": ["tanh", "relu"], "batch": 2, "seed": range(40)}


def started(tmp_path, kind: str, name: str, rows: int) -> subprocess.Popen:
    """A process of its own group that sweeps, and has come so far."""
    script, path = tmp_path / "script.py", tmp_path / name
    script.write_text(SCRIPT)
    process = subprocess.Popen([sys.executable, script, kind, path], start_new_session=True, stderr=subprocess.DEVNULL)
    journal = path if path.suffix == ".jsonl" else tmp_path / f"{name}.jsonl"
    while not journal.exists() or journal.read_bytes().count(b"\n") < rows:
        assert process.poll() is None
        time.sleep(0.01)
    return process


@pytest.mark.parametrize("kind, name", [("none", "rows.jsonl"), ("spawn", "rows.jsonl"), ("none", "rows.parquet")])
def test_a_killed_sweep_goes_on_where_it_stopped(tmp_path, kind, name) -> None:
    if name.endswith(".parquet"):
        pytest.importorskip("pyarrow")
    process = started(tmp_path, kind, name, 12)
    os.killpg(process.pid, signal.SIGKILL)
    assert process.wait(60) == -signal.SIGKILL
    path = tmp_path / name
    journal = path if path.suffix == ".jsonl" else tmp_path / f"{name}.jsonl"
    kept = journal.read_bytes()
    done = kept.count(b"\n")
    assert 12 <= done < 160 and path.exists() == (path == journal)
    computed = []
    result = gk.sweep(LONG, progress=lambda n, total: computed.append(n), path=path)
    assert len(result) == 160 and not result.failed and computed[-1] == 160
    if path == journal:
        raw = path.read_bytes()
        assert raw.startswith(kept[: kept.rfind(b"\n") + 1]) and raw.count(b"\n") == 160  # none computed twice
    else:
        assert path.exists() and not journal.exists()
    few = {**LONG, "seed": range(10)}
    assert same(gk.sweep(few, path=path), gk.sweep(few))


@pytest.mark.parametrize("kind", ["none", "threads", "spawn"])
def test_an_interrupt_keeps_what_is_done(tmp_path, kind) -> None:
    process = started(tmp_path, kind, "rows.jsonl", 12)
    os.killpg(process.pid, signal.SIGINT)  # as a terminal does
    assert process.wait(60) in (-signal.SIGINT, 1, 130)
    result = gk.SweepResult.load(tmp_path / "rows.jsonl")
    assert 12 <= len(result) < 160 and not result.failed


def test_parquet_is_written_when_the_sweep_ends(tmp_path) -> None:
    parquet = pytest.importorskip("pyarrow.parquet")
    path, journal = tmp_path / "rows.parquet", tmp_path / "rows.parquet.jsonl"
    seen = []
    result = gk.sweep(GRID, progress=lambda done, total: seen.append((journal.exists(), path.exists())), path=path)
    assert set(seen) == {(True, False)} and not journal.exists()
    assert same(gk.SweepResult.load(path), result)
    table = parquet.read_table(path)
    assert str(table.schema.field("gradient_rate").type) == "double" and str(table.schema.field("seed").type) == "int64"

    def stop(done: int, total: int) -> None:
        if done == 15:
            raise KeyboardInterrupt

    more = {**GRID, "depth": [3, 5, 6]}
    with pytest.raises(KeyboardInterrupt):
        gk.sweep(more, progress=stop, path=path)
    assert len(journal.read_text().splitlines()) == 3 and len(gk.SweepResult.load(path)) == 12
    assert same(gk.sweep(more, path=path), gk.sweep(more)) and len(gk.SweepResult.load(path)) == 18
    assert sorted(p.name for p in tmp_path.iterdir()) == ["rows.parquet"]


@pytest.mark.parametrize("ending", [".jsonl", ".parquet"])
def test_results_are_saved_and_loaded(tmp_path, ending) -> None:
    if ending == ".parquet":
        pytest.importorskip("pyarrow")
    result = gk.sweep({**GRID, "depth": [1, 4], "width": [3, 10**8], "seed": range(7)})
    for kept in (result, result.quenched()):
        kept.save(tmp_path / f"saved{ending}")
        if ending == ".jsonl" or kept is result:  # a table's cells that a group of failures lacks are empty
            assert same(gk.SweepResult.load(tmp_path / f"saved{ending}"), kept)
        assert len(gk.SweepResult.load(tmp_path / f"saved{ending}")) == len(kept)
    assert len(result.failed) == 28
    with pytest.raises(ValueError, match="no such file"):
        gk.SweepResult.load(tmp_path / f"absent{ending}")


def test_parquet_without_pyarrow_is_said_before_the_work(tmp_path, monkeypatch) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    monkeypatch.setitem(sys.modules, "pyarrow.parquet", None)
    with pytest.raises(ImportError, match=r"pip install 'gradkern\[sweep\]'"):
        gk.sweep(GRID, path=tmp_path / "rows.parquet")
    assert not list(tmp_path.iterdir())
