"""The arithmetic of the interpreter of PTX: exact, against integers and rationals."""

from __future__ import annotations

import ml_dtypes
import numpy as np
import ptx_floats as floats
import pytest
from conftest import SPECIALS, SPECS, adversarial, assert_same_values, bits, fma, round_array, widened
from ptx_integers import UnknownInstruction
from ptx_semantics import operation

HALVES = {"f16": "float16", "bf16": "bfloat16"}
NARROW = HALVES | {"tf32": "tfloat32", "f32": "float32", "e4m3": "float8_e4m3fn", "e5m2": "float8_e5m2"}


def numbers(seed, count=4000, least=-300, most=300):
    """Everyday, far apart, and anything that 64 bits hold."""
    rng = np.random.default_rng(seed)
    any_bits = rng.integers(0, 2**64, count, dtype=np.uint64).view(np.float64)
    apart = rng.standard_normal(count) * 2.0 ** rng.integers(least, most, count)
    hard = rng.choice(np.array([*SPECIALS, 5e-324, -2.3e-308, 1.7e308, 1.0, -1.0]), count)
    return np.concatenate([rng.standard_normal(count), apart, any_bits, hard])


def test_fma_of_float64_is_rounded_once():
    a, b, c = (numbers(seed, 1000) for seed in range(3))
    with np.errstate(all="ignore"):
        cancels = -(a * b) * (1 + np.random.default_rng(3).integers(-2, 3, a.size) * 2.0**-52)
        for third in (c, cancels):
            want = [fma(*t, "float64") for t in zip(a.tolist(), b.tolist(), third.tolist(), strict=True)]
            assert_same_values(floats.fma_f64(a, b, third), np.array(want))


def test_fma_of_float32_is_rounded_once():
    with np.errstate(all="ignore"):
        a, b, c = (numbers(seed, 1000, -60, 60).astype(np.float32) for seed in range(3))
        for third in (c, -(a * b)):
            columns = (x.astype(np.float64).tolist() for x in (a, b, third))
            want = [fma(*t, "float32") for t in zip(*columns, strict=True)]
            assert_same_values(operation("fma.rn.f32").compute(a, b, third), np.array(want, np.float32))


@pytest.mark.parametrize("kind", HALVES)
def test_fma_of_16_bits_is_rounded_once(kind):
    rng = np.random.default_rng(1)
    a, b, c = (rng.integers(0, 65536, 3000, dtype=np.uint16) for _ in range(3))
    with np.errstate(all="ignore"):
        got = floats.decode(operation(f"fma.rn.{kind}").compute(a, b, c), kind)
        columns = [floats.decode(x, kind).tolist() for x in (a, b, c)]
    assert_same_values(got, np.array([fma(*t, HALVES[kind]) for t in zip(*columns, strict=True)]))


def test_sums_of_two_halves_are_rounded_once():
    """Each half apart: float64 holds every sum of two float16."""
    rng = np.random.default_rng(2)
    a, b = (rng.integers(0, 2**32, 3000, dtype=np.uint32) for _ in range(2))
    with np.errstate(all="ignore"):
        got = operation("add.rn.f16x2").compute(a, b).view(np.uint16)
        left, right = (x.view(np.float16).astype(np.float64) for x in (a, b))
        assert_same_values(got.view(np.float16), (left + right).astype(np.float16))


@pytest.mark.parametrize("kind", NARROW)
@pytest.mark.parametrize(("mode", "rounding"), [("rn", "nearest_even"), ("rz", "toward_zero")])
def test_roundings(kind, mode, rounding):
    fmt = NARROW[kind]
    x = np.concatenate([adversarial(fmt), numbers(2, 2000, -160, 140)])
    with np.errstate(all="ignore"):
        assert_same_values(floats.to_float(x, kind, mode), round_array(x, fmt, rounding))


def test_float8_is_decoded():
    patterns = np.arange(256, dtype=np.uint8)
    for kind, dtype in (("e4m3", ml_dtypes.float8_e4m3fn), ("e5m2", ml_dtypes.float8_e5m2)):
        assert_same_values(floats.decode(patterns, kind), patterns.view(dtype))
    with np.errstate(all="ignore"):
        both = operation("cvt.rn.f16x2.e4m3x2").compute(np.arange(65536, dtype=np.uint16))
    for shift in (0, 8):
        want = (np.arange(65536) >> shift).astype(np.uint8).view(ml_dtypes.float8_e4m3fn)
        assert_same_values((both >> (2 * shift)).astype(np.uint16).view(np.float16), widened(want).astype(np.float16))


