"""The native tests of the CUDA kernels find broken kernels: each mutant fails one of them, run on the host by csrc/simt."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import pytest
from cubins import kernel_sources
from cuda_mutants import MUTANTS, TESTS, Mutant

ROOT = Path(__file__).resolve().parents[1]
CSRC, NATIVE = ROOT / "csrc", ROOT / "tests" / "native"
COMPILER = (os.environ.get("CXX") or shutil.which("g++") or shutil.which("clang++") or "").split()
FLAGS = ["-std=c++20", "-O1", "-ffp-contract=off", "-Wno-psabi", "-Wno-unknown-pragmas", "-x", "c++", "-c"]

pytestmark = pytest.mark.skipif(not CSRC.exists(), reason="needs a source checkout")


def execute(command: list[str]) -> None:
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def compiled(source: Path, directory: Path, *before: Path) -> Path:
    """The object file; headers are looked for in `before`, then in csrc."""
    target = directory / f"{source.parent.name}_{source.name}.o"
    include = [f"-I{path}" for path in (*before, CSRC)]
    execute([*COMPILER, *FLAGS, *include, str(source), "-o", str(target)])
    return target


def linked(objects: list[Path], target: Path) -> Path:
    execute([*COMPILER, *map(str, objects), "-pthread", "-ldl", "-o", str(target)])
    return target


def failure(program: Path) -> str | None:
    """The first thing that a native test finds wrong, or None. A crash without a word is no finding."""
    environment = {**os.environ, "GRADKERN_FAIL_FAST": "1"}
    done = subprocess.run([str(program)], env=environment, capture_output=True, text=True, timeout=1800)
    if done.returncode == 0:
        return None
    found = re.search(r"^\S+:\d+: .*|what\(\): .*", done.stderr, re.M)
    assert found, f"exit status {done.returncode}: {done.stderr}"
    return found[0]


def host_sources() -> list[Path]:
    """What the tests link but the kernels: the CPU's executor of no instruction set in particular, and the fibers."""
    files = [path for part in ("base", "cpu", "executor", "simt") for path in sorted((CSRC / part).glob("*.cpp"))]
    return [path for path in files if not re.search("_(avx|amx|neon)", path.name)] + [CSRC / "cuda/runtime_host.cpp"]


class Build:
    """Everything compiled once, as it is; a mutant's kernel takes the place of its own object."""

    def __init__(self, directory: Path, pool: ThreadPoolExecutor) -> None:
        self.directory = directory
        tests = [NATIVE / f"test_cuda_{test}.cpp" for test in TESTS]
        kernels = kernel_sources()
        longest = CSRC / "cpu/kernels_base.cpp"
        sources = list(dict.fromkeys([longest, *kernels, *tests, *host_sources()]))
        objects = dict(zip(sources, pool.map(lambda source: compiled(source, directory), sources), strict=True))
        self.tests = {test: objects[path] for test, path in zip(TESTS, tests, strict=True)}
        self.kernels = {path.name: objects[path] for path in kernels}
        self.host = [objects[path] for path in host_sources()]

    def unbroken(self, test: str) -> str | None:
        """What the test finds in the kernels as they are."""
        objects = [self.tests[test], *self.kernels.values(), *self.host]
        return failure(linked(objects, self.directory / f"test_{test}"))

    def broken(self, number: int) -> str | None:
        """What its test finds in a mutant."""
        mutant = MUTANTS[number]
        place = self.directory / str(number)
        (place / "cuda").mkdir(parents=True)
        (place / "cuda" / mutant.file).write_text(mutated(mutant))
        copied = place / "cuda" / mutant.source
        source = copied if copied.exists() else CSRC / "cuda" / mutant.source
        others = [path for name, path in self.kernels.items() if name != mutant.source]
        objects = [compiled(source, place, place), self.tests[mutant.test], *others, *self.host]
        return failure(linked(objects, place / "test"))


def mutated(mutant: Mutant) -> str:
    text = (CSRC / "cuda" / mutant.file).read_text()
    assert text.count(mutant.old) == 1, f"{mutant.file} has no longer one place as mutant {mutant.name!r} knows it"
    return text.replace(mutant.old, mutant.new)


@pytest.fixture(scope="module")
def findings(request, tmp_path_factory):
    """What the tests find, by test and by number of a mutant, of those that are to run."""
    if not COMPILER:
        pytest.skip("needs a C++ compiler")
    chosen = [
        item.callspec.params
        for item in request.session.items
        if item.module is request.module and "slow" in item.keywords
    ]
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        build = Build(tmp_path_factory.mktemp("mutants"), pool)
        found: dict[str | int, Future[str | None]] = {}
        for params in chosen:
            if "test" in params:
                found[params["test"]] = pool.submit(build.unbroken, params["test"])
            else:
                found[params["number"]] = pool.submit(build.broken, params["number"])
        yield found
        pool.shutdown(cancel_futures=True)


def test_every_mutant_is_of_the_kernels_as_they_are():
    for mutant in MUTANTS:
        assert mutated(mutant) != (CSRC / "cuda" / mutant.file).read_text()


def test_the_mutants_are_many_and_of_every_kernel():
    assert len({m.name for m in MUTANTS}) == len(MUTANTS) >= 15
    assert len([m for m in MUTANTS if m.survives]) <= 1
    dispatching = {"table.cu", "mma.cu"}
    assert {m.source for m in MUTANTS} == {path.name for path in kernel_sources()} - dispatching


@pytest.mark.slow
@pytest.mark.parametrize("test", TESTS)
def test_unbroken_kernels_pass(findings, test):
    assert findings[test].result() is None


@pytest.mark.slow
@pytest.mark.parametrize("number", range(len(MUTANTS)), ids=[m.name for m in MUTANTS])
def test_a_broken_kernel_is_found(findings, number):
    found = findings[number].result()
    print(found)
    if MUTANTS[number].survives:
        assert found is None, "it is caught after all"
    else:
        assert found is not None
