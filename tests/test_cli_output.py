"""What the command line does with its output: closed pipes, files written last, hostile names, strict JSON, saved tables."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import gradkern as gk
from gradkern.cli import main


@pytest.fixture(scope="module")
def many(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file whose table is larger than a pipe holds."""
    path = tmp_path_factory.mktemp("many") / "many.npz"
    np.savez(path, **{f"layers.{i}.weight": np.array([1e6, 1.0, 2.0**-40]) for i in range(1500)})
    return path


def first_line(*arguments: object, folder: Path | None = None) -> tuple[int, str, str]:
    """Close the pipe after one line, as ``head -1`` does."""
    child = subprocess.Popen(
        [sys.executable, "-m", "gradkern", *map(str, arguments)], stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        cwd=folder,
    )  # fmt: skip
    assert child.stdout is not None and child.stderr is not None
    line = child.stdout.readline().decode()
    child.stdout.close()
    error = child.stderr.read().decode()
    child.stderr.close()
    return child.wait(timeout=60), line, error


@pytest.mark.parametrize("options", [("--all",), ("--json",)])
def test_a_closed_pipe(many: Path, options: tuple[str, ...]) -> None:
    code, line, error = first_line("measure", many, *options)
    assert (code, error) == (141, "")
    assert line == ("{\n" if "--json" in options else f"measuring {many}\n")


def test_a_pipe_closed_before_the_first_byte(many: Path) -> None:
    for command in (["measure", str(many)], ["info", "--json"], ["--help"], ["measure", "--help"], ["--version"]):
        read, write = os.pipe()
        os.close(read)
        done = subprocess.run(
            [sys.executable, "-m", "gradkern", *command], stdout=write, stderr=subprocess.PIPE, check=False
        )
        os.close(write)
        assert (done.returncode, done.stderr) == (141, b""), command


def test_a_closed_pipe_does_not_cost_the_files(many: Path, tmp_path: Path) -> None:
    code, _, error = first_line("measure", many, "--all", "--save", "t.json.gz", folder=tmp_path)
    assert (code, error) == (141, "")
    assert len(gk.StatsTable.load(tmp_path / "t.json.gz")) == 1500


@pytest.fixture
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("COLUMNS", "100")
    path = tmp_path / "grads.npz"
    np.savez(path, big=np.array([1e6, 1.0]), nan=np.array([np.nan, np.inf, 1.0]), zero=np.zeros(3))
    return path


def unread(*_: object, **__: object) -> None:
    raise AssertionError("the work began")


