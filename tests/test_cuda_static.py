"""What compiled kernels must be, on any machine: judged by their cubins for sm_80 and sm_90, never by a run."""

from __future__ import annotations

import re
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import cubins
import ptx_run
import pytest
from cubins import Kernel
from ptx_parse import parse_file

MISSING = cubins.missing_tools()
pytestmark = pytest.mark.skipif(MISSING is not None, reason=f"cubins cannot be read: {MISSING}")

# Registers that two blocks of 256 threads on a multiprocessor leave to a thread.
MOST_REGISTERS = 128
# Kernels of one pass over memory keep three quarters of a multiprocessor's threads: at 256 threads, 40 registers.
STREAMING_REGISTERS = 40
STREAMING = {
    "activation.cu",
    "clip.cu",
    "clip_value.cu",
    "convert.cu",
    "elementary.cu",
    "errors.cu",
    "matvec.cu",
    "patterns.cu",
    "statistics.cu",
    "update.cu",
}
# Registers and occupancy of what would spill within 40 registers: formulas with two or three divisions in float64 that wait
# for one another, rounding otherwise than to nearest even, and float64 to float8.
WIDER = {
    r"backward_kernel<gelu, double>": (46, 0.625),
    r"backward_kernel<gelu_tanh, double>": (48, 0.625),
    r"report_kernel<.*, false>": (48, 0.5),
    r"report_kernel<float8_\w+, double, true>": (48, 0.5),
}
# Kernels that write a tensor beside what they count or sum; of the others, only few numbers come out.
STORING = r"(forward|backward|elementary|convert|update|scale|clamp)_kernel<.*>|report_kernel<.*>"
# Float16 in two accumulators and bfloat16: four layouts in two tiles, and halved; tfloat32: two layouts, and halved;
# float8 that became float16: two accumulators in two tiles.
UNIT_KERNELS = {"mma_half.cu": 3 * (4 * 2 + 1), "mma_tfloat32.cu": 2 * 2 + 1, "mma_halves.cu": 2 * 2}
# Of the inner loop of a product on a matrix unit, whatever its formats, layout and tiles.
INSTRUCTIONS_PER_HMMA = 4.0


@pytest.fixture(scope="module")
def judged(compiled: Path) -> list[Path]:
    """The cubins of every kernel; their PTX lies beside them."""
    return cubins.compile_all(compiled)


@pytest.fixture(scope="module")
def kernels(judged: list[Path]) -> list[Kernel]:
    """Every kernel of every cubin."""
    with ThreadPoolExecutor(2) as pool:
        return [k for read in pool.map(cubins.read_cubin, judged) for k in read]


def files(kernels: list[Kernel]) -> set[str]:
    """The files that kernels come from."""
    return {k.file for k in kernels}


def label(kernel: Kernel) -> str:
    """A kernel in a message."""
    return f"sm_{kernel.architecture} {kernel.file} {kernel.name}"


def test_every_listed_file_has_its_kernels(kernels: list[Kernel], judged: list[Path]) -> None:
    """All architectures have the same kernels, from every file but those that only dispatch."""
    names = [{(k.file, k.name) for k in kernels if k.architecture == a} for a in {k.architecture for k in kernels}]
    assert all(some == names[0] for some in names)
    assert files(kernels) == {f"{path.name.partition('.')[0]}.cu" for path in judged} - {"table.cu", "mma.cu"}


def test_nothing_lies_in_local_memory(kernels: list[Kernel]) -> None:
    """No stack frame, no local loads or stores."""
    assert [(label(k), k.stack) for k in kernels if k.stack or k.opcodes["LDL"] or k.opcodes["STL"]] == []


def test_nothing_is_called(judged: list[Path]) -> None:
    """Every device function is inlined."""
    calls = {path.name: cubins.calls_in_ptx(path.with_suffix(".ptx")) for path in judged}
    assert calls
    assert {name: lines for name, lines in calls.items() if lines} == {}


def test_an_interpreter_knows_every_instruction(judged: list[Path]) -> None:
    """What tests/test_cuda_ptx.py runs of one architecture, others could run, too."""
    ptx = [path.with_suffix(".ptx") for path in judged]
    unknown = {path.name: ptx_run.unknown_opcodes(parse_file(path).values()) for path in ptx}
    assert {name: opcodes for name, opcodes in unknown.items() if opcodes} == {}


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
        most = MOST_REGISTERS
        if k.file in STREAMING:
            most = max(
                [STREAMING_REGISTERS, *(r for pattern, (r, _) in WIDER.items() if re.fullmatch(pattern, k.name))]
            )
        if k.registers > most:
            over.append((label(k), k.registers, most))
    assert over == []


def test_occupancy(kernels: list[Kernel]) -> None:
    """Three quarters for those that stream within 40 registers; what their registers leave for those that hold more."""
    low = []
    for k in kernels:
        if k.file in STREAMING and k.max_threads:
            least = min([0.75, *(share for pattern, (_, share) in WIDER.items() if re.fullmatch(pattern, k.name))])
            if k.occupancy(k.max_threads) < least:
                low.append((label(k), k.occupancy(k.max_threads)))
    assert low == []


