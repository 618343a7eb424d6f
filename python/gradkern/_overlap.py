"""Arrays in any layout, overlapping ones too, as pieces of memory of which each entry belongs to one."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
from numpy.lib.stride_tricks import as_strided
from numpy.typing import NDArray

from gradkern import _core
from gradkern._arrays import STORED_DTYPES
from gradkern.formats import format_ids


@dataclass
class Units:
    """What the kernels survey and scale, and how the caller's arrays are made of it.

    Attributes
    ----------
    core : ClipGroup
        The kernels' view of sources and targets.
    sources, targets : list of arrays
        Contiguous; the same where the caller's memory is written directly.
    records : sequence of int
        For each of the caller's arrays, the unit whose survey is its own; a range where each is a unit.
    back : list of (array, key, values)
        What is written in the end: ``array[key] = values``, the values being a target.
    loads : list of (source, array, key)
        What is read again at every survey: ``source[...] = array[key]``.
    counted : int
        So many units make up the whole; those after it are read for their own survey only.
    stream : callable or None
        On a device, what the arrays' library enqueues on at the moment, and its owner.
    """

    core: Any
    sources: Sequence[Any]
    targets: Sequence[Any]
    records: Sequence[int]
    back: list[tuple[Any, Any, Any]] = field(default_factory=list)
    loads: list[tuple[NDArray[Any], NDArray[Any], Any]] = field(default_factory=list)
    counted: int = -1
    stream: Callable[[], tuple[int, Any]] | None = None

    def __post_init__(self) -> None:
        if self.counted < 0:
            self.counted = len(self.sources)
        self.simple = self.records == range(self.counted)  # each array is a unit
        self.formats: NDArray[np.int64] = self.core.formats
        self.copied = self.sources is not self.targets

    def load(self) -> None:
        """Read again what is not read in place; on a device, go on in the order of the library's stream."""
        if self.stream is not None:
            self.sources[0].use_stream(*self.stream())
        for source, owner, key in self.loads:
            source[...] = owner[key]

    @cached_property
    def shapes(self) -> list[tuple[int, ...]]:
        """Shapes of the units."""
        return [source.shape for source in self.sources]

    @cached_property
    def rows(self) -> list[int]:
        """Output rows of each unit: the first axis of a matrix or more, else one."""
        return [shape[0] if len(shape) > 1 and 0 not in shape else 1 for shape in self.shapes]

    @cached_property
    def by_rows(self) -> Any:
        """The kernels' view of the rows."""
        return self.core.by_rows(self.rows)

    @classmethod
    def direct(cls, core: Any, arrays: Sequence[Any]) -> Units:
        """Arrays that are written where they lie, or not at all."""
        return cls(core, arrays, arrays, range(len(arrays)))


@dataclass
class _Piece:
    """An array in any layout, and where its memory lies."""

    array: NDArray[Any]
    index: int
    low: int
    high: int

    @property
    def place(self) -> tuple[Any, ...]:
        a = self.array
        return a.__array_interface__["data"][0], a.shape, a.strides, a.dtype


def _bounds(array: NDArray[Any]) -> tuple[int, int]:
    """Addresses of the first byte and after the last."""
    low = high = array.__array_interface__["data"][0]
    for stride, length in zip(array.strides, array.shape, strict=True):
        low, high = low + min(0, stride * (length - 1)), high + max(0, stride * (length - 1))
    return low, high + array.itemsize


def _format_id(array: NDArray[Any]) -> int:
    return format_ids()[STORED_DTYPES[array.dtype.newbyteorder("=")][1]]


class _Builder:
    def __init__(self, count: int) -> None:
        self.records = [0] * count
        self.sources: list[NDArray[Any]] = []
        self.formats: list[int] = []
        self.back: list[tuple[NDArray[Any], Any, NDArray[Any]]] = []
        self.loads: list[tuple[NDArray[Any], NDArray[Any], Any]] = []

    def add(self, owner: NDArray[Any], key: Any = Ellipsis, writes: bool = True) -> int:
        """Add the unit owner[key]: in place where that is contiguous memory, else by a copy."""
        native = owner.dtype.newbyteorder("=")
        if key is Ellipsis and owner.flags.c_contiguous and owner.flags.aligned and owner.dtype.isnative:
            source = owner
        else:
            source = np.empty(owner[key].shape, native)
            self.loads.append((source, owner, key))
            if writes:
                self.back.append((owner, key, source))
        self.sources.append(source)
        self.formats.append(_format_id(owner))
        return len(self.sources) - 1


