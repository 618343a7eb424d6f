"""Arrays that results are written to, on the host or a device."""

from __future__ import annotations

from typing import Any

import numpy as np

from gradkern import _core
from gradkern._device import device_view, is_on_device


def output_view(out: Any, place: str, shape: tuple[int, ...], dtype: np.dtype[Any], function: str) -> Any:
    """Check an `out` argument, and view it as what can be written: a NumPy array, or a `DeviceArray`.

    Raises
    ------
    TypeError
        If it is no array of that dtype where the result is.
    ValueError
        If it has another shape or is read-only.
    """
    view = out
    if is_on_device(out):
        view = device_view(out, f"{function}: out", writes=True).array
    elif not isinstance(out, np.ndarray):
        raise TypeError(f"{function}: out must be a NumPy array, got {type(out).__name__}")
    where = view.device if isinstance(view, _core.DeviceArray) else "the host"
    if where != place:
        raise TypeError(f"{function}: out lies on {where} and the argument on {place}: arrays must lie in one place")
    if view.dtype != dtype:
        raise TypeError(f"{function}: out must have dtype {dtype}, got {view.dtype}")
    if view.shape != shape:
        raise ValueError(f"{function}: out must have shape {shape}, got {view.shape}")
    if isinstance(view, np.ndarray) and not view.flags.writeable:
        raise ValueError(f"{function}: out is read-only")
    return view


def is_apart(out: Any, source: Any) -> bool:
    """Whether the kernels may write `out` while they read a source."""
    if isinstance(out, _core.DeviceArray):
        return bool(out.pointer + out.nbytes <= source.pointer or source.pointer + source.nbytes <= out.pointer)
    return bool(out.flags.c_contiguous) and not np.may_share_memory(out, source)
