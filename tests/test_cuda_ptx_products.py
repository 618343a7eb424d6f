"""Products, run from their PTX by an interpreter, against the CPU: the same bits, of CUDA cores and of matrix units."""

from __future__ import annotations

import ctypes
from dataclasses import dataclass
from typing import Any

import numpy as np
import ptx_arguments as c
import ptx_floats as floats
import ptx_kernels
import pytest
from conftest import SPECS, adversarial, assert_same, assert_same_values, bits
from ptx_memory import Memory
from test_cuda_ptx import stored, tensor

from gradkern import _core, _units

pytestmark = pytest.mark.skipif(ptx_kernels.MISSING is not None, reason=f"PTX cannot be made: {ptx_kernels.MISSING}")

UNIT = "hopper"  # of the architecture that the PTX is for
LANES = {
    "float32": "LaneFloat32",
    "float64": "LaneFloat64",
    "float16": "LaneHalf<float16>",
    "bfloat16": "LaneHalf<bfloat16>",
}
SMALL, MEDIUM, LARGE = (16, 32, 32, 1, 4, 4), (64, 64, 16, 4, 4, 2), (128, 128, 8, 8, 8, 2)
COPY, GATHER, CONVERT = 0, 1, 2


def matrix(fmt, shape, seed, hard=True):
    """Entries of a format, some of them hard."""
    rng = np.random.default_rng(seed)
    x = rng.standard_normal(shape)
    if hard:
        places = rng.random(shape) < 0.02
        x[places] = rng.choice(adversarial(fmt), int(places.sum()))
    return stored(x, fmt)


@dataclass(frozen=True)
class Case:
    """A product: its shape, the formats, how its operands lie in memory, what it adds."""

    m: int
    n: int
    k: int
    formats: tuple[str, str]
    accumulate: str
    operands: str = ""
    a_transposed: bool = False
    b_transposed: bool = True
    bias: bool = False
    continued: bool = False
    misaligned: int = 0
    hard: bool = True
    unit: str = "none"
    instruction_k: int = 0

    @property
    def rounded_to(self) -> str:
        """What operands are rounded to first."""
        return self.operands or self.formats[0]

    @property
    def wide(self) -> Any:
        """The type of the result."""
        return np.float64 if self.accumulate == "float64" else np.float32


def ids(*names):
    """The numbers of formats."""
    return [c.FORMATS.index(name) for name in names]


class Data:
    """Operands of a case, on the device and as the CPU's product takes them."""

    def __init__(self, case):
        self.case, self.memory = case, Memory(1 << 23)
        a_shape = (case.k, case.m) if case.a_transposed else (case.m, case.k)
        b_shape = (case.n, case.k) if case.b_transposed else (case.k, case.n)
        self.a, self.b = (
            matrix(f, s, i, case.hard) for i, (f, s) in enumerate(zip(case.formats, (a_shape, b_shape), strict=True))
        )
        bias_format = case.formats[0]
        self.bias = matrix(bias_format, (case.n,), 2, False) if case.bias else None
        self.start = stored(np.random.default_rng(3).standard_normal((case.m, case.n)), case.accumulate).astype(case.wide) if case.continued else None  # fmt: skip
        unit = _units.unit_ids()[case.unit] if case.unit != "none" else 0
        a_id, b_id, operands, accumulate = ids(*case.formats, case.rounded_to, case.accumulate)
        self.want = np.asarray(_core.product(
            bits(self.a), a_id, case.a_transposed, bits(self.b), b_id, case.b_transposed,
            None if self.bias is None else bits(self.bias), a_id, operands, accumulate, unit, case.instruction_k, self.start))  # fmt: skip
        self.addresses = [tensor(self.memory, x, case.misaligned) for x in (self.a, self.b)]
        result = np.full((case.m, case.n), np.nan, case.wide) if self.start is None else self.start
        self.out = self.memory.upload(result)
        bias = 0 if self.bias is None else tensor(self.memory, self.bias)
        self.epilogue = c.Epilogue(self.out, bias, a_id, 0, case.continued, case.n % 4 == 0)

    def result(self):
        """What the kernel left."""
        return self.memory.fetch(self.out, self.case.wide, self.want.size).reshape(self.want.shape)

    def strides(self):
        """Of a: along m and k; of b: along n and k."""
        t = self.case
        return ((1, t.m) if t.a_transposed else (t.k, 1)), ((t.k, 1) if t.b_transposed else (1, t.n))


