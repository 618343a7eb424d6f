"""Units that round after each operation: against NumPy, torch, exact rationals, and the processor's own instructions."""

from __future__ import annotations

from fractions import Fraction

import ml_dtypes
import numpy as np
import pytest

import gradkern as gk
from gradkern import _core, _units
from gradkern.formats import format_ids

BF16 = np.dtype(ml_dtypes.bfloat16)
UNITS = {i.unit for i in _units.instructions() if i.rounds_each}
SHAPES = [(3, 5, 4), (16, 64, 16), (1, 9, 1), (64, 512, 64), (7, 1500, 5), (130, 70, 33), (2, 0, 3)]


def drawn(rng, shape, dtype, kind="normal"):
    values = rng.standard_normal(shape)
    if kind == "wide":
        values = values * 2.0 ** rng.integers(-20, 10, shape)
    if kind == "cancel":
        values = values * rng.choice([-1.0, 1.0, 2.0**-9, 2.0**6], shape)
    return values.astype(np.float32).astype(dtype)


def patterns(rng, shape):
    """Bfloat16 bits of every kind: near one, subnormal, huge, and any at all."""
    any_bits = rng.integers(0, 2**16, shape, np.uint16)
    near = (any_bits & 0x80FF) | (rng.integers(118, 136, shape).astype(np.uint16) << 7)
    low = (any_bits & 0x80FF) | (rng.integers(0, 70, shape).astype(np.uint16) << 7)
    kind = rng.integers(0, 3, shape[:1] if shape[0] < shape[1] else (1, *shape[1:]))
    pick = np.broadcast_to(kind[:, None] if shape[0] < shape[1] else kind, shape)
    return np.select([pick == 0, pick == 1], [near, low], any_bits).astype(np.uint16)


def model(unit, a, b, c):
    ids = format_ids()
    words = [np.ascontiguousarray(x, np.uint32) for x in (a, b.T, c)]
    return _core.mma_model(_units.unit_ids()[unit], ids["bfloat16"], ids["bfloat16"], ids["float32"], 0, *words)


def test_model_refuses_what_torch_sums_in_an_unknown_way():
    ids, unit = format_ids(), _units.unit_ids()["torch_cpu"]
    a, b, c = (np.zeros(shape, np.uint32) for shape in ((3, 600), (3, 600), (3, 3)))
    with pytest.raises(ValueError, match="how torch_cpu sums"):
        _core.mma_model(unit, ids["float16"], ids["float16"], ids["float32"], 0, a, b, c)


@pytest.mark.parametrize("unit", ["x86.amx", "x86.avx512_bf16"])
@pytest.mark.parametrize("way", ["software", "processor"])
def test_bfloat16_instructions_are_their_model(unit, way, isa, threads, monkeypatch):
    if way == "processor" and unit not in _core.own_instructions():
        pytest.skip(f"this processor, or the instruction set in use, has no {unit}")
    monkeypatch.setenv("GRADKERN_UNITS", way)
    rng = np.random.default_rng(1)
    for m, k, n in [(17, 100, 40), (40, 31, 20), (5, 1, 3), (33, 64, 33)]:
        a, b = patterns(rng, (m, k)), patterns(rng, (k, n))
        c = rng.integers(0, 2**32, (m, n), np.uint32)
        c[::2] = rng.integers(0, 2**24, c[::2].shape) | (c[::2] & 0x80000000)  # subnormals, and the least normals
        c[0] = 0x80000000
        d = gk.mma(a.view(BF16), b.view(BF16), c.view(np.float32), unit=unit)
        assert np.array_equal(d.view(np.uint32), model(unit, a, b, c))


def test_worked_examples():
    """Orders and flushing that tell the bfloat16 instructions from one another, by hand."""

    def one(unit, a, b, c=0.0):
        a, b = (np.array(x, np.float32).astype(BF16) for x in ([a], [[x] for x in b]))
        return float(gk.mma(a, b, np.array([[c]], np.float32), unit=unit)[0, 0])

    tiny = 2.0**-24
    # 1 + 2^-24 + 2^-24: the odd product first, then the even one, ties to even each time; AMX adds the two before C.
    assert one("x86.avx512_bf16", [1, 1], [tiny, tiny], 1.0) == 1.0
    assert one("x86.amx", [1, 1], [tiny, tiny], 1.0) == 1.0 + 2.0**-23
    # a0 b0 = 2^24, a1 b1 = 1, C = -2^24: odd first gives -2^24 + 1 exactly, AMX rounds 2^24 + 1 away.
    assert one("x86.avx512_bf16", [2.0**12, 1], [2.0**12, 1], -(2.0**24)) == 1.0
    assert one("x86.amx", [2.0**12, 1], [2.0**12, 1], -(2.0**24)) == 0.0
    for unit in ("x86.amx", "x86.avx512_bf16"):
        assert one(unit, [2.0**-130], [2.0**60]) == 0.0  # a subnormal operand
        assert one(unit, [2.0**-70], [2.0**-60]) == 0.0  # a subnormal product
        assert one(unit, [0.0], [1.0], 2.0**-127) == 0.0  # a subnormal accumulator
        assert np.isnan(one(unit, [np.inf], [0.0]))
    assert one("x86.avx512_bf16", [2.0**-75], [-(2.0**-76)], 2.0**-126) == 2.0**-126  # tiny only before it is rounded
    assert one("x86.avx512_bf16", [2.0**-75], [-1.5 * 2.0**-76], 2.0**-126) == 0.0


