"""Floating point as PTX defines it, on arrays, exactly: fused multiply-adds, conversions, minima, NaN.

Sums that do not fit float64 are rounded to odd first, after which a second rounding to a narrower format is correct
(Boldo and Melquiond, "Emulation of FMA and correctly rounded sums", 2008). The few float64 values outside the range in
which error-free transformations hold go through rational numbers.
"""

from __future__ import annotations

import math
from fractions import Fraction
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]
# What the hardware writes: no payload survives, and the sign is not that of any operand.
NAN = {
    "f32": np.array(0x7FFFFFFF, np.uint32).view(np.float32)[()],
    "f64": np.array(0xFFF8000000000000, np.uint64).view(np.float64)[()],
    "f16": np.uint16(0x7FFF),
    "bf16": np.uint16(0x7FFF),
}
# Significand bits, smallest normal exponent, largest finite value, whether there are infinities, bits of the fraction.
NARROW = {
    "f16": (11, -14, 65504.0, True),
    "bf16": (8, -126, float.fromhex("0x1.fep127"), True),
    "tf32": (11, -126, float.fromhex("0x1.ffcp127"), True),
    "e5m2": (3, -14, 57344.0, True),
    "e4m3": (4, -6, 448.0, False),
    "f32": (24, -126, float.fromhex("0x1.fffffep127"), True),
}


def canonical(x: Array, kind: str) -> Array:
    """Every NaN is the hardware's."""
    return np.where(np.isnan(x), NAN[kind], x)


def two_sum(a: Array, b: Array) -> tuple[Array, Array]:
    """A sum and its error."""
    s = a + b
    part = s - a
    return s, (a - (s - part)) + (b - part)


def odd_sum(a: Array, b: Array) -> Array:
    """a + b in float64, rounded to odd: the nearest towards zero, its last bit set where it is not exact."""
    s, error = two_sum(a, b)
    bits = s.view(np.int64)
    inexact = np.isfinite(s) & (error != 0) & (bits & 1 == 0)
    # Away from zero where the error has the sum's sign.
    step = np.where((error > 0) == (s > 0), 1, -1)
    return np.where(inexact, (bits + step), bits).view(np.float64)


def fma_odd(a: Array, b: Array, c: Array) -> Array:
    """a b + c of values whose product float64 holds, rounded to odd."""
    product = a.astype(np.float64) * b.astype(np.float64)
    return odd_sum(product, np.broadcast_to(c.astype(np.float64), product.shape))


def fma_f32(a: Array, b: Array, c: Array, mode: str = "rn") -> Array:
    """float32, rounded once."""
    return to_float(fma_odd(a, b, c), "f32", mode).astype(np.float32)


def split(a: Array) -> tuple[Array, Array]:
    """Veltkamp's: two halves of 26 bits."""
    c = a * 134217729.0
    high = c - (c - a)
    return high, a - high


def fma_f64(a: Array, b: Array, c: Array) -> Array:
    """float64, to nearest even."""
    a, b, c = (np.ascontiguousarray(x, np.float64) for x in np.broadcast_arrays(a, b, c))
    product = a * b
    (ah, al), (bh, bl) = split(a), split(b)
    low = ((ah * bh - product) + ah * bl + al * bh) + al * bl
    s, error = two_sum(c, low)
    t, rest = two_sum(product, s)
    result = t + odd_sum(rest, error)
    exponents = [np.frexp(x)[1] for x in (a, b, product, c)]
    safe = np.isfinite(product) & np.isfinite(c) & (np.abs(exponents[2]) < 900) & (product != 0)
    for e in (exponents[0], exponents[1]):
        safe &= np.abs(e) < 900
    safe &= (np.abs(exponents[3]) < 900) | (c == 0)
    zero = ((a == 0) | (b == 0) | ~np.isfinite(a) | ~np.isfinite(b) | ~np.isfinite(c)) & ~safe
    special = np.where(np.isfinite(a) & np.isfinite(b) & np.isinf(c), c, product + c)  # exact, or not a number anyway
    result = np.where(zero, special, result)
    for i in np.flatnonzero(~safe & ~zero):
        result.flat[i] = fma_of_fractions(float(a.flat[i]), float(b.flat[i]), float(c.flat[i]))
    return canonical(result, "f64")


