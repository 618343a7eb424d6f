"""Integers, bits and predicates of PTX, on arrays."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from ptx_parse import PtxError

DTYPES = {
    **{f"{k}{w}": np.dtype(f"{'i' if k == 's' else 'u'}{w // 8}") for k in "bus" for w in (8, 16, 32, 64)},
    "f32": np.dtype(np.float32), "f64": np.dtype(np.float64), "pred": np.dtype(bool), "f16": np.dtype(np.uint16),
    "bf16": np.dtype(np.uint16), "f16x2": np.dtype(np.uint32), "bf16x2": np.dtype(np.uint32),
    "tf32": np.dtype(np.uint32), "e4m3x2": np.dtype(np.uint16), "e5m2x2": np.dtype(np.uint16),
}  # fmt: skip
Found = tuple[str, tuple[str, ...], Callable[..., Any]]


class UnknownInstruction(PtxError):  # noqa: N818
    """An opcode, with its modifiers, that the interpreter does not define."""

    def __init__(self, opcode: str) -> None:
        super().__init__(f"{opcode}: unknown instruction")


def dtype_of(kind: str) -> np.dtype[Any]:
    """NumPy's type of a PTX type; of 16-bit floats their bits."""
    if kind not in DTYPES:
        raise PtxError(f".{kind} is no type of PTX that is known")
    return DTYPES[kind]


def width_of(kind: str) -> int:
    """Its bits."""
    return dtype_of(kind).itemsize * 8


def is_float(kind: str) -> bool:
    """float32 or float64."""
    return kind in ("f32", "f64")


def unmodified(opcode: str, modifiers: tuple[str, ...], *known: str) -> None:
    """No modifier but those that are known."""
    if set(modifiers) - set(known):
        raise UnknownInstruction(opcode)


def plain(compute: Callable[..., Any], count: int = 2) -> Callable[..., Found]:
    """All operands and the result of one type."""

    def find(opcode: str, modifiers: tuple[str, ...], kind: str) -> Found:
        unmodified(opcode, modifiers)
        return kind, (kind,) * count, compute

    return find


def high_half(a: Any, b: Any) -> Any:
    """The upper half of a product."""
    bits = a.dtype.itemsize * 8
    return ((a.astype(object) * b.astype(object)) >> bits).astype(a.dtype)


def product(opcode: str, modifiers: tuple[str, ...], kind: str, adds: bool = False) -> Found:
    """mul and mad: .lo, .hi or .wide."""
    unmodified(opcode, modifiers, "lo", "hi", "wide")
    (part,) = modifiers
    operands, wide = (kind, kind), f"{kind[0]}{2 * width_of(kind)}"
    result = wide if part == "wide" else kind
    if part == "wide" and width_of(kind) == 64:
        raise UnknownInstruction(opcode)

    def multiply(a: Any, b: Any) -> Any:
        if part == "wide":
            return a.astype(dtype_of(wide)) * b.astype(dtype_of(wide))
        return high_half(a, b) if part == "hi" else a * b

    if adds:
        return result, (*operands, result), lambda a, b, c: multiply(a, b) + c
    return result, operands, multiply


def shift(opcode: str, modifiers: tuple[str, ...], kind: str, left: bool) -> Found:
    """By any amount: beyond the width nothing is left but copies of a sign."""
    unmodified(opcode, modifiers)
    bits = width_of(kind)

    def run(a: Any, amount: Any) -> Any:
        within = np.minimum(amount, bits - 1).astype(a.dtype)
        shifted = a << within if left else a >> within
        if not left and kind[0] == "s":
            return shifted
        return np.where(amount >= bits, a.dtype.type(0), shifted)

    return kind, (kind, "u32"), run


def quotient(a: Any, b: Any) -> Any:
    """Towards zero."""
    safe = np.where(b == 0, 1, b).astype(a.dtype)
    q = a // safe
    return q + ((a % safe != 0) & ((a < 0) != (safe < 0))).astype(a.dtype)


def remainder(a: Any, b: Any) -> Any:
    """With the sign of a."""
    safe = np.where(b == 0, 1, b).astype(a.dtype)
    return a - quotient(a, safe) * safe


def bits_of(a: Any) -> Any:
    """(threads, width), the lowest bit first."""
    contiguous = np.ascontiguousarray(a)
    return np.unpackbits(contiguous.view(np.uint8).reshape(-1, a.dtype.itemsize), axis=1, bitorder="little")


def reversed_bits(a: Any) -> Any:
    """The lowest bit becomes the highest."""
    return np.packbits(bits_of(a)[:, ::-1], axis=1, bitorder="little").view(a.dtype)[:, 0]


def leading_zeros(a: Any) -> Any:
    """As many as the width where there is no bit."""
    bits = bits_of(a)[:, ::-1]
    return np.where(bits.any(axis=1), bits.argmax(axis=1), bits.shape[1]).astype(np.uint32)


def counted(compute: Callable[[Any], Any]) -> Callable[..., Found]:
    """A 32-bit result of an operand of any width."""

    def find(opcode: str, modifiers: tuple[str, ...], kind: str) -> Found:
        unmodified(opcode, modifiers)
        return "u32", (kind,), compute

    return find


