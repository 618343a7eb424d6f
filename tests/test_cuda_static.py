"""What compiled kernels must be, on any machine: judged by their cubins for sm_80 and sm_90, never by a run."""

from __future__ import annotations

import re
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import cubins
import pytest
from cubins import Kernel

MISSING = cubins.missing_tools()
pytestmark = pytest.mark.skipif(MISSING is not None, reason=f"cubins cannot be read: {MISSING}")

# Registers that two blocks of 256 threads on a multiprocessor leave to a thread.
MOST_REGISTERS = 128
# Kernels of one pass over memory keep three quarters of a multiprocessor's threads: at 256 threads, 40 registers. Those
# that hold more at once, and how many registers: float64 activations with their coefficients; the sums and counts of a
# rounding's report; 16 lanes of products.
STREAMING = {
    "activation.cu": 40,
    "clip.cu": 40,
    "clip_value.cu": 40,
    "convert.cu": 40,
    "elementary.cu": 40,
    "errors.cu": 40,
    "matvec.cu": 40,
    "patterns.cu": 40,
    "statistics.cu": 40,
    "update.cu": 40,
}
WIDER = {
    r"(forward|backward)_kernel<\w+, double>": 56,
    r"backward_kernel<gelu_tanh, float>": 46,
    r"elementary_kernel<.*double.*>": 48,
    r"report_kernel<.*>": 58,
    r"dot_kernel<.*>": 64,
}
# A float32 operand is rounded where it lies in shared memory, and a tfloat32 one whose rows are contiguous is read word
# by word: instructions per HMMA, and the share of the tensor bound on sm_80.
LARGE = {"outer_outer": 4.6, "rounded": 7.3, "else": 4.0}


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The cubins and PTX of every kernel."""
    path = tmp_path_factory.mktemp("cubins")
    cubins.compile_all(path)
    return path


@pytest.fixture(scope="module")
def kernels(directory: Path) -> list[Kernel]:
    """Every kernel of every cubin."""
    with ThreadPoolExecutor(2) as pool:
        return [k for read in pool.map(cubins.read_cubin, sorted(directory.glob("*.cubin"))) for k in read]


def label(kernel: Kernel) -> str:
    """A kernel in a message."""
    return f"sm_{kernel.architecture} {kernel.file} {kernel.name}"


def test_every_listed_file_has_its_kernels(kernels: list[Kernel]) -> None:
    """Both architectures have the same kernels, from every file but those that only dispatch."""
    names = {a: {(k.file, k.name) for k in kernels if k.architecture == a} for a in cubins.ARCHITECTURES}
    assert names[80] == names[90]
    sources = {path.name for path in cubins.kernel_sources()} - {"table.cu", "mma.cu"}
    assert {file for file, _ in names[80]} == sources


def test_nothing_lies_in_local_memory(kernels: list[Kernel]) -> None:
    """No stack frame, no local loads or stores."""
    assert [(label(k), k.stack) for k in kernels if k.stack or k.opcodes["LDL"] or k.opcodes["STL"]] == []


def test_nothing_is_called(directory: Path) -> None:
    """Every device function is inlined."""
    files = sorted(directory.glob("*.ptx"))
    assert files
    assert {path.name: cubins.calls_in_ptx(path) for path in files if cubins.calls_in_ptx(path)} == {}


def test_atomics_are_of_integers_and_single(kernels: list[Kernel]) -> None:
    """No compare-and-swap loops; no sums of floating point in the order in which blocks happen to run."""
    atomics = [(k, i) for k in kernels for i in k.instructions if re.match(r"ATOM|RED$|REDG", i.opcode)]
    assert atomics
    bad = {"CAS", "CAST", "F16x2", "F32", "F64", "BF16x2"}
    assert [(label(k), i) for k, i in atomics if bad & set(i.modifiers)] == []


def test_registers(kernels: list[Kernel]) -> None:
    """Every kernel within its number of registers."""
    over = []
    for k in kernels:
        most = STREAMING.get(k.file, MOST_REGISTERS)
        if k.file in STREAMING:
            most = max([most, *(r for pattern, r in WIDER.items() if re.fullmatch(pattern, k.name))])
        if k.registers > most:
            over.append((label(k), k.registers, most))
    assert over == []


def test_occupancy(kernels: list[Kernel]) -> None:
    """Three quarters for those that stream within 40 registers; half for those that hold more."""
    low = []
    for k in kernels:
        if k.file in STREAMING and k.max_threads:
            wider = any(re.fullmatch(pattern, k.name) for pattern in WIDER)
            if k.occupancy(k.max_threads) < (0.5 if wider else 0.75):
                low.append((label(k), k.occupancy(k.max_threads)))
    assert low == []


def test_elementwise_kernels_move_16_bytes(kernels: list[Kernel]) -> None:
    """Activations, elementary functions, errors: 128-bit global loads."""
    files = {"activation.cu", "elementary.cu", "errors.cu", "patterns.cu"}
    narrow = [
        label(k)
        for k in kernels
        if k.file in files and not any(i.opcode == "LDG" and "128" in i.modifiers for i in k.instructions)
    ]
    assert narrow == []


def mma_tile(kernel: Kernel) -> tuple[bool, str]:
    """Whether a product of a matrix unit is of 128 x 128 tiles, and which bar it is judged by."""
    found = re.search(r"MmaShape<(\d+), (\d+), .*?>, (\d), (true|false)>", kernel.name)
    assert found, kernel.name
    operands = "tfloat32" if "<tfloat32" in kernel.name else "half"
    bar = "rounded" if found[4] == "true" else "outer_outer" if operands == "tfloat32" and found[3] == "2" else "else"
    return (found[1], found[2]) == ("128", "128"), bar


def large_products(kernels: list[Kernel]) -> list[tuple[Kernel, str, tuple[cubins.Instruction, ...]]]:
    """Products of 128 x 128 tiles with their inner loop."""
    result = []
    for k in kernels:
        if k.file.startswith("mma_") and mma_tile(k)[0]:
            (loop,) = k.loops_with("HMMA")
            result.append((k, mma_tile(k)[1], loop))
    assert len(result) == 2 * (9 + 6)  # float16 in two accumulators, bfloat16: three layouts; tfloat32 also rounded
    return result


def test_products_run_on_matrix_units(kernels: list[Kernel]) -> None:
    """HMMA in all of them, but of float8 on sm_80, which has none: there they stop the kernel."""
    for k in kernels:
        if k.file.startswith("mma_"):
            float8_without_unit = k.file == "mma_float8.cu" and k.architecture == 80
            assert bool(k.opcodes["HMMA"] + k.opcodes["QMMA"]) != float8_without_unit, label(k)


def test_products_feed_matrix_units(kernels: list[Kernel]) -> None:
    """Few instructions per HMMA, operands by LDGSTS alone, and on sm_80 three quarters of the tensor bound."""
    for k, bar, loop in large_products(kernels):
        roof = cubins.roofline(k, loop)
        assert roof.instructions_per_hmma <= LARGE[bar], (label(k), roof)
        opcodes = [i.opcode for i in loop]
        assert opcodes.count("LDGSTS") == 4, label(k)
        assert opcodes.count("LDG") == 0, label(k)
        if k.architecture == 80:
            assert roof.tensor_share >= (0.65 if bar == "rounded" else 0.75), (label(k), roof)


def test_products_by_fma_keep_the_units_busy(kernels: list[Kernel]) -> None:
    """128 x 128 tiles of float32: nine of ten instructions of the inner loop are multiply-adds."""
    tiles = [k for k in kernels if k.name.startswith("product_tiled<LaneFloat32, TileShape<128")]
    assert len(tiles) == len(cubins.ARCHITECTURES)
    for k in tiles:
        loop = max(k.loops_with("FFMA"), key=len)
        multiply_adds = sum(i.opcode == "FFMA" for i in loop)
        assert multiply_adds >= 0.9 * len(loop), (label(k), multiply_adds, len(loop))
