"""Products on matrix units, run from their PTX by an interpreter whose mma.sync is the scalar model, against the CPU."""

from __future__ import annotations

import re

import ptx_kernels
import pytest
from ptx_parse import PtxError
from ptx_units import (
    FEW_WARPS,
    HALVED,
    HALVES,
    K_K,
    K_OUTER,
    LARGE,
    OUTER_OUTER,
    PACKED,
    SMALL,
    WHOLE,
    Mma,
    of_unit,
    run_mma,
)

pytestmark = pytest.mark.skipif(ptx_kernels.MISSING is not None, reason=f"PTX cannot be made: {ptx_kernels.MISSING}")

H, B, T, S = ("float16",) * 2, ("bfloat16",) * 2, ("tfloat32",) * 2, ("float32",) * 2
E4, E5, MIXED = ("float8_e4m3fn",) * 2, ("float8_e5m2",) * 2, ("float8_e5m2", "float8_e4m3fn")
UNITS = [
    # kernel, (m, n, k), what else
    (Mma("mma_half", H, "float32", WHOLE, SMALL, K_K), (70, 72, 80), {"bias": True}),
    (Mma("mma_half", H, "float16", WHOLE, SMALL, K_OUTER), (40, 72, 40), {"b_transposed": False, "continued": True}),
    (Mma("mma_half", B, "float32", WHOLE, SMALL, OUTER_OUTER), (72, 40, 33),
     {"a_transposed": True, "b_transposed": False}),
    (Mma("mma_half", H, "float32", WHOLE, SMALL, PACKED), (33, 35, 37), {"misaligned": 1}),
    (Mma("mma_half", H, "float16", HALVED, SMALL, PACKED), (40, 40, 40), {"instruction_k": 8, "bias": True}),
    (Mma("mma_tfloat32", T, "float32", WHOLE, SMALL, K_K), (65, 64, 36), {"bias": True}),
    (Mma("mma_tfloat32", T, "float32", WHOLE, SMALL, PACKED), (40, 33, 20), {"formats": S, "b_transposed": False}),
    (Mma("mma_tfloat32", T, "float32", HALVED, SMALL, PACKED), (34, 40, 24), {"instruction_k": 4, "formats": S}),
    (Mma("mma_halves", H, "float32", HALVES, FEW_WARPS, PACKED), (65, 40, 80), {"formats": E4, "bias": True}),
    (Mma("mma_halves", H, "float16", HALVES, FEW_WARPS, PACKED), (30, 60, 70), {"formats": MIXED, "continued": True}),
]  # fmt: skip
MORE = [
    (Mma("mma_half", B, "float32", WHOLE, LARGE, K_K), (130, 128, 40), {"bias": True}),
    (Mma("mma_half", B, "float32", WHOLE, SMALL, PACKED), (64, 64, 0), {"continued": True, "bias": True}),
    (Mma("mma_half", B, "float32", HALVED, SMALL, PACKED), (33, 70, 100), {"instruction_k": 8, "a_transposed": True}),
    (Mma("mma_half", H, "float32", WHOLE, LARGE, K_OUTER), (128, 136, 200), {"b_transposed": False}),
    (Mma("mma_half", H, "float16", WHOLE, LARGE, OUTER_OUTER), (136, 136, 40),
     {"a_transposed": True, "b_transposed": False}),
    (Mma("mma_tfloat32", T, "float32", WHOLE, LARGE, PACKED), (129, 132, 20),
     {"a_transposed": True, "b_transposed": False, "formats": S}),
    (Mma("mma_tfloat32", T, "float32", WHOLE, SMALL, PACKED), (65, 64, 36), {"formats": S, "misaligned": 1}),
    (Mma("mma_halves", H, "float32", HALVES, LARGE, PACKED), (129, 70, 64), {"formats": E5, "a_transposed": True}),
    (Mma("mma_halves", H, "float32", HALVES, FEW_WARPS, PACKED), (64, 64, 320), {"formats": E5[:1] + E4[:1]}),
    (Mma("mma_halves", H, "float16", HALVES, LARGE, PACKED), (64, 130, 40), {"formats": E4, "b_transposed": False}),
]  # fmt: skip


@pytest.mark.parametrize(("kernel", "shape", "how"), UNITS)
def test_product_on_units(kernels, kernel, shape, how):
    run_mma(kernels, kernel, of_unit(kernel, *shape, **how))


@pytest.mark.slow
@pytest.mark.parametrize(("kernel", "shape", "how"), MORE)
def test_more_products_on_units(kernels, kernel, shape, how):
    run_mma(kernels, kernel, of_unit(kernel, *shape, **how))


@pytest.mark.slow
@pytest.mark.parametrize("order", ["first", "last"])
@pytest.mark.parametrize("layout", [K_K, PACKED])
def test_product_on_units_one_warp_ahead(kernels, layout, order):
    """A missing barrier would show: one warp runs as far as it can."""
    kernel = Mma("mma_half", H, "float32", WHOLE, SMALL, layout)
    run_mma(kernels, kernel, of_unit(kernel, 64, 64, 200), order)


@pytest.mark.slow
def test_columns_in_slabs(kernels):
    """Tiles of columns go along y and z; those beyond the last do nothing."""
    kernel = Mma("mma_half", H, "float32", WHOLE, SMALL, K_K)
    run_mma(kernels, kernel, of_unit(kernel, 64, 136, 32), slabs=2)


@pytest.mark.slow
def test_float8_is_not_multiplied_on_hopper(kernels):
    """There mma.sync has no unit for it."""
    kernel = Mma("mma_float8", E4, "float32", WHOLE, SMALL, K_K)
    with pytest.raises(PtxError, match="trap"):
        run_mma(kernels, kernel, of_unit(kernel, 8, 8, 16))


NAME = re.compile(r"mma_product_kernel<MmaInstruction<(\w+), (\w+), (\w+), (\d)>, MmaShape<([\d, ]+)>, (\d)>")
PLACES = [("mma_half", 90), ("mma_tfloat32", 90), ("mma_halves", 90), ("mma_float8", 120)]


def case_of(kernel):
    """A ragged product that a kernel can do."""
    more = 8 if kernel.layout in (K_OUTER, OUTER_OUTER) else 4  # lines of 16 bytes
    m, n = kernel.shape[0] + more, kernel.shape[1] + more
    how = {"a_transposed": kernel.layout == OUTER_OUTER, "b_transposed": kernel.layout in (K_K, PACKED), "bias": True}
    if kernel.form == HALVED:
        how["instruction_k"] = kernel.depth // 4
    if kernel.form == HALVES:
        how["formats"] = MIXED
    elif kernel.layout == PACKED:
        m, n = m - 1, n - 1
        how["formats"] = S if kernel.operands == T else kernel.operands
    return of_unit(kernel, m, n, 2 * kernel.depth + kernel.depth // 4 * 2, **how)


@pytest.mark.slow
@pytest.mark.parametrize(("file", "architecture"), PLACES)
def test_every_kernel_of_units(kernels, file, architecture):
    names = list(kernels.entries(file, architecture))
    for name in names:
        a, b, accumulate, form, shape, layout = NAME.fullmatch(name).groups()
        sizes = tuple(int(x) for x in shape.split(","))
        kernel = Mma(file, (a, b), accumulate, int(form), sizes, int(layout), architecture)
        assert kernel.name == name
        run_mma(kernels, kernel, case_of(kernel))
    assert names
