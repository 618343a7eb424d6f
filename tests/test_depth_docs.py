"""Every Python block of docs/depth.md runs and prints what the page says; its recipes and its command run, too."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest
from doc_blocks import blocks, run_python_blocks

import gradkern as gk
from gradkern.cli import main

PAGE = Path(__file__).parents[1] / "docs/depth.md"
pytestmark = pytest.mark.skipif(not PAGE.is_file(), reason="not a source checkout")
GRID = {"depth": [2, 3], "width": 4, "batch": 1, "seed": range(3)}


def block(language: str) -> str:
    (code,) = [code for name, code in blocks(PAGE) if name == language]
    return code


def test_blocks_print_what_the_page_says() -> None:
    assert run_python_blocks(PAGE, {"python"}) >= 7


def test_the_recipe_of_a_pool(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    names = {"gk": gk, "grid": GRID}
    exec(block("python pool").replace("(4)", "(2)"), names)
    assert len(gk.SweepResult.load("rows.jsonl")) == 6


def test_the_recipe_of_a_cluster(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    distributed = pytest.importorskip("distributed")
    monkeypatch.chdir(tmp_path)
    options = {"n_workers": 1, "threads_per_worker": 1, "processes": False, "dashboard_address": None}
    with distributed.LocalCluster(
        **options, local_directory=str(tmp_path), protocol="tcp", host="127.0.0.1"
    ) as cluster:
        code = block("python cluster").replace("tcp://scheduler:8786", cluster.scheduler_address)
        exec(code, {"gk": gk, "grid": GRID})
    assert len(gk.SweepResult.load("rows.jsonl")) == 6


def test_the_command_draws_the_picture(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("matplotlib")
    monkeypatch.chdir(tmp_path)
    program, *arguments = shlex.split(block("bash").replace("\\\n", " "))
    coarse = {"0.5:3:0.125": "0.5:3:1.25", "0:1.5:0.125": "0:1.5:0.75", "40": "6", "64": "8"}
    assert program == "gradkern" and main([coarse.get(argument, argument) for argument in arguments]) == 0
    assert (tmp_path / "phases_tanh.png").read_bytes().startswith(b"\x89PNG")


def test_pictures_exist() -> None:
    targets = re.findall(r"!\[[^\]]*\]\(([^)]+)\)", PAGE.read_text(encoding="utf-8"))
    assert targets
    for target in targets:
        assert (PAGE.parent / target).is_file(), target
