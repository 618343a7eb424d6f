"""The rules that the sources keep: who includes whom, what no file may contain, what each kernel object exports."""

from __future__ import annotations

import os
import platform
import re
import shutil
import subprocess
from collections import Counter
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
CSRC = ROOT / "csrc"

pytestmark = pytest.mark.skipif(
    not (CSRC / "CMakeLists.txt").exists() or not (ROOT / "pyproject.toml").exists(), reason="needs a source checkout"
)

# Folders of csrc that each folder may include besides itself.
NUMBERS = {"ops", "formats", "base"}
ARROWS = {
    "base": set(),
    "formats": {"base"},
    "ops": {"formats", "base"},
    "ref": NUMBERS,
    "simd": NUMBERS,
    "mma": NUMBERS,
    "executor": NUMBERS | {"mma"},
    "cpu": NUMBERS | {"simd", "mma", "executor"},
    "cuda": NUMBERS | {"mma", "executor", "simt"},
    "simt": {"base", "formats", "mma"},
    "chain": NUMBERS | {"executor"},
    "bindings": NUMBERS | {"mma", "executor", "cpu", "cuda", "chain"},
}
CPP = {".hpp", ".cpp", ".h", ".cu", ".cuh"}
LINE_LIMIT = 400
COMPILER = os.environ.get("CXX") or shutil.which("g++") or shutil.which("clang++") or ""


def sources(*folders: str, suffixes: set[str] | None = None) -> list[Path]:
    """Source files under these folders of the checkout: those that git tracks or would, else all on disk."""
    command = ["git", "-C", str(ROOT), "ls-files", "-z", "--cached", "--others", "--exclude-standard", "--", *folders]
    try:
        listed = subprocess.run(command, capture_output=True, check=True).stdout.decode()
        paths = [ROOT / name for name in listed.split("\0") if name]
    except (OSError, subprocess.CalledProcessError):
        paths = []
    if not paths:
        tops = [ROOT / folder for folder in folders]
        paths = [
            p for top in tops for p in ([top] if top.is_file() else top.rglob("*")) if "__pycache__" not in p.parts
        ]
    paths = [p for p in paths if p.is_file() and (suffixes is None or p.suffix in suffixes)]
    return sorted(set(paths))


def text_of(path: Path) -> str:
    """Text of a file, or nothing for a binary one."""
    data = path.read_bytes()
    return "" if b"\0" in data else data.decode("utf-8", errors="replace")


def offences(pattern: str, paths: list[Path]) -> list[str]:
    """Every line that matches, as path:line: text."""
    found = []
    for path in paths:
        for number, line in enumerate(text_of(path).splitlines(), 1):
            if re.search(pattern, line):
                found.append(f"{path.relative_to(ROOT)}:{number}: {line.strip()}")
    return found


def includes(path: Path) -> list[str]:
    """Names in the include directives of a C++ file, in quotes or angle brackets."""
    return re.findall(r'^\s*#\s*include\s*[<"]([^>"]+)[>"]', text_of(path), re.MULTILINE)


def test_the_sources_are_found():
    assert len(sources("csrc", suffixes=CPP)) > 40
    assert sources("python", suffixes={".py"})
    assert ROOT / "tests/test_codebase.py" in sources("tests", suffixes={".py"})


def test_every_folder_has_a_rule():
    folders = {p.relative_to(CSRC).parts[0] for p in sources("csrc", suffixes=CPP)}
    assert folders <= set(ARROWS), "say in ARROWS what the new folder may include"


@pytest.mark.parametrize("folder", sorted(ARROWS))
def test_include_arrows(folder):
    wrong = []
    for path in sources("csrc/" + folder, suffixes=CPP):
        for name in includes(path):
            target = name.split("/")[0]
            own_header = (CSRC / name).exists()
            if own_header and target not in ARROWS[folder] | {folder}:
                wrong.append(f"{path.relative_to(ROOT)} includes {name}")
            if "/" in name and not own_header and (path.parent / name).exists():
                wrong.append(f"{path.relative_to(ROOT)} includes {name}, which is not a path from csrc")
            if "/" not in name and (path.parent / name).exists():
                wrong.append(f"{path.relative_to(ROOT)} includes {name}, which is not a path from csrc")
    assert not wrong


def test_executors_and_chains_meet_only_in_the_table():
    for folder in ("cpu", "cuda", "chain"):
        assert not ARROWS[folder] & {"cpu", "cuda", "chain"}
    assert "simd" not in ARROWS["bindings"]


def test_included_headers_exist():
    wrong = []
    for path in sources("csrc", suffixes=CPP):
        for name in re.findall(r'^\s*#\s*include\s*"([^"]+)"', text_of(path), re.MULTILINE):
            if not (CSRC / name).exists():
                wrong.append(f"{path.relative_to(ROOT)} includes {name}")
    assert not wrong


def test_only_the_bindings_know_python():
    wrong = [
        f"{path.relative_to(ROOT)} includes {name}"
        for path in sources("csrc", suffixes=CPP)
        for name in includes(path)
        if name.startswith(("pybind11", "Python.h")) and path.relative_to(CSRC).parts[0] != "bindings"
    ]
    assert not wrong


