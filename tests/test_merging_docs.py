"""The recipes of docs/merging.md run on two real processes and agree with a merge in this one."""

from __future__ import annotations

import importlib.util
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import gradkern as gk

RECIPES = dict(
    re.findall(r"```python (\w+)\n(.*?)```", (Path(__file__).parents[1] / "docs/merging.md").read_text(), re.S)
)


def expected() -> str:
    parts = [gk.measure(np.random.default_rng(rank).standard_normal(1000) + 5 * rank) for rank in (0, 1)]
    total = parts[0] + parts[1]
    return f"{total.size} {total.std.hex()}"


def check(command: list[str], name: str, folder: Path) -> None:
    script = folder / f"reduce_{name}.py"
    script.write_text(RECIPES[name])
    environment = {**os.environ, "OMPI_ALLOW_RUN_AS_ROOT": "1", "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1"}
    environment.pop("PYTHONUNBUFFERED", None)  # a line is one write: the processes share a pipe
    done = subprocess.run(
        [*command, str(script)], capture_output=True, text=True, env=environment, timeout=240, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.split("\n").count(expected()) == 2, done.stdout


def test_torch_distributed(tmp_path):
    pytest.importorskip("torch.distributed")
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    check([*launcher, "--no-python", sys.executable], "torch", tmp_path)  # by itself it runs Python unbuffered


def test_mpi4py(tmp_path):
    if not importlib.util.find_spec("mpi4py") or not shutil.which("mpirun"):
        pytest.skip("needs mpi4py and mpirun")
    check(["mpirun", "--oversubscribe", "-n", "2", sys.executable], "mpi4py", tmp_path)
