"""Arrays of every kind, in as raw bits and out as the kind they came in."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, TypeVar

import ml_dtypes
import numpy as np
from numpy.typing import NDArray

from gradkern import _backend, _core
from gradkern._device import device_view, is_on_device
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
A = TypeVar("A", bound=Any)
_CONTIGUOUS_ALIGNED = 0x0101  # NPY_ARRAY_C_CONTIGUOUS | NPY_ARRAY_ALIGNED: all that the kernels need
_REFUSALS = (BufferError, RuntimeError, TypeError, ValueError)
_NUMBERS = (np.generic, list, tuple, int, float)


@dataclass(slots=True, eq=False)
class Bits:
    """An argument as the kernels see it: contiguous raw bits, the format they are in, and how to give results back.

    The bits, on the host or a `DeviceArray`, may be the caller's own memory and must not be written.
    """

    bits: Any
    format: str
    restore: Callable[[Any], Any]
    stream: Callable[[], tuple[int, Any]] | None = None

    @property
    def format_id(self) -> int:
        """Number of the format."""
        return format_ids()[self.format]

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of the argument."""
        shape: tuple[int, ...] = self.bits.shape
        return shape

    @property
    def pair(self) -> tuple[Any, int]:
        """What the kernels take."""
        return self.bits, self.format_id

    @property
    def values(self) -> NDArray[Any]:
        """The argument as an array of its own dtype: NumPy's, or a `DeviceArray`, which stands for one."""
        found: NDArray[Any] = self.bits.view(finfo(self.format).dtype)
        return found

    @property
    def place(self) -> str:
        """Where it lies: "the host", or a device as "cuda:0"."""
        return self.bits.device if isinstance(self.bits, _core.DeviceArray) else "the host"


def as_bits_view(array: A) -> A:
    """View a contiguous array as unsigned integers of the same width; on a device it is what the kernels take."""
    if isinstance(array, _core.DeviceArray):
        return array
    view: A = array.view(_UNSIGNED[array.dtype.itemsize])
    return view


def on_host(array: Any) -> Any:
    """Return an array on a device as NumPy's, waiting for it; others as they are."""
    return array.to_host() if isinstance(array, _core.DeviceArray) else array


def same_kind(result: Any) -> Any:
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

    What lies on a device is copied to the host, which waits for it.

    Raises
    ------
    TypeError
        If it is not an array of real numbers that the host can read.
    """
    if type(x) is np.ndarray:
        stored = TYPE_NUMBERS.get(x.dtype.num)
        if stored is not None and x.dtype.isnative and x.flags.num & _CONTIGUOUS_ALIGNED == _CONTIGUOUS_ALIGNED:
            return Bits(x.view(stored[0]), stored[1], same_kind)
    if is_on_device(x):
        return Bits(*_stored(device_view(x, argument).array.to_host(), argument), same_kind)
    array, restore = _to_numpy(x, argument)
    return Bits(*_stored(array, argument), restore)


def read_in_place(x: Any, argument: str, writes: bool = False) -> Bits:
    """Take an array as `read` does, but what lies on a device stays there; `writes` is for those.

    Raises
    ------
    TypeError
        If it is not an array of real numbers, or on another device than the one asked for.
    CudaError
        If it is on a device that cannot be used here; says why.
    """
    if not is_on_device(x):
        return read(x, argument)
    view = device_view(x, argument, writes)
    chosen = _backend.chosen_device()
    if chosen not in (None, view.array.library):
        raise TypeError(f"{argument}: lies on {view.array.device}, and the device asked for is {chosen!r}")
    return Bits(view.array, view.array.dtype_name, view.restore, view.stream)


def check_one_place(function: str, **arguments: Bits | None) -> None:
    """Refuse arrays of which some lie on a device and some elsewhere; single numbers on the host go anywhere.

    Raises
    ------
    TypeError
        Names two arguments and where they lie.
    """
    check_places(function, ((name, bits) for name, bits in arguments.items() if bits is not None))


def check_places(function: str, arguments: Iterable[tuple[str, Bits]], numbers: bool = True) -> None:
    """Do the same for arrays by name; `numbers`: single ones on the host go anywhere."""
    first: tuple[str, str] | None = None
    for name, bits in arguments:
        where = bits.place
        if numbers and where == "the host" and not bits.shape:
            continue
        first = first or (name, where)
        if where != first[1]:
            raise TypeError(
                f"{function}: {first[0]} lies on {first[1]} and {name} on {where}: arrays must lie in one place"
            )


def empty_stored(shape: tuple[int, ...], fmt: str) -> NDArray[Any]:
    """Return an uninitialised array that holds a format."""
    return np.empty(shape, finfo(fmt).dtype)


def empty_beside(bits: Any, shape: tuple[int, ...], fmt: str) -> Any:
    """Return one that lies where other bits do."""
    if isinstance(bits, _core.DeviceArray):
        return bits.empty(shape, finfo(fmt).dtype.name)
    return empty_stored(shape, fmt)