def test_only_cuda_knows_cuda():
    wrong = [
        f"{path.relative_to(ROOT)} includes {name}"
        for path in sources("csrc", suffixes=CPP)
        for name in includes(path)
        if name.startswith(("cuda", "cublas")) and path.relative_to(CSRC).parts[0] not in ("cuda", "simt")
        if not (CSRC / name).exists()
    ]
    assert not wrong


def test_files_are_short():
    paths = sources("csrc", "python", "tests", "benchmarks", suffixes=CPP | {".py", ".cmake"})
    lengths = {str(p.relative_to(ROOT)): len(text_of(p).splitlines()) for p in paths}
    assert {name: n for name, n in lengths.items() if n > LINE_LIMIT} == {}


def test_no_fast_math():
    flags = (
        r"-f?fast-math|-Ofast|-funsafe-math|-fassociative-math|-freciprocal-math|-ffinite-math|-fno-signed-zeros"
        r"|use_fast_math|-ffp-contract=(?!off)|--?fmad=true|-ftz=true|_MM_SET_FLUSH_ZERO|GCC optimize|FP_CONTRACT ON"
    )
    paths = sources("csrc", "python", "tests", "benchmarks", "examples", ".ci", "pyproject.toml", "CMakeLists.txt",
                    "CMakePresets.json")  # fmt: skip
    assert offences(flags, [p for p in paths if p != Path(__file__).resolve()]) == []


def test_every_source_is_compiled_without_contraction():
    policy = text_of(CSRC / "cmake/policy.cmake")
    assert "-ffp-contract=off" in policy
    linked = re.findall(r"target_link_libraries\((\S+) \S+ ([^)]*)\)", text_of(CSRC / "CMakeLists.txt"))
    assert any(target == "gradkern_kernels" and "gradkern_policy" in libraries for target, libraries in linked)


def test_the_library_never_prints_or_exits():
    calls = r"\b(printf|fprintf|puts|putchar|perror)\s*\(|std::(cout|cerr|clog|print)\b|\b(abort|_?exit|_Exit)\s*\("
    assert offences(calls, sources("csrc", suffixes=CPP)) == []


def test_no_half_type_of_the_compiler():
    assert offences(r"\b(_Float16|__fp16|__bf16)\b", sources("csrc", suffixes=CPP)) == []


def test_nothing_is_left_undone():
    words = r"\b(TODO|FIXME|XXX|HACK)\b|NotImplementedError"
    assert offences(words, sources("csrc", "python", suffixes=CPP | {".py", ".pyi", ".txt", ".cmake"})) == []


def test_no_machine_paths():
    pattern = r"(^|[^\w.]|-[IL])/(home|root|work|Users|mnt|tmp/[a-z])\b"
    paths = [p for p in sources(".") if p != Path(__file__).resolve() and p.name != "LICENSE"]
    assert len(paths) > 60
    assert offences(pattern, paths) == []


def isa_flags() -> dict[str, list[str]]:
    """Compiler flags of each x86 instruction set, as the build says them."""
    text = re.sub(r"#.*", "", text_of(CSRC / "CMakeLists.txt"))
    for name, value in re.findall(r"\bset\((\w+) ([^)]*)\)", text):
        text = text.replace(f"${{{name}}}", value)
    calls = [words.split() for words in re.findall(r"gradkern_add_isa\(([^)]*)\)", text)]
    return {name: flags for name, *flags in calls if name != "neon"}


def compiles(flag: str) -> bool:
    command = [*COMPILER.split(), flag, "-x", "c++", "-fsyntax-only", "/dev/null"]
    return subprocess.run(command, capture_output=True).returncode == 0


def symbols(name: str, target: Path) -> Counter[str]:
    """Compile the kernels of one instruction set to target; count its symbols by nm's letter."""
    policy = ["-std=c++20", "-O1", "-fPIC", "-ffp-contract=off", "-fvisibility=hidden", "-fvisibility-inlines-hidden"]
    source = CSRC / f"cpu/kernels_{name}.cpp"
    command = [*COMPILER.split(), *policy, "-w", *isa_flags()[name], f"-I{CSRC}", "-c", str(source), "-o", str(target)]
    subprocess.run(command, check=True)
    lines = subprocess.run(["nm", str(target)], capture_output=True, check=True, text=True).stdout.splitlines()
    return Counter(line.split()[-2] for line in lines)


def test_the_instruction_sets_are_known():
    assert set(isa_flags()) == {"base", "avx2", "avx512", "avx512fp16"}


@pytest.mark.skipif(platform.machine() not in ("x86_64", "AMD64"), reason="the flags are those of x86")
@pytest.mark.skipif(not COMPILER or not shutil.which("nm"), reason="needs a C++ compiler and nm")
@pytest.mark.parametrize("name", ["base", "avx2", "avx512", "avx512fp16"])
def test_each_kernel_object_exports_one_symbol(name, tmp_path):
    """A weak symbol would be shared between objects: code of one instruction set run on a processor without it."""
    if name == "avx512fp16" and not compiles("-mavx512fp16"):
        pytest.skip("the compiler does not know this instruction set")
    letters = symbols(name, tmp_path / "kernels.o")
    letters.pop("V", None)  # DW.ref.__gxx_personality_v0: where exceptions find their routine, the same everywhere
    assert set(letters) <= set("UtrbdDRTB"), letters
    assert sum(letters[letter] for letter in "DRTB") == 1, letters
