"""Everything that holds named arrays, as one sequence of names and arrays, with what was left out and why."""

from __future__ import annotations

import functools
import itertools
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from gradkern._arrays import TYPE_NUMBERS
from gradkern._frameworks import is_torch, torch_problem
from gradkern.formats import format_name

Read = Callable[[], Any]


@dataclass
class NamedArrays:
    """Arrays to be read one at a time.

    Attributes
    ----------
    entries : iterable of (str, int, callable)
        Name, bytes, and what gives the array.
    total : int
        Bytes altogether; 0 where it is not known beforehand.
    skipped : dict
        Why each entry that is no array of floating-point numbers was left out; complete once `entries` is exhausted.
    streamed : bool
        Whether the next array may overwrite the one before, as in a generator that reuses its memory.
    close : callable
        Closes the file that the arrays are read from.
    """

    entries: Iterable[tuple[str, int, Read]]
    total: int = 0
    skipped: dict[str, str] = field(default_factory=dict)
    streamed: bool = False
    close: Callable[[], None] = lambda: None


def _is_array(value: Any) -> bool:
    return any(
        hasattr(value, name)
        for name in ("dtype", "__array__", "__array_interface__", "__dlpack__", "__cuda_array_interface__")
    )


def problem(value: Any) -> str | None:
    """Say why a value is not an array of floating-point numbers, or None."""
    if not _is_array(value):
        if isinstance(value, list | tuple):
            return f"a {type(value).__name__} of Python values, not an array"
        return "None" if value is None else f"{type(value).__name__}, not an array"
    if is_torch(value):
        unreadable = torch_problem(value)
        if unreadable is not None:
            return unreadable
    dtype = getattr(value, "dtype", None)
    if dtype is None:
        return None
    try:
        format_name(dtype)
    except ValueError:
        text = str(dtype).removeprefix("torch.")
        return f"{'complex' if 'complex' in text else text}, no floating-point format"
    return None


def _bytes(value: Any) -> int:
    size = getattr(value, "nbytes", 0)
    return size if isinstance(size, int) else 0


def _flat(prefix: str, value: Any) -> Iterator[tuple[str, Any]]:
    """Walk through nested mappings, and lists that hold arrays or mappings."""
    children: Iterable[tuple[Any, Any]]
    if isinstance(value, Mapping):
        children = value.items()
    elif isinstance(value, list | tuple) and any(_is_array(v) or isinstance(v, Mapping) for v in value):
        children = enumerate(value)
    else:
        yield prefix, value
        return
    for key, child in children:
        name = f"{prefix}.{key}" if prefix else str(key)
        if type(child) is np.ndarray:  # most of what there is
            yield name, child
        else:
            yield from _flat(name, child)


def _pairs(source: Iterable[Any]) -> Iterator[tuple[str, Any]]:
    """Name the items of an iterable: pairs (name, array) have one, others are numbered."""
    for index, item in enumerate(source):
        named = isinstance(item, tuple) and len(item) == 2 and isinstance(item[0], str)
        yield item if named else (str(index), item)


def _same(value: Any) -> Any:
    return value


def _checked(pairs: Iterable[tuple[str, Any]], found: NamedArrays) -> Iterator[tuple[str, int, Read]]:
    seen: set[str] = set()
    for name, value in pairs:
        if name in seen:
            raise ValueError(f"measure_many: two arrays are named {name!r}")
        seen.add(name)
        if type(value) is np.ndarray and value.dtype.num in TYPE_NUMBERS:  # most of what there is
            yield name, value.nbytes, functools.partial(_same, value)
            continue
        reason = problem(value)
        if reason is not None:
            found.skipped[name] = reason
        else:
            yield name, _bytes(value), functools.partial(_same, value)


def _of_file(path: Path) -> NamedArrays:
    from gradkern.tensor_file import open_tensors

    opened = open_tensors(path)
    found = NamedArrays([], close=opened.close)
    entries = []
    for tensor in opened:
        reason = tensor.problem
        if reason is None:
            try:
                format_name(tensor.dtype)
            except ValueError:
                reason = f"{tensor.dtype_name}, no floating-point format"
        if reason is not None:
            found.skipped[tensor.name] = reason
        else:
            entries.append((tensor.name, tensor.nbytes, tensor.load))
    found.entries, found.total = entries, sum(entry[1] for entry in entries)
    return found


def named_arrays(source: Any) -> NamedArrays:
    """Name the arrays of a mapping, an iterable, a torch module or optimizer, or a file.

    Raises
    ------
    TypeError
        If source is one array, or nothing that holds arrays.
    ValueError
        If two arrays have one name, or the file is not a file of tensors.
    """
    if isinstance(source, str | os.PathLike):
        return _of_file(Path(source))
    if callable(getattr(source, "state_dict", None)):
        source = source.state_dict()
    if _is_array(source) or isinstance(source, int | float | bytes) or not isinstance(source, Iterable):
        one = "one array; measure it by gk.measure, or give a list" if _is_array(source) else type(source).__name__
        raise TypeError(f"measure_many: needs a mapping, an iterable of arrays, or a path, got {one}")
    found = NamedArrays([])
    if isinstance(source, Mapping | list | tuple | set | frozenset):
        pairs = _flat("", source) if isinstance(source, Mapping) else _pairs(source)
        found.entries = list(_checked(itertools.chain.from_iterable(_flat(*pair) for pair in pairs), found))
        found.total = sum(entry[1] for entry in found.entries)
    else:
        pairs = itertools.chain.from_iterable(_flat(*pair) for pair in _pairs(source))
        found.entries, found.streamed = _checked(pairs, found), True
    return found
