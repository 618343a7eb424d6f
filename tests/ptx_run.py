"""Runs PTX: one block of threads at a time, its threads side by side in arrays.

Every thread has a place in the program. The threads at the lowest one take the next steps together, so that those that
took different branches meet again; those at a barrier, or at an instruction of a warp, wait for all that it names.
`order` says who goes first: "together" is all of the block, "first" and "last" one warp, as far as barriers allow.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
import ptx_access
import ptx_warp
from numpy.typing import NDArray
from ptx_integers import UnknownInstruction
from ptx_memory import Memory, Space
from ptx_parse import Entry, Instruction, PtxError
from ptx_races import Races
from ptx_registers import Registers
from ptx_semantics import operation
from ptx_warp import DONE, RUNS, WAITS

Array = NDArray[Any]
Step = Callable[[Array], None]
BRANCHES = {"bra": "branch", "bra.uni": "branch", "ret": "leave", "exit": "leave", "trap": "trap"}
MOST_STEPS = 10_000_000


def kind_of(opcode: str) -> str:
    """Which part of the interpreter an instruction belongs to; UnknownInstruction where there is none."""
    if opcode in BRANCHES:
        return BRANCHES[opcode]
    if ptx_warp.knows(opcode):
        return "collective"
    if ptx_access.knows(opcode):
        return "access"
    operation(opcode)
    return "operation"


@dataclass(frozen=True)
class Launch:
    """What a kernel is started with. `arguments`: all bytes of its parameters."""

    entry: Entry
    memory: Memory
    arguments: bytes
    block: tuple[int, int, int]
    grid: tuple[int, int, int]
    dynamic_shared: int = 0
    unit: str = "hopper"  # whose mma.sync it is
    order: str = "together"


class Block(Registers):
    """The threads of a block, and what they share."""

    def __init__(self, launch: Launch) -> None:
        super().__init__(launch.entry, launch.block, launch.grid)
        self.launch, self.memory = launch, launch.memory
        self.parameters = Space(len(launch.arguments))
        self.parameters.bytes[: len(launch.arguments)] = np.frombuffer(launch.arguments, np.uint8)
        self.steps: dict[int, Step] = {}
        self.segments: dict[int, tuple[list[Step], int, str]] = {}
        self.leaders = {0, *self.entry.labels.values()}

    def compiled(self, at: int) -> Step:
        """The step of an instruction that neither branches nor waits."""
        if at not in self.steps:
            i = self.entry.instructions[at]
            step = ptx_access.compiled(self, i) if kind_of(i.opcode) == "access" else self.operation(i)
            self.steps[at] = step
        return self.steps[at]

    def operation(self, i: Instruction) -> Step:
        """Of registers alone."""
        o = operation(i.opcode)
        if len(i.operands) != len(o.operands) + 1 or "|" in i.operands[0]:
            raise UnknownInstruction(str(i))
        reads = [self.read(operand, kind) for operand, kind in zip(i.operands[1:], o.operands, strict=True)]
        put, compute = self.write(i.operands[0], o.result), o.compute
        return lambda active: put(compute(*[read() for read in reads]), active)

    def guard(self, i: Instruction, active: Array) -> Array:
        """The threads whose predicate holds."""
        if i.predicate is None:
            return active
        name, negated = i.predicate
        return active & (self.registers[name] ^ negated)

    def segment(self, at: int) -> tuple[list[Step], int, str]:
        """The steps from a place up to the next branch, label or collective; its place, and which it is."""
        if at not in self.segments:
            steps, end, kind = [], at, "label"
            while end < len(self.entry.instructions):
                kind = kind_of(self.entry.instructions[end].opcode)
                if kind in ("branch", "leave", "trap", "collective"):
                    break
                steps.append(self.compiled(end))
                end, kind = end + 1, "label"
                if end in self.leaders:
                    break
            self.segments[at] = steps, end, kind
        return self.segments[at]

    def advance(self, at: int, active: Array) -> None:
        """One segment of the threads that are there."""
        steps, end, kind = self.segment(at)
        for number, step in enumerate(steps, at):
            i = self.entry.instructions[number]
            taking = self.guard(i, active)
            if i.predicate is None or taking.any():
                try:
                    step(taking)
                except PtxError as error:
                    raise PtxError(f"{self.entry.name}, {i}: {error}") from None
        self.count += len(steps) + 1
        self.pc[active] = end
        if kind == "label":
            if end == len(self.entry.instructions):
                self.state[active] = DONE
            return
        i = self.entry.instructions[end]
        taking = self.guard(i, active)
        self.pc[active & ~taking] = end + 1
        if kind == "branch":
            self.pc[taking] = self.entry.labels[i.operands[0]]
        elif kind == "leave":
            self.state[taking] = DONE
        elif kind == "trap":
            if taking.any():
                raise PtxError(f"{self.entry.name}, {i}: thread {int(np.argmax(taking))} is there")
        else:
            self.state[taking] = WAITS
            self.meet(end)

    def meet(self, at: int) -> bool:
        """Runs the collective at a place for the threads that have all arrived whom it waits for."""
        i, waiting = self.entry.instructions[at], (self.state == WAITS) & (self.pc == at)
        if not waiting.any():
            return False
        try:
            ready = ptx_warp.ready(self, i, waiting)
            if ready.any():
                ptx_warp.run(self, i, ready)
        except PtxError as error:
            raise PtxError(f"{self.entry.name}, {i}: {error}") from None
        self.pc[ready] = at + 1
        self.state[ready] = RUNS
        return bool(ready.any())

    def chosen(self, running: Array) -> Array:
        """Those whose turn it is."""
        if self.launch.order == "together":
            return running
        warps = np.flatnonzero(running.reshape(-1, 32).any(axis=1))
        return running & (self.index // 32 == warps[0 if self.launch.order == "first" else -1])

    def run(self, place: tuple[int, ...]) -> None:
        """The block at a place of the grid, z first, to its end."""
        for axis, number in zip("zyx", place, strict=True):
            self.special[f"%ctaid.{axis}"][:] = number
        size = self.entry.shared_bytes + self.launch.dynamic_shared
        self.shared = Space(size)
        self.shared.races = Races(size, self.threads)
        self.copies = ptx_access.Copies(self.threads)
        self.pc, self.state, self.count = np.zeros(self.threads, np.int64), np.full(self.threads, RUNS), 0
        while not (self.state == DONE).all():
            running = self.state == RUNS
            if running.any():
                running = self.chosen(running)
                at = int(self.pc[running].min())
                self.advance(at, running & (self.pc == at))
            elif not any(self.meet(int(at)) for at in np.unique(self.pc[self.state == WAITS])):
                self.stuck()
            if self.count > MOST_STEPS:
                raise PtxError(f"{self.entry.name}: more than {MOST_STEPS} steps")

    def stuck(self) -> None:
        """Nobody can go on."""
        waiting = self.state == WAITS
        places = [
            f"{self.entry.instructions[int(at)]} with {int((waiting & (self.pc == at)).sum())} threads"
            for at in np.unique(self.pc[waiting])
        ]
        raise PtxError(f"{self.entry.name}: threads wait for one another: {'; '.join(places)}")


def run(launch: Launch) -> None:
    """Every block, in the order of their numbers."""
    if len(launch.arguments) != launch.entry.parameter_bytes:
        raise PtxError(
            f"{launch.entry.name}: {launch.entry.parameter_bytes} bytes of parameters, got {len(launch.arguments)}"
        )
    block = Block(launch)
    with np.errstate(all="ignore"):
        for place in np.ndindex(launch.grid[::-1]):
            block.run(place)


@cache
def unknown(opcode: str) -> bool:
    """Whether the interpreter does not define an opcode."""
    try:
        kind_of(opcode)
    except UnknownInstruction:
        return True
    return False


def unknown_opcodes(entries: Iterable[Entry]) -> set[str]:
    """Of all instructions of some entries."""
    return {i.opcode for entry in entries for i in entry.instructions if unknown(i.opcode)}
