"""What the instructions of PTX that read and write registers alone compute, on arrays of one value a thread.

An opcode with its modifiers becomes an Operation: the types of its result and of its operands, and a function. What is
not defined here exactly, approximations above all, is an UnknownInstruction.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
import ptx_floats as floats
from ptx_conversions import convert
from ptx_integers import INTEGER_FUNCTIONS, UnknownInstruction, dtype_of, is_float, width_of
from ptx_parse import PtxError

Compute = Callable[..., Any]
HALVES = ("f16", "bf16", "f16x2", "bf16x2")
COMPARISONS = {
    "eq": np.equal, "ne": np.not_equal, "lt": np.less, "le": np.less_equal, "gt": np.greater, "ge": np.greater_equal,
    "lo": np.less, "ls": np.less_equal, "hi": np.greater, "hs": np.greater_equal,
}  # fmt: skip
BITWISE = {"and": np.bitwise_and, "or": np.bitwise_or, "xor": np.bitwise_xor}


@dataclass(frozen=True)
class Operation:
    """result = compute(operands), types by PTX's names."""

    result: str
    operands: tuple[str, ...]
    compute: Compute


def check(opcode: str, modifiers: Sequence[str], *known: str) -> None:
    """No modifier but those that are known."""
    if set(modifiers) - set(known):
        raise UnknownInstruction(opcode)


def flush(x: Any) -> Any:
    """Subnormal float32 becomes zero."""
    return np.where(np.abs(x) < 2.0**-126, np.copysign(np.float32(0), x), x)


def finished(compute: Compute, kind: str, modifiers: Sequence[str]) -> Compute:
    """With one NaN for all, and what .ftz and .sat ask for."""
    ftz, saturates = "ftz" in modifiers and kind == "f32", "sat" in modifiers

    def run(*operands: Any) -> Any:
        result = floats.canonical(compute(*map(flush, operands) if ftz else operands), kind)
        if saturates:
            result = np.where(np.isnan(result), 0, np.clip(result, 0, 1)).astype(result.dtype)
        return flush(result) if ftz else result

    return run


def rounded_f32(name: str, mode: str) -> Compute:
    """Sum, difference or product of float32 in a rounding mode."""

    def run(a: Any, b: Any) -> Any:
        a, b = a.astype(np.float64), b.astype(np.float64)
        exact = a * b if name == "mul" else floats.odd_sum(a, b if name == "add" else -b)
        return floats.to_float(exact, "f32", mode).astype(np.float32)

    return run


ARITHMETIC: dict[str, Compute] = {"add": np.add, "sub": np.subtract, "mul": np.multiply, "div": np.divide, "sqrt": np.sqrt,
                                  "rcp": lambda a: np.divide(a.dtype.type(1), a)}  # fmt: skip
ONE = {"rcp", "sqrt"}


def float_arithmetic(opcode: str, name: str, modifiers: Sequence[str], kind: str) -> Operation:
    """Correctly rounded."""
    mode = next((m for m in modifiers if m in ("rn", "rz", "rm", "rp")), None)
    if mode is None and name not in ("add", "sub", "mul"):
        raise UnknownInstruction(opcode)
    mode = mode or "rn"
    check(opcode, modifiers, mode, *(["ftz", "sat"] if kind == "f32" else []))
    operands = (kind,) * (1 if name in ONE else 3 if name == "fma" else 2)
    if kind in HALVES:
        return half_arithmetic(opcode, name, modifiers, kind)
    if name == "fma":
        if kind == "f64" and mode != "rn":
            raise UnknownInstruction(opcode)
        compute: Compute = floats.fma_f64 if kind == "f64" else lambda a, b, c: floats.fma_f32(a, b, c, mode)
    elif mode == "rn":
        compute = ARITHMETIC[name]
    elif kind == "f32" and name in ("add", "sub", "mul"):
        compute = rounded_f32(name, mode)
    else:
        raise UnknownInstruction(opcode)
    return Operation(kind, operands, finished(compute, kind, modifiers))


def half_arithmetic(opcode: str, name: str, modifiers: Sequence[str], kind: str) -> Operation:
    """Of 16 bits, or of two such in 32: a product or a sum by a fused multiply-add."""
    check(opcode, modifiers, "rn")
    half = kind.removesuffix("x2")
    one, zero = np.uint16(0x3C00 if half == "f16" else 0x3F80), np.uint16(0x8000)
    fused: dict[str, Compute] = {
        "fma": lambda a, b, c: floats.fma_half(a, b, c, half),
        "mul": lambda a, b: floats.fma_half(a, b, np.where((a ^ b) & 0x8000, zero, np.uint16(0)), half),
        "add": lambda a, b: floats.fma_half(a, np.full_like(a, one), b, half),
        "sub": lambda a, b: floats.fma_half(b, np.full_like(b, one | zero), a, half),
    }
    if name not in fused:
        raise UnknownInstruction(opcode)
    compute = fused[name]
    if kind != half:
        compute = paired(compute)
    return Operation(kind, (kind,) * (3 if name == "fma" else 2), compute)


