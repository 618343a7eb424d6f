"""cvt of PTX: between integers, float32, float64 and the formats of 16 and 8 bits, rounded once."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import ptx_floats as floats
from ptx_integers import UnknownInstruction, dtype_of, is_float, width_of

Found = tuple[str, tuple[str, ...], Callable[..., Any]]
TO_FLOAT, TO_INTEGER = ("rn", "rz", "rm", "rp", "rna"), ("rni", "rzi", "rmi", "rpi")
SCALAR = ("f16", "bf16", "f32", "f64")
PAIRS = {"f16x2": "f16", "bf16x2": "bf16", "e4m3x2": "e4m3", "e5m2x2": "e5m2"}


def value_of(x: Any, kind: str) -> Any:
    """As float64."""
    return x.astype(np.float64) if is_float(kind) else floats.decode(x, kind)


def stored(value: Any, kind: str, mode: str, saturate: bool = False) -> Any:
    """float64 values rounded to a format, as a register holds them."""
    if kind == "f64":
        return floats.canonical(value, kind)
    rounded = floats.to_float(value, kind, mode, saturate)
    if kind in ("f32", "tf32"):
        result = floats.canonical(rounded.astype(np.float32), "f32")
        return result if kind == "f32" else result.view(np.uint32)
    return floats.encode(rounded, kind)


def of_float(opcode: str, source: str, result: str, mode: str | None, saturate: bool) -> Callable[..., Any]:
    """A conversion of one floating-point number."""
    narrower = width_of(result) < width_of(source) or result == "tf32" or (result, source) in (
        ("f16", "bf16"), ("bf16", "f16"))  # fmt: skip
    if mode in TO_INTEGER and result == source and is_float(result):
        whole = {"rni": np.rint, "rzi": np.trunc, "rmi": np.floor, "rpi": np.ceil}[mode]
        return lambda x: floats.canonical(whole(x), result)
    if (mode is None) == narrower or mode in TO_INTEGER:
        raise UnknownInstruction(opcode)

    def run(x: Any) -> Any:
        value = value_of(x, source)
        if saturate:
            value = np.where(np.isnan(value), 0, np.clip(value, 0, 1))
        return stored(value, result, mode or "rn")

    return run


def of_integer(opcode: str, source: str, result: str, mode: str | None) -> Callable[..., Any]:
    """A number that float64 holds is rounded once more; one of 64 bits only as the processor does, to nearest even."""
    if mode not in TO_FLOAT[:4] or result not in ("f32", "f64") or (mode != "rn" and width_of(source) == 64):
        raise UnknownInstruction(opcode)
    if mode == "rn":
        return lambda x: x.astype(dtype_of(result))
    return lambda x: stored(x.astype(np.float64), result, mode)


def between_integers(source: str, result: str, saturate: bool) -> Callable[..., Any]:
    """The low bits, or the nearest number that the result's type has."""
    to = dtype_of(result)
    if not saturate:
        return lambda x: x.astype(to)
    info, limits = np.iinfo(to), np.iinfo(dtype_of(source))
    least, most = max(int(info.min), int(limits.min)), min(int(info.max), int(limits.max))
    return lambda x: np.clip(x, least, most).astype(to)


def of_pair(opcode: str, source: str, result: str, mode: str | None, finite: bool) -> Found:
    """Two numbers: of float32, the first goes into the upper half."""
    half = PAIRS.get(result)
    if half is None or mode is None:
        raise UnknownInstruction(opcode)
    if source == "f32" and half in ("f16", "bf16"):

        def join(a: Any, b: Any) -> Any:
            high, low = (stored(x.astype(np.float64), half, mode, finite).astype(np.uint32) for x in (a, b))
            return high << 16 | low

        return result, (source, source), join
    if PAIRS.get(source) not in ("e4m3", "e5m2") or half != "f16":
        raise UnknownInstruction(opcode)

    def widen(x: Any) -> Any:
        low, high = (stored(floats.decode(x >> s & 0xFF, PAIRS[source]), half, mode).astype(np.uint32) for s in (0, 8))
        return high << 16 | low

    return result, (source,), widen


def convert(opcode: str, modifiers: Sequence[str]) -> Found:
    """The types and the function of a cvt."""
    *rest, result, source = modifiers
    modes = [m for m in rest if m in (*TO_FLOAT, *TO_INTEGER)]
    mode = modes[0] if modes else None
    saturate = "sat" in rest
    if len(modes) > 1 or set(rest) - {*modes, "sat", "satfinite"}:
        raise UnknownInstruction(opcode)
    for kind in (result, source):
        dtype_of(kind)
    if result in PAIRS:
        return of_pair(opcode, source, result, mode, "satfinite" in rest)
    if "satfinite" in rest:
        raise UnknownInstruction(opcode)
    if source in SCALAR and (result in SCALAR or result == "tf32"):
        return result, (source,), of_float(opcode, source, result, mode, saturate)
    if source in SCALAR:
        if mode not in TO_INTEGER:
            raise UnknownInstruction(opcode)
        return result, (source,), lambda x: floats.to_integer(value_of(x, source), dtype_of(result), mode)
    if result in SCALAR:
        return result, (source,), of_integer(opcode, source, result, mode)
    if mode:
        raise UnknownInstruction(opcode)
    return result, (source,), between_integers(source, result, saturate)
