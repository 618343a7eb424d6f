"""The registers of a block of threads, and operands of PTX as what reads and writes them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray
from ptx_integers import dtype_of
from ptx_memory import POISON
from ptx_parse import Entry, PtxError

Array = NDArray[Any]
AXES = "xyz"


class Registers:
    """Of every thread of a block, as unsigned integers of their width; predicates as booleans."""

    def __init__(self, entry: Entry, block: tuple[int, int, int], grid: tuple[int, int, int]) -> None:
        self.entry, self.block, self.grid = entry, block, grid
        self.threads = int(np.prod(block))
        if self.threads % 32:
            raise PtxError(f"blocks of {self.threads} threads end within a warp")
        self.index = np.arange(self.threads)
        self.special = self.special_registers()
        self.registers = {name: self.unwritten(width) for name, width in entry.registers.items()}

    def unwritten(self, width: int) -> Array:
        """A register that nobody has written."""
        if width == 0:
            return np.zeros(self.threads, bool)
        return np.full(self.threads * width, POISON, np.uint8).view(f"u{width}")

    def special_registers(self) -> dict[str, Array]:
        """By name; those of the block's place in the grid are set when it starts."""
        x, y, _ = self.block
        index = self.index.astype(np.uint32)
        named = {"%laneid": index % 32, "%warpid": index // 32}
        parts = (index % x, index // x % y, index // (x * y))
        for axis, thread, size, count in zip(AXES, parts, self.block, self.grid, strict=True):
            named |= {f"%tid.{axis}": thread, f"%ctaid.{axis}": np.zeros_like(index)}
            named |= {f"%ntid.{axis}": np.full_like(index, size), f"%nctaid.{axis}": np.full_like(index, count)}
        return named

    def read(self, operand: str, kind: str) -> Callable[[], Array]:
        """What gives an operand's values as a type."""
        dtype = dtype_of(kind)
        if operand[0] == "{":
            return self.read_packed(operand, dtype)
        if operand[0] == "!":
            inner = self.read(operand[1:], kind)
            return lambda: ~inner()
        if operand[0] != "%":
            constant = np.full(self.threads, self.constant(operand, kind, dtype))
            return lambda: constant
        values = self.register(operand)
        if bool in (dtype, values.dtype):
            return lambda: values
        if values.dtype.itemsize == dtype.itemsize:
            view = values.view(dtype)
            return lambda: view
        narrow = np.dtype(f"u{dtype.itemsize}")
        return lambda: values.astype(narrow).view(dtype)

    def register(self, name: str) -> Array:
        """The bits of a register, of every thread."""
        if name in self.special:
            return self.special[name]
        if name not in self.registers:
            raise PtxError(f"{name}: no such register")
        return self.registers[name]

    def constant(self, text: str, kind: str, dtype: Any) -> Any:
        """An integer, a number as the bits of a float, or the address of a variable."""
        if text[:2] in ("0f", "0F", "0d", "0D"):
            source = np.dtype("u4" if text[1] in "fF" else "u8")
            value = np.array(int(text[2:], 16), source)
            return value.view(dtype)[()] if dtype.itemsize == source.itemsize else value.astype(dtype)
        if kind == "pred":
            return bool(int(text))
        for space in (self.entry.shared, self.entry.parameters):
            if text in space:
                return np.array(space[text].offset, dtype)
        try:
            number = int(text.rstrip("U"), 0)
        except ValueError:
            raise PtxError(f"{text!r}: no operand that is known") from None
        unsigned = np.dtype(f"u{dtype.itemsize}")
        return np.array(number & ((1 << (8 * dtype.itemsize)) - 1), unsigned).view(dtype)[()]

    def read_packed(self, operand: str, dtype: Any) -> Callable[[], Array]:
        """{low, high} as one word."""
        parts = [self.register(name) for name in self.names(operand)]
        return lambda: np.stack(parts, axis=1).view(dtype)[:, 0]

    def names(self, operand: str) -> list[str]:
        """The parts of a vector operand."""
        return [part.strip() for part in operand.strip("{}").split(",")]

    def write(self, operand: str, kind: str) -> Callable[[Array, Array], None]:
        """What puts values of a type into a register, of the threads that take part."""
        if operand == "_":
            return lambda value, active: None
        dtype = dtype_of(kind)
        if operand[0] == "{":
            return self.write_packed(operand, dtype)
        target = self.register(operand)
        if target.dtype == bool:
            return lambda value, active: np.copyto(target, value, where=active)
        size = target.dtype.itemsize
        if size < dtype.itemsize:
            raise PtxError(f"{operand} is narrower than .{kind}")
        wide = np.dtype(f"{'i' if dtype.kind == 'i' else 'u'}{size}")
        exact = dtype if size == dtype.itemsize else None

        def put(value: Array, active: Array) -> None:
            bits = np.ascontiguousarray(value, dtype)
            np.copyto(target, (bits if exact else bits.astype(wide)).view(target.dtype), where=active)

        return put

    def write_packed(self, operand: str, dtype: Any) -> Callable[[Array, Array], None]:
        """One word into {low, high}."""
        targets = [self.register(name) for name in self.names(operand)]

        def put(value: Array, active: Array) -> None:
            parts = np.ascontiguousarray(value, dtype).view(targets[0].dtype).reshape(self.threads, -1)
            for i, target in enumerate(targets):
                np.copyto(target, parts[:, i], where=active)

        return put
