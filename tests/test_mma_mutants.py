"""Every rule of the scalar model matters: with any one broken, golden outputs are missed."""

from __future__ import annotations

import ctypes
import os
import shutil
import subprocess
from pathlib import Path

import mma_truth
import numpy as np
import pytest

from gradkern import _units
from gradkern.formats import format_ids

ROOT = Path(__file__).resolve().parents[1]
COMPILER = os.environ.get("CXX") or shutil.which("g++") or shutil.which("clang++") or ""
SOURCE = ROOT / "tests/native/mma_mutants.cpp"
NAMES = SOURCE.read_text().split("constexpr Mutant mutants[] = {")[-1].split("};")[0]
MUTANTS = [part.split(")")[0] for part in NAMES.split("MUTANT(")[1:]]

pytestmark = pytest.mark.skipif(
    not COMPILER or not (ROOT / "csrc").exists(), reason="needs a C++ compiler and a source checkout"
)


@pytest.fixture(scope="module")
def mutants(tmp_path_factory):
    """The model and its mutants, compiled."""
    target = tmp_path_factory.mktemp("mutants") / "mutants.so"
    flags = ["-std=c++20", "-O1", "-fPIC", "-shared", "-ffp-contract=off", f"-I{ROOT / 'csrc'}"]
    subprocess.run([*COMPILER.split(), *flags, str(SOURCE), "-o", str(target)], check=True)
    library = ctypes.CDLL(str(target))
    library.mutant_name.restype = ctypes.c_char_p
    library.mutant_failures.restype = ctypes.c_int64
    return library


@pytest.fixture(scope="module")
def problems():
    """Golden problems as the library takes them."""
    ids, units = format_ids(), _units.unit_ids()

    def words(x):
        return np.ascontiguousarray(x, np.uint32)

    return [
        (units[p.unit], ids[p.a_format], ids[p.b_format], ids[p.accumulate], p.instruction_k,
         words(p.A), words(p.B.T), words(p.C), words(p.D))
        for p in mma_truth.golden()
    ]  # fmt: skip


def failures(library, index, problem):
    *numbers, a, b, c, d = problem
    arrays = [x.ctypes.data_as(ctypes.c_void_p) for x in (a, b, c, d)]
    sizes = [ctypes.c_int64(n) for n in (*c.shape, a.shape[1])]
    return library.mutant_failures(index, *numbers, *arrays, *sizes)


def test_the_mutants_are_those_of_the_source(mutants):
    assert [mutants.mutant_name(i).decode() for i in range(len(MUTANTS))] == MUTANTS
    assert mutants.mutant_name(len(MUTANTS)) is None
    assert len(MUTANTS) > 24


def test_the_unbroken_model_has_no_failure(mutants, problems):
    assert MUTANTS[0] == "Exact"
    assert sum(failures(mutants, 0, p) for p in problems) == 0


@pytest.mark.parametrize("index", range(1, len(MUTANTS)), ids=MUTANTS[1:])
def test_a_broken_rule_is_found(mutants, problems, index):
    assert any(failures(mutants, index, p) for p in problems)
