"""The interpreter of PTX itself: how threads go together, and what it must refuse."""

from __future__ import annotations

import numpy as np
import ptx_run
import pytest
from ptx_memory import Memory
from ptx_parse import PtxError, parse


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
    ptx_run.run(ptx_run.Launch(entry, memory, pointer, (threads, 1, 1), (1, 1, 1), **how))
    return memory.fetch(address, np.uint32, size // 4)


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


def test_a_reader_waits_for_those_before():
    """Lane t ^ 1 reads, then lane t after a barrier of the warp; whoever waits for that one may write."""
    twice = (
        EXCHANGE.replace("%r1, 33", "%r1, 1")
        + """
	{between}
	ld.shared.u32 	%r8, [%r4];
	st.shared.u32 	[%r4], %r8;"""
    )
    both = ("bar.warp.sync 	-1;",) * 2
    assert run(twice.replace("{between}", both[0])).tolist() == [t ^ 1 for t in range(64)]
    with pytest.raises(PtxError, match="that another thread has read"):  # lane t has not waited for lane t ^ 1
        run(twice.replace("{between}", both[0], 1).replace("{between}", ""))


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


def test_a_copy_that_is_not_there_is_zero():
    """By a predicate of an inner scope, whose name has no percent sign; the source is not touched."""
    body = """mov.u32 	%r3, table;
	shl.b32 	%r4, %r1, 4;
	add.s32 	%r5, %r3, %r4;
	mul.wide.u32 	%rd4, %r1, 16;
	add.s64 	%rd5, %rd1, %rd4;
	setp.lt.u32 	%p1, %r1, 32;
	selp.u32 	%r7, 1, 0, %p1;
	{
	.reg .pred absent;
	setp.eq.u32 	absent, %r7, 0;
	cp.async.cg.shared.global [%r5], [%rd5], 16, absent;
	}
	cp.async.commit_group;
	cp.async.wait_group 0;
	ld.shared.u32 	%r6, [%r5];
	st.global.u32 	[%rd3], %r6;"""
    assert run(body, 512, data=np.arange(128, dtype=np.uint32))[:64].tolist() == [*range(0, 128, 4), *[0] * 32]


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
