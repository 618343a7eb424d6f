"""Tensors of PyTorch and JAX as NumPy arrays and back. Neither library is imported before the caller has done so."""

from __future__ import annotations

import importlib
import sys
from contextlib import nullcontext
from functools import cache, partial
from typing import Any

import ml_dtypes
import numpy as np
from numpy.typing import NDArray


def is_torch(x: Any) -> bool:
    """Whether x is a torch tensor, a subclass or a parameter."""
    torch: Any = sys.modules.get("torch")
    return torch is not None and isinstance(x, torch.Tensor)


def is_jax(x: Any) -> bool:
    """Whether x is a JAX array, or stands for one while it is traced."""
    jax: Any = sys.modules.get("jax")
    return jax is not None and isinstance(x, jax.Array)


@cache
def _torch_dtypes() -> dict[Any, tuple[Any, np.dtype[Any]] | None]:
    """Map the dtypes that can be read: to None where NumPy has them, else to an integer to view as and ml_dtypes' name."""
    torch: Any = sys.modules["torch"]
    names = ("float64", "float32", "float16", "int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64")
    return {
        **{getattr(torch, name): None for name in names if hasattr(torch, name)},
        torch.bfloat16: (torch.int16, np.dtype(ml_dtypes.bfloat16)),
        torch.float8_e4m3fn: (torch.uint8, np.dtype(ml_dtypes.float8_e4m3fn)),
        torch.float8_e5m2: (torch.uint8, np.dtype(ml_dtypes.float8_e5m2)),
    }


@cache
def _torch_views() -> dict[np.dtype[Any], tuple[np.dtype[Any], Any]]:
    """Map ml_dtypes' dtypes to the integer that torch reads them as, and to torch's own."""
    found = {}
    for torch_dtype, view in _torch_dtypes().items():
        if view is not None:
            found[view[1]] = (np.dtype(np.int16 if view[1].itemsize == 2 else np.uint8), torch_dtype)
    return found


def torch_problem(tensor: Any) -> str | None:
    """Say why a tensor has no entries that lie in memory as an array's do, or None."""
    torch: Any = sys.modules["torch"]
    if isinstance(tensor, torch.nn.parameter.UninitializedTensorMixin):
        return "a parameter of a lazy module that has not run yet has no values"
    if tensor.device.type == "meta":
        return "a meta tensor has no values"
    if tensor.is_nested:
        return "a nested tensor is not one array; use .unbind()"
    if tensor.layout is not torch.strided:
        return f"tensor must be dense, got layout {tensor.layout}; use .to_dense()"
    if tensor.is_quantized:
        return f"dtype must be a floating-point format of gradkern, got {tensor.dtype}; use .dequantize()"
    return None


def _refuse_torch(tensor: Any, argument: str) -> TypeError:
    problem = torch_problem(tensor)
    if problem is not None:
        return TypeError(f"{argument}: {problem}")
    if not tensor.is_cpu:
        return TypeError(f"{argument}: tensor is on {tensor.device}, which gradkern cannot read; use .cpu()")
    return TypeError(f"{argument}: dtype must be a floating-point format of gradkern, got {tensor.dtype}")


def from_torch(tensor: Any, argument: str) -> NDArray[Any]:
    """View a CPU tensor's memory; copy only where its negative bit is set.

    Raises
    ------
    TypeError
        If the tensor is elsewhere, is not dense, or has no dtype that can be read.
    """
    torch: Any = sys.modules["torch"]
    dtypes = _torch_dtypes()
    lazy = isinstance(tensor, torch.nn.parameter.UninitializedTensorMixin)
    dense = tensor.layout is torch.strided and not tensor.is_nested and not lazy
    if not (dense and tensor.is_cpu and tensor.dtype in dtypes):
        raise _refuse_torch(tensor, argument)
    if tensor.requires_grad:
        tensor = tensor.detach()
    if tensor.is_neg():
        tensor = tensor.resolve_neg()
    view = dtypes[tensor.dtype]
    try:
        array: NDArray[Any] = tensor.numpy() if view is None else tensor.view(view[0]).numpy().view(view[1])
    except (TypeError, RuntimeError) as error:  # fake tensors, tensors inside vmap
        raise TypeError(f"{argument}: a {type(tensor).__name__} without memory of its own ({error})") from error
    return array


@cache
def _plain_torch() -> tuple[Any, Any, frozenset[Any]]:
    torch: Any = sys.modules["torch"]
    numpy_has = frozenset({torch.float64, torch.float32, torch.float16})
    return torch.Tensor, torch.strided, numpy_has


def is_plain_torch(x: Any) -> bool:
    """Whether x is a tensor of which `plain_torch_view` is a quick view: most gradients are."""
    if type(x).__module__ != "torch":
        return False
    kind, strided, dtypes = _plain_torch()
    return (
        type(x) is kind and x.dtype in dtypes and x.is_cpu and not x.requires_grad and x.layout is strided
        and not x.is_neg()
    )  # fmt: skip


def plain_torch_view(x: Any) -> NDArray[Any]:
    """View the memory of such a tensor."""
    view: NDArray[Any] = x.numpy()
    return view


def to_torch(array: NDArray[Any]) -> Any:
    """Give a result back as a CPU tensor that shares its memory."""
    torch: Any = sys.modules["torch"]
    array = np.asarray(array, order="C")
    view = _torch_views().get(array.dtype)
    return torch.from_numpy(array) if view is None else torch.from_numpy(array.view(view[0])).view(view[1])


def from_jax(array: Any, argument: str) -> tuple[NDArray[Any], partial[Any]]:
    """View a CPU array's memory (a sharded one is gathered), and say how to give results back to its device.

    Raises
    ------
    TypeError
        If the array is on another device, is traced, deleted, or not one of numbers.
    """
    try:
        device = min(array.devices(), key=lambda d: d.id)
        if device.platform != "cpu":
            raise TypeError(f"array is on {device}, which gradkern cannot read; use jax.device_get")
        return np.asarray(array), partial(to_jax, device=device)
    except (TypeError, RuntimeError) as error:  # JAX explains over many lines
        raise TypeError(f"{argument}: {str(error).partition(chr(10))[0]}") from error


def enabling_x64(wanted: bool) -> Any:
    """Make a context in which JAX keeps float64, if that is wanted."""
    if not wanted:
        return nullcontext()
    jax: Any = sys.modules["jax"]
    owner = (
        jax if hasattr(jax, "enable_x64") else importlib.import_module("jax.experimental")
    )  # where older ones have it
    return owner.enable_x64(True)


def to_jax(array: NDArray[Any], device: Any) -> Any:
    """Give a result back as a JAX array; float64 stays float64 where JAX would make it float32."""
    jax: Any = sys.modules["jax"]
    with enabling_x64(array.dtype == np.float64):
        return jax.device_put(array, device)