@pytest.mark.parametrize("kind", ["normal", "wide", "cancel"])
def test_numpy_is_numpy(kind, isa):
    rng = np.random.default_rng(2)
    with np.errstate(all="ignore"):
        for m, k, n in SHAPES:
            a, b = drawn(rng, (m, k), np.float16, kind), drawn(rng, (k, n), np.float16, kind)
            d = gk.mma(a, b, unit="numpy")
            assert d.dtype == np.float16
            assert np.array_equal(d, a @ b)
            assert np.array_equal(gk.mma(a, np.ascontiguousarray(b), unit="numpy")[:1], np.dot(a[:1], b))
        a = np.array([[60000, 60000, -60000]], np.float16)
        assert gk.mma(a, np.ones((3, 1), np.float16), unit="numpy") == 60000  # no overflow on the way


def test_a_layer_in_numpy():
    rng = np.random.default_rng(3)
    x, w, b = (drawn(rng, shape, np.float16) for shape in ((6, 40), (9, 40), (9,)))
    out = gk.dense_forward(x, w, b, arithmetic="float16@numpy")
    assert np.array_equal(out.pre_activation, x @ w.T + b)
    dz = drawn(rng, (6, 9), np.float16)
    g = gk.dense_backward(dz, x, w, arithmetic="float16@numpy")
    assert np.array_equal(g.input, dz @ w)
    assert np.array_equal(g.weight, dz.T @ x)


def rounded(value: Fraction) -> Fraction:
    """To float16, ties to even, by its definition; in range."""
    if value == 0:
        return value
    exponent = max(_exponent(abs(value)), -14)
    quantum = Fraction(2) ** (exponent - 10)
    return round(value / quantum) * quantum


def _exponent(x: Fraction) -> int:
    e = x.numerator.bit_length() - x.denominator.bit_length()
    return e if x >= Fraction(2) ** e else e - 1


@pytest.mark.parametrize("unit", ["cuda.hfma", "x86.avx512_fp16", "cuda.hmul_hadd"])
def test_half_chains_are_exact_rationals_rounded(unit, isa):
    rng = np.random.default_rng(4)
    for kind in ("normal", "wide", "cancel"):
        a, b, c = (drawn(rng, shape, np.float16, kind) for shape in ((3, 20), (20, 9), (3, 9)))
        d = gk.mma(a, b, c, unit=unit)
        for i, j in np.ndindex(3, 9):
            total = Fraction(float(c[i, j]))
            for k in range(20):
                product = Fraction(float(a[i, k])) * Fraction(float(b[k, j]))
                total = rounded((rounded(product) if unit == "cuda.hmul_hadd" else product) + total)
            assert float(d[i, j]) == float(total)


@pytest.mark.parametrize("name", [i.name for i in gk.arithmetics() if i.name.split("@")[-1] in UNITS])
def test_there_is_one_nan(name, isa):
    operands, _, unit = name.partition("@")
    a = np.array([[np.inf], [np.nan], [-np.inf], [1]], np.float32).astype(gk.finfo(operands).dtype)
    d = gk.mma(a, np.array([[0, 1]]).astype(a.dtype), unit=unit)
    word, bits = (0x7FFF, d.view(np.uint16)) if d.dtype == np.float16 else (0x7FFFFFFF, d.view(np.uint32))
    assert [bits[0, 0], bits[1, 0], bits[1, 1], bits[2, 0]] == [word] * 4
    assert (d[0, 1], d[2, 1], d[3, 1]) == (np.inf, -np.inf, 1)


def test_names():
    for name in ("bfloat16@x86.amx", "bfloat16@x86.avx512_bf16", "float16@x86.avx512_fp16", "float16@numpy", "float16@torch_cpu",
                 "bfloat16@torch_cpu", "float16@cuda.hfma", "float16@cuda.hmul_hadd"):  # fmt: skip
        assert str(gk.arithmetic(name)) == name
        assert gk.explain(name).evidence
    assert gk.arithmetic("float16@numpy/float16") == gk.arithmetic("float16@numpy")
    for wrong, message in [
        ("bfloat16@numpy", "numpy has no instruction for bfloat16"),
        ("float16@x86.amx", "x86.amx has no instruction for float16"),
        ("float16@numpy/float32", "accumulates float16 products in float16 only"),
    ]:
        with pytest.raises(ValueError, match=message):
            gk.arithmetic(wrong)


@pytest.mark.parametrize(("dtype", "k"), [(np.float16, 513), (BF16, 257), (BF16, 150)])
def test_sums_that_torch_cuts_in_unknown_ways_are_refused(dtype, k):
    ones = np.ones((8, k), dtype)
    with pytest.raises(ValueError, match="is not known"):
        gk.mma(ones, np.ascontiguousarray(ones.T), unit="torch_cpu")
    assert gk.mma(ones[:2], np.ones((k, 3), dtype), unit="torch_cpu")[0, 0] == k  # ATen's loop has no blocks
