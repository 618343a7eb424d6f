"""The only module that talks to the executors: the compiled kernels, and which instruction set runs them."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import wraps
from typing import ParamSpec, TypeVar, cast

from gradkern import _core
from gradkern._arguments import integer

P = ParamSpec("P")
R = TypeVar("R")

_asked = threading.local()


def isa() -> str:
    """Name of the instruction set in use."""
    return _core.isa()


def usable_isas() -> list[str]:
    """Names of the instruction sets that this processor can run, narrowest first."""
    return [name for name, usable, _ in _core.isas() if usable]


def select_isa(name: str) -> None:
    """Run on another instruction set from now on; results do not change, by contract.

    Raises
    ------
    UnsupportedIsaError
        If ``name`` is unknown or this processor cannot run it.
    """
    _core.select_isa(name)


def get_num_threads() -> int:
    """Return how many threads gradkern uses."""
    return _core.num_threads()


def set_num_threads(n: int) -> None:
    """Use ``n`` threads from now on; results do not change, by contract.

    Raises
    ------
    TypeError
        If ``n`` is no integer.
    ValueError
        If ``n`` is not between 1 and 1024.
    """
    count = integer(n, "set_num_threads", "n")
    if not 1 <= count <= 1024:
        raise ValueError(f"set_num_threads: n must be between 1 and 1024, got {count}")
    _core.set_num_threads(count)


def device_states() -> dict[str, str]:
    """Every device beside the CPU: "usable: " and what it is, else exactly why not."""
    return {name: _core.device_why_not(name) or _usable(name) for name in ("cuda", "simt")}


def _usable(library: str) -> str:
    try:
        found = _core.devices(library)
    except RuntimeError as error:  # CudaError
        return str(error)
    shown = [
        f"{name}, sm_{major}{minor}, {memory / 1e9:.0f} GB" if major else name for name, major, minor, memory in found
    ]
    return "usable: " + "; ".join(shown)


@contextmanager
def computing_on(device: str | None, function: str) -> Iterator[None]:
    """Compute on a device until the block ends, in this thread.

    Raises
    ------
    ValueError
        If there is no such device.
    CudaError
        If it cannot be used here; says why.
    """
    if device not in (None, "cpu", "cuda", "simt"):
        raise ValueError(f"{function}: device must be None, 'cpu', 'cuda' or 'simt', got {device!r}")
    before, asked = _core.use_device(None if device == "cpu" else device), chosen_device()
    _asked.device = device
    try:
        yield
    finally:
        _core.use_device(before)
        _asked.device = asked


def chosen_device() -> str | None:
    """Return the device that the call in progress was asked to compute on, or None."""
    return getattr(_asked, "device", None)


def takes_device(function: Callable[P, R]) -> Callable[P, R]:
    """Let the kernels that a function calls run on the device that its ``device=`` names."""

    @wraps(function)
    def on_device(*args: P.args, **kwargs: P.kwargs) -> R:
        device = kwargs.get("device")
        if device is None:
            return function(*args, **kwargs)
        with computing_on(cast("str", device), function.__name__):
            return function(*args, **kwargs)

    return on_device
