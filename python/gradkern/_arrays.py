"""Arrays of every kind, in as raw bits and out as the kind they came in."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import ml_dtypes
import numpy as np
from numpy.typing import NDArray

from gradkern import _core
from gradkern._frameworks import from_jax, from_torch, is_jax, is_torch, to_torch
from gradkern.formats import finfo, format_ids, formats

_UNSIGNED: dict[int, np.dtype[Any]] = {
    1: np.dtype(np.uint8), 2: np.dtype(np.uint16), 4: np.dtype(np.uint32), 8: np.dtype(np.uint64),
}  # fmt: skip
STORED_DTYPES: dict[np.dtype[Any], tuple[np.dtype[Any], str]] = {
    finfo(name).dtype: (_UNSIGNED[finfo(name).dtype.itemsize], name) for name in formats() if name != "tfloat32"
}
# By type number: hashing a dtype takes a third of the time of reading a small array.
TYPE_NUMBERS = {dtype.num: stored for dtype, stored in STORED_DTYPES.items()}
_CONTIGUOUS_ALIGNED = 0x0101  # NPY_ARRAY_C_CONTIGUOUS | NPY_ARRAY_ALIGNED: all that the kernels need
_REFUSALS = (BufferError, RuntimeError, TypeError, ValueError)
_NUMBERS = (np.generic, list, tuple, int, float)


@dataclass(slots=True, eq=False)
class Bits:
    """An argument as the kernels see it: contiguous raw bits, the format they are in, and how to give results back.

    The bits may be the caller's own memory and must not be written.
    """

    bits: NDArray[Any]
    format: str
    restore: Callable[[NDArray[Any]], Any]

    @property
    def format_id(self) -> int:
        """Number of the format."""
        return format_ids()[self.format]

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of the argument."""
        return self.bits.shape

    @property
    def pair(self) -> tuple[NDArray[Any], int]:
        """What the kernels take."""
        return self.bits, self.format_id

    @property
    def values(self) -> NDArray[Any]:
        """The argument as a NumPy array of its own dtype."""
        return self.bits.view(finfo(self.format).dtype)


def as_bits_view(array: NDArray[Any]) -> NDArray[Any]:
    """View a contiguous array as unsigned integers of the same width."""
    return array.view(_UNSIGNED[array.dtype.itemsize])


def same_kind(result: NDArray[Any]) -> NDArray[Any]:
    """Give a result back as NumPy has it."""
    return result


def _as_numpy(x: Any, argument: str) -> NDArray[Any]:
    try:
        return np.asarray(x)
    except _REFUSALS as error:
        raise TypeError(f"{argument}: not an array ({error})") from error


def _dlpack_capsule(x: Any) -> Any:
    try:
        return x.__dlpack__(max_version=(1, 0))
    except TypeError:  # a producer from before DLPack 1.0
        return x.__dlpack__()


def _from_capsule(capsule: Any, argument: str) -> NDArray[Any]:
    try:
        bits, name = _core.dlpack_view(capsule)
    except TypeError as error:
        raise TypeError(f"{argument}: {error}") from None
    return bits.view(np.dtype(getattr(ml_dtypes, name, name)))


def _offers_numpy(x: Any) -> bool:
    if any(hasattr(x, name) for name in ("__array_interface__", "__array_struct__", "__array__")):
        return True
    try:
        memoryview(x)
    except _REFUSALS:
        return False
    return True


def _to_numpy(x: Any, argument: str) -> tuple[NDArray[Any], Callable[[NDArray[Any]], Any]]:
    if isinstance(x, np.ndarray):
        if isinstance(x, np.ma.MaskedArray) and np.ma.is_masked(x):
            raise TypeError(f"{argument}: entries are masked; use .compressed() or .filled()")
        return np.asarray(x), same_kind
    if isinstance(x, _NUMBERS):
        return _as_numpy(x, argument), same_kind
    if is_torch(x):
        return from_torch(x, argument), to_torch
    if is_jax(x):
        return from_jax(x, argument)
    refusal = None
    if hasattr(x, "__dlpack__"):
        try:
            capsule = _dlpack_capsule(x)
        except _REFUSALS as error:
            refusal = error
        else:
            return _from_capsule(capsule, argument), same_kind
    if hasattr(x, "__cuda_array_interface__"):
        raise TypeError(f"{argument}: a device array ({type(x).__name__}), this build computes on the CPU")
    if _offers_numpy(x):
        return _as_numpy(x, argument), same_kind
    if refusal is not None:
        raise TypeError(f"{argument}: {type(x).__name__} does not give its memory ({refusal})") from refusal
    raise TypeError(f"{argument}: not an array, got {type(x).__name__}")


def _stored(array: NDArray[Any], argument: str) -> tuple[NDArray[Any], str]:
    """Raw bits of any array of numbers and its format, copied only where the kernels could not walk through it."""
    dtype = array.dtype
    if dtype.kind in "iu":
        dtype = np.dtype(np.float64)
    elif dtype.kind == "f":
        dtype = dtype.newbyteorder("=")
    if dtype not in STORED_DTYPES:
        raise TypeError(f"{argument}: dtype must be a floating-point format of gradkern, got {dtype}")
    unsigned, name = STORED_DTYPES[dtype]
    array = np.asarray(array, dtype, order="C")
    if not array.flags.aligned:
        array = array.copy()
    return array.view(unsigned), name


def read(x: Any, argument: str) -> Bits:
    """Take an array argument of any kind, without a copy where it is contiguous; integers become float64.

    Raises
    ------
    TypeError
        If it is not an array of real numbers that the host can read.
    """
    if type(x) is np.ndarray:
        stored = TYPE_NUMBERS.get(x.dtype.num)
        if stored is not None and x.dtype.isnative and x.flags.num & _CONTIGUOUS_ALIGNED == _CONTIGUOUS_ALIGNED:
            return Bits(x.view(stored[0]), stored[1], same_kind)
    array, restore = _to_numpy(x, argument)
    return Bits(*_stored(array, argument), restore)


def empty_stored(shape: tuple[int, ...], fmt: str) -> NDArray[Any]:
    """Return an uninitialised array that holds a format."""
    return np.empty(shape, finfo(fmt).dtype)
