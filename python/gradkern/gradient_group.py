"""`GradientGroup`: arrays to be clipped in place, looked up once."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gradkern import _core
from gradkern._arrays import STORED_DTYPES, TYPE_NUMBERS, Bits, check_places, empty_beside, read_in_place
from gradkern._arrays import _to_numpy as to_numpy
from gradkern._device import is_on_device
from gradkern._device_group import device_units
from gradkern._frameworks import is_jax, is_plain_torch, is_torch, plain_torch_view
from gradkern._names import Numbered, Numerous
from gradkern._overlap import Units, untangle
from gradkern.formats import format_ids
from gradkern.named_arrays import _flat as flat
from gradkern.named_arrays import _is_array as is_array

NORMS = {1: 0, 2: 1, float("inf"): 2}
_OF_GRADS = ("clip_adaptive", "LossScaler.step")  # functions that call their arrays so
READ_ONLY = object()  # in place of out: nothing is to be written
_IDS: dict[int, int] = {number: format_ids()[name] for number, (_, name) in TYPE_NUMBERS.items()}


def named(arrays: Any, function: str) -> tuple[Sequence[str], list[Any]]:
    """Names and arrays of a mapping, an iterable of arrays or of pairs (name, array), or one array; None is left out."""
    if isinstance(arrays, Numerous):
        return arrays.names, arrays.values
    if is_array(arrays):
        return ["0"], [arrays]
    if isinstance(arrays, Mapping):
        pairs = [pair for pair in flat("", arrays) if pair[1] is not None]
        names = [name for name, _ in pairs]
    elif isinstance(arrays, Iterable) and not isinstance(arrays, str | bytes):
        items = list(arrays)
        if tuple not in set(map(type, items)):
            return named(Numerous.of(items), function)
        named_ = [
            item if isinstance(item, tuple) and len(item) == 2 and isinstance(item[0], str) else (str(i), item)
            for i, item in enumerate(items)
        ]
        pairs = [pair for pair in named_ if pair[1] is not None]
        names = [name for name, _ in pairs]
    else:
        raise TypeError(f"{function}: needs a list or a mapping of arrays, or an array, got {type(arrays).__name__}")
    if len(set(names)) != len(names):
        twice = next(name for i, name in enumerate(names) if name in names[:i])
        raise ValueError(f"{function}: two arrays are named {twice!r}")
    return names, [value for _, value in pairs]


def labels(arrays: Any, names: Sequence[str], argument: str) -> Sequence[str]:
    """Return what messages call the arrays of an argument: by its name where they have none of their own."""
    if is_array(arrays):
        return [argument]
    if isinstance(names, Numbered) and not isinstance(arrays, Numerous):
        return names.put_into(argument + "[{}]")
    return names


def writable_view(value: Any, function: str, name: str, place: str = "the host") -> Any:
    """View an array's own memory, to be written: as NumPy has it, or on the device that is its place.

    Raises
    ------
    TypeError
        If it is no array of floating-point numbers, or cannot be written in place.
    ValueError
        If it is read-only.
    """
    if is_plain_torch(value):
        return plain_torch_view(value)
    argument = f"{function}: {name}"
    if is_on_device(value) or place != "the host":
        there = read_in_place(value, argument, writes=True)
        if there.place != place:
            raise TypeError(f"{argument} lies on {there.place} and the arrays on {place}: arrays must lie in one place")
        return there.bits
    if not is_array(value):
        raise TypeError(f"{argument}: not an array, got {type(value).__name__}")
    if is_jax(value):
        raise TypeError(f"{argument}: JAX arrays are immutable; pass out='new'")
    if is_torch(value) and value.is_neg():
        raise TypeError(f"{argument}: a tensor whose negative bit is set cannot be written in place; resolve_neg() it")
    array, _ = to_numpy(value, argument)
    if array.dtype.newbyteorder("=") not in STORED_DTYPES:
        raise TypeError(f"{argument}: dtype must be a floating-point format of gradkern, got {array.dtype}")
    if not array.flags.writeable:
        raise ValueError(f"{argument}: is read-only")
    return array


class Views(Sequence[NDArray[Any]]):
    """Arrays that can be viewed by NumPy, viewed when they are asked for."""

    def __init__(self, values: list[Any], labels: Sequence[str], function: str) -> None:
        self._values, self._labels, self._function = values, labels, function

    def __getitem__(self, index: Any) -> Any:
        return writable_view(self._values[index], self._function, self._labels[index])

    def __len__(self) -> int:
        return len(self._values)


class GradientGroup:
    """Arrays looked up once, to be clipped in place again and again.

    Looking up thousands of arrays takes longer than clipping them. A group is to be made once and to be given to
    `clip_by_global_norm` and its kin, or to `LossScaler.step`, at every step.

    Parameters
    ----------
    arrays : mapping, iterable of arrays or of pairs (name, array), or one array
        As `clip_by_global_norm` takes them. None is left out: parameters without a gradient.

    Attributes
    ----------
    names : sequence of str
        The arrays' names: keys, nested ones as ``outer.inner``, or numbers.

    Raises
    ------
    TypeError
        If one is no array of floating-point numbers that can be written in place; names it.
    ValueError
        If one is read-only, two have one name, or some overlap in different formats.

    Notes
    -----
    The group holds on to the memory that it saw. A framework that replaces a gradient by another, as PyTorch's
    ``zero_grad(set_to_none=True)`` does, needs a new group, or ``set_to_none=False``.

    Examples
    --------
    >>> group = gk.GradientGroup({"weight": np.array([3.0, 4.0])})
    >>> gk.clip_by_global_norm(group, 1.0).norm
    5.0
    """

    def __init__(self, arrays: Any) -> None:
        self._start(arrays, "GradientGroup", None, keeps=True)

    @classmethod
    def _of(cls, arrays: Any, function: str, out: Any = None) -> GradientGroup:
        """Return the group itself, or that of other arrays, which may be copied to `out` instead of written."""
        if isinstance(arrays, GradientGroup):
            if out is None:
                return arrays
            arrays = arrays._given
        group = cls.__new__(cls)
        group._start(arrays, function, out)
        return group

    def _start(self, arrays: Any, function: str, out: Any, keeps: bool = False) -> None:
        listed = isinstance(arrays, Mapping | list | tuple | Numerous) or is_array(arrays)
        if isinstance(arrays, Iterable) and not listed:
            arrays = list(arrays)  # a generator gives its arrays once
        self._given = arrays
        names, self._values = named(arrays, function)
        self.names: Sequence[str] = list(names) if keeps else names
        self._labels = labels(arrays, names, "grads" if function in _OF_GRADS else "arrays")
        self._result: Callable[[], Any] = lambda: arrays
        if out is READ_ONLY:
            self._units = self._read_only(function)
        elif out is not None:
            self._units = self._copies(function, out)
        else:
            self._units = self._in_place(function, keeps)
        ids = self._units.formats
        self._is_float64 = ids == 0
        self._formats: list[int] = np.flatnonzero(np.bincount(ids)).tolist()

    def __len__(self) -> int:
        """Return how many arrays there are."""
        return len(self.names)

    def __repr__(self) -> str:
        """Return the number of arrays."""
        return f"GradientGroup of {len(self.names)} arrays"

    def _in_place(self, function: str, keeps: bool) -> Units:
        """Write the arrays where they lie; a group that keeps them holds on to the memory of tensors by views."""
        tensor_type = None if keeps else getattr(sys.modules.get("torch"), "Tensor", None)
        core = _core.ClipGroup.in_place(self._values, _IDS, tensor_type)
        if core is not None and not core.overlap():
            return Units.direct(core, Views(self._values, self._labels, function))
        if any(map(is_on_device, self._values)):
            return device_units(self._values, self._labels, function)
        views = [writable_view(value, function, name) for name, value in zip(self._labels, self._values, strict=True)]
        core = _core.ClipGroup.in_place(views, _IDS, None)
        if core is not None and not core.overlap():
            return Units.direct(core, views)
        return untangle(views, self._labels, function)

    def _read(self, function: str) -> list[Bits]:
        found = [read_in_place(v, f"{function}: {name}") for name, v in zip(self._labels, self._values, strict=True)]
        check_places(function, zip(self._labels, found, strict=True), numbers=False)
        return found

    def _read_only(self, function: str) -> Units:
        bits = self._read(function)
        sources = [b.bits for b in bits]
        return Units.direct(_core.ClipGroup(sources, [], [b.format_id for b in bits]), sources)

    def _copies(self, function: str, out: Any) -> Units:
        """Read sources, make targets apart from them, and say where those go in the end."""
        bits = self._read(function)
        targets = [empty_beside(b.bits, b.shape, b.format) for b in bits]
        back: list[tuple[Any, Any, Any]] = []
        if isinstance(out, str):
            if out != "new":
                raise ValueError(f"{function}: out must be arrays or 'new', got {out!r}")
            self._result = lambda: self._like_given([b.restore(t) for b, t in zip(bits, targets, strict=True)])
        else:
            names, owners = named(out, function)
            if list(names) != list(self.names):
                raise ValueError(f"{function}: out must have the arrays' names {self.names[:5]}, got {names[:5]}")
            called = labels(out, names, "out")
            if called is names:
                called = [f"out: {name}" for name in names]
            for label, owner, target, source in zip(called, owners, targets, bits, strict=True):
                view = writable_view(owner, function, label, source.place)
                if view.dtype != target.dtype or view.shape != target.shape:
                    raise ValueError(
                        f"{function}: {label} must have dtype {target.dtype} and shape {target.shape}, "
                        f"got {view.dtype} and {view.shape}"
                    )
                back.append((view, Ellipsis, target))
            self._result = lambda: out
        sources = [b.values for b in bits]
        core = _core.ClipGroup(sources, targets, [b.format_id for b in bits])
        return Units(core, sources, targets, range(len(bits)), back, stream=bits[0].stream if bits else None)

    def _like_given(self, made: list[Any]) -> Any:
        if is_array(self._given):
            return made[0]
        return dict(zip(self.names, made, strict=True)) if isinstance(self._given, Mapping) else made
