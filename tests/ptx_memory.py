"""Memory of a device that runs PTX: bytes with bounds. What lies outside what was allocated cannot be touched."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from ptx_parse import PtxError
from ptx_races import Races

Array = NDArray[Any]
BASE = 0x7F00_0000_0000  # of global memory
GUARD = 256  # bytes around each allocation that belong to nobody
POISON = 0xFF  # what nobody has written: NaN in every format


class AccessError(PtxError):
    """An access that is out of bounds or not aligned."""

    def __init__(self, thread: int, address: int, size: int, why: str) -> None:
        super().__init__(f"thread {thread} accesses {size} bytes at {address:#x}, {why}")


class Space:
    """Bytes from an address on; `allowed` says which of them may be touched."""

    def __init__(self, size: int, base: int = 0, allowed: bool = True) -> None:
        words = np.full(-(-size // 16) * 2 + 2, POISON, np.uint8).repeat(8)
        self.base, self.size, self.bytes = base, size, words
        self.allowed = np.full(size, allowed)
        self.races: Races | None = None
        self.views = {width: self.bytes.view(f"u{width}") for width in (1, 2, 4, 8)}

    def offsets(self, threads: Array, addresses: Array, size: int, aligned: int, how: str) -> Array:
        """Of the accesses of some threads, each checked: reads, writes or atomics."""
        offsets = addresses.astype(np.int64) - self.base
        inside = (offsets >= 0) & (offsets + size <= self.size)
        within = np.where(inside, offsets, 0)
        if self.size >= size:
            inside &= self.allowed[within] & self.allowed[within + size - 1]
        if not inside.all():
            i = int(np.argmin(inside))
            raise AccessError(int(threads[i]), int(addresses[i]), size, "outside of what is allocated")
        if (offsets % aligned).any():
            i = int(np.argmax(offsets % aligned != 0))
            raise AccessError(int(threads[i]), int(addresses[i]), size, f"which is no multiple of {aligned}")
        if self.races:
            self.races.note(threads, offsets, size, how)
        return offsets

    def load(self, offsets: Array, width: int) -> Array:
        """Words of 1, 2, 4 or 8 bytes."""
        return self.views[width][offsets // width]

    def store(self, offsets: Array, words: Array) -> None:
        """Of threads that store to one place, the last."""
        width = words.dtype.itemsize
        self.views[width][offsets // width] = words

    def load_rows(self, offsets: Array, size: int) -> Array:
        """(accesses, size) bytes."""
        return self.bytes[offsets[:, None] + np.arange(size)]

    def store_rows(self, offsets: Array, rows: Array) -> None:
        """The same, written."""
        self.bytes[offsets[:, None] + np.arange(rows.shape[1])] = rows


class Memory(Space):
    """Global memory: arrays side by side, with guards between them."""

    def __init__(self, size: int = 1 << 22) -> None:
        super().__init__(size, BASE, False)
        self.end = 0

    def allocate(self, size: int, misaligned: int = 0) -> int:
        """The address of `size` bytes that nobody has written, so many behind a multiple of 256."""
        at = -(-(self.end + GUARD) // 256) * 256 + misaligned
        self.end = at + size
        if self.end + GUARD > self.size:
            raise PtxError(f"{size} bytes are more than what is left of {self.size}")
        self.allowed[at : at + size] = True
        return self.base + at

    def upload(self, data: Any, misaligned: int = 0) -> int:
        """The address of a copy of an array, or of anything with a buffer."""
        raw = np.frombuffer(
            np.ascontiguousarray(data).tobytes() if isinstance(data, np.ndarray) else bytes(data), np.uint8
        )
        address = self.allocate(raw.size, misaligned)
        self.bytes[address - self.base : address - self.base + raw.size] = raw
        return address

    def fetch(self, address: int, dtype: Any, count: int) -> Array:
        """A copy of what lies there."""
        at, dtype = address - self.base, np.dtype(dtype)
        return np.frombuffer(self.bytes[at : at + count * dtype.itemsize].tobytes(), dtype)
