"""The interpreter of PTX itself: exact arithmetic against rationals, and what it must refuse."""

from __future__ import annotations

import ml_dtypes
import numpy as np
import ptx_floats as floats
import ptx_run
import pytest
from conftest import SPECIALS, SPECS, adversarial, assert_same_values, bits, fma, round_array, widened
from ptx_integers import UnknownInstruction
from ptx_memory import Memory
from ptx_parse import PtxError, parse
from ptx_semantics import operation

HALVES = {"f16": "float16", "bf16": "bfloat16"}
NARROW = HALVES | {"tf32": "tfloat32", "f32": "float32", "e4m3": "float8_e4m3fn", "e5m2": "float8_e5m2"}


def program(body, shared="", registers=""):
    """An entry with one pointer, in %rd1, and the thread in %r1."""
    return f"""
.version 9.0
.target sm_90
.address_size 64
.visible .entry kernel(
	.param .u64 kernel_param_0
)
.maxntid 64, 1, 1
{{
	.reg .pred 	%p<9>;
	.reg .b16 	%rs<9>;
	.reg .f32 	%f<9>;
	.reg .b32 	%r<20>;
	.reg .f64 	%fd<9>;
	.reg .b64 	%rd<9>;
	{shared}
	ld.param.u64 	%rd0, [kernel_param_0];
	cvta.to.global.u64 	%rd1, %rd0;
	mov.u32 	%r1, %tid.x;
	mul.wide.u32 	%rd2, %r1, 4;
	add.s64 	%rd3, %rd1, %rd2;
	shl.b32 	%r2, %r1, 2;
	{body}
	ret;
}}
"""  # fmt: skip


SHARED = ".shared .align 16 .b8 table[1024];\n	.shared .align 16 .b8 other[64];\n"


