"""Arrays on a CUDA device, of every library: the kernels see them where they lie, and results go back without a copy."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from gradkern import _core
from gradkern._frameworks import enabling_x64, is_jax, is_torch, torch_problem

CUDA = "cuda"  # the library of kernels that computes on CUDA's memory
_KINDS = (2, 13)  # DLPack's numbers of CUDA memory, and of managed memory
_LEGACY_STREAM = 1  # CUDA's default stream, as DLPack and __cuda_array_interface__ number it
_REFUSALS = (BufferError, RuntimeError, TypeError, ValueError, AttributeError)
_STORED = ("float64", "float32", "float16", "bfloat16", "float8_e4m3fn", "float8_e5m2")


@dataclass(slots=True, eq=False)
class DeviceView:
    """An array on a device as the kernels see it.

    Attributes
    ----------
    array : DeviceArray
        A view of its memory; of a copy made by its own library where that is not contiguous or holds integers.
    restore : callable
        Gives a result back as the caller's kind.
    stream : callable or None
        What the library enqueues on at the moment, and the owner of that stream; None where it does not say.
    """

    array: _core.DeviceArray
    restore: Callable[[Any], Any]
    stream: Callable[[], tuple[int, Any]] | None = None


def same_array(result: Any) -> Any:
    """Give a result back as it is: a `DeviceArray`, which any library reads by DLPack."""
    return result


def _is_cupy(x: Any) -> bool:
    cupy: Any = sys.modules.get("cupy")
    return cupy is not None and isinstance(x, cupy.ndarray)


def _dlpack_kind(x: Any) -> int | None:
    ask = getattr(x, "__dlpack_device__", None)
    if ask is None:
        return None
    try:
        return int(ask()[0])
    except _REFUSALS:
        return None


def is_on_device(x: Any) -> bool:
    """Whether an array lies in a device's memory: cheap, and without looking at that memory."""
    kind = type(x)
    if kind is np.ndarray or kind in (float, int, list, tuple):
        return False
    if isinstance(x, _core.DeviceArray) or _is_cupy(x):
        return True
    if is_torch(x):
        return bool(x.is_cuda)
    if is_jax(x):
        return _jax_platform(x) in ("gpu", "cuda")
    found = _dlpack_kind(x)
    if found == 13 and _core.device_why_not(CUDA):
        return False  # managed memory, which the host reads, too
    return found in _KINDS if found is not None else hasattr(x, "__cuda_array_interface__")


def _jax_platform(x: Any) -> str:
    try:
        return str(min(x.devices(), key=lambda d: d.id).platform)
    except (TypeError, RuntimeError):  # traced or deleted: whoever reads it says so
        return ""


def device_view(x: Any, argument: str, writes: bool = False) -> DeviceView:
    """View an array that `is_on_device`; `writes` refuses copies and memory that is read-only.

    Raises
    ------
    TypeError
        If its dtype, layout or memory is not one that can be read there.
    ValueError
        If it is to be written and is read-only.
    CudaError
        If devices cannot be used here; says why.
    """
    try:
        view = _view(x, writes)
    except _REFUSALS as error:
        if isinstance(error, TypeError):
            raise TypeError(f"{argument}: {error}") from None
        if type(error) in (RuntimeError, BufferError, ValueError, AttributeError):
            raise TypeError(f"{argument}: {type(x).__name__} does not give its memory ({error})") from error
        raise
    name = view.array.dtype_name
    if name not in _STORED:
        raise TypeError(f"{argument}: dtype must be a floating-point format of gradkern, got {name}")
    if writes and not view.array.writeable:
        raise ValueError(f"{argument}: is read-only")
    return view


def _view(x: Any, writes: bool) -> DeviceView:
    if isinstance(x, _core.DeviceArray):
        return DeviceView(x, same_array)
    if _is_cupy(x):
        return _of_cupy(x, writes)
    if is_torch(x):
        return _of_torch(x, writes)
    if is_jax(x):
        if writes:
            raise TypeError("JAX arrays are immutable; pass out='new'")
        return _of_dlpack(x, to_jax)
    if hasattr(x, "__dlpack__"):
        return _of_dlpack(x, same_array)
    return DeviceView(_of_interface(x, x.__cuda_array_interface__), same_array)


def _of_dlpack(x: Any, restore: Callable[[Any], Any]) -> DeviceView:
    """Ask for the memory, ready in the order of CUDA's default stream."""
    try:
        capsule = x.__dlpack__(stream=_LEGACY_STREAM, max_version=(1, 0))
    except TypeError:  # a producer from before DLPack 1.0
        capsule = x.__dlpack__(stream=_LEGACY_STREAM)
    return DeviceView(_core.dlpack_device_view(capsule, CUDA, _LEGACY_STREAM), restore)