def fma_of_fractions(a: float, b: float, c: float) -> float:
    """Of finite numbers, a and b not zero."""
    exact = Fraction(a) * Fraction(b) + Fraction(c)
    if exact == 0:
        return a * b + c if c == 0 else 0.0  # -0 only where both are
    try:
        return exact.numerator / exact.denominator  # Python rounds the quotient of integers correctly
    except OverflowError:
        return math.inf if exact > 0 else -math.inf


def to_float(x: Array, kind: str, mode: str = "rn", saturate: bool = False) -> Array:
    """float64 values rounded once to a format, as float64 values; x may have been rounded to odd."""
    p, smallest, largest, has_inf = NARROW[kind]
    exponent = np.where(np.isfinite(x) & (x != 0), np.frexp(x)[1] - 1, 0)
    quantum = np.maximum(exponent, smallest) - p + 1
    scaled = np.ldexp(x, -quantum)
    ties_away = np.copysign(np.floor(np.abs(scaled) + 0.5), scaled) if mode == "rna" else scaled
    integer = {"rn": np.rint, "rz": np.trunc, "rm": np.floor, "rp": np.ceil, "rna": np.rint}[mode](ties_away)
    result = np.copysign(np.ldexp(integer, quantum), x)
    towards_zero = (mode == "rz") | ((mode == "rm") & (x > 0)) | ((mode == "rp") & (x < 0))
    beyond = np.where(towards_zero | saturate, largest, np.inf if has_inf else np.nan)
    result = np.where(np.abs(result) > largest, np.copysign(beyond, x), result)
    infinite = np.copysign(largest if saturate else np.inf if has_inf else np.nan, x)
    return np.where(np.isnan(x), np.nan, np.where(np.isinf(x), infinite, result))


def encode(x: Array, kind: str) -> Array:
    """The bits of values that a format of 16 bits holds."""
    if kind == "f16":
        bits = x.astype(np.float16).view(np.uint16)
    else:
        bits = (x.astype(np.float32).view(np.uint32) >> 16).astype(np.uint16)
    return np.where(np.isnan(x), NAN[kind], bits)


def decode(bits: Array, kind: str) -> Array:
    """The values of bits, as float64."""
    if kind == "f16":
        return bits.astype(np.uint16).view(np.float16).astype(np.float64)
    if kind == "bf16":
        return (bits.astype(np.uint32) << 16).view(np.float32).astype(np.float64)
    fraction_bits, bias = (3, 7) if kind == "e4m3" else (2, 15)
    integer = bits.astype(np.int64)
    field, fraction = (integer & 0x7F) >> fraction_bits, integer & ((1 << fraction_bits) - 1)
    significand = np.where(field == 0, fraction, fraction + (1 << fraction_bits)).astype(np.float64)
    value = np.ldexp(significand, np.maximum(field, 1) - bias - fraction_bits)
    if kind == "e4m3":
        value = np.where(integer & 0x7F == 0x7F, np.nan, value)
    else:
        value = np.where(field == 31, np.where(fraction == 0, np.inf, np.nan), value)
    return np.where(integer & 0x80, -value, value)


def fma_half(a: Array, b: Array, c: Array, kind: str) -> Array:
    """float16 or bfloat16 in bits, rounded once."""
    return encode(to_float(fma_odd(decode(a, kind), decode(b, kind), decode(c, kind)), kind), kind)


def extreme(a: Array, b: Array, least: bool, propagate: bool, kind: str) -> Array:
    """Minimum or maximum: -0 is below +0, a NaN loses unless it propagates."""
    below = (a < b) | ((a == b) & np.signbit(a))
    chosen = np.where(below == least, a, b)
    if propagate:
        return np.where(np.isnan(a) | np.isnan(b), NAN[kind], chosen)
    return canonical(np.where(np.isnan(a), b, np.where(np.isnan(b), a, chosen)), kind)


def to_integer(x: Array, dtype: Any, mode: str) -> Array:
    """Rounded, then clamped to the integers of a type; NaN is 0, of a 64-bit type its most negative pattern."""
    integral = {"rni": np.rint, "rzi": np.trunc, "rmi": np.floor, "rpi": np.ceil}[mode](x.astype(np.float64))
    info = np.iinfo(dtype)
    inside = (integral >= float(info.min)) & (integral < float(info.max) + (info.bits < 64))
    result = np.where(inside, integral, 0).astype(dtype)
    result = np.where(integral < float(info.min), info.min, result)
    result = np.where((integral > 0) & ~inside, info.max, result)
    nan = info.min if info.min else 1 << 63
    return np.where(np.isnan(x), np.array(nan if info.bits == 64 else 0, dtype), result).astype(dtype)