def paired(compute: Compute) -> Compute:
    """Of both halves of 32 bits."""

    def run(*operands: Any) -> Any:
        low, high = (compute(*((x >> shift & 0xFFFF).astype(np.uint16) for x in operands)) for shift in (0, 16))
        return low.astype(np.uint32) | high.astype(np.uint32) << 16

    return run


def float_extreme(opcode: str, name: str, modifiers: Sequence[str], kind: str) -> Operation:
    """Minimum and maximum."""
    check(opcode, modifiers, "ftz", "NaN")
    if kind in HALVES:
        raise UnknownInstruction(opcode)
    propagate = "NaN" in modifiers
    compute: Compute = lambda a, b: floats.extreme(a, b, name == "min", propagate, kind)  # noqa: E731
    return Operation(kind, (kind, kind), finished(compute, kind, modifiers))


def float_sign(opcode: str, name: str, modifiers: Sequence[str], kind: str) -> Operation:
    """Negation and magnitude, of bits; float32 and float64 lose the payload of a NaN."""
    check(opcode, modifiers, "ftz")
    if kind in HALVES:
        sign = 0x80008000 if kind.endswith("x2") else 0x8000
        mask = dtype_of(kind).type(sign)
        return Operation(kind, (kind,), (lambda a: a ^ mask) if name == "neg" else (lambda a: a & ~mask))
    return Operation(kind, (kind,), np.negative if name == "neg" else np.abs)


def comparison(opcode: str, modifiers: Sequence[str], kind: str) -> Operation:
    """setp: ordered, or with a u behind its name true of NaN as well; combined with a predicate."""
    relation, *rest = modifiers
    combine = next((m for m in rest if m in BITWISE), None)
    check(opcode, rest, "ftz", *BITWISE)
    unordered = is_float(kind) and relation.endswith("u") and relation not in COMPARISONS
    base = relation[:-1] if unordered else relation
    if kind in HALVES or (base not in COMPARISONS and relation not in ("num", "nan")):
        raise UnknownInstruction(opcode)

    def run(a: Any, b: Any, *c: Any) -> Any:
        if is_float(kind):
            if "ftz" in rest:
                a, b = flush(a), flush(b)
            nan = np.isnan(a) | np.isnan(b)
        if relation == "nan":
            result = nan
        elif relation == "num":
            result = ~nan
        else:
            result = COMPARISONS[base](a, b)
            if is_float(kind):
                result = result | nan if unordered else result & ~nan
        return BITWISE[combine](result, c[0]) if combine else result

    return Operation("pred", (kind, kind, *(["pred"] if combine else [])), run)


def of_integers(opcode: str, name: str, modifiers: Sequence[str], kind: str) -> Operation:
    """What ptx_integers defines: result type, operand types and function, by name and modifiers."""
    found = INTEGER_FUNCTIONS[name](opcode, tuple(modifiers), kind)
    return Operation(*found)


def move(opcode: str, modifiers: Sequence[str], kind: str) -> Operation:
    """Bits as they are."""
    check(opcode, modifiers)
    return Operation(kind, (kind,), lambda a: a)


def select(opcode: str, modifiers: Sequence[str], kind: str) -> Operation:
    """The first where the predicate holds."""
    check(opcode, modifiers)
    return Operation(kind, (kind, kind, "pred"), lambda a, b, p: np.where(p, a, b))


def to_generic(opcode: str, modifiers: Sequence[str], kind: str) -> Operation:
    """Addresses of global memory are generic ones."""
    if kind != "u64" or [m for m in modifiers if m != "to"] != ["global"]:
        raise UnknownInstruction(opcode)
    return Operation("b64", ("b64",), lambda a: a)


def sign_of_first(opcode: str, modifiers: Sequence[str], kind: str) -> Operation:
    """copysign: the sign of a, the magnitude of b."""
    check(opcode, modifiers)
    return Operation(kind, (kind, kind), lambda a, b: np.copysign(b, a))


@cache
def operation(opcode: str) -> Operation:
    """Of an opcode with all its modifiers."""
    name, *modifiers = opcode.split(".")
    if name == "cvt":
        return Operation(*convert(opcode, modifiers))
    if not modifiers:
        raise UnknownInstruction(opcode)
    kind = modifiers.pop()
    try:
        width_of(kind)
    except PtxError:
        raise UnknownInstruction(opcode) from None
    single = {"setp": comparison, "mov": move, "selp": select, "cvta": to_generic, "copysign": sign_of_first}
    if name in single:
        return single[name](opcode, modifiers, kind)
    if is_float(kind) or kind in HALVES:
        if name in (*ARITHMETIC, "fma"):
            return float_arithmetic(opcode, name, modifiers, kind)
        if name in ("min", "max"):
            return float_extreme(opcode, name, modifiers, kind)
        if name in ("neg", "abs"):
            return float_sign(opcode, name, modifiers, kind)
    elif name in INTEGER_FUNCTIONS:
        return of_integers(opcode, name, modifiers, kind)
    raise UnknownInstruction(opcode)
