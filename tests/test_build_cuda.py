"""How a build finds a CUDA compiler, and what it says where there is none: csrc/cmake/cuda.cmake, configured alone."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
CMAKE, NVCC = shutil.which("cmake"), shutil.which("nvcc")
PROJECT = f"""
cmake_minimum_required(VERSION 3.26)
project(kernels LANGUAGES CXX)
include({ROOT}/csrc/cmake/cuda.cmake)
"""
pytestmark = pytest.mark.skipif(CMAKE is None, reason="cmake is not installed")


def configure(folder, *options, **environment):
    """Return the exit status and all that was said, in one line."""
    (folder / "CMakeLists.txt").write_text(PROJECT)
    run = subprocess.run(
        [CMAKE, "-S", folder, "-B", folder / "build", f"-DPython_EXECUTABLE={sys.executable}", *options],
        env={k: v for k, v in os.environ.items() if k not in ("CUDACXX", "CUDAFLAGS")} | environment,
        capture_output=True, text=True,
    )  # fmt: skip
    return run.returncode, " ".join((run.stdout + run.stderr).split())


def test_without_a_compiler(tmp_path):
    missing = {"CUDACXX": str(tmp_path / "nvcc")}
    status, said = configure(tmp_path, "-DGRADKERN_CUDA=ON", **missing)
    assert status != 0 and "gradkern: GRADKERN_CUDA=ON, and no CUDA compiler was found" in said
    status, said = configure(tmp_path, "-DGRADKERN_CUDA=AUTO", **missing)
    assert status == 0 and "gradkern: CPU only, no CUDA compiler was found" in said
    status, said = configure(tmp_path, "-DGRADKERN_CUDA=OFF", **missing)
    assert status == 0 and "CUDA compiler" not in said


@pytest.mark.skipif(NVCC is None, reason="nvcc is not installed")
def test_the_compiler_of_wheels_beside_python(tmp_path):
    """Where no other is in sight, the one below Python's namespace package `nvidia`."""
    wheels = tmp_path / "nvidia" / "cu13" / "bin"
    wheels.mkdir(parents=True)
    nvcc = wheels / "nvcc"
    nvcc.write_text(f'#!/bin/sh\nexec {NVCC} "$@"\n')
    nvcc.chmod(0o755)
    path = os.environ["PATH"].split(os.pathsep)
    ignored = [folder for folder in [*path, "/usr/local/bin", "/usr/local/cuda/bin"] if Path(folder, "nvcc").exists()]
    search = os.pathsep.join([str(tmp_path), *filter(None, [os.environ.get("PYTHONPATH")])])
    status, said = configure(
        tmp_path, "-DGRADKERN_CUDA=ON", f"-DCMAKE_IGNORE_PATH={';'.join(ignored)}", "-DGRADKERN_CUDA_ARCHITECTURES=90-real",
        PYTHONPATH=search,
    )  # fmt: skip
    assert status == 0 and f"gradkern: CUDA kernels for 90-real with {nvcc}" in said, said