def tile_source(fmt, address, strides, outer, k, case):
    """As csrc/cuda/product_tile.hpp makes it."""
    size, along = np.dtype(SPECS[fmt].dtype).itemsize, strides[0] == 1 and strides[1] != 1
    contiguous, other = strides if along else strides[::-1]
    vector = contiguous == 1 and other % 4 == 0 and address % (16 if size == 8 else 4 * size) == 0
    rounds = case.rounded_to == "tfloat32" and fmt != "tfloat32"
    return c.TileSource(address, *strides, *ids(fmt), size, outer, k, along, vector, rounds)


def run_product(kernels, case, name, tile, block):
    """One product on CUDA cores."""
    data = Data(case)
    a_strides, b_strides = data.strides()
    tiles_n = -(-case.n // tile[1])
    task = c.Product(
        tile_source(case.formats[0], data.addresses[0], a_strides, case.m, case.k, case),
        tile_source(case.formats[1], data.addresses[1], b_strides, case.n, case.k, case),
        case.m, case.n, case.k, tiles_n, data.epilogue)  # fmt: skip
    kernels.launch("product", name, data.memory, -(-case.m // tile[0]) * tiles_n, block, task)
    assert_same(data.result(), data.want, f"{name} {case}")


TILED = [
    (SMALL, Case(37, 45, 70, ("float32", "float32"), "float32")),
    (SMALL, Case(19, 40, 33, ("float16", "float16"), "float32", a_transposed=True, bias=True)),
    (SMALL, Case(20, 36, 12, ("float8_e4m3fn", "float8_e4m3fn"), "float32", b_transposed=False, continued=True, bias=True)),
    (SMALL, Case(17, 33, 40, ("float32", "float32"), "float32", operands="tfloat32", misaligned=1)),
    (MEDIUM, Case(70, 68, 36, ("float32", "float32"), "float32", b_transposed=False, bias=True)),
    (LARGE, Case(130, 132, 20, ("float32", "float32"), "float32", bias=True)),
    (LARGE, Case(128, 128, 8, ("bfloat16", "bfloat16"), "float32", a_transposed=True, b_transposed=False)),
    (SMALL, Case(18, 36, 40, ("float64", "float64"), "float64", bias=True)),
    (MEDIUM, Case(65, 66, 18, ("float64", "float64"), "float64", a_transposed=True, continued=True)),
    (SMALL, Case(18, 36, 40, ("float16", "float16"), "float16", bias=True)),
    (MEDIUM, Case(66, 65, 18, ("float8_e5m2", "float8_e5m2"), "float16", b_transposed=False)),
    (SMALL, Case(17, 36, 40, ("bfloat16", "bfloat16"), "bfloat16", continued=True)),
    (MEDIUM, Case(65, 64, 34, ("bfloat16", "bfloat16"), "bfloat16", a_transposed=True, bias=True)),
]  # fmt: skip


@pytest.mark.parametrize(("shape", "case"), TILED)
def test_product_tiled(kernels, shape, case):
    m, n, _, rows, columns, _ = shape
    name = f"product_tiled<{LANES[case.accumulate]}, TileShape<{', '.join(map(str, shape))}> >"
    run_product(kernels, case, name, shape, m // rows * n // columns)


@pytest.mark.parametrize(("exact", "case"), [
    (False, Case(9, 18, 20, ("float64", "float64"), "float32", bias=True)),
    (True, Case(9, 17, 20, ("float64", "float32"), "float32", operands="tfloat32")),
    (False, Case(9, 17, 12, ("float64", "float64"), "float16", b_transposed=False)),
    (True, Case(8, 17, 12, ("float32", "float32"), "float16", continued=True)),
    (False, Case(9, 16, 12, ("float64", "float64"), "bfloat16", a_transposed=True)),
    (True, Case(9, 17, 12, ("float16", "float16"), "bfloat16", bias=True)),
])  # fmt: skip
def test_product_exact(kernels, exact, case):
    run_product(kernels, case, f"product_exact<{case.accumulate}, {str(exact).lower()}>", (8, 16), (16, 8))


@pytest.mark.parametrize("fmt", c.FORMATS)
@pytest.mark.parametrize("vectors", [1, 4])
def test_matvec(kernels, fmt, vectors):
    """y = W x in 16 lanes, y = W^T x as chains: against fused multiply-adds on arrays."""
    for rows, columns, misaligned in [(11, 600, 0), (9, 21, 1), (40, 80, 0)]:
        memory, w = Memory(), matrix(fmt, (rows, columns), 1, False)
        values, rng = w.astype(np.float64), np.random.default_rng(2)
        for transposed in (False, True):
            x = rng.standard_normal((vectors, rows if transposed else columns))
            size = columns if transposed else rows
            y = memory.allocate(8 * vectors * size)
            args = c.Matvec(
                rows, columns, vectors, *ids(fmt), tensor(memory, w, misaligned), transposed, memory.upload(x), y
            )
            name, threads, per_block = ("axpy", 64, 64) if transposed else ("dot", 128, 8)
            kernels.launch(
                "matvec",
                f"{name}_kernel<{fmt}, {vectors}>",
                memory,
                -(-size // per_block),
                threads,
                args,
                ctypes.c_int64(0),
            )
            want = np.stack([chain(values.T, v) if transposed else dot(values, v) for v in x])
            assert_same_values(memory.fetch(y, np.float64, want.size).reshape(want.shape), want, f"{name} {fmt}")


def chain(rows, x):
    """Of each row the chain of its entries, ascending."""
    total = np.zeros(len(rows))
    for j, value in enumerate(x):
        total = floats.fma_f64(rows[:, j], np.full(len(rows), value), total)
    return total


def dot(rows, x):
    """Entry j in lane j % 16; the lanes folded by halves."""
    with np.errstate(all="ignore"):
        lanes = np.stack([chain(rows[:, lane::16], x[lane::16]) for lane in range(16)])
    while len(lanes) > 1:
        lanes = lanes[: len(lanes) // 2] + lanes[len(lanes) // 2 :]
    return lanes[0]


@dataclass(frozen=True)
class Mma:
    """A kernel of a matrix unit: its file, its operands, and the parameters of its templates."""

    file: str
    operands: tuple[str, str]
    accumulate: str
    halved: bool
    shape: tuple[int, int, int, int, int]
    layout: int  # k_k, k_outer, outer_outer, any
    rounds: bool

    @property
    def name(self) -> str:
        """Of its entry."""
        a, b = self.operands
        shape = ", ".join(map(str, self.shape))
        return (f"mma_product_kernel<MmaInstruction<{a}, {b}, {self.accumulate}, {str(self.halved).lower()}>, "
                f"MmaShape<{shape}>, {self.layout}, {str(self.rounds).lower()}>")  # fmt: skip


def mma_source(kernel, which, address, strides, fill, fmt, size, case):
    """As csrc/cuda/mma.cu and MmaTile::prepare make it. `size`: rows of a, columns of b."""
    unit = kernel.operands[which]
    element = 4 if unit == "tfloat32" else np.dtype(SPECS[unit].dtype).itemsize
    along = strides[0] == 1 and strides[1] != 1
    line = (strides[1] if along else strides[0]) * element
    outer, threads = kernel.shape[which], 32 * kernel.shape[2] * kernel.shape[3]
    tile_along = kernel.layout == 2 or (kernel.layout == 1 and which == 1)
    line_chunks = outer * element // 16 if tile_along else 4
    apart = threads // line_chunks * line
    advance = 64 // element * line if tile_along else 64
    return c.MmaSource(address, *strides, *ids(fmt), size, case.k, fill, along, apart, advance)


MMA_SMALL, MMA_LARGE, MMA_FLOAT8 = (64, 64, 2, 2, 3), (128, 128, 2, 4, 2), (128, 64, 4, 2, 2)


def run_mma(kernels, kernel, case, fills, order="together"):
    """One product on a matrix unit."""
    data = Data(case)
    sources = [
        mma_source(kernel, i, data.addresses[i], strides, fills[i], case.formats[i], size, case)
        for i, (strides, size) in enumerate(zip(data.strides(), (case.m, case.n), strict=True))
    ]
    m, n, warps_m, warps_n, _ = kernel.shape
    tiles_n, element = -(-case.n // n), 64 // (4 if kernel.operands[0] == "tfloat32" else np.dtype(SPECS[kernel.operands[0]].dtype).itemsize)  # fmt: skip
    tile_bytes = [64 * rows if not along else element * (rows + 8) * (64 // element) for rows, along in
                  ((m, kernel.layout == 2), (n, kernel.layout in (1, 2)))]  # fmt: skip
    task = c.Mma(*sources, case.m, case.n, case.k, tiles_n, data.epilogue)
    kernels.launch(kernel.file, kernel.name, data.memory, -(-case.m // m) * tiles_n, 32 * warps_m * warps_n, task,
                   dynamic_shared=4 * sum(tile_bytes), unit=UNIT, order=order)  # fmt: skip
    assert_same(data.result(), data.want, f"{kernel.name} {case}")


def of_unit(kernel, m, n, k, formats=None, **how):
    """A case of a kernel's unit."""
    return Case(m, n, k, formats or kernel.operands, kernel.accumulate, operands=kernel.operands[0] if kernel.operands[0] == "tfloat32" else "", unit=UNIT, **how)  # fmt: skip


H, B, T = ("float16",) * 2, ("bfloat16",) * 2, ("tfloat32",) * 2
E4, E5 = ("float8_e4m3fn",) * 2, ("float8_e5m2",) * 2
UNITS = [
    # kernel, (m, n, k), what else
    (Mma("mma_half", H, "float32", False, MMA_SMALL, 0, False), (70, 72, 80), {"bias": True}),
    (Mma("mma_half", H, "float32", False, MMA_SMALL, 1, False), (40, 72, 40), {"b_transposed": False}),
    (Mma("mma_half", H, "float32", False, MMA_SMALL, 2, False), (72, 40, 33), {"a_transposed": True, "b_transposed": False}),
    (Mma("mma_half", H, "float16", False, MMA_SMALL, 0, False), (66, 64, 72), {"bias": True, "continued": True}),
    (Mma("mma_half", B, "float32", False, MMA_SMALL, 0, False), (64, 66, 40), {"continued": True}),
    (Mma("mma_half", B, "float32", False, MMA_LARGE, 0, False), (130, 128, 40), {"bias": True}),
    (Mma("mma_half", H, "float16", False, MMA_LARGE, 2, False), (128, 136, 40), {"a_transposed": True, "b_transposed": False}),
    (Mma("mma_half", H, "float32", False, MMA_SMALL, 3, False), (33, 35, 37), {"fills": (GATHER, GATHER), "misaligned": 1}),
    (Mma("mma_half", H, "float32", True, MMA_SMALL, 3, False), (40, 40, 40), {"instruction_k": 8}),
    (Mma("mma_tfloat32", T, "float32", False, MMA_SMALL, 0, False), (65, 64, 36), {"bias": True}),
    (Mma("mma_tfloat32", T, "float32", False, MMA_SMALL, 0, True), (65, 64, 36), {"formats": ("float32",) * 2}),
    (Mma("mma_tfloat32", T, "float32", False, MMA_LARGE, 2, True), (128, 132, 20),
     {"a_transposed": True, "b_transposed": False, "formats": ("float32",) * 2}),
    (Mma("mma_tfloat32", T, "float32", True, MMA_SMALL, 3, True), (64, 40, 24), {"instruction_k": 4, "formats": ("float32",) * 2}),
    (Mma("mma_float8", E4, "float32", False, MMA_SMALL, 0, False), (65, 64, 80), {"bias": True}),
    (Mma("mma_float8", E5, "float16", False, MMA_SMALL, 0, False), (64, 60, 64), {}),
    (Mma("mma_float8", E4, "float16", False, MMA_FLOAT8, 0, False), (128, 64, 96), {"continued": True}),
    (Mma("mma_float8", ("float8_e4m3fn", "float8_e5m2"), "float32", False, MMA_SMALL, 3, False), (40, 33, 40),
     {"fills": (GATHER, GATHER)}),
]  # fmt: skip


@pytest.mark.parametrize(("kernel", "shape", "how"), UNITS)
def test_product_on_units(kernels, kernel, shape, how):
    how = dict(how)
    fills = how.pop("fills", (COPY, COPY))
    run_mma(kernels, kernel, of_unit(kernel, *shape, **how), fills)


@pytest.mark.parametrize("order", ["first", "last"])
def test_product_on_units_one_warp_ahead(kernels, order):
    """A missing barrier would show: one warp runs as far as it can."""
    kernel = Mma("mma_half", H, "float32", False, MMA_SMALL, 0, False)
    run_mma(kernels, kernel, of_unit(kernel, 64, 64, 200), (COPY, COPY), order)
