"""PTX as data: the entries of a module with their parameters, shared memory, registers and instructions.

What is read is what a compiler writes, one statement a line; anything else is a PtxError that names its line.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

WIDTH = {"8": 1, "16": 2, "32": 4, "64": 8}
# What stands outside functions, and what says how to compile an entry: neither changes what a run does.
IGNORED = (".version", ".target", ".address_size", ".maxntid", ".minnctapersm", ".pragma", ".file", ".loc")
ENTRY = re.compile(r"(?:\.visible |\.weak )?\.entry\s+(\S+?)\(?$")
VARIABLE = re.compile(r"\.(param|shared)\s+(?:\.align\s+(\d+)\s+)?\.([bsuf])(\d+)\s+([\w$]+)(?:\[(\d*)\])?")
REGISTERS = re.compile(r"\.reg\s+\.(pred|[bsuf](\d+))\s+(%?[\w$]+)(?:<(\d+)>)?$")
INSTRUCTION = re.compile(r"(?:@(!?)(%[\w$]+)\s+)?([a-z][\w.:]*)\s*(.*)$", re.DOTALL)
OPERAND = re.compile(r"\{[^}]*\}|\[[^\]]*\]|[^,\s][^,]*")


class PtxError(Exception):
    """PTX that cannot be read or run, or that does what it must not."""


@dataclass(frozen=True)
class Variable:
    """Bytes of the parameter space or of shared memory, at an offset from its start; size 0: what a launch gives it."""

    name: str
    offset: int
    size: int


@dataclass(frozen=True)
class Instruction:
    """One instruction: its predicate, as (name, negated), its opcode with all modifiers, its operands as written."""

    line: int
    predicate: tuple[str, bool] | None
    opcode: str
    operands: tuple[str, ...]

    @cached_property
    def parts(self) -> tuple[str, ...]:
        """The opcode, cut at its dots."""
        return tuple(self.opcode.split("."))

    def __str__(self) -> str:
        """As in a file, with its line."""
        guard = f"@{'!' * self.predicate[1]}{self.predicate[0]} " if self.predicate else ""
        return f"line {self.line}: {guard}{self.opcode} {', '.join(self.operands)}".rstrip()


@dataclass
class Entry:
    """A kernel."""

    name: str
    parameters: dict[str, Variable] = field(default_factory=dict)
    shared: dict[str, Variable] = field(default_factory=dict)
    registers: dict[str, int] = field(default_factory=dict)  # bytes, 0 for a predicate
    instructions: list[Instruction] = field(default_factory=list)
    labels: dict[str, int] = field(default_factory=dict)

    @property
    def parameter_bytes(self) -> int:
        """Of all parameters, to the end of the last."""
        return max((v.offset + v.size for v in self.parameters.values()), default=0)

    @property
    def shared_bytes(self) -> int:
        """Of static shared memory; what is dynamic comes after it."""
        return max((v.offset + v.size for v in self.shared.values()), default=0)


def place(space: dict[str, Variable], found: re.Match[str]) -> None:
    """A variable behind those that are there."""
    _, align, _, bits, name, length = found.groups()
    width = WIDTH[bits]
    end, alignment = max((v.offset + v.size for v in space.values()), default=0), int(align or width)
    size = width if length is None else int(length or 0) * width
    space[name] = Variable(name, -(-end // alignment) * alignment, size)


class Scope:
    """Names of registers, all with a percent sign and each scope's own: those of an inner one by its number."""

    def __init__(self, entry: Entry) -> None:
        self.entry, self.stack, self.number = entry, [""], 0

    def open(self) -> None:
        """A block within the entry."""
        self.number += 1
        self.stack.append(f"@{self.number}")

    def declare(self, name: str, width: int, count: int | None) -> None:
        """One register, or `count` numbered ones."""
        for full in [name] if count is None else [f"{name}{i}" for i in range(count)]:
            self.entry.registers[f"%{full.removeprefix('%')}{self.stack[-1]}"] = width

    def rename(self, text: str) -> str:
        """Operands with the names of the inner scopes."""
        if len(self.stack) == 1:
            return text
        return re.sub(r"%?[\w$]+", lambda m: self.resolve(m[0]), text)

    def resolve(self, name: str) -> str:
        """The innermost register of a name."""
        full = f"%{name.removeprefix('%')}"
        return next((full + s for s in reversed(self.stack) if full + s in self.entry.registers), name)


def statements(text: str) -> list[tuple[int, str]]:
    """Numbered statements without comments: what ends with a semicolon, a label, a brace, a line of a parameter list."""
    found = []
    for number, line in enumerate(text.splitlines(), 1):
        code = line.partition("//")[0].strip()
        while code:
            brace = code[0] in "{}"
            part, rest = (code[0], code[1:]) if brace else (code, "")
            if not brace and ";" in code:
                part, _, rest = code.partition(";")
            found.append((number, part.strip()))
            code = rest.strip()
    return found


def read(entry: Entry, scope: Scope, number: int, text: str) -> None:
    """One statement of an entry's body."""
    if text.endswith(":"):
        entry.labels[text[:-1]] = len(entry.instructions)
    elif found := REGISTERS.match(text):
        scope.declare(found[3], WIDTH[found[2]] if found[2] else 0, int(found[4]) if found[4] else None)
    elif (found := VARIABLE.match(text)) and found[1] == "shared":
        place(entry.shared, found)
    elif (found := INSTRUCTION.match(text)) and text[0] != ".":
        predicate = (scope.resolve(found[2]), found[1] == "!") if found[2] else None
        operands = tuple(o.strip() for o in OPERAND.findall(scope.rename(found[4])))
        entry.instructions.append(Instruction(number, predicate, found[3], operands))
    else:
        raise PtxError(f"line {number}: {text!r} is none of the statements that are known")


def parse(text: str) -> dict[str, Entry]:
    """The entries of a module."""
    entries: dict[str, Entry] = {}
    entry, depth = None, 0
    outside: dict[str, re.Match[str]] = {}
    for number, part in statements(text):
        if part.startswith(IGNORED) or not part:
            continue
        if part == "{":
            depth += 1
            if depth == 1 and entry:
                scope = Scope(entry)
            else:
                scope.open()
        elif part == "}":
            depth -= 1
            scope.stack.pop()
            entry = entry if depth else None
        elif depth and entry:
            read(entry, scope, number, part)
        elif found := ENTRY.match(part):
            entry = entries[found[1]] = Entry(found[1])
        elif (found := VARIABLE.match(part.rstrip(","))) and found[1] == "param" and entry:
            place(entry.parameters, found)
        elif (found := VARIABLE.match(part.removeprefix(".extern "))) and found[1] == "shared":
            outside[found[5]] = found
        elif part not in (")", "("):
            raise PtxError(f"line {number}: {part!r} is none of the statements that are known")
    for one in entries.values():
        place_outside(one, outside)
    return entries


def place_outside(entry: Entry, outside: dict[str, re.Match[str]]) -> None:
    """Shared memory declared outside that an entry names; what is dynamic comes last, at a multiple of 128 bytes."""
    if not outside:
        return
    named = {name for i in entry.instructions for o in i.operands for name in re.findall(r"[\w$]+", o)} & outside.keys()
    for name in sorted(named, key=lambda name: outside[name][6] == ""):
        if outside[name][6] == "":
            entry.shared[name] = Variable(name, -(-entry.shared_bytes // 128) * 128, 0)
        else:
            place(entry.shared, outside[name])


def parse_file(path: Path) -> dict[str, Entry]:
    """The entries of a file."""
    return parse(path.read_text())
