"""The only module that talks to the executors: the compiled kernels, and which instruction set runs them."""

from __future__ import annotations

from gradkern import _core


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
    ValueError
        If ``n`` is not between 1 and 1024.
    """
    if not 1 <= n <= 1024:
        raise ValueError(f"set_num_threads: n must be between 1 and 1024, got {n}")
    _core.set_num_threads(int(n))


def check_device(device: str | None, function: str) -> None:
    """Refuse a device that this build cannot run on."""
    if device in (None, "cpu"):
        return
    if device in ("cuda", "simt"):
        raise ValueError(f"{function}: device={device!r} is not part of this build, which has the CPU kernels only")
    raise ValueError(f"{function}: device must be None, 'cpu', 'cuda' or 'simt', got {device!r}")
