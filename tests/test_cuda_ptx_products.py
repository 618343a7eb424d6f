"""Products, run from their PTX by an interpreter, against the CPU: the same bits."""

from __future__ import annotations

import ctypes

import numpy as np
import ptx_arguments as c
import ptx_floats as floats
import ptx_kernels
import pytest
from conftest import SPECS, assert_same, assert_same_values
from ptx_kernels import slow_but
from ptx_memory import Memory
from ptx_products import Case, Product, ids, matrix
from ptx_tensors import tensor

pytestmark = pytest.mark.skipif(ptx_kernels.MISSING is not None, reason=f"PTX cannot be made: {ptx_kernels.MISSING}")

LANES = {
    "float32": "LaneFloat32",
    "float64": "LaneFloat64",
    "float16": "LaneHalf<float16>",
    "bfloat16": "LaneHalf<bfloat16>",
}
HALVES = ["float16", "bfloat16"]
SMALL, MEDIUM, LARGE = (16, 32, 32, 1, 4, 4), (64, 64, 16, 4, 4, 2), (128, 128, 8, 8, 8, 2)


def tile_source(fmt, address, strides, outer, k, case):
    """As csrc/cuda/product_tile.hpp makes it."""
    size, along = np.dtype(SPECS[fmt].dtype).itemsize, strides[0] == 1 and strides[1] != 1
    contiguous, other = strides if along else strides[::-1]
    vector = contiguous == 1 and other % 4 == 0 and address % (16 if size == 8 else 4 * size) == 0
    rounds = case.rounded_to == "tfloat32" and fmt != "tfloat32"
    return c.TileSource(address, *strides, *ids(fmt), size, outer, k, along, vector, rounds)


def run_product(kernels, case, name, tile, block, together=False):
    """One product on CUDA cores; together: beside an empty one in the same launch."""
    data = Product(case)
    a_strides, b_strides = data.strides()
    tiles_n = -(-case.n // tile[1])
    task = c.Product(
        tile_source(case.formats[0], data.addresses[0], a_strides, case.m, case.k, case),
        tile_source(case.formats[1], data.addresses[1], b_strides, case.n, case.k, case),
        case.m, case.n, case.k, tiles_n, data.epilogue)  # fmt: skip
    blocks = -(-case.m // tile[0]) * tiles_n
    if together:
        empty = c.Product(tiles_n=1)
        tasks = c.Products((c.Product * c.TOGETHER)(empty, task))
        kernels.launch("product", name, data.memory, (blocks, 2), block, tasks)
    else:
        kernels.launch("product", name, data.memory, blocks, block, task)
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


@pytest.mark.parametrize(("shape", "case"), slow_but(TILED, *TILED[1:3], *TILED[5:7], TILED[8], TILED[11]))
def test_product_tiled(kernels, shape, case):
    m, n, _, rows, columns, _ = shape
    name = f"product_tiled<{LANES[case.accumulate]}, TileShape<{', '.join(map(str, shape))}> >"
    run_product(kernels, case, name, shape, m // rows * n // columns, shape != LARGE)


@pytest.mark.slow
@pytest.mark.parametrize("shape", [SMALL, MEDIUM, LARGE])
@pytest.mark.parametrize("fmt", c.FORMATS)
def test_product_tiled_of_every_format(kernels, shape, fmt):
    """However operands lie: rows contiguous or columns, aligned or not, in every accumulator that holds them."""
    halves = {"float16": ["float16"], "bfloat16": ["bfloat16"], "float8_e4m3fn": HALVES, "float8_e5m2": HALVES}
    narrow = [] if fmt == "float64" else ["float32", *halves.get(fmt, [])]
    for accumulate in ["float64", *narrow]:
        if shape == LARGE and accumulate != "float32":
            continue
        for number in (0, 3, 5, 6):
            a_transposed, b_transposed, misaligned = bool(number & 1), bool(number & 2), number >> 2
            m, n = shape[0] + 1 + number % 3, shape[1] + (4 if number & 4 else 3)
            case = Case(m, n, 20 + number % 2, (fmt, fmt), accumulate, "", a_transposed, b_transposed, bool(number & 1),
                        bool(number & 2), misaligned)  # fmt: skip
            test_product_tiled(kernels, shape, case)


EXACT = [
    (False, Case(9, 18, 20, ("float64", "float64"), "float32", bias=True)),
    (True, Case(9, 17, 20, ("float64", "float32"), "float32", operands="tfloat32")),
    (False, Case(9, 17, 12, ("float64", "float64"), "float16", b_transposed=False)),
    (True, Case(8, 17, 12, ("float32", "float32"), "float16", continued=True)),
    (False, Case(9, 16, 12, ("float64", "float64"), "bfloat16", a_transposed=True)),
    (True, Case(9, 17, 12, ("float16", "float16"), "bfloat16", bias=True)),
]


@pytest.mark.parametrize(("exact", "case"), slow_but(EXACT, EXACT[1], EXACT[2], EXACT[5]))
def test_product_exact(kernels, exact, case):
    run_product(kernels, case, f"product_exact<{case.accumulate}, {str(exact).lower()}>", (8, 16), (16, 8))


MATVEC = [(fmt, vectors) for vectors in (1, 4) for fmt in c.FORMATS]


@pytest.mark.parametrize(("fmt", "vectors"), slow_but(MATVEC, ("float16", 1), ("float64", 4)))
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