def widths(kernel: Kernel, *opcodes: str) -> list[str]:
    """The widths of a kernel's accesses: 128, 64, 32 and, of one narrow entry, U16 or U8."""
    accesses = [i for i in kernel.instructions if i.opcode in opcodes]
    return [next((m for m in i.modifiers if re.fullmatch(r"128|64|[US](8|16)", m)), "32") for i in accesses]


def test_streaming_kernels_move_16_bytes(kernels: list[Kernel]) -> None:
    """128-bit loads, of every format that a kernel reads; 128-bit stores where it writes a tensor."""
    streaming = [k for k in kernels if k.file in STREAMING]
    assert files(streaming) == STREAMING & files(kernels) != set()
    assert [label(k) for k in streaming if "128" not in widths(k, "LDG", "LDGSTS")] == []
    storing = [k for k in streaming if re.fullmatch(STORING, k.name)]
    only_numbers = {"errors.cu", "matvec.cu", "patterns.cu", "statistics.cu"}
    assert files(streaming) - files(storing) == only_numbers & files(kernels)
    assert [label(k) for k in storing if "128" not in widths(k, "STG")] == []


# Loads of 32 and of 64 bits that a kernel may have: those of single entries, one for every tensor, format and way there.
SINGLE_ENTRIES = {
    "activation.cu forward_kernel": (1, 1),
    "activation.cu backward_kernel": (3, 3),
    "convert.cu convert_kernel": (2, 2),
    "convert.cu report_kernel": (4, 2),
    "errors.cu errors_kernel": (1, 2),
    "update.cu update_kernel": (4, 4),
    "update.cu report_kernel": (4, 4),
}


def test_narrow_formats_are_read_by_16_bytes(kernels: list[Kernel]) -> None:
    """Groups of formats of 16 and 8 bits are loaded 128 bits at a time, as those of float32 are."""
    narrower = []
    for k in kernels:
        most = SINGLE_ENTRIES.get(f"{k.file} {k.name.partition('<')[0]}")
        found = [widths(k, "LDG").count(width) for width in ("32", "64")]
        if most and any(f > m for f, m in zip(found, most, strict=True)):
            narrower.append((label(k), found))
    assert narrower == []


def products(kernels: list[Kernel]) -> list[tuple[Kernel, tuple[cubins.Instruction, ...]]]:
    """Products on matrix units with their inner loop."""
    result = []
    for k in kernels:
        if k.name.startswith("mma_product_kernel") and not traps(k):
            (loop,) = k.loops_with("HMMA")
            result.append((k, loop))
    places = {(k.file, k.architecture) for k in kernels if k.file in UNIT_KERNELS}
    assert Counter((k.file, k.architecture) for k, _ in result) == {place: UNIT_KERNELS[place[0]] for place in places}
    assert places
    return result


def traps(kernel: Kernel) -> bool:
    """Whether the kernel multiplies float8, which neither architecture can."""
    return kernel.file == "mma_float8.cu"


def test_products_run_on_matrix_units(kernels: list[Kernel]) -> None:
    """HMMA in all of them, but of float8: it becomes float16 on sm_90, and sm_80 does not have it."""
    for k in kernels:
        if k.name.startswith("mma_product_kernel"):
            assert bool(k.opcodes["HMMA"] + k.opcodes["QMMA"]) != traps(k), label(k)


def test_products_feed_matrix_units(kernels: list[Kernel]) -> None:
    """Few instructions per HMMA, operands by LDGSTS alone, and on sm_80 three quarters of the tensor bound."""
    for k, loop in products(kernels):
        roof = cubins.roofline(k, loop)
        assert roof.instructions_per_hmma <= INSTRUCTIONS_PER_HMMA, (label(k), roof)
        if k.architecture == 80 and "MmaShape<128, 128," in k.name:
            assert roof.tensor_share >= 0.75, (label(k), roof)
        # Float8 that became float16 goes through the tiles of a turn one by one: an inner loop of its own.
        turn = k.around(loop) if k.file == "mma_halves.cu" else loop
        opcodes = [i.opcode for i in turn]
        chunks = 16 if "MmaShape<64, 64, 1, 2," in k.name else 8
        assert (opcodes.count("LDGSTS"), opcodes.count("LDG")) == (chunks, 0), label(k)


def test_products_by_fma_keep_the_units_busy(kernels: list[Kernel]) -> None:
    """128 x 128 tiles of float32: nine of ten instructions of the inner loop are multiply-adds."""
    tiles = [k for k in kernels if k.name.startswith("product_tiled<LaneFloat32, TileShape<128")]
    assert len(tiles) == len(cubins.ARCHITECTURES)
    for k in tiles:
        loop = max(k.loops_with("FFMA"), key=len)
        multiply_adds = sum(i.opcode == "FFMA" for i in loop)
        assert multiply_adds >= 0.9 * len(loop), (label(k), multiply_adds, len(loop))