def highest_bit(opcode: str, modifiers: tuple[str, ...], kind: str) -> Found:
    """bfind: the place of the highest bit that is no sign, or how far it is from the top; all ones without one."""
    unmodified(opcode, modifiers, "shiftamt")

    def run(a: Any) -> Any:
        bits = np.where(a < 0, ~a, a) if kind[0] == "s" else a
        zeros, width = leading_zeros(bits), width_of(kind)
        return np.where(zeros == width, np.uint32(0xFFFFFFFF), zeros if modifiers else width - 1 - zeros)

    return "u32", (kind,), run


def mask_of(length: Any, dtype: Any) -> Any:
    """So many low bits."""
    bits = dtype.itemsize * 8
    one = dtype.type(1)
    return np.where(length >= bits, ~dtype.type(0), (one << np.minimum(length, bits - 1).astype(dtype)) - one)


def insert_field(a: Any, b: Any, start: Any, length: Any) -> Any:
    """bfi: the low bits of a in place of a field of b."""
    start, length, bits = start & 0xFF, length & 0xFF, a.dtype.itemsize * 8
    within = np.minimum(start, bits - 1).astype(a.dtype)
    mask = mask_of(length, a.dtype) << within
    return np.where(start >= bits, b, (b & ~mask) | (a << within & mask))


def extract_field(a: Any, start: Any, length: Any) -> Any:
    """bfe of unsigned numbers."""
    start, length, bits = start & 0xFF, length & 0xFF, a.dtype.itemsize * 8
    shifted = np.where(start >= bits, a.dtype.type(0), a >> np.minimum(start, bits - 1).astype(a.dtype))
    return shifted & mask_of(length, a.dtype)


def permuted(a: Any, b: Any, selector: Any) -> Any:
    """prmt: four of eight bytes, or copies of their sign."""
    source = a.astype(np.uint64) | b.astype(np.uint64) << np.uint64(32)
    result = np.zeros_like(a)
    for place in range(4):
        choice = selector >> (4 * place) & 15
        byte = (source >> (8 * (choice & 7)).astype(np.uint64) & 0xFF).astype(np.uint32)
        byte = np.where(choice & 8, np.where(byte & 0x80, np.uint32(0xFF), np.uint32(0)), byte)
        result = result | byte << (8 * place)
    return result


def logical(a: Any, b: Any, c: Any, table: Any) -> Any:
    """lop3: any function of three bits, by its table."""
    result = np.zeros_like(a)
    for row in range(8):
        terms = [x if row >> place & 1 else ~x for x, place in ((a, 2), (b, 1), (c, 0))]
        result = result | np.where(table >> row & 1, terms[0] & terms[1] & terms[2], 0)
    return result


def funnel(opcode: str, modifiers: tuple[str, ...], kind: str) -> Found:
    """shf: 32 bits out of 64."""
    unmodified(opcode, modifiers, "l", "r", "wrap", "clamp")
    left, wraps = modifiers[0] == "l", modifiers[1] == "wrap"

    def run(low: Any, high: Any, amount: Any) -> Any:
        both = high.astype(np.uint64) << np.uint64(32) | low
        n = (amount & 31 if wraps else np.minimum(amount, 32)).astype(np.uint64)
        return ((both << n) >> np.uint64(32) if left else both >> n).astype(np.uint32)

    return kind, (kind, kind, "u32"), run


def with_types(result: str, operands: tuple[str, ...], compute: Callable[..., Any]) -> Callable[..., Found]:
    """What has but one form; '' is the type of the instruction."""

    def find(opcode: str, modifiers: tuple[str, ...], kind: str) -> Found:
        unmodified(opcode, modifiers)
        return result or kind, tuple(o or kind for o in operands), compute

    return find


def unsigned_extract(opcode: str, modifiers: tuple[str, ...], kind: str) -> Found:
    """bfe."""
    if kind[0] == "s":
        raise UnknownInstruction(opcode)
    return with_types("", ("", "u32", "u32"), extract_field)(opcode, modifiers, kind)


INTEGER_FUNCTIONS: dict[str, Callable[..., Found]] = {
    "add": plain(np.add), "sub": plain(np.subtract), "min": plain(np.minimum), "max": plain(np.maximum),
    "and": plain(np.bitwise_and), "or": plain(np.bitwise_or), "xor": plain(np.bitwise_xor),
    "not": plain(np.invert, 1), "neg": plain(np.negative, 1), "abs": plain(np.abs, 1),
    "div": plain(quotient), "rem": plain(remainder), "mul": product,
    "mad": lambda o, m, k: product(o, m, k, True),
    "shl": lambda o, m, k: shift(o, m, k, True), "shr": lambda o, m, k: shift(o, m, k, False),
    "popc": counted(lambda a: bits_of(a).sum(axis=1, dtype=np.uint32)), "clz": counted(leading_zeros),
    "brev": plain(reversed_bits, 1), "bfind": highest_bit, "bfe": unsigned_extract,
    "bfi": with_types("", ("", "", "u32", "u32"), insert_field), "prmt": plain(permuted, 3),
    "lop3": with_types("", ("", "", "", "u32"), logical), "shf": funnel,
}  # fmt: skip
