"""Instructions of PTX that threads execute together: barriers, shuffles, votes, reductions, ldmatrix and mma.sync."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from ptx_access import COMBINE, address
from ptx_integers import dtype_of
from ptx_parse import Instruction, PtxError

from gradkern import _core
from gradkern._units import unit_ids
from gradkern.formats import format_ids

if TYPE_CHECKING:
    from ptx_run import Block

Array = NDArray[Any]
FULL = np.uint32(0xFFFFFFFF)
RUNS, WAITS, DONE = 0, 1, 2  # the states of a thread
BARRIER = re.compile(r"bar(?:rier)?\.(?:cta\.)?(?:sync|red\.(and|or)\.pred)(?:\.aligned)?")
SHUFFLE = re.compile(r"shfl\.sync\.(bfly|idx|up|down)\.b32")
VOTE = re.compile(r"vote\.sync\.(all|any|uni|ballot)\.(pred|b32)")
REDUCTION = re.compile(r"redux\.sync\.(add|min|max|and|or|xor)\.([bsu]32)")
MATRIX = re.compile(r"ldmatrix\.sync\.aligned\.m8n8\.x([124])(\.trans)?\.shared(?:::cta)?\.b16")
UNIT = re.compile(
    r"mma\.sync\.aligned\.m16n8k(\d+)\.row\.col\.(f32|f16)\.(f16|bf16|tf32|e4m3|e5m2)\.(f16|bf16|tf32|e4m3|e5m2)\.\2"
)
FORMATS = {"f16": "float16", "bf16": "bfloat16", "tf32": "tfloat32", "e4m3": "float8_e4m3fn", "e5m2": "float8_e5m2",
           "f32": "float32"}  # fmt: skip
BYTES = {"f16": 2, "bf16": 2, "tf32": 4, "e4m3": 1, "e5m2": 1}


def knows(opcode: str) -> bool:
    """Whether an instruction is one of these."""
    patterns = (BARRIER, SHUFFLE, VOTE, REDUCTION, MATRIX, UNIT)
    if found := UNIT.fullmatch(opcode):
        return int(found[1]) * BYTES[found[3]] in (16, 32) and BYTES[found[3]] == BYTES[found[4]]
    return opcode == "bar.warp.sync" or any(pattern.fullmatch(opcode) for pattern in patterns)


def members(block: Block, i: Instruction) -> Array:
    """The lanes that each thread's instruction waits for."""
    if MATRIX.fullmatch(i.opcode) or UNIT.fullmatch(i.opcode):
        return np.full(block.threads, FULL)
    return block.read(i.operands[-1], "u32")()


def ready(block: Block, i: Instruction, waiting: Array) -> Array:
    """Of the threads that wait at an instruction, those for whom all have come."""
    if BARRIER.fullmatch(i.opcode):
        if i.operands[1 if "red" in i.parts else 0] != "0":
            raise PtxError("a barrier other than 0")
        others = (block.state == WAITS) & ~waiting
        for at in np.unique(block.pc[others]):
            if BARRIER.fullmatch(block.entry.instructions[int(at)].opcode):
                raise PtxError(f"some threads wait there, others at {block.entry.instructions[int(at)]}")
        return waiting if (waiting | (block.state == DONE)).all() else np.zeros_like(waiting)
    lane = (np.uint32(1) << (block.index % 32).astype(np.uint32)).astype(np.uint32)
    here = np.where(waiting, lane, np.uint32(0)).reshape(-1, 32).sum(axis=1, dtype=np.uint32).repeat(32)
    mask = members(block, i)
    if (waiting & (mask & lane == 0)).any():
        raise PtxError(f"thread {int(np.argmax(waiting & (mask & lane == 0)))} is not in its own mask")
    complete: Array = waiting & (mask & ~here == 0)
    return complete


def run(block: Block, i: Instruction, active: Array) -> None:
    """For threads that are all there."""
    races = block.shared.races
    if i.opcode == "bar.warp.sync":
        for group in by_mask(block, i, active):
            races.warp_barrier(block.index[group])
    elif found := BARRIER.fullmatch(i.opcode):
        races.barrier()
        if found[1]:
            value = block.read(i.operands[2], "pred")()[active]
            result = value.all() if found[1] == "and" else value.any()
            block.write(i.operands[0], "pred")(np.full(block.threads, result), active)
    elif found := SHUFFLE.fullmatch(i.opcode):
        shuffle(block, i, found[1], active)
    elif found := VOTE.fullmatch(i.opcode):
        vote(block, i, found[1], active)
    elif found := REDUCTION.fullmatch(i.opcode):
        reduction(block, i, found, active)
    elif found := MATRIX.fullmatch(i.opcode):
        load_matrix(block, i, int(found[1]), bool(found[2]), active)
    elif found := UNIT.fullmatch(i.opcode):
        multiply(block, i, found, active)


def shuffle(block: Block, i: Instruction, mode: str, active: Array) -> None:
    """Each thread reads another's register."""
    target, _, predicate = i.operands[0].partition("|")
    value, b, c = (block.read(operand, "u32")() for operand in i.operands[1:4])
    lane = (block.index % 32).astype(np.int64)
    distance, segment, clamp = (x.astype(np.int64) & 31 for x in (b, c >> np.uint32(8), c))
    last = lane & segment | clamp & ~segment
    source = {"up": lane - distance, "down": lane + distance, "bfly": lane ^ distance}.get(
        mode, lane & segment | distance & ~segment
    )
    within = source >= last if mode == "up" else source <= last
    source = np.where(within, source, lane)
    origin = block.index - lane + source
    if (active & ~active[origin]).any():
        raise PtxError(f"thread {int(np.argmax(active & ~active[origin]))} reads from one that takes no part")
    block.write(target, "u32")(value[origin], active)
    if predicate:
        block.write(predicate, "pred")(within, active)


