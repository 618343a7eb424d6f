"""Compiled kernels as data: resources, parameters and the instructions of every loop, read from cubins by cuobjdump.

A loop is what lies between the target of a backward branch and the branch; those without another loop inside are inner
loops. Nothing here runs on a GPU.
"""

from __future__ import annotations

import fcntl
import re
import shutil
import subprocess
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
CUDA = ROOT / "csrc" / "cuda"
ARCHITECTURES = (80, 90)
REGISTERS, THREADS, SHARED = 65536, 2048, {80: 164 << 10, 90: 228 << 10}  # of a multiprocessor
# Cycles of a multiprocessor's quarter for one warp's instruction of 16 x 8 x 32 bytes: dense peak rates of A100, H100.
TENSOR_CYCLES = {80: 8, 90: 4}

INSTRUCTION = re.compile(r"^\s+/\*([0-9a-f]{4,})\*/\s+(?:@!?U?P\d+ )?\s*([A-Z0-9_]+)((?:\.[A-Za-z0-9_]+)*)\s*(.*?);")


def missing_tools() -> str | None:
    """The tools that reading cubins needs and that are not there, in words."""
    absent = [tool for tool in ("nvcc", "cuobjdump", "nvdisasm", "c++filt") if not shutil.which(tool)]
    return ", ".join(absent) + " not found" if absent else None


def kernel_sources() -> list[Path]:
    """Every file of the list in csrc/cmake/cuda.cmake that exists."""
    text = (ROOT / "csrc" / "cmake" / "cuda.cmake").read_text()
    found = re.search(r"set\(GRADKERN_CUDA_KERNELS ([^)]*)\)", text)
    assert found, "csrc/cmake/cuda.cmake lists no kernels"
    return [CUDA / name for name in found[1].split() if (CUDA / name).exists()]


@dataclass(frozen=True)
class Instruction:
    """One line of SASS: ``LDGSTS.E.BYPASS.128`` is opcode LDGSTS with modifiers E, BYPASS and 128."""

    address: int
    opcode: str
    modifiers: tuple[str, ...]
    operands: str

    @property
    def is_dummy(self) -> bool:
        """``@!PT LDS RZ, [RZ]``, which never runs."""
        return self.opcode == "LDS" and self.operands.startswith("RZ, [RZ]")


