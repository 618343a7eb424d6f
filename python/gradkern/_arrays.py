"""Arrays of every kind, in as raw bits and out as the kind they came in."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import ml_dtypes
import numpy as np
from numpy.typing import NDArray

from gradkern.formats import finfo, format_ids, format_name

_UNSIGNED = {1: np.uint8, 2: np.uint16, 4: np.uint32, 8: np.uint64}


@dataclass(frozen=True)
class Bits:
    """An argument as the kernels see it: contiguous raw bits, the format they are in, and how to give results back."""

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


def _numpy_from_torch(tensor: Any, argument: str) -> NDArray[Any]:
    import torch

    if tensor.device.type != "cpu":
        raise TypeError(f"{argument}: tensor is on {tensor.device}, this build computes on the CPU; use .cpu()")
    tensor = tensor.detach().contiguous()
    integer = {
        torch.bfloat16: (torch.int16, ml_dtypes.bfloat16),
        torch.float8_e4m3fn: (torch.uint8, ml_dtypes.float8_e4m3fn),
        torch.float8_e5m2: (torch.uint8, ml_dtypes.float8_e5m2),
    }.get(tensor.dtype)
    if integer is None:
        return np.asarray(tensor.numpy())
    flat = tensor.reshape(-1).view(integer[0]).numpy().view(integer[1])
    return np.asarray(flat).reshape(tuple(tensor.shape))


def _torch_from_numpy(array: NDArray[Any]) -> Any:
    import torch

    special = {"bfloat16": torch.bfloat16, "float8_e4m3fn": torch.float8_e4m3fn, "float8_e5m2": torch.float8_e5m2}
    dtype = special.get(array.dtype.name)
    flat = np.ascontiguousarray(array).reshape(-1)
    if dtype is None:
        return torch.from_numpy(flat).reshape(array.shape)
    integer = np.int16 if array.dtype.itemsize == 2 else np.uint8
    return torch.from_numpy(flat.view(integer)).view(dtype).reshape(array.shape)


def _jax_from_numpy(array: NDArray[Any]) -> Any:
    import jax.numpy as jnp

    return jnp.asarray(array)


def _to_numpy(x: Any, argument: str) -> tuple[NDArray[Any], Callable[[NDArray[Any]], Any]]:
    if isinstance(x, np.ndarray | np.generic | list | tuple | int | float):
        try:
            return np.asarray(x), same_kind
        except ValueError as error:
            raise TypeError(f"{argument}: not an array ({error})") from None
    library = type(x).__module__.partition(".")[0]
    if library == "torch":
        return _numpy_from_torch(x, argument), _torch_from_numpy
    if library in ("jax", "jaxlib"):
        return np.asarray(x), _jax_from_numpy
    if hasattr(x, "__cuda_array_interface__"):
        raise TypeError(f"{argument}: a device array ({type(x).__name__}), this build computes on the CPU")
    if hasattr(x, "__array__") or hasattr(x, "__array_interface__") or hasattr(x, "__buffer__"):
        return np.asarray(x), same_kind
    if hasattr(x, "__dlpack__"):
        return np.from_dlpack(x), same_kind
    raise TypeError(f"{argument}: not an array, got {type(x).__name__}")


def read(x: Any, argument: str) -> Bits:
    """Take an array argument of any kind; integers become float64.

    Raises
    ------
    TypeError
        If it is not an array of real numbers that the host can read.
    """
    array, restore = _to_numpy(x, argument)
    if array.dtype.kind in "iu":
        array = array.astype(np.float64)
    try:
        name = format_name(array.dtype)
    except ValueError:
        raise TypeError(f"{argument}: dtype must be a floating-point format of gradkern, got {array.dtype}") from None
    array = np.asarray(array, dtype=finfo(name).dtype)  # native byte order
    contiguous = array if array.flags.c_contiguous else array.copy(order="C")
    return Bits(as_bits_view(contiguous), name, restore)


def empty_stored(shape: tuple[int, ...], fmt: str) -> NDArray[Any]:
    """Return an uninitialised array that holds a format."""
    return np.empty(shape, finfo(fmt).dtype)
