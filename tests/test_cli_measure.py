"""``gradkern measure``: what it prints, its exit codes and errors, and a terminal left clean by Ctrl-C."""

from __future__ import annotations

import json
import os
import re
import select
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import gradkern as gk
from gradkern._table_words import amount, share
from gradkern.cli import main

Run = Callable[..., tuple[int, str, str]]


def tensors() -> dict[str, np.ndarray[Any, Any]]:
    rng = np.random.default_rng(0)
    layers = {f"layers.{i}.weight": rng.standard_normal((16, 16)).astype(np.float32) * 2.0**-i for i in range(12)}
    return {
        **layers,
        "head.bias": np.float32([1e5, 1.0]),
        "tiny": rng.standard_normal(50) * 2.0**-40,
        "ids": np.arange(4),
    }


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("measure")
    np.savez(folder / "grads.npz", **tensors())
    np.savez(folder / "fine.npz", a=np.ones(10, np.float32), b=np.full(10, 2.0, np.float32))
    np.savez(folder / "nan.npz", a=np.array([np.nan, 1.0]))
    np.savez(folder / "ints.npz", a=np.arange(3))
    np.save(folder / "one.npy", np.ones(5))
    (folder / "cut.npz").write_bytes((folder / "grads.npz").read_bytes()[:500])
    (folder / "folder").mkdir()
    (folder / "other.json").write_text("{}")
    return {path.name: path for path in folder.iterdir()} | {"": folder}


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Run:
    monkeypatch.setenv("COLUMNS", "100")  # parallel test runs set it to 80

    def call(*arguments: object) -> tuple[int, str, str]:
        code = main(["measure", *map(str, arguments)])
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return call


def parsed(run: Run, *arguments: object) -> dict[str, Any]:
    def refuse(name: str) -> None:
        raise AssertionError(f"{name} is not JSON")

    code, out, err = run(*arguments, "--json")
    assert (code, err) == (0, "")
    payload: dict[str, Any] = json.loads(out, parse_constant=refuse)
    return payload


def flat(text: str) -> str:
    return " ".join(text.split())


def test_trouble_leads(run: Run, files: dict[str, Path]) -> None:
    code, out, err = run(files["grads.npz"])
    assert (code, err) == (0, "")
    text, table = flat(out), gk.measure_many(files["grads.npz"])
    assert "14 tensors, 3,124 entries, 13 float32, 1 float64; cast at scale 2^0" in text
    for fmt in ("float16", "bfloat16", "float8_e4m3fn", "float8_e5m2"):
        assert re.search(rf"^{fmt} ", out, re.MULTILINE)
    why = table.loss_scale_window("float16").why
    assert "tiny needs at least" in why and "head.bias overflows above 2^-1" in why and "would fit" in why
    assert why in text and "skipped 1: int64, no floating-point format" in text
    names = re.findall(r"^(head\.bias|tiny|layers\.\d+\.weight) ", out, re.MULTILINE)
    assert names[:2] == ["head.bias", "tiny"]
    assert max(map(len, out.splitlines())) <= 100


def test_numbers_are_those_of_the_table(run: Run, files: dict[str, Path]) -> None:
    payload = parsed(run, files["grads.npz"], "--format", "half", "--format", "e4m3", "--scale", "2^3", "--lose", "0.1")
    table = gk.measure_many(files["grads.npz"])
    assert payload["source"] == str(files["grads.npz"]) and payload["skipped"] == table.skipped
    assert (payload["scale"], payload["lose"], payload["nonfinite"]) == (8.0, 0.1, [])
    assert [fmt["format"] for fmt in payload["formats"]] == ["float16", "float8_e4m3fn"]
    for fmt in payload["formats"]:
        window = table.loss_scale_window(fmt["format"], 0.1).to_dict()
        assert fmt["window"] == json.loads(json.dumps(window))
        found = [t.fit(fmt["format"], 8.0).overflow for t in table.values()]
        assert fmt["overflow"] == {"low": sum(b.low > 0 for b in found), "high": sum(b.high > 0 for b in found)}
    assert sorted(t["name"] for t in payload["tensors"]) == sorted(table)
    for tensor in payload["tensors"]:
        assert tensor["stats"] == json.loads(json.dumps(table[tensor["name"]].to_dict()))
        assert tensor["fits"]["float16"] == table[tensor["name"]].fit("float16", 8.0).to_dict()


def test_healthy_tensors_are_one_line(run: Run, files: dict[str, Path]) -> None:
    code, out, _ = run(files["fine.npz"], "--format", "float16")
    assert code == 0 and "healthy: every format here holds every tensor" in out
    assert "not shown: 2 healthy tensors (20 entries)" in out and "any" not in out
    _, out, _ = run(files["fine.npz"], "--format", "float16", "--all")
    assert "not shown" not in out and re.search(r"^a +10 +0\.\.0", out, re.MULTILINE)