@pytest.mark.parametrize("kind", ["s32", "u32", "s64", "u64"])
def test_floats_become_integers(kind):
    """Truncated and clamped; NaN is zero in 32 bits."""
    x = np.concatenate(
        [numbers(4, 500, -5, 80), adversarial("float64"), np.array([2.0**63, 2.0**64, -(2.0**63), 2.0**31])]
    )
    compute = operation(f"cvt.rzi.{kind}.f64").compute
    info = np.iinfo(
        {"s": np.int32, "u": np.uint32}[kind[0]] if kind[1:] == "32" else {"s": np.int64, "u": np.uint64}[kind[0]]
    )
    with np.errstate(all="ignore"):
        got = compute(x)
    nan = 0 if info.bits == 32 else -(2**63) if info.min else 2**63
    for value, integer in zip(x.tolist(), got.tolist(), strict=True):
        if np.isnan(value):
            assert integer == nan
        elif np.isinf(value):
            assert integer == (info.max if value > 0 else info.min)
        else:
            assert integer == max(info.min, min(info.max, int(value)))


def integer(opcode, *operands, dtype=np.uint32):
    """One value."""
    return int(operation(opcode).compute(*(np.array([o], dtype) for o in operands))[0])


def test_integers():
    assert integer("shl.b32", 1, 32) == 0 and integer("shr.u32", 2**31, 31) == 1
    assert integer("shr.s32", -8, 40, dtype=np.int32) == -1
    assert integer("div.s32", -7, 2, dtype=np.int32) == -3 and integer("rem.s32", -7, 2, dtype=np.int32) == -1
    assert integer("div.s64", -(2**40), 3, dtype=np.int64) == -(2**40 // 3) and integer("rem.u32", 7, 4) == 3
    assert integer("rem.s64", -(2**40) - 1, 2**20, dtype=np.int64) == -1
    assert integer("mul.hi.u32", 2**31, 6) == 3 and integer("mul.wide.s32", -3, 2**30, dtype=np.int32) == -3 * 2**30
    assert integer("bfind.u32", 0x00F0) == 7 and integer("bfind.shiftamt.u32", 0x00F0) == 24
    assert integer("bfind.u32", 0) == 2**32 - 1 and integer("clz.b64", 1, dtype=np.uint64) == 63
    assert integer("brev.b32", 6) == 0x60000000 and integer("popc.b32", 0xF0F1) == 9
    assert integer("bfi.b32", 0xAB, 0x11111111, 8, 8) == 0x1111AB11 and integer("bfe.u32", 0x12345678, 8, 12) == 0x456
    assert integer("prmt.b32", 0x33221100, 0x77665544, 0x7531) == 0x77553311
    assert integer("prmt.b32", 0x000000F0, 0, 0x8888) == 0xFFFFFFFF
    assert integer("lop3.b32", 0xF0F0F0F0, 0xCCCCCCCC, 0xAAAAAAAA, 0xE8) == (
        0xF0F0F0F0 & 0xCCCCCCCC | 0xF0F0F0F0 & 0xAAAAAAAA | 0xCCCCCCCC & 0xAAAAAAAA
    )
    assert integer("shf.l.wrap.b32", 0x80000000, 1, 1) == 3 and integer("mad.lo.s32", -2, 3, 7, dtype=np.int32) == 1


def test_minima_and_comparisons_of_special_values():
    a = np.array([np.nan, 1, -0.0, 0.0, np.nan], np.float32)
    b = np.array([2, np.nan, 0.0, -0.0, np.nan], np.float32)
    least = operation("min.f32").compute(a, b)
    assert least[:2].tolist() == [2, 1] and np.signbit(least[2:4]).all() and bits(least)[4] == 0x7FFFFFFF
    assert bits(operation("min.NaN.f32").compute(a, b))[1] == 0x7FFFFFFF
    assert operation("setp.ltu.f32").compute(a, b).tolist() == [True, True, False, False, True]
    assert operation("setp.neu.f32").compute(a, b).tolist() == [True, True, False, False, True]
    assert operation("setp.ne.f32").compute(a, b).tolist() == [False] * 5
    assert operation("setp.num.f32").compute(a, b).tolist() == [False, False, True, True, False]


@pytest.mark.parametrize(
    "opcode", ["ex2.approx.f32", "div.full.f32", "add.rn.ftz.f64", "cvt.f32.f64", "frobnicate.u32"]
)
def test_unknown_instructions_are_named(opcode):
    with pytest.raises(UnknownInstruction, match=opcode):
        operation(opcode)


def test_every_format_has_its_row():
    for kind, (p, emin, largest, has_inf) in floats.NARROW.items():
        spec = SPECS[NARROW[kind]]
        assert (p, emin, largest, has_inf) == (spec.p, spec.emin, spec.max, spec.has_inf)