@pytest.mark.parametrize(
    ("option", "target", "message"),
    [
        ("--plot", "a.doc", "--plot: the name must end in .png, .svg, .pdf, got 'a.doc'"),
        ("--plot", "nowhere/a.png", "--plot: no such folder: "), ("--plot", "folder.png", "--plot: is a folder: "),
        ("--save", "a.txt", "--save: the name must end in .json, .json.gz, .npz, got 'a.txt'"),
        ("--save", "nowhere/a.json", "--save: no such folder: "), ("--save", "folder.json", "--save: is a folder: "),
    ],
)  # fmt: skip
def test_targets_are_checked_before_the_work(
    file: Path, option: str, target: str, message: str, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    monkeypatch.setattr(gk, "measure_many", unread)
    for ending in ("png", "json"):
        (file.parent / f"folder.{ending}").mkdir()
    assert main(["measure", str(file), option, str(file.parent / target)]) == 2
    captured = capsys.readouterr()
    assert captured.out == "" and captured.err.startswith(f"gradkern: error: {message}")
    assert captured.err.count("\n") == 1


@pytest.mark.parametrize(
    ("missing", "said"), [(True, "which is not installed"), (False, "which cannot be imported: broken")]
)
def test_a_missing_or_broken_matplotlib_is_found_before_the_work(
    file: Path, missing: bool, said: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    class Finder:
        def find_spec(self, name: str, *_: object) -> None:
            if name.partition(".")[0] == "matplotlib":
                raise ImportError("broken", name="matplotlib" if missing else "numpy.core")

    for name in [name for name in sys.modules if name.partition(".")[0] == "matplotlib"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setattr(sys, "meta_path", [Finder(), *sys.meta_path])
    monkeypatch.setattr(gk, "measure_many", unread)
    assert main(["measure", str(file), "--plot", str(file.parent / "a.png")]) == 2
    captured = capsys.readouterr()
    assert captured.out == "" and f"--plot: needs matplotlib, {said}" in captured.err and captured.err.count("\n") == 1


@pytest.mark.parametrize("as_json", [False, True])
@pytest.mark.parametrize("command", ["measure", "probe"])
def test_a_failing_write_loses_nothing(
    file: Path, command: str, as_json: bool, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device", "t.json")

    monkeypatch.setattr(gk.StatsTable, "save", full)
    monkeypatch.setattr(gk.ChainReport, "save", full)
    arguments = [command, *([str(file)] if command == "measure" else []), "--save", str(file.parent / "t.json")]
    assert main([*arguments, *(["--json"] if as_json else [])]) == 2
    captured = capsys.readouterr()
    assert captured.err == "gradkern: error: t.json: No space left on device\n"
    assert json.loads(captured.out) if as_json else captured.out.count("\n") > 5


def test_names_of_files_and_tensors_are_only_text(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from safetensors.numpy import save_file

    path = tmp_path / "m\x1b[31m[red]:smile:\n.safetensors"
    save_file({"a\x1b]0;t\x07": np.array([1e6], np.float32), "[bold]b": np.array([1e6], np.float32)}, path)
    assert main(["measure", str(path)]) == 0
    out = capsys.readouterr().out
    assert all(c.isprintable() or c == "\n" for c in out)
    assert "m\\x1b[31m[red]:smile:\\n.safetensors" in out and "a\\x1b]0;t\\x07" in out and "[bold]b" in out
    assert main(["measure", str(tmp_path / "no\x1b[2Jsuch.npz")]) == 2
    assert "no\\x1b[2Jsuch.npz: no such file" in capsys.readouterr().err


def test_an_encoding_that_lacks_a_character_is_no_error(tmp_path: Path) -> None:
    from safetensors.numpy import save_file

    save_file({"\u65e5\u672c.weight": np.array([1e6], np.float32)}, tmp_path / "m.safetensors")
    done = subprocess.run(
        [sys.executable, "-m", "gradkern", "measure", str(tmp_path / "m.safetensors")], capture_output=True,
        env={**os.environ, "PYTHONIOENCODING": "ascii"}, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, b"") and b"\\u65e5\\u672c.weight" in done.stdout


def strict(text: str) -> Any:
    def refuse(name: str) -> None:
        raise AssertionError(f"{name} is not JSON")

    return json.loads(text, parse_constant=refuse)


def test_json_without_numbers_is_json(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    np.savez(file.parent / "blank.npz", nan=np.array([np.nan]), empty=np.zeros(0), huge=np.array([1.7e308, -1.7e308]))
    for name in ("grads.npz", "blank.npz"):
        assert main(["measure", str(file.parent / name), "--json"]) == 0
        payload = strict(capsys.readouterr().out)
        stats = {tensor["name"]: tensor["stats"] for tensor in payload["tensors"]}
        assert stats["nan"]["amin"] in ("inf", 1.0)
    assert stats["empty"]["log2_l2"] == "-inf" and payload["blank"] == ["nan", "empty"]


@pytest.mark.parametrize("ending", [".json", ".json.gz", ".npz"])
@pytest.mark.parametrize("shown", [(), ("--json",), ("--all", "--sort", "amax", "--format", "e4m3", "--scale", "2^7")])
def test_a_saved_table_is_a_file_like_any_other(
    file: Path, ending: str, shown: tuple[str, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    saved = file.parent / f"table{ending}"
    gk.measure_many(file).save(saved)
    outputs = []
    for source, said in ((file, str(file)), (saved, f"{saved}, saved statistics")):
        assert main(["measure", str(source), *shown]) == 0
        out = capsys.readouterr().out
        assert out.count(said) == 1
        outputs.append(out.replace(said, "SOURCE"))
    assert outputs[0] == outputs[1]


def test_save_for_later_in_every_ending(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for ending in (".json", ".json.gz", ".npz"):
        assert main(["measure", str(file), "--save", str(file.parent / f"t{ending}")]) == 0
        assert gk.StatsTable.load(file.parent / f"t{ending}").to_dict() == gk.measure_many(file).to_dict()


def test_an_npz_of_arrays_is_no_table(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    np.savez(file.parent / "both.npz", gradkern_table=np.ones(3), x=np.ones(2))
    assert main(["measure", str(file.parent / "both.npz"), "--json"]) == 0
    assert len(strict(capsys.readouterr().out)["tensors"]) == 2
    np.savez(file.parent / "fake.npz", gradkern_table=np.frombuffer(b"no table", np.uint8))
    assert main(["measure", str(file.parent / "fake.npz")]) == 2
    assert "fake.npz holds no saved StatsTable" in capsys.readouterr().err


def test_exit_codes_rest_on_what_is_certain(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rng = np.random.default_rng(0)
    np.savez(file.parent / "cut.npz", cut=np.concatenate([2.0**-7 * (1 + rng.random(30)), np.ones(70)]))
    arguments = ["measure", str(file.parent / "cut.npz"), "--format", "e4m3", "--lose", "0.05", "--fail-on"]
    assert main([*arguments, "minor"]) == 0
    out = capsys.readouterr().out
    assert "0..1" in out and re.search(r" (0|1\.0)-30$", out, re.MULTILINE) and "healthy: every" not in out
    assert "no tensor is in trouble for certain" in out
    assert main([*arguments, "minor", "--scale", "2^-1"]) == 1
