"""``gradkern sweep``: lists and ranges, the table, JSON, files that it goes on with, pictures, and errors of one line."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

import gradkern as gk
from gradkern.cli import main
from gradkern.cli_sweep import read_numbers

Run = Callable[..., tuple[int, str, str]]
SMALL = ("--depth", "3,6", "--width", "5", "--batch", "2", "--seeds", "2", "--arithmetic", "float16,float8_e5m2")


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Run:
    monkeypatch.delenv("COLUMNS", raising=False)

    def call(*arguments: object) -> tuple[int, str, str]:
        code = main(["sweep", *map(str, arguments)])
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return call


@pytest.mark.parametrize("text, whole, numbers", [
    ("10", True, [10]), ("10,20", True, [10, 20]), ("10:50:10", True, [10, 20, 30, 40, 50]), ("1:4", True, [1, 2, 3, 4]),
    ("10:35:10,99", True, [10, 20, 30, 99]), ("0.1:0.5:0.1", False, [0.1, 0.2, 0.3, 0.4, 0.5]), ("1e1", True, [10]),
    ("-1:1", False, [-1.0, 0.0, 1.0]), (" 2 , 3 ", True, [2, 3]), ("7:7", True, [7]),
])  # fmt: skip
def test_lists_and_ranges(text: str, whole: bool, numbers: list[float]) -> None:
    assert read_numbers(text, "--depth", whole) == numbers


@pytest.mark.parametrize(
    "text", ["", "10,", "x", "1:5:0", "5:1", "1:5:-1", "1:2:3:4", "1.5", "nan", "inf", "1:inf", "1:2:nan"]
)
def test_what_is_no_list_of_numbers(text: str) -> None:
    with pytest.raises(ValueError, match=r"--depth: must be whole numbers such as 10,20 or a range 10:50:10, got"):
        read_numbers(text, "--depth", True)


def test_the_table_has_medians(run: Run) -> None:
    code, out, err = run(*SMALL)
    assert (code, err) == (0, "")
    lines = out.splitlines()
    assert lines[0] == "8 points; depth 3, 6; arithmetic float16, float8_e5m2; seed 0, 1"
    assert lines[2].split()[:3] == ["depth", "arithmetic", "gradients"] and len(lines) == 7
    grid = {"depth": [3, 6], "width": 5, "batch": 2, "seed": range(2), "activation": "sigmoid", "init": "xavier_normal"}
    typical = gk.sweep({**grid, "arithmetic": ["float16", "float8_e5m2"]}).quenched()
    assert [line.split()[2] for line in lines[3:]] == [f"{row['gradient_rate']:.4g}" for row in typical.rows]


def test_every_option_reaches_the_grid(run: Run) -> None:
    code, out, _ = run(
        "--depth", "2:3", "--width", "4,5", "--activation", "leaky_relu(0.2),tanh", "--init", "he_normal,orthogonal",
        "--gain", "0.5:1:0.5", "--bias-std", "0.1", "--arithmetic", "float16[overflow=saturate,subnormals=flush],float32",
        "--scale", "2^3,1024", "--batch", "1", "--seeds", "1", "--json",
    )  # fmt: skip
    payload = json.loads(out)
    assert code == 0 and payload["points"] == len(payload["rows"]) == len(payload["quenched"]) == 128
    rows = payload["rows"]
    seen = {name: {row[name] for row in rows} for name in rows[0] if name in gk.SweepPoint.__dataclass_fields__}
    assert seen == {
        "depth": {2, 3}, "width": {4, 5}, "activation": {"leaky_relu(0.2)", "tanh"}, "init": {"he_normal", "orthogonal"},
        "gain": {0.5, 1.0}, "bias_std": {0.1}, "scale": {8.0, 1024.0}, "batch": {1}, "seed": {0},
        "arithmetic": {str(gk.arithmetic("float16[overflow=saturate,subnormals=flush]")), "float32"},
    }  # fmt: skip


@pytest.mark.parametrize("name", ["rows.jsonl", "rows.parquet"])
def test_a_file_is_gone_on_with(run: Run, tmp_path: Path, name: str) -> None:
    if name.endswith("parquet"):
        pytest.importorskip("pyarrow")
    path = tmp_path / name
    first, again = run(*SMALL, "--out", path), run(*SMALL, "--out", path)
    assert first == again and first[0] == 0 and len(gk.SweepResult.load(path)) == 8
    code, out, _ = run(*SMALL, "--depth", "6,9", "--out", path, "--json")
    assert code == 0 and json.loads(out)["points"] == 8 and len(gk.SweepResult.load(path)) == 12


def test_workers_do_not_change_the_result(run: Run) -> None:
    assert run(*SMALL, "--workers", 2, "--json") == run(*SMALL, "--json")


def test_a_scheduler_of_dask_is_used(run: Run, tmp_path: Path) -> None:
    distributed = pytest.importorskip("distributed")
    options = {"n_workers": 1, "threads_per_worker": 1, "processes": False, "dashboard_address": None}
    with distributed.LocalCluster(
        **options, local_directory=str(tmp_path), protocol="tcp", host="127.0.0.1"
    ) as cluster:
        code, out, _ = run(*SMALL, "--dask", cluster.scheduler_address, "--json")
    assert (code, out) == run(*SMALL, "--json")[:2]


def test_plot_writes_a_picture(run: Run, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    assert run(*SMALL, "--plot", tmp_path / "depth.png")[0] == 0
    assert (tmp_path / "depth.png").read_bytes().startswith(b"\x89PNG")
    plane = (*SMALL[:-1], "float16", "--depth", "4", "--gain", "0.5:2:0.5", "--bias-std", "0,1")
    assert run(*plane, "--plot", tmp_path / "plane.svg", "--value", "weight_rate")[0] == 0
    assert b"<svg" in (tmp_path / "plane.svg").read_bytes()[:500]


def test_points_that_fail_make_the_exit_code_1(run: Run) -> None:
    code, out, _ = run("--depth", 1, "--width", 10**8, "--batch", 1, "--seeds", 2, "--arithmetic", "float16")
    assert code == 1 and "2 points, 2 failed" in out and "2 failed: MemoryError: " in out


@pytest.mark.parametrize("arguments, message", [
    (("--depth", "10:20:x"), "--depth: must be whole numbers"), (("--gain", "big"), "--gain: must be numbers"),
    (("--activation", "swish"), "activation must be one of"), (("--init", "magic"), "init must be one of"),
    (("--arithmetic", "float15"), "float15"), (("--scale", "3"), "--scale: must be a power of two"),
    (("--out", "rows.csv"), "must end in .jsonl or .parquet"), (("--plot", "p.bmp"), "--plot: the name must end in"),
    (("--seeds", "0"), "--seeds"), (("--workers", "0"), "--workers"), (("--depth", "0"), "depth must be at least 1"),
    ((*SMALL, "--plot", "p.png", "--value", "speed"), "value must be of"),
])  # fmt: skip
def test_bad_input_is_one_precise_line_and_exit_code_2(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: tuple[str, ...], message: str
) -> None:
    monkeypatch.chdir(tmp_path)
    code, _, err = run(*arguments)
    assert code == 2 and err.count("\n") == 1 and err.startswith("gradkern: error: ") and message in err
    assert not list(tmp_path.iterdir())


def test_help_teaches(run: Run) -> None:
    code, out, _ = run("--help")
    flat = " ".join(out.split())
    assert code == 0
    for words in ("Examples", "given again, it goes on", "Exit codes", "bits per layer", "10:90:10", "--dask"):
        assert words in flat
    assert out.isascii() or "\N{HUNDRED POINTS SYMBOL}" not in out  # what rich makes of a hundred between colons