@dataclass(frozen=True)
class Kernel:
    """One entry of a cubin."""

    file: str
    architecture: int
    symbol: str
    name: str  # demangled, without namespaces
    registers: int
    stack: int
    shared: int  # static
    parameters: tuple[tuple[int, int], ...]  # offset and size of each, in bytes
    max_threads: int | None
    instructions: tuple[Instruction, ...]

    @cached_property
    def opcodes(self) -> Counter[str]:
        """How often each opcode stands in the kernel."""
        return Counter(i.opcode for i in self.instructions if not i.is_dummy)

    @cached_property
    def spans(self) -> list[tuple[int, int]]:
        """The first and the last address of every loop."""
        spans = []
        for i in self.instructions:
            if i.opcode != "BRA":
                continue
            targets = re.findall(r"0x([0-9a-f]+)", i.operands)
            if targets and int(targets[-1], 16) < i.address:
                spans.append((int(targets[-1], 16), i.address))
        return spans

    def between(self, first: int, last: int) -> tuple[Instruction, ...]:
        """What lies from one address to another."""
        return tuple(i for i in self.instructions if first <= i.address <= last and not i.is_dummy)

    @cached_property
    def loops(self) -> list[tuple[Instruction, ...]]:
        """The inner loops."""
        inner = [s for s in self.spans if not any(o != s and s[0] <= o[0] and o[1] <= s[1] for o in self.spans)]
        return [self.between(*span) for span in inner]

    def around(self, loop: tuple[Instruction, ...]) -> tuple[Instruction, ...]:
        """The smallest loop that a loop lies in."""
        first, last = loop[0].address, loop[-1].address
        outer = [(a, b) for a, b in self.spans if a <= first and last <= b and (a, b) != (first, last)]
        return self.between(*min(outer, key=lambda span: span[1] - span[0]))

    def loops_with(self, opcode: str) -> list[tuple[Instruction, ...]]:
        """The inner loops that hold an opcode."""
        return [loop for loop in self.loops if any(i.opcode == opcode for i in loop)]

    def occupancy(self, threads: int, dynamic_shared: int = 0) -> float:
        """The share of a multiprocessor's threads that blocks of this kernel fill."""
        per_warp = -(-self.registers * 32 // 256) * 256  # allocated by 256
        blocks = min(THREADS // threads, REGISTERS // (per_warp * (-(-threads // 32))), 32)
        if self.shared + dynamic_shared:
            blocks = min(blocks, SHARED[self.architecture] // (self.shared + dynamic_shared + 1024))
        return blocks * threads / THREADS


@dataclass(frozen=True)
class Roofline:
    """What one turn of a loop of a block costs a multiprocessor, in cycles: to issue, on its matrix units, in shared memory."""

    issue: float
    tensor: float
    shared: float
    instructions_per_hmma: float

    @property
    def tensor_share(self) -> float:
        """The share of the matrix units' peak that nothing else of the loop forbids."""
        return self.tensor / max(self.issue, self.tensor, self.shared)


def hmma_cycles(instruction: Instruction, architecture: int) -> float:
    """Of one warp's instruction on its quarter of a multiprocessor; half of them where k is half."""
    halved = "1684" in instruction.modifiers or (
        "1688" in instruction.modifiers and "TF32" not in instruction.modifiers
    )
    return TENSOR_CYCLES[architecture] / (2 if halved else 1)


def shared_bytes(instruction: Instruction) -> int:
    """Bytes of shared memory that a warp's instruction reads or writes."""
    if instruction.opcode == "LDSM":
        return 128 * int(instruction.modifiers[-1])  # matrices of 8 rows of 16 bytes
    if instruction.opcode in ("LDS", "STS", "LDGSTS"):
        widths = [int(m) for m in instruction.modifiers if m in ("64", "128")]
        return 32 * (widths[0] // 8 if widths else 4)
    return 0


def roofline(kernel: Kernel, loop: tuple[Instruction, ...]) -> Roofline:
    """Of a loop with HMMA."""
    warps = (kernel.max_threads or 0) / 32
    hmma = [i for i in loop if i.opcode == "HMMA"]
    return Roofline(
        len(loop) * warps / 4,
        sum(hmma_cycles(i, kernel.architecture) for i in hmma) * warps / 4,
        sum(shared_bytes(i) for i in loop) * warps / 128,
        len(loop) / len(hmma),
    )


def made(path: Path, make: Callable[[Path], None]) -> Path:
    """A file that is made where it is not there, by one of the processes and threads that ask for it."""
    with open(path.with_name(f"{path.name}.lock"), "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not path.exists():
            part = path.with_name(f"{path.name}.part")
            make(part)
            part.replace(path)
    return path


def compile_ptx(source: Path, architecture: int, directory: Path) -> Path:
    """The PTX of a source, compiled as the build does."""
    flags = ["-std=c++20", "--fmad=false", "--expt-relaxed-constexpr", f"-I{ROOT / 'csrc'}"]
    command = ["nvcc", *flags, f"-arch=compute_{architecture}", "-ptx", source, "-o"]
    ptx = directory / f"{source.stem}.sm_{architecture}.ptx"
    return made(ptx, lambda part: subprocess.run([*command, part], check=True))


def compile_cubin(source: Path, architecture: int, directory: Path) -> Path:
    """The cubin of a source, with its PTX beside it."""
    ptx = compile_ptx(source, architecture, directory)
    command = ["ptxas", f"-arch=sm_{architecture}", ptx, "-o"]
    return made(ptx.with_suffix(".cubin"), lambda part: subprocess.run([*command, part], check=True))


def compile_all(
    directory: Path, sources: list[Path] | None = None, architectures: tuple[int, ...] = ARCHITECTURES
) -> list[Path]:
    """The cubins of every kernel, or of those of some files, for every architecture, two at a time."""
    sources = kernel_sources() if sources is None else sources
    jobs = [(source, architecture) for source in sources for architecture in architectures]
    with ThreadPoolExecutor(2) as pool:
        return list(pool.map(lambda job: compile_cubin(job[0], job[1], directory), jobs))


def calls_in_ptx(ptx: Path) -> list[str]:
    """The lines of PTX that call a function."""
    return [line for line in ptx.read_text().splitlines() if re.match(r"\s*call[.\s]", line)]


def dump(cubin: Path, *options: str) -> str:
    """What cuobjdump prints."""
    return subprocess.run(["cuobjdump", *options, cubin], check=True, capture_output=True, text=True).stdout


def readable(symbols: list[str]) -> list[str]:
    """Demangled names without the namespaces and the parameter list."""
    text = subprocess.run(["c++filt", *symbols], check=True, capture_output=True, text=True).stdout
    names = []
    for line in text.splitlines():
        short = line.replace("(anonymous namespace)::", "")
        short = re.sub(r"\((?:gradkern::[\w:]+\))?(\d+)\)?", r"\1", re.sub(r"\((?:int|bool)\)", "", short))
        short = re.sub(r"gradkern::(?:cuda|formats|ops|executor)::", "", re.sub(r"^void ", "", short))
        names.append(re.sub(r"\([^()]*\)$", "", short))
    return names


def sass_of(cubin: Path) -> Iterator[tuple[str, tuple[Instruction, ...]]]:
    """Each entry's symbol with its instructions."""
    for part in dump(cubin, "-sass").split("Function : ")[1:]:
        symbol, _, body = part.partition("\n")
        matches = (INSTRUCTION.match(line) for line in body.splitlines())
        yield (
            symbol.strip(),
            tuple(Instruction(int(m[1], 16), m[2], tuple(m[3].split(".")[1:]), m[4]) for m in matches if m),
        )


def attributes_of(cubin: Path) -> dict[str, tuple[tuple[tuple[int, int], ...], int | None]]:
    """Of each entry the parameters (offset, size) and the number of threads it was compiled for."""
    found = {}
    for part in re.split(r"\n\.nv\.info\.", dump(cubin, "-elf"))[1:]:
        symbol = part.split("\n", 1)[0].strip()
        values = re.findall(r"Ordinal\s*:\s*0x(\w+)\s+Offset\s*:\s*0x(\w+)\s+Size\s*:\s*0x(\w+)", part)
        ordered = sorted((int(o, 16), int(at, 16), int(size, 16)) for o, at, size in values)
        threads = re.search(r"EIATTR_MAX_THREADS\s+Format:\s*\w+\s+Value:\s*0x(\w+) 0x(\w+)", part)
        found[symbol] = (
            tuple((at, size) for _, at, size in ordered),
            int(threads[1], 16) * int(threads[2], 16) if threads else None,
        )
    return found


def read_cubin(cubin: Path) -> list[Kernel]:
    """Every kernel of a cubin."""
    source, architecture = cubin.name.split(".sm_")
    usage = dict(
        re.findall(r"Function (\S+):\s+(REG:.*)", dump(cubin, "-res-usage")),
    )
    attributes, sass = attributes_of(cubin), dict(sass_of(cubin))
    symbols = sorted(usage)
    kernels = []
    for symbol, name in zip(symbols, readable(symbols) if symbols else [], strict=True):
        numbers = {key: int(value) for key, value in re.findall(r"(REG|STACK|SHARED):(\d+)", usage[symbol])}
        parameters, threads = attributes[symbol]
        kernels.append(
            Kernel(
                f"{source}.cu",
                int(architecture.split(".")[0]),
                symbol,
                name,
                numbers["REG"],
                numbers["STACK"],
                numbers["SHARED"],
                parameters,
                threads,
                sass[symbol],
            )
        )
    return kernels
