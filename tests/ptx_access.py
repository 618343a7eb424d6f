"""Loads, stores, atomics and asynchronous copies of PTX."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from ptx_integers import UnknownInstruction, dtype_of
from ptx_memory import POISON, Space
from ptx_parse import Instruction, PtxError

if TYPE_CHECKING:
    from ptx_run import Block

Array = NDArray[Any]
Step = Callable[[Array], None]
TYPE = r"[bsu](?:8|16|32|64)|f32|f64"
LOAD = re.compile(rf"(ld|st)\.(?:volatile\.)?(param|global|shared)(?:\.(?:nc|cg|ca|cs))?(?:\.v([24]))?\.({TYPE})")
ATOMIC = re.compile(
    r"(atom|red)\.(?:relaxed\.(?:cta|gpu)\.)?(global|shared)\.(add|min|max|and|or|xor|exch)\.([bsu](?:32|64))"
)
COPY = re.compile(r"cp\.async\.(?:cg|ca)\.shared(?:::cta)?\.global(?:\.L2::\d+B)?")
COPY_GROUPS = ("cp.async.commit_group", "cp.async.wait_group", "cp.async.wait_all")
COMBINE: dict[str, Callable[[Any, Any], Any]] = {
    "add": np.add, "min": np.minimum, "max": np.maximum, "and": np.bitwise_and, "or": np.bitwise_or,
    "xor": np.bitwise_xor, "exch": lambda old, new: new,
}  # fmt: skip


def knows(opcode: str) -> bool:
    """Whether an instruction is one of these."""
    return opcode in COPY_GROUPS or any(pattern.fullmatch(opcode) for pattern in (LOAD, ATOMIC, COPY))


def compiled(block: Block, i: Instruction) -> Step:
    """The step of an access."""
    if found := LOAD.fullmatch(i.opcode):
        return load_or_store(block, i, found)
    if found := ATOMIC.fullmatch(i.opcode):
        return atomic(block, i, found)
    return asynchronous(block, i)


def space_of(block: Block, name: str) -> Space:
    """Where an address points."""
    return {"param": block.parameters, "global": block.memory, "shared": block.shared}[name]


def address(block: Block, operand: str, space: str) -> Callable[[], Array]:
    """[register], [variable] or [either + offset]; of global memory registers alone, in 64 bits."""
    base, _, offset = operand.strip("[]").partition("+")
    register = base.startswith("%")
    if space == "global" and (not register or block.register(base).dtype.itemsize != 8):
        raise PtxError(f"{operand} is no address of global memory")
    kind = f"b{block.register(base).dtype.itemsize * 8}" if register else "b32"
    read, distance = block.read(base.strip(), kind), int(offset or "0", 0)
    if kind == "b32":  # the sum is of 32 bits, too
        return lambda: read().astype(np.int64) + distance & 0xFFFFFFFF
    return lambda: read().astype(np.int64) + distance


def load_or_store(block: Block, i: Instruction, found: re.Match[str]) -> Step:
    """ld and st, of one value or of a vector."""
    name, where, count, kind = found[1], found[2], int(found[3] or 1), found[4]
    width, places = dtype_of(kind).itemsize, i.operands if name == "ld" else i.operands[::-1]
    parts = block.names(places[0]) if count > 1 else [places[0]]
    at = address(block, places[1], where)
    if len(parts) != count or (name == "st" and where == "param"):
        raise UnknownInstruction(str(i))
    unsigned, how = np.dtype(f"u{width}"), "read" if name == "ld" else "write"

    def offsets(active: Array) -> tuple[Space, Array]:
        space = space_of(block, where)
        return space, space.offsets(block.index[active], at()[active], width * count, width * count, how)

    if name == "ld":
        puts = [block.write(part, kind) for part in parts]

        def load(active: Array) -> None:
            space, places = offsets(active)
            for k, put in enumerate(puts):
                value = np.zeros(block.threads, unsigned)
                value[active] = space.load(places + k * width, width)
                put(value.view(dtype_of(kind)), active)

        return load
    reads = [block.read(part, kind) for part in parts]

    def store(active: Array) -> None:
        space, places = offsets(active)
        for k, read in enumerate(reads):
            space.store(places + k * width, read()[active].view(unsigned))

    return store


def atomic(block: Block, i: Instruction, found: re.Match[str]) -> Step:
    """One thread after another."""
    name, where, what, kind = found.groups()
    dtype = dtype_of(kind)
    target, place, operand = i.operands if name == "atom" else ("_", *i.operands)
    at, read, put = address(block, place, where), block.read(operand, kind), block.write(target, kind)
    combine, unsigned = COMBINE[what], np.dtype(f"u{dtype.itemsize}")

    def step(active: Array) -> None:
        space = space_of(block, where)
        places = space.offsets(block.index[active], at()[active], dtype.itemsize, dtype.itemsize, "atomic")
        values, old = read()[active], np.zeros(block.threads, unsigned)
        found = np.zeros(len(places), unsigned)
        if len(np.unique(places)) == len(places):
            found = space.load(places, dtype.itemsize)
            space.store(places, combine(found.view(dtype), values).view(unsigned))
        else:
            for n in range(len(places)):
                found[n : n + 1] = space.load(places[n : n + 1], dtype.itemsize)
                new = combine(found[n : n + 1].view(dtype), values[n : n + 1])
                space.store(places[n : n + 1], new.view(unsigned))
        old[active] = found
        put(old.view(dtype), active)

    return step


class Copies:
    """Asynchronous copies under way: of each the threads, their group, where it goes and what it brings."""

    def __init__(self, threads: int) -> None:
        self.groups = np.zeros(threads, np.int64)
        self.pending: list[tuple[Array, Array, Array, Array]] = []

    def land(self, shared: Space, active: Array, left: int) -> None:
        """Those of all but the last `left` groups of the threads that wait."""
        remaining = []
        for threads, groups, offsets, rows in self.pending:
            lands = active[threads] & (groups < self.groups[threads] - left)
            shared.store_rows(offsets[lands], rows[lands])
            if shared.races:
                shared.races.note(threads[lands], offsets[lands], rows.shape[1], "write")
            if not lands.all():
                stays = ~lands
                remaining.append((threads[stays], groups[stays], offsets[stays], rows[stays]))
        self.pending = remaining


def source_bytes(block: Block, size: int, given: tuple[str, ...]) -> Callable[[], Array]:
    """How many bytes a copy brings: all, as many as an operand says, or none where a predicate holds."""
    if given and given[0][0] == "%" and block.register(given[0]).dtype == bool:
        ignored = block.read(given[0], "pred")
        return lambda: np.where(ignored(), 0, size).astype(np.uint32)
    return block.read(given[0] if given else str(size), "u32")


def asynchronous(block: Block, i: Instruction) -> Step:
    """cp.async with its groups: until it is waited for, nobody knows what its target holds."""
    if i.opcode == "cp.async.commit_group":
        return lambda active: np.add.at(block.copies.groups, block.index[active], 1)
    if i.opcode in COPY_GROUPS:
        left = int(i.operands[0]) if i.opcode == "cp.async.wait_group" else -1
        return lambda active: block.copies.land(block.shared, active, left)
    size = int(i.operands[2])
    to, source = address(block, i.operands[0], "shared"), address(block, i.operands[1], "global")
    read = source_bytes(block, size, i.operands[3:])

    def step(active: Array) -> None:
        threads, taken = block.index[active], read()[active]
        offsets = block.shared.offsets(threads, to()[active], size, size, "write")
        rows = np.zeros((len(threads), size), np.uint8)
        addresses = source()[active]
        if (taken > size).any():
            raise PtxError(f"a copy of {int(taken.max())} bytes into {size}")
        if (addresses % size).any():
            raise PtxError(f"a copy of {size} bytes from {int(addresses[np.argmax(addresses % size != 0)]):#x}")
        for some in np.unique(taken[taken > 0]):  # what is beyond is zero, and not touched
            some_threads = taken == some
            places = block.memory.offsets(threads[some_threads], addresses[some_threads], int(some), 1, "read")
            rows[some_threads, : int(some)] = block.memory.load_rows(places, int(some))
        block.shared.store_rows(offsets, np.full_like(rows, POISON))
        block.copies.pending.append((threads, block.copies.groups[threads], offsets, rows))

    return step