def run(body, size=256, shared=SHARED, data=None, threads=64, **how):
    """What 64 threads leave in so many bytes."""
    (entry,) = parse(program(body, shared)).values()
    memory = Memory(1 << 16)
    address = memory.upload(np.zeros(size, np.uint8) if data is None else data)
    pointer = int(address).to_bytes(8, "little")
    ptx_run.run(ptx_run.Launch(entry, memory, pointer, (threads, 1, 1), 1, **how))
    return memory.fetch(address, np.uint32, size // 4)


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


def test_branches_meet_again():
    body = """setp.lt.u32 	%p1, %r1, 5;
	@%p1 bra 	$L_small;
	mov.u32 	%r3, 7;
	bra.uni 	$L_all;
$L_small:
	add.s32 	%r3, %r1, 100;
$L_all:
	shfl.sync.idx.b32 	%r4|%p2, %r3, 2, 31, -1;
	st.global.u32 	[%rd3], %r4;"""
    assert run(body).tolist() == [102] * 32 + [7] * 32


EXCHANGE = """mov.u32 	%r3, table;
	add.s32 	%r4, %r3, %r2;
	st.shared.u32 	[%r4], %r1;
	{between}
	xor.b32 	%r5, %r1, 33;
	shl.b32 	%r6, %r5, 2;
	add.s32 	%r7, %r3, %r6;
	ld.shared.u32 	%r8, [%r7];
	st.global.u32 	[%rd3], %r8;"""


@pytest.mark.parametrize("order", ["together", "first", "last"])
def test_a_missing_barrier_is_a_race(order):
    assert run(EXCHANGE.format(between="bar.sync 	0;"), order=order).tolist() == [t ^ 33 for t in range(64)]
    with pytest.raises(PtxError, match=r"line \d+: .* of byte \d+ of shared memory .*, no barrier between"):
        run(EXCHANGE.format(between=""), order=order)
    with pytest.raises(PtxError, match="no barrier"):  # a barrier of each warp is not enough
        run(EXCHANGE.format(between="bar.warp.sync 	-1;"), order=order)


def test_barriers_of_warps_order_their_lanes():
    within = EXCHANGE.replace("%r1, 33", "%r1, 1")
    assert run(within.format(between="bar.warp.sync 	-1;")).tolist() == [t ^ 1 for t in range(64)]
    with pytest.raises(PtxError, match="no barrier"):
        run(within.format(between=""))


def test_additions_without_atomics_are_races():
    add = """mov.u32 	%r3, table;
	setp.eq.s32 	%p1, %r1, 0;
	@%p1 st.shared.u32 	[%r3], 0;
	bar.sync 	0;
	{add}
	bar.sync 	0;
	ld.shared.u32 	%r4, [%r3];
	st.global.u32 	[%rd3], %r4;"""
    assert run(add.format(add="atom.shared.add.u32 	%r5, [%r3], 2;")).tolist() == [128] * 64
    plain = "ld.shared.u32 	%r5, [%r3];\n	add.s32 	%r6, %r5, 2;\n	st.shared.u32 	[%r3], %r6;"
    with pytest.raises(PtxError, match="has a write of byte 0 of shared memory"):
        run(add.format(add=plain))


def test_bounds_and_alignment():
    with pytest.raises(PtxError, match=r"line \d+: st.global.u32 .*: thread 50 accesses 4 bytes at .*, outside"):
        run("st.global.u32 	[%rd3], %r1;", size=200)
    with pytest.raises(PtxError, match=r"ld.global.u64 .*: thread 1 accesses 8 bytes .* no multiple of 8"):
        run("ld.global.u64 	%rd4, [%rd3];", size=512)
    with pytest.raises(PtxError, match=r"thread 32 accesses 4 bytes .* outside"):
        run("st.shared.u32 	[%r2], %r1;", shared=".shared .align 4 .b8 table[128];")


def test_traps_are_errors():
    with pytest.raises(PtxError, match=r"line \d+: @%p1 trap: thread 7 is there"):
        run("setp.eq.s32 	%p1, %r1, 7;\n	@%p1 trap;")


def test_threads_that_wait_for_one_another():
    divergent = """setp.lt.u32 	%p1, %r1, 32;
	@%p1 bra 	$L_first;
	bar.sync 	0;
	bra.uni 	$L_end;
$L_first:
	bar.sync 	0;
$L_end:"""
    with pytest.raises(PtxError, match="some threads wait there, others at"):
        run(divergent)
    lonely = """setp.lt.u32 	%p1, %r1, 3;
	@%p1 bra 	$L_end;
	vote.sync.all.pred 	%p2, %p1, -1;
$L_end:"""
    with pytest.raises(PtxError, match=r"wait for one another: line \d+: vote.sync.all.pred"):
        run(lonely)


def test_copies_arrive_when_they_are_waited_for():
    copy = """mov.u32 	%r3, table;
	shl.b32 	%r4, %r1, 4;
	add.s32 	%r5, %r3, %r4;
	mul.wide.u32 	%rd4, %r1, 16;
	add.s64 	%rd5, %rd1, %rd4;
	cp.async.cg.shared.global [%r5], [%rd5], 16, 8;
	cp.async.commit_group;
	{wait}
	ld.shared.u32 	%r6, [%r5+{word}];
	st.global.u32 	[%rd3], %r6;"""
    data = np.arange(256, dtype=np.uint32)
    waited = [run(copy.format(wait="cp.async.wait_group 0;", word=w), 1024, data=data)[:64].tolist() for w in (4, 8)]
    assert waited == [list(range(1, 256, 4)), [0] * 64]  # 8 bytes of 16 were asked for
    too_soon = run(copy.format(wait="cp.async.wait_group 1;", word=4), 1024, data=data)
    assert (too_soon[:64] == 0xFFFFFFFF).all()


def test_matrices_of_a_warp():
    """A product of ones and small integers on a matrix unit, its operands through ldmatrix."""
    rng = np.random.default_rng(0)
    a, b = rng.integers(-4, 5, (16, 16)).astype(np.float16), rng.integers(-4, 5, (8, 16)).astype(np.float16)
    body = """mov.u32 	%r3, table;
	setp.gt.u32 	%p1, %r1, 47;
	shl.b32 	%r4, %r1, 4;
	mul.wide.u32 	%rd4, %r1, 16;
	add.s64 	%rd5, %rd1, %rd4;
	add.s32 	%r5, %r3, %r4;
	@%p1 bra 	$L_loaded;
	ld.global.v4.u32 	{%r6, %r7, %r8, %r9}, [%rd5];
	st.shared.v4.u32 	[%r5], {%r6, %r7, %r8, %r9};
$L_loaded:
	bar.sync 	0;
	setp.gt.u32 	%p2, %r1, 31;
	@%p2 bra 	$L_end;
	ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%r10, %r11, %r12, %r13}, [%r5];
	and.b32 	%r6, %r4, 255;
	add.s32 	%r6, %r6, %r3;
	ldmatrix.sync.aligned.m8n8.x2.shared.b16 {%r14, %r15}, [%r6+512];
	mov.f32 	%f1, 0f00000000;
	{mma} {%f2, %f3, %f4, %f5}, {%r10, %r11, %r12, %r13}, {%r14, %r15}, {%f1, %f1, %f1, %f1};
	mul.wide.u32 	%rd6, %r1, 16;
	add.s64 	%rd7, %rd1, %rd6;
	st.global.v4.f32 	[%rd7], {%f2, %f3, %f4, %f5};
$L_end:"""  # fmt: skip
    halves = [a[:8, :8], a[8:, :8], a[:8, 8:], a[8:, 8:], b[:, :8], b[:, 8:]]
    data = np.concatenate([h.reshape(-1) for h in halves])
    lanes = (
        run(body.replace("{mma}", "mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32"), 768, data=data)[:128]
        .view(np.float32)
        .reshape(8, 4, 2, 2)
    )
    want = a.astype(np.float64) @ b.astype(np.float64).T
    for half in (0, 1):  # rows 0..7 and 8..15
        assert np.array_equal(lanes[:, :, half].reshape(8, 8), want[8 * half : 8 * half + 8])


def test_every_format_has_its_row():
    for kind, (p, emin, largest, has_inf) in floats.NARROW.items():
        spec = SPECS[NARROW[kind]]
        assert (p, emin, largest, has_inf) == (spec.p, spec.emin, spec.max, spec.has_inf)
