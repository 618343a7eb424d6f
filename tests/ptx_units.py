"""Products on matrix units as csrc/cuda/mma.cu launches them: operands packed where a kernel does not copy them."""

from __future__ import annotations

import ctypes
from dataclasses import dataclass, replace

import numpy as np
import ptx_arguments as c
import ptx_kernels
from conftest import SPECS, assert_same
from ptx_products import Case, Product, ids

UNIT = {80: "ampere", 89: "ada", 90: "hopper", 120: "rtx_blackwell"}  # of an architecture
WHOLE, HALVED, HALVES = 0, 1, 2  # the forms of an instruction
K_K, K_OUTER, OUTER_OUTER, PACKED = 0, 1, 2, 3  # the layouts of a kernel's operands
LARGE, SMALL, FEW_WARPS = (128, 128, 2, 4, 2), (64, 64, 2, 2, 3), (64, 64, 1, 2, 8)
PACK_THREADS = 256


@dataclass(frozen=True)
class Mma:
    """A kernel of a matrix unit: its file, what its instruction multiplies, and the parameters of its templates."""

    file: str
    operands: tuple[str, str]
    accumulate: str
    form: int
    shape: tuple[int, int, int, int, int]
    layout: int
    architecture: int = ptx_kernels.ARCHITECTURE

    @property
    def element(self) -> int:
        """Bytes of an entry of a and of b."""
        return np.dtype(SPECS[self.operands[0]].dtype).itemsize

    @property
    def depth(self) -> int:
        """Entries of k in a tile."""
        return 64 // self.element

    @property
    def threads(self) -> int:
        """Of a block."""
        return 32 * self.shape[2] * self.shape[3]

    def along_outer(self, which: int) -> bool:
        """Whether the rows of a or the columns of b are contiguous in tiles."""
        return self.layout == OUTER_OUTER or (self.layout == K_OUTER and which == 1)

    def tile_bytes(self, which: int) -> int:
        """Of a tile of a or b: 64 bytes of k a row, or a padded line for each k."""
        outer = self.shape[which]
        return self.depth * (outer * self.element + 16) if self.along_outer(which) else 64 * outer

    def tiles(self, k: int) -> int:
        """Of k: two at a time."""
        return -(-k // (2 * self.depth)) * 2

    @property
    def name(self) -> str:
        """Of its entry."""
        a, b = self.operands
        shape = ", ".join(map(str, self.shape))
        return (f"mma_product_kernel<MmaInstruction<{a}, {b}, {self.accumulate}, {self.form}>, "
                f"MmaShape<{shape}>, {self.layout}>")  # fmt: skip


def packed(kernels, kernel, data, which, order):
    """The address of an operand as the kernel reads it, laid out by its own kernel."""
    address, fmt, (outer_stride, k_stride) = data.addresses[which], data.case.formats[which], data.strides()[which]
    outer, k, tile = (data.case.m, data.case.n)[which], data.case.k, kernel.shape[which]
    unit, in_halves = kernel.operands[which], kernel.form == HALVES
    loads = fmt == unit or in_halves or (fmt, unit) == ("float32", "tfloat32")
    entry_bytes = 1 if in_halves else kernel.element
    vector = loads and k_stride == 1 and outer_stride * entry_bytes % 16 == 0 and address % 16 == 0
    chunks = -(-outer // tile) * kernel.tiles(k) * tile * 4
    to = data.memory.allocate(16 * chunks)
    pack = c.MmaPack(address, *ids(fmt), outer_stride, k_stride, outer, k, tile, which == 0, in_halves, vector, to)
    kernels.launch("mma_pack", f"mma_pack_kernel<{unit}>", data.memory, -(-chunks // PACK_THREADS), PACK_THREADS, pack,
                   ctypes.c_int64(chunks), architecture=kernel.architecture, order=order)  # fmt: skip
    return to


def source(kernels, kernel, data, which, order):
    """Where a kernel finds an operand, with what MmaTile::prepare adds."""
    strides, outer, case = data.strides()[which], (data.case.m, data.case.n)[which], data.case
    advance = kernel.depth * strides[1] * kernel.element
    if kernel.layout == PACKED:
        apart, address = kernel.tiles(case.k) * kernel.tile_bytes(which), packed(kernels, kernel, data, which, order)
    else:
        line_chunks = kernel.shape[which] * kernel.element // 16 if kernel.along_outer(which) else 4
        apart, address = kernel.threads // line_chunks * strides[1] * kernel.element, data.addresses[which]
    return c.MmaSource(address, *strides, outer, case.k, apart, advance)


def run_mma(kernels, kernel, case, order="together", slabs=1):
    """One product on a matrix unit, against the CPU's."""
    data = Product(replace(case, unit=UNIT[kernel.architecture]))
    sources = [source(kernels, kernel, data, which, order) for which in (0, 1)]
    task = c.Mma(*sources, case.m, case.n, case.k, data.epilogue)
    tiles_m, tiles_n = -(-case.m // kernel.shape[0]), -(-case.n // kernel.shape[1])
    shared = 4 * sum(kernel.tile_bytes(which) for which in (0, 1))
    kernels.launch(kernel.file, kernel.name, data.memory, (tiles_m, -(-tiles_n // slabs), slabs), kernel.threads, task,
                   dynamic_shared=shared, unit=UNIT[kernel.architecture], order=order,
                   architecture=kernel.architecture)  # fmt: skip
    assert_same(data.result(), data.want, f"{kernel.name} {case}")


def of_unit(kernel, m, n, k, formats=None, **how):
    """A case of a kernel's unit."""
    operands = "tfloat32" if kernel.operands[0] == "tfloat32" else ""
    return Case(m, n, k, formats or kernel.operands, kernel.accumulate, operands, **how)