def by_mask(block: Block, i: Instruction, active: Array) -> list[Array]:
    """The threads that vote or reduce together: those of a warp with one mask."""
    key = block.index // 32 << 32 | members(block, i).astype(np.int64)
    return [active & (key == k) for k in np.unique(key[active])]


def vote(block: Block, i: Instruction, mode: str, active: Array) -> None:
    """all, any, uni or the bits of all lanes."""
    value, put = block.read(i.operands[1], "pred")(), block.write(i.operands[0], "pred" if mode != "ballot" else "u32")
    for group in by_mask(block, i, active):
        own = value[group]
        if mode == "ballot":
            bits = int((own.astype(np.int64) << (block.index[group] % 32)).sum())
            put(np.full(block.threads, bits, np.uint32), group)
        else:
            result = {"all": own.all(), "any": own.any(), "uni": own.all() or not own.any()}[mode]
            put(np.full(block.threads, result), group)


def reduction(block: Block, i: Instruction, found: re.Match[str], active: Array) -> None:
    """One integer of all lanes."""
    dtype = dtype_of(found[2])
    value, put = block.read(i.operands[1], found[2])(), block.write(i.operands[0], found[2])
    for group in by_mask(block, i, active):
        total = COMBINE[found[1]].reduce(value[group], dtype=dtype)  # type: ignore[attr-defined]
        put(np.full(block.threads, total, dtype), group)


def load_matrix(block: Block, i: Instruction, count: int, transposed: bool, active: Array) -> None:
    """Matrices of 8 rows of 16 bytes; thread 4 r + c of a warp gets entries 2c and 2c + 1 of row r, or of column r."""
    at = address(block, i.operands[1], "shared")()
    puts = [block.write(name, "b32") for name in block.names(i.operands[0])]
    for first in block.index[active][::32]:
        threads = block.index[first : first + 8 * count]
        offsets = block.shared.offsets(threads, at[threads], 16, 16, "read")
        halves = block.shared.load_rows(offsets, 16).view(np.uint16).reshape(count, 8, 8)
        warp = np.zeros(block.threads, bool)
        warp[first : first + 32] = True
        for matrix, put in zip(halves, puts, strict=True):
            words = np.ascontiguousarray(matrix.T if transposed else matrix).view(np.uint32).reshape(32)
            value = np.zeros(block.threads, np.uint32)
            value[first : first + 32] = words
            put(value, warp)


def places(registers: int, entries: int) -> tuple[Array, Array]:
    """(32, registers, entries): the row (of b its column) modulo 8 is a lane's; where its entries lie along k."""
    lane, register, entry = np.ogrid[:32, :registers, :entries]
    return lane // 4 + 0 * register + 0 * entry, lane % 4 * entries + entry + 4 * entries * register


def multiply(block: Block, i: Instruction, found: re.Match[str], active: Array) -> None:
    """D = A B + C of each warp, by the scalar model of the unit."""
    k, a_kind, b_kind, accumulator = int(found[1]), found[3], found[4], found[2]
    entry = np.dtype(f"u{BYTES[a_kind]}")
    entries = 4 // entry.itemsize
    operands = [np.stack([block.register(name) for name in block.names(o)], axis=1) for o in i.operands[1:]]
    puts = [block.write(name, "b32") for name in block.names(i.operands[0])]
    row, depth = places(operands[1].shape[1], entries)
    lane, pair = np.divmod(np.arange(64).reshape(32, 2), 8)
    for first in block.index[active][::32]:
        a, b, c = (o[first : first + 32] for o in operands)
        left, right = np.zeros((16, k), np.uint32), np.zeros((8, k), np.uint32)
        for half in (0, 1):  # rows 0..7 and 8..15 take turns
            left[row + 8 * half, depth] = np.ascontiguousarray(a[:, half::2]).view(entry).reshape(row.shape)
        right[row, depth] = np.ascontiguousarray(b).view(entry).reshape(row.shape)
        words = np.ascontiguousarray(c).view(np.uint32 if accumulator == "f32" else np.uint16).reshape(32, 2, 2)
        start = np.zeros((16, 8), np.uint32)
        start[lane, pair], start[lane + 8, pair] = words[:, 0], words[:, 1]
        result = model(block.launch.unit, a_kind, b_kind, accumulator, k, left, right, start)
        both = np.stack([result[lane, pair], result[lane + 8, pair]], axis=1).astype(words.dtype)
        registers = np.ascontiguousarray(both).view(np.uint32).reshape(32, -1)
        warp = np.zeros(block.threads, bool)
        warp[first : first + 32] = True
        for n, put in enumerate(puts):
            value = np.zeros(block.threads, np.uint32)
            value[first : first + 32] = registers[:, n]
            put(value, warp)


def model(unit: str, a: str, b: str, accumulator: str, k: int, left: Array, right: Array, start: Array) -> Array:
    """Raw patterns (16, k), (8, k) and (16, 8) to (16, 8)."""
    ids = format_ids()
    formats = [ids[FORMATS[x]] for x in (a, b, accumulator)]
    return _core.mma_model(unit_ids()[unit], *formats, k, left, right, start)
