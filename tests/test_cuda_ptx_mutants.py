"""That the tests which run PTX see what they should: kernels without one of their barriers or waits fail them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import ptx_kernels
import pytest
import test_cuda_ptx as tensors
import test_cuda_ptx_lists as lists
import test_cuda_ptx_products as products
import test_cuda_ptx_units as units
from ptx_parse import PtxError
from ptx_products import Case

pytestmark = [
    pytest.mark.skipif(ptx_kernels.MISSING is not None, reason=f"PTX cannot be made: {ptx_kernels.MISSING}"),
    pytest.mark.slow,
]

SYNCHRONISING = ("bar.sync", "bar.red.or.pred", "bar.warp.sync", "cp.async.wait_group", "cp.async.commit_group")


@dataclass(frozen=True)
class Kernel:
    """An entry, what runs it, and what it would not need: the beginning of an opcode and how many of them."""

    file: str
    name: str
    run: Callable[[ptx_kernels.Kernels], None]
    redundant: tuple[str, int] = ("", 0)


UNIT = units.Mma("mma_half", units.H, "float32", units.WHOLE, units.SMALL, units.K_K)
HALVES = units.Mma("mma_halves", units.H, "float32", units.HALVES, units.FEW_WARPS, units.PACKED)


def unit(kernels):
    """Three turns of two tiles in a ring of two turns: the result is written where the last ones lie."""
    units.run_mma(kernels, UNIT, units.of_unit(UNIT, 64, 64, 160, continued=True))


def halves(kernels):
    """The same of packed operands."""
    units.run_mma(kernels, HALVES, units.of_unit(HALVES, 64, 64, 160, units.E4, continued=True))


def tiled(kernels):
    products.test_product_tiled(kernels, products.SMALL, Case(17, 33, 100, ("float32", "float32"), "float32"))


def convert(kernels):
    """Two tiles of a chunk."""
    tensors.test_convert(kernels, "float32", "float16", 1.0, "nearest_even", False, False, 0, True, [3000])


# No copy is under way when the products wait for the last time. A walk through a block ends with a barrier of its half
# warp, for the next: the last walk of a kernel has none.
CASES = {
    "unit": Kernel(UNIT.file, UNIT.name, unit),
    "halves": Kernel(HALVES.file, HALVES.name, halves),
    "tiled": Kernel("product", "product_tiled<LaneFloat32, TileShape<16, 32, 32, 1, 4, 4> >", tiled),
    "statistics": Kernel(
        "statistics",
        "statistics_kernel<float32>",
        lambda k: lists.test_statistics(k, "float32", "together"),
        ("bar.warp.sync", 2),
    ),
    "survey": Kernel(
        "clip",
        "survey_kernel<float64>",
        lambda k: lists.test_clip_survey(k, "float64", "together"),
        ("bar.warp.sync", 1),
    ),
    "scale": Kernel("clip", "scale_kernel<float16>", lambda k: lists.test_clip_scale(k, "float16", True)),
    "convert": Kernel("convert", "report_kernel<float16, float, true>", convert),
    "matvec": Kernel(
        "matvec", "dot_kernel<float16, 1>", lambda k: products.test_matvec(k, "float16", 1), ("bar.warp.sync", 1)
    ),
}


def without(entry, at):
    """An entry whose instruction at a place does nothing."""
    nothing = replace(entry.instructions[at], predicate=None, opcode="mov.u32", operands=("_", "0"))
    return replace(entry, instructions=[*entry.instructions[:at], nothing, *entry.instructions[at + 1 :]])


@pytest.mark.parametrize("case", CASES)
def test_every_barrier_and_wait_is_needed(kernels, case):
    kernel = CASES[case]
    entries = kernels.entries(kernel.file)
    entry = entries[kernel.name]
    kernel.run(kernels)
    unseen, places = [], [at for at, i in enumerate(entry.instructions) if i.opcode.startswith(SYNCHRONISING)]
    assert places
    for at in places:
        entries[kernel.name] = without(entry, at)
        try:
            kernel.run(kernels)
            unseen.append(str(entry.instructions[at]))
        except (AssertionError, PtxError):
            pass
        finally:
            entries[kernel.name] = entry
    opcode, count = kernel.redundant
    assert len(unseen) == count and all(opcode in i for i in unseen), unseen


def without_atomic(entry, at):
    """An entry whose atomic addition at a place is a load, an addition and a store."""
    i = entry.instructions[at]
    _, place, operand = i.operands
    parts = [
        ("ld.shared.u32", "%plain", place),
        ("add.s32", "%plain", "%plain", operand),
        ("st.shared.u32", place, "%plain"),
    ]
    instructions = [replace(i, opcode=opcode, operands=tuple(operands)) for opcode, *operands in parts]
    return replace(
        entry,
        registers=entry.registers | {"%plain": 4},
        labels={name: n + 2 * (n > at) for name, n in entry.labels.items()},
        instructions=[*entry.instructions[:at], *instructions, *entry.instructions[at + 1 :]],
    )


@pytest.mark.parametrize("case", ["statistics", "convert"])
def test_additions_without_atomics_are_seen(kernels, case):
    """As races: fibers, which take turns only where they wait, would never show them."""
    kernel = CASES[case]
    entries = kernels.entries(kernel.file)
    entry, seen = entries[kernel.name], 0
    places = [at for at, i in enumerate(entry.instructions) if i.opcode == "atom.shared.add.u32"]
    for at in places:
        entries[kernel.name] = without_atomic(entry, at)
        try:
            kernel.run(kernels)
        except PtxError as error:
            assert "no barrier between" in str(error)
            seen += 1
        finally:
            entries[kernel.name] = entry
    assert seen == len(places) > 0
