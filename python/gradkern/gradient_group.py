"""`GradientGroup`: arrays to be clipped in place, looked up once."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gradkern import _core
from gradkern._arrays import STORED_DTYPES, TYPE_NUMBERS, read
from gradkern._arrays import _to_numpy as to_numpy
from gradkern._frameworks import is_jax, is_plain_torch, is_torch, plain_torch_view
from gradkern._overlap import Units, untangle
from gradkern.formats import format_ids
from gradkern.named_arrays import _flat as flat
from gradkern.named_arrays import _is_array as is_array

_READY = 0x0501  # NPY_ARRAY_C_CONTIGUOUS | ALIGNED | WRITEABLE
NORMS = {1: 0, 2: 1, float("inf"): 2}
READ_ONLY = object()  # in place of out: nothing is to be written
_IDS = {number: format_ids()[name] for number, (_, name) in TYPE_NUMBERS.items()}


def named(arrays: Any, function: str) -> tuple[list[str], list[Any]]:
    """Names and arrays of a mapping, an iterable of arrays or of pairs (name, array), or one array; None is left out."""
    if is_array(arrays):
        return ["0"], [arrays]
    if isinstance(arrays, Mapping):
        pairs = [pair for pair in flat("", arrays) if pair[1] is not None]
        names = [name for name, _ in pairs]
    elif isinstance(arrays, Iterable) and not isinstance(arrays, str | bytes):
        items = list(arrays)
        if not any(type(item) is tuple for item in items):
            kept = [item for item in items if item is not None]
            return [str(i) for i, item in enumerate(items) if item is not None], kept
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


def writable_view(value: Any, function: str, name: str) -> NDArray[Any]:
    """View an array's own memory as NumPy has it, to be written.

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
    names : list of str
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
        self._start(arrays, "GradientGroup", None)

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

    def _start(self, arrays: Any, function: str, out: Any) -> None:
        if isinstance(arrays, Iterable) and not isinstance(arrays, Mapping | list | tuple) and not is_array(arrays):
            arrays = list(arrays)  # a generator gives its arrays once
        self._given = arrays
        self.names, self._values = named(arrays, function)
        self._result: Callable[[], Any] = lambda: arrays
        if out is READ_ONLY:
            self._units = self._read_only(function)
        elif out is not None:
            self._units = self._copies(function, out)
        else:
            self._units = self._in_place(function)
        ids = np.array(self._units.formats, np.int64)
        self._is_float64 = ids == 0
        self._formats: list[int] = np.unique(ids).tolist()

    def __len__(self) -> int:
        """Return how many arrays there are."""
        return len(self.names)

    def __repr__(self) -> str:
        """Return the number of arrays."""
        return f"GradientGroup of {len(self.names)} arrays"

    def _in_place(self, function: str) -> Units:
        ids, values = _IDS, self._values
        formats = []
        for value in values:
            if type(value) is not np.ndarray or value.flags.num & _READY != _READY:
                break
            dtype = value.dtype
            number = ids.get(dtype.num)
            if number is None or not dtype.isnative:
                break
            formats.append(number)
        else:
            units = Units.direct(values, formats)
            if not units.core.overlap():
                return units
        views, formats = [], []
        for name, value in zip(self.names, values, strict=True):
            view = writable_view(value, function, name)
            if view.flags.num & _READY == _READY and view.dtype.isnative:
                formats.append(ids[view.dtype.num])
            views.append(view)
        if len(formats) == len(views):
            units = Units.direct(views, formats)
            if not units.core.overlap():
                return units
        return untangle(views, self.names, function)

    def _read_only(self, function: str) -> Units:
        bits = [read(v, f"{function}: {name}") for name, v in zip(self.names, self._values, strict=True)]
        sources, formats = [b.bits for b in bits], [b.format_id for b in bits]
        return Units(_core.ClipGroup(sources, [], formats), sources, sources, formats, records=list(range(len(bits))))

    def _copies(self, function: str, out: Any) -> Units:
        """Read sources, make targets apart from them, and say where those go in the end."""
        bits = [read(v, f"{function}: {name}") for name, v in zip(self.names, self._values, strict=True)]
        formats = [b.format_id for b in bits]
        targets = [np.empty_like(b.values) for b in bits]
        back: list[tuple[NDArray[Any], Any, NDArray[Any]]] = []
        if isinstance(out, str):
            if out != "new":
                raise ValueError(f"{function}: out must be arrays or 'new', got {out!r}")
            self._result = lambda: self._like_given([b.restore(t) for b, t in zip(bits, targets, strict=True)])
        else:
            names, owners = named(out, function)
            if names != self.names:
                raise ValueError(f"{function}: out must have the arrays' names {self.names[:5]}, got {names[:5]}")
            for name, owner, target in zip(names, owners, targets, strict=True):
                view = writable_view(owner, f"{function}: out", name)
                if view.dtype != target.dtype or view.shape != target.shape:
                    raise ValueError(
                        f"{function}: out: {name} must have dtype {target.dtype} and shape {target.shape}, "
                        f"got {view.dtype} and {view.shape}"
                    )
                back.append((view, Ellipsis, target))
            self._result = lambda: out
        sources = [b.values for b in bits]
        return Units(
            _core.ClipGroup(sources, targets, formats), sources, targets, formats, back, list(range(len(bits)))
        )

    def _like_given(self, made: list[Any]) -> Any:
        if is_array(self._given):
            return made[0]
        return dict(zip(self.names, made, strict=True)) if isinstance(self._given, Mapping) else made
