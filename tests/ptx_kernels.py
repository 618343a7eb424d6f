"""The CUDA kernels as PTX: compiled once for a run of the tests, found by their names, and launched."""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import cubins
import ptx_run
import pytest
from ptx_memory import Memory
from ptx_parse import Entry, parse_file

ARCHITECTURE = 90
MISSING = next((f"{tool} not found" for tool in ("nvcc", "c++filt") if not shutil.which(tool)), None)


def slow_but(cases: Iterable[Any], *quick: Any) -> list[Any]:
    """Parameters of a test, all of them slow but some."""
    cases = list(cases)
    assert all(case in cases for case in quick), quick
    several = [case if isinstance(case, tuple) else (case,) for case in cases]
    return [pytest.param(*values, marks=[] if case in quick else pytest.mark.slow)
            for case, values in zip(cases, several, strict=True)]  # fmt: skip


def padded(parameters: list[bytes], entry: Entry) -> bytes:
    """Each at its place of the parameter space; what a struct leaves between its members is not looked at."""
    space = bytearray(b"\xff" * entry.parameter_bytes)
    for variable, raw in zip(entry.parameters.values(), parameters, strict=True):
        assert variable.size == len(raw), f"{variable.name}: {variable.size} bytes, got {len(raw)}"
        space[variable.offset : variable.offset + variable.size] = raw
    return bytes(space)


def extents(of: int | tuple[int, ...]) -> tuple[int, int, int]:
    """Along x, y and z."""
    x, y, z, *_ = (*((of,) if isinstance(of, int) else of), 1, 1)
    return x, y, z


def outside_of_entries(ptx: Path) -> list[str]:
    """Lines that declare functions, local memory or a stack, or that call something."""
    unwanted = re.compile(r"\s*(?:\.(?:visible |extern |weak )?func\b|\.local\b|call[.\s])|.*__local_depot")
    return [line for line in ptx.read_text().splitlines() if unwanted.match(line)]


class Kernels:
    """Entries of all files, each file compiled when it is first asked for."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.files: dict[tuple[str, int], dict[str, Entry]] = {}

    def entries(self, file: str, architecture: int = ARCHITECTURE) -> dict[str, Entry]:
        """Of a file, by name without namespaces."""
        key = file, architecture
        if key not in self.files:
            found = parse_file(cubins.compile_ptx(cubins.CUDA / f"{file}.cu", architecture, self.directory))
            names = cubins.readable(list(found)) if found else []
            self.files[key] = dict(zip(names, found.values(), strict=True))
        return self.files[key]

    def launch(
        self,
        file: str,
        name: str,
        memory: Memory,
        grid: int | tuple[int, ...],
        block: int | tuple[int, ...],
        *parameters: Any,
        architecture: int = ARCHITECTURE,
        **how: Any,
    ) -> None:
        """Run a kernel to its end. `parameters` are structs, or numbers of ctypes."""
        entry = self.entries(file, architecture)[name]
        arguments = padded([bytes(p) for p in parameters], entry)
        ptx_run.run(ptx_run.Launch(entry, memory, arguments, extents(block), extents(grid), **how))