def _clusters(pieces: list[_Piece]) -> list[list[_Piece]]:
    """Group pieces whose address ranges meet."""
    found: list[list[_Piece]] = []
    high = -1
    for piece in sorted(pieces, key=lambda p: (p.low, p.index)):
        if found and piece.low < high:
            found[-1].append(piece)
        else:
            found.append([piece])
        high = max(high, piece.high)
    return found


def _marks(pieces: list[_Piece], low: int, high: int) -> NDArray[np.bool_] | None:
    """Mark the items between two addresses that belong to a piece; None where they are not all items of one array."""
    dtype, width = pieces[0].array.dtype, pieces[0].array.dtype.itemsize
    marks = np.zeros((high - low) // width, bool)
    for piece in pieces:
        address, shape, strides, kind = piece.place
        if kind != dtype or (address - low) % width or any(s % width for s in strides):
            return None
        steps = [s // width for s in strides]
        np.ndarray(shape, bool, marks, (address - low) // width, steps)[...] = True
    return marks


def _union(cluster: list[_Piece], marks: NDArray[np.bool_], low: int, build: _Builder) -> None:
    """Each marked item once."""
    lowest = next(p.array for p in cluster if p.low == low)
    ascending = lowest[tuple(slice(None, None, -1 if stride < 0 else 1) for stride in lowest.strides)]
    items = as_strided(ascending, (len(marks),), (lowest.itemsize,))
    build.add(items, Ellipsis if marks.all() else marks)


def untangle(arrays: list[NDArray[Any]], names: Sequence[str], function: str) -> Units:
    """Cut arrays into units that do not overlap.

    Raises
    ------
    ValueError
        If arrays overlap that are not of one format, or not in whole entries.
    """
    build = _Builder(len(arrays))
    pieces = [_Piece(a, i, *_bounds(a)) for i, a in enumerate(arrays) if a.size]
    first: dict[tuple[Any, ...], int] = {}
    same: list[tuple[int, int]] = []
    apart: list[_Piece] = []
    alone: list[_Piece] = []
    extras: list[_Piece] = []
    for piece in pieces:
        before = first.setdefault(piece.place, piece.index)
        if before == piece.index:
            apart.append(piece)
        else:
            same.append((piece.index, before))
    for cluster in _clusters(apart):
        low, high = min(p.low for p in cluster), max(p.high for p in cluster)
        inside = any(s == 0 and n > 1 for p in cluster for s, n in zip(p.array.strides, p.array.shape, strict=True))
        if len(cluster) == 1 and not inside:
            alone.append(cluster[0])
            continue
        marks = _marks(cluster, low, high)
        if marks is None and any(
            np.may_share_memory(p.array, q.array) and np.shares_memory(p.array, q.array)
            for i, p in enumerate(cluster)
            for q in cluster[:i]
        ):
            shown = ", ".join(names[p.index] for p in cluster[:4])
            raise ValueError(f"{function}: arrays overlap in different formats or in parts of entries: {shown}")
        if marks is None or int(marks.sum()) == sum(p.array.size for p in cluster):
            alone.extend(cluster)
        else:
            _union(cluster, marks, low, build)
            extras.extend(cluster)
    for piece in sorted(alone, key=lambda p: p.index):
        build.records[piece.index] = build.add(piece.array)
    counted = len(build.sources)
    for piece in extras:
        build.records[piece.index] = build.add(piece.array, writes=False)
    for index, array in enumerate(arrays):
        if not array.size:
            build.records[index] = build.add(np.empty(0, array.dtype))
    for index, before in same:
        build.records[index] = build.records[before]
    core = _core.ClipGroup(build.sources, build.sources, build.formats)
    each = range(counted)
    records = each if build.records == list(each) else build.records
    return Units(core, build.sources, build.sources, records, build.back, build.loads, counted)