def test_top_all_and_sort(run: Run, files: dict[str, Path]) -> None:
    _, out, _ = run(files["grads.npz"], "--top", 2)
    assert "not shown: 12 more in trouble" in out and "layers." not in out.partition("% of the non-zero")[2]
    _, out, _ = run(files["grads.npz"], "--all", "--sort", "name")
    found = re.findall(r"^(head\.bias|tiny|layers\.\d+\.weight) ", out, re.MULTILINE)
    assert found == ["head.bias", *(f"layers.{i}.weight" for i in range(12)), "tiny"]
    for sort in ("size", "amax", "overflow", "flushed", "subnormal", "nonfinite", "trouble"):
        assert len(parsed(run, files["grads.npz"], "--sort", sort)["tensors"]) == 14


def test_scale_moves_the_trouble(run: Run, files: dict[str, Path]) -> None:
    payload = parsed(run, files["grads.npz"], "--format", "float16", "--scale", "1024")
    names = {t["name"]: t["severity"] for t in payload["tensors"]}
    assert names["head.bias"] == "critical" and names["tiny"] == "major" and names["layers.0.weight"] is None


def test_fail_on(run: Run, files: dict[str, Path]) -> None:
    overflow, fine, nan = files["grads.npz"], files["fine.npz"], files["nan.npz"]
    assert run(overflow)[0] == 0 and run(overflow, "--fail-on", "none")[0] == 0
    for level in ("critical", "major", "minor"):
        assert run(overflow, "--fail-on", level)[0] == 1 and run(fine, "--fail-on", level)[0] == 0
    assert run(nan, "--fail-on", "critical")[
        0
    ] == 1 and "1 of 1 tensor holds NaN or inf, which no scale mends: a" in flat(run(nan)[1])
    flushing = (overflow, "--format", "bfloat16", "--scale", "2^-100", "--fail-on")
    assert run(*flushing, "critical")[0] == 0 and run(*flushing, "major")[0] == 1
    digits = (fine, "--format", "float16", "--scale", "2^-16", "--fail-on")
    assert run(*digits, "major")[0] == 0 and run(*digits, "minor")[0] == 1


def test_default_is_the_digits_network(run: Run) -> None:
    code, out, err = run("--format", "float16", "--scale", "2^14", "--top", 3)
    assert (code, err) == (0, "")
    assert "the true gradients of the embedded digits network on 256 embedded images, as no FILE was given" in flat(out)
    assert "161 tensors" in out and "grad_pre_activation" in out


def test_folder_of_shards(run: Run, files: dict[str, Path], tmp_path: Path) -> None:
    from safetensors.numpy import save_file

    save_file({"a": np.ones(3)}, tmp_path / "x-1.safetensors")
    save_file({"b": np.ones(3)}, tmp_path / "x-2.safetensors")
    assert [t["name"] for t in parsed(run, tmp_path, "--sort", "name")["tensors"]] == ["a", "b"]


@pytest.mark.parametrize(("ending", "magic"), [("png", b"\x89PNG"), ("pdf", b"%PDF"), ("svg", b"<?xml")])
def test_plot(run: Run, files: dict[str, Path], tmp_path: Path, ending: str, magic: bytes) -> None:
    pytest.importorskip("matplotlib")
    path = tmp_path / f"binades.{ending}"
    assert run(files["grads.npz"], "--plot", path, "--scale", "2^4")[0] == 0
    assert path.read_bytes().startswith(magic)


def test_save_writes_json(run: Run, files: dict[str, Path], tmp_path: Path) -> None:
    run(files["grads.npz"], "--save", tmp_path / "t.json")
    fields = json.loads((tmp_path / "t.json").read_text())
    assert fields.pop("gradkern_table") == 1 and fields == json.loads(
        json.dumps(gk.measure_many(files["grads.npz"]).to_dict())
    )


def test_saved_statistics_answer_without_the_file(run: Run, files: dict[str, Path], tmp_path: Path) -> None:
    path = tmp_path / "t.json.gz"
    run(files["grads.npz"], "--save", path)
    options = ("--format", "float16", "--scale", "2^5")
    read, saved = parsed(run, files["grads.npz"], *options), parsed(run, path, *options)
    assert saved.pop("source") == f"{path}, saved statistics" and read.pop("source")
    assert read == saved