def _must_copy(why: str, writes: bool) -> None:
    if writes:
        raise TypeError(f"{why} cannot be written in place on a device; pass out='new'")


def _of_cupy(x: Any, writes: bool) -> DeviceView:
    cupy: Any = sys.modules["cupy"]
    if x.dtype.kind in "iu":
        _must_copy("an array of integers", writes)
        x = x.astype(np.float64)
    if not x.flags.c_contiguous:
        _must_copy("an array that is not C-contiguous", writes)
        with x.device:
            x = cupy.ascontiguousarray(x)

    def current(device: int = x.device.id) -> tuple[int, Any]:
        stream = cupy.cuda.get_current_stream(device)
        return stream.ptr, stream

    number, owner = current()
    array = _core.DeviceArray.borrow(
        CUDA, x.data.ptr, x.shape, x.dtype.name, x.device.id, number, (x, owner), True
    )  # fmt: skip
    return DeviceView(array, to_cupy, current)


def to_cupy(array: _core.DeviceArray) -> Any:
    """Give a result back as a CuPy array; as it is where CuPy has no such dtype."""
    cupy: Any = sys.modules["cupy"]
    try:
        return cupy.from_dlpack(array)
    except (TypeError, ValueError, BufferError, RuntimeError, KeyError):
        return array


def _of_torch(x: Any, writes: bool) -> DeviceView:
    torch: Any = sys.modules["torch"]
    problem = torch_problem(x)
    if problem is not None:
        raise TypeError(problem)
    x = x.detach()
    if x.is_neg():
        _must_copy("a tensor whose negative bit is set", writes)
        x = x.resolve_neg()
    if not (x.dtype.is_floating_point or x.dtype.is_complex or x.dtype is torch.bool):
        _must_copy("a tensor of integers", writes)
        x = x.double()
    if not x.is_contiguous():
        _must_copy("a tensor that is not contiguous", writes)
        x = x.contiguous()
    pointer = x.data_ptr()
    if pointer == 0 and x.numel():
        raise TypeError(f"a {type(x).__name__} without memory of its own")

    def current(device: Any = x.device) -> tuple[int, Any]:
        stream = torch.cuda.current_stream(device)
        return stream.cuda_stream, stream

    number, owner = current()
    array = _core.DeviceArray.borrow(
        CUDA, pointer, tuple(x.shape), str(x.dtype).removeprefix("torch."), x.device.index or 0, number, (x, owner), True
    )  # fmt: skip
    return DeviceView(array, to_torch, current)


def to_torch(array: _core.DeviceArray) -> Any:
    """Give a result back as a torch tensor on its device."""
    torch: Any = sys.modules["torch"]
    name = array.dtype_name
    if name.startswith("float8"):
        return torch.from_dlpack(array.view("uint8")).view(getattr(torch, name))
    return torch.from_dlpack(array)


def to_jax(array: _core.DeviceArray) -> Any:
    """Give a result back as a JAX array on its device; float64 stays float64."""
    dlpack: Any = importlib.import_module("jax.dlpack")
    with enabling_x64(array.dtype == np.float64):
        return dlpack.from_dlpack(array)


def _of_interface(x: Any, interface: dict[str, Any]) -> _core.DeviceArray:
    """View memory that __cuda_array_interface__ describes (version 3: https://numba.readthedocs.io)."""
    if interface.get("mask") is not None:
        raise TypeError("entries are masked")
    dtype = np.dtype(interface["typestr"])
    shape, strides = tuple(interface["shape"]), interface.get("strides")
    dense, step = [], dtype.itemsize
    for length in reversed(shape):
        dense.append(step)
        step *= length
    same = strides is None or all(
        n == 1 or a == b for n, a, b in zip(shape, strides, reversed(dense), strict=True)
    )  # fmt: skip
    if not dtype.isnative or not (same or 0 in shape):
        raise TypeError(
            f"must be C-contiguous and native on its device, got strides {strides} and dtype {dtype.str}; copy it there first"
        )
    pointer, read_only = interface["data"]
    stream = interface.get("stream")
    if stream == 0:
        raise TypeError("__cuda_array_interface__: stream 0 is ambiguous; 1 is CUDA's default stream")
    return _core.DeviceArray.borrow(CUDA, pointer or 0, shape, dtype.name, -1, stream or 0, x, not read_only)
