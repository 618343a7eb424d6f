"""Products on matrix units, run from their PTX by an interpreter whose mma.sync is the scalar model, against the CPU."""

from __future__ import annotations

import re
from dataclasses import dataclass

import numpy as np
import ptx_arguments as c
import ptx_kernels
import pytest
from conftest import SPECS, assert_same
from ptx_products import Case, Product, ids

pytestmark = pytest.mark.skipif(ptx_kernels.MISSING is not None, reason=f"PTX cannot be made: {ptx_kernels.MISSING}")

UNIT = "hopper"  # of the architecture that the PTX is for
COPY, GATHER, CONVERT = 0, 1, 2


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

    def element(self, which: int) -> int:
        """Bytes of an entry of a or b."""
        return np.dtype(SPECS[self.operands[which]].dtype).itemsize

    def along_outer(self, which: int) -> bool:
        """Whether tiles of a or b have their rows or columns contiguous."""
        return self.layout == 2 or (self.layout == 1 and which == 1)

    @property
    def shared_bytes(self) -> int:
        """Of a ring of four stages: 64 bytes of k a row, or padded rows."""
        lengths = [
            64 // self.element(i) * (outer + 8) * self.element(i) if self.along_outer(i) else 64 * outer
            for i, outer in enumerate(self.shape[:2])
        ]
        return 4 * sum(lengths)

    @property
    def name(self) -> str:
        """Of its entry."""
        a, b = self.operands
        shape = ", ".join(map(str, self.shape))
        return (f"mma_product_kernel<MmaInstruction<{a}, {b}, {self.accumulate}, {str(self.halved).lower()}>, "
                f"MmaShape<{shape}>, {self.layout}, {str(self.rounds).lower()}>")  # fmt: skip


def mma_source(kernel, which, address, strides, fill, fmt, size, case):
    """As csrc/cuda/mma.cu and MmaTile::prepare make it. `size`: rows of a, columns of b."""
    element, tile_along = kernel.element(which), kernel.along_outer(which)
    along = strides[0] == 1 and strides[1] != 1
    line = (strides[1] if along else strides[0]) * element
    outer, threads = kernel.shape[which], 32 * kernel.shape[2] * kernel.shape[3]
    line_chunks = outer * element // 16 if tile_along else 4
    apart = threads // line_chunks * line
    advance = 64 // element * line if tile_along else 64
    return c.MmaSource(address, *strides, *ids(fmt), size, case.k, fill, along, apart, advance)


MMA_SMALL, MMA_LARGE, MMA_FLOAT8 = (64, 64, 2, 2, 3), (128, 128, 2, 4, 2), (128, 64, 4, 2, 2)


def run_mma(kernels, kernel, case, fills, order="together"):
    """One product on a matrix unit."""
    data = Product(case)
    sources = [
        mma_source(kernel, i, data.addresses[i], strides, fills[i], case.formats[i], size, case)
        for i, (strides, size) in enumerate(zip(data.strides(), (case.m, case.n), strict=True))
    ]
    m, n, warps_m, warps_n, _ = kernel.shape
    tiles_n = -(-case.n // n)
    task = c.Mma(*sources, case.m, case.n, case.k, tiles_n, data.epilogue)
    kernels.launch(kernel.file, kernel.name, data.memory, -(-case.m // m) * tiles_n, 32 * warps_m * warps_n, task,
                   dynamic_shared=kernel.shared_bytes, unit=UNIT, order=order)  # fmt: skip
    assert_same(data.result(), data.want, f"{kernel.name} {case}")


def of_unit(kernel, m, n, k, formats=None, **how):
    """A case of a kernel's unit."""
    operands = "tfloat32" if kernel.operands[0] == "tfloat32" else ""
    return Case(m, n, k, formats or kernel.operands, kernel.accumulate, operands, unit=UNIT, **how)


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
    (Mma("mma_tfloat32", T, "float32", True, MMA_SMALL, 3, True), (64, 40, 24),
     {"instruction_k": 4, "formats": ("float32",) * 2}),
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


NAME = re.compile(
    r"mma_product_kernel<MmaInstruction<(\w+), (\w+), (\w+), (true|false)>, MmaShape<([\d, ]+)>, (\d), (true|false)>"
)


def case_of(kernel):
    """A ragged product that a kernel can do, and how its operands come to shared memory."""
    m, n = kernel.shape[0] + 3, kernel.shape[1] + 4
    depth = 64 // kernel.element(0)
    how = {"a_transposed": kernel.layout == 2, "b_transposed": kernel.layout in (0, 3), "bias": True}
    if kernel.halved:
        how["instruction_k"] = depth // 4
    if kernel.rounds:
        how["formats"] = ("float32", "float32")
    if kernel.layout in (1, 2):  # lines of 16 bytes
        m, n = kernel.shape[0] + 8, kernel.shape[1] + 8
    fills = (CONVERT if kernel.rounds else GATHER,) * 2 if kernel.layout == 3 else (COPY, COPY)
    return of_unit(kernel, m, n, 2 * depth + depth // 4 * 2, **how), fills


@pytest.mark.slow
@pytest.mark.parametrize("file", ["mma_half", "mma_tfloat32", "mma_float8"])
def test_every_kernel_of_units(kernels, file):
    names = list(kernels.entries(file))
    for name in names:
        a, b, accumulate, halved, shape, layout, rounds = NAME.fullmatch(name).groups()
        sizes = tuple(int(x) for x in shape.split(","))
        kernel = Mma(file, (a, b), accumulate, halved == "true", sizes, int(layout), rounds == "true")
        assert kernel.name == name
        run_mma(kernels, kernel, *case_of(kernel))
    assert names