BAD = {
    "missing": (("nowhere.npz",), "nowhere.npz: no such file"),
    "truncated": (("@cut.npz",), "cut.npz: not a complete .npz file"),
    "empty folder": (("@folder",), "a folder without .safetensors files; it holds nothing"),
    "nothing to measure": (("@ints.npz",), "nothing to measure: a (int64, no floating-point format)"),
    "no table": (("@other.json",), "other.json holds no saved StatsTable (no gradkern_table)"),
    "no saved table": (("nowhere.json",), "error: nowhere.json: no such file"),
    "ending": (("nowhere.pt",), "nowhere.pt: no such file"),
    "format": (("@fine.npz", "--format", "float12"), "--format: must be one of float64, float32"),
    "scale": (("@fine.npz", "--scale", "3"), "--scale: must be a power of two such as 1024 or 2^10, got '3'"),
    "lose": (("@fine.npz", "--lose", "2"), "--lose: must be between 0 and 1, got 2.0"),
    "lose of words": (("@fine.npz", "--lose", "few"), "Invalid value for '--lose'"),
    "sort": (("@fine.npz", "--sort", "beauty"), "'beauty'"),
    "top": (("@fine.npz", "--top", "-1"), "Invalid value for '--top'"),
    "threads": (("@fine.npz", "--threads", "0"), "between 1 and 1024, got 0"),
    "plot": (("@fine.npz", "--plot", "a.doc"), "--plot: the name must end in .png"),
    "save": (("@fine.npz", "--save", "nowhere/a.json"), "--save: no such folder: nowhere"),
    "two files": (("@fine.npz", "@nan.npz"), "unexpected extra argument"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_input_is_one_precise_line_and_exit_code_2(run: Run, files: dict[str, Path], case: str) -> None:
    arguments, message = BAD[case]
    code, out, err = run(*(files[a[1:]] if a[0] == "@" else a for a in arguments))
    assert (code, out) == (2, "")
    assert err.startswith("gradkern: error: ") and err.count("\n") == 1
    assert message in err


def test_help_teaches(run: Run) -> None:
    code, out, _ = run("--help")
    assert code == 0 and "gradkern measure gradients.npz --format float16 --scale 2^10" in flat(out)
    assert "Exit codes" in out


@pytest.mark.parametrize(
    ("count", "size", "text"),
    [(0, 9, "."), (9, 9, "100"), (1, 10**6, "<.1"), (10**6 - 1, 10**6, ">99"), (1, 8, "12"), (1, 50, "2.0"), (993, 1000, "99")],
)  # fmt: skip
def test_share_takes_three_characters(count: int, size: int, text: str) -> None:
    assert share(count, size) == text


def test_amount() -> None:
    values = (0, 999, 1000, 1536, 999_600, 22_713_216, 1_073_741_824)
    assert [amount(v) for v in values] == ["0", "999", "1k", "1.54k", "1000k", "22.7M", "1.07G"]


CHILD = """
import importlib, sys, time
import gradkern._progress
from gradkern.cli import main
many = importlib.import_module("gradkern.measure_many")
gradkern._progress.LONG, many._BATCH_TENSORS = 0, 1
fast, pause = many._measure_all, float(sys.argv[2])
def slow(*arguments):
    time.sleep(pause)
    return fast(*arguments)
many._measure_all = slow
sys.exit(main(["measure", sys.argv[1]]))
"""
HIDE, SHOW = b"\x1b[?25l", b"\x1b[?25h"


def in_a_terminal(*arguments: str, until: bytes | None = None) -> tuple[int, bytes]:
    """Run Python in a pseudo-terminal; press Ctrl-C once `until` has been printed. Returns exit code and output."""
    pty = pytest.importorskip("pty")
    fcntl, termios = pytest.importorskip("fcntl"), pytest.importorskip("termios")
    master, slave = pty.openpty()
    environment = {**os.environ, "TERM": "xterm-256color", "COLUMNS": "100"}
    child = subprocess.Popen(
        [sys.executable, "-c", CHILD, *arguments], stdin=slave, stdout=slave, stderr=slave, start_new_session=True,
        preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0), env=environment,
    )  # fmt: skip
    os.close(slave)
    output, pressed, deadline = b"", False, time.monotonic() + 60
    try:
        while time.monotonic() < deadline:
            if select.select([master], [], [], 0.1)[0]:
                try:
                    chunk = os.read(master, 65536)
                except OSError:  # the other end is closed
                    break
                if not chunk:
                    break
                output += chunk
            if until is not None and not pressed and until in output:
                os.write(master, b"\x03")
                pressed = True
        return child.wait(timeout=30), output
    finally:
        child.kill()
        os.close(master)


def test_ctrl_c_leaves_a_clean_terminal(files: dict[str, Path]) -> None:
    code, output = in_a_terminal(str(files["grads.npz"]), "0.5", until=b"measuring")
    assert code == 130, output
    assert HIDE in output and output.rindex(SHOW) > output.rindex(HIDE)
    assert b"Traceback" not in output and b"Error" not in output
    after = re.sub(rb"\x1b\[[0-9;?]*[A-Za-z]|\^C|\s", b"", output[output.rindex(b"\x1b[2K") :])
    assert after == b"", "the bar is erased"


def test_the_bar_goes_when_the_work_is_done(files: dict[str, Path]) -> None:
    code, output = in_a_terminal(str(files["grads.npz"]), "0.02")
    assert code == 0 and b"tensors that" in output
    assert HIDE in output and output.rindex(SHOW) > output.rindex(HIDE)
    assert output.rindex(b"measuring") > output.rindex(SHOW), "what is left is the line above the table"


def test_no_bar_without_a_terminal(files: dict[str, Path]) -> None:
    command = [sys.executable, "-c", CHILD, str(files["fine.npz"]), "0"]
    done = subprocess.run(command, capture_output=True, check=False)
    assert (done.returncode, done.stderr) == (0, b"")
