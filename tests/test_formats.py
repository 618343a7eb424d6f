"""Decode and encode of every format against ml_dtypes, NumPy and exact integer arithmetic."""

from __future__ import annotations

import math
from fractions import Fraction

import ml_dtypes
import numpy as np
import pytest
from conftest import (
    INF,
    NARROW,
    SPECS,
    adversarial,
    all_patterns,
    assert_same,
    assert_same_values,
    bits,
    round_array,
    round_exactly,
    widened,
)

import gradkern as gk

FORMATS = list(SPECS)


def stored(x, fmt, **options):
    return gk.cast(np.asarray(x), fmt, **options).values


def by_other_libraries(x32, fmt):
    """float32 values cast by NumPy, ml_dtypes, or for tfloat32 integer arithmetic on the float32 bits."""
    if fmt == "tfloat32":
        b = x32.view(np.uint32)
        low = (b + np.uint32(0xFFF) + ((b >> np.uint32(13)) & np.uint32(1))) & np.uint32(0xFFFFE000)
        quiet = (b & np.uint32(0x80000000)) | np.uint32(0x7FC00000)
        return np.where(np.isnan(x32), quiet, np.where(np.isinf(x32), b, low)).astype(np.uint32).view(np.float32)
    with np.errstate(all="ignore"):
        return x32.astype(SPECS[fmt].dtype)


@pytest.mark.parametrize("fmt", NARROW)
def test_decode_every_pattern(fmt, isa):
    patterns = all_patterns(fmt)
    assert_same(stored(patterns, "float64"), widened(patterns), fmt)


@pytest.mark.parametrize("fmt", NARROW)
@pytest.mark.parametrize("wide", ["same", "float32", "float64"])
def test_every_pattern_survives_the_round_trip(fmt, wide):
    patterns = all_patterns(fmt)
    assert_same(stored(stored(patterns, fmt if wide == "same" else wide), fmt), patterns, fmt)


@pytest.mark.parametrize("fmt", FORMATS)
@pytest.mark.parametrize("source", ["float16", "bfloat16"])
def test_encode_16_bit_patterns_and_neighbours(fmt, source, isa):
    x = all_patterns(source).astype(np.float32)
    with np.errstate(invalid="ignore"):
        up, down = np.nextafter(x, np.float32(np.inf)), np.nextafter(x, np.float32(-np.inf))
    for values in (x, up, down):
        assert_same(stored(values, fmt), by_other_libraries(values, fmt), fmt)
    assert_same(stored(all_patterns(source), fmt), by_other_libraries(x, fmt), "straight from 16 bits")
    wide = widened(x)
    for target in (np.inf, -np.inf):
        values = np.nextafter(wide, target)
        assert_same_values(stored(values, fmt), round_array(values, fmt), fmt)


@pytest.mark.parametrize("fmt", NARROW)
@pytest.mark.parametrize("sign", [1, -1])
def test_midpoints_tie_to_even_and_their_neighbours_do_not(fmt, sign):
    positive = widened(all_patterns(fmt))
    positive = positive[: len(positive) // 2]
    values = positive[np.isfinite(positive)]
    middle = (values[:-1] + values[1:]) / 2  # exact: at most p + 1 bits
    assert np.all((middle > values[:-1]) & (middle < values[1:]))
    even = np.where(np.arange(len(middle)) % 2 == 0, values[:-1], values[1:])
    assert_same_values(stored(sign * middle, fmt), sign * even)
    assert_same_values(stored(sign * np.nextafter(middle, 0), fmt), sign * values[:-1])
    assert_same_values(stored(sign * np.nextafter(middle, INF), fmt), sign * values[1:])
    assert_same_values(stored(sign * np.nextafter(values[1:], 0), fmt, rounding="toward_zero"), sign * values[:-1])


@pytest.mark.parametrize("fmt", FORMATS)
def test_sampled_float32_sweep(fmt, isa):
    x = np.arange(0, 2**32, 4093, dtype=np.uint64).astype(np.uint32).view(np.float32)
    assert_same(stored(x, fmt), by_other_libraries(x, fmt), fmt)
    assert_same_values(round_array(x, fmt), widened(by_other_libraries(x, fmt)), "the model used elsewhere")


@pytest.mark.slow
@pytest.mark.parametrize("fmt", FORMATS)
def test_every_float32(fmt):
    for start in range(0, 2**32, 2**24):
        x = np.arange(start, start + 2**24, dtype=np.uint64).astype(np.uint32).view(np.float32)
        assert_same(stored(x, fmt), by_other_libraries(x, fmt), f"{fmt} from {start:#x}")


@pytest.mark.parametrize("fmt", NARROW)
def test_float64_rounds_once(fmt):
    """A tie of the narrow format plus less than float32 can see: through float32 it falls back on the tie."""
    values = widened(all_patterns(fmt))
    values = values[np.isfinite(values) & (values > 0)]
    middle = (values[:-1] + values[1:]) / 2
    goes_down = middle[1::2]  # values[0] is the pattern 1, so from values[1] ties go down to it
    x = goes_down * (1 + 2.0**-40)
    want = values[2::2][: len(x)]
    got = stored(x, fmt).astype(np.float64)
    twice = round_array(x.astype(np.float32).astype(np.float64), fmt)
    assert np.any(twice != want), "the test must be able to fail"
    assert_same_values(got, want)


@pytest.mark.parametrize("fmt", ["float32", "float16"])
def test_float64_source_against_numpy(fmt):
    """NumPy rounds float64 to float32 and float16 once."""
    rng = np.random.default_rng(1)
    x = np.concatenate([adversarial(fmt), rng.standard_normal(20000) * 2.0 ** rng.integers(-160, 135, 20000)])
    with np.errstate(all="ignore"):
        assert_same(stored(x, fmt), x.astype(fmt))


@pytest.mark.parametrize("fmt", FORMATS)
@pytest.mark.parametrize("rounding", ["nearest_even", "toward_zero"])
@pytest.mark.parametrize("overflow", ["ieee", "saturate"])
@pytest.mark.parametrize("subnormals", ["keep", "flush"])
def test_modes_against_integer_arithmetic(fmt, rounding, overflow, subnormals):
    mode = {"rounding": rounding, "overflow": overflow, "subnormals": subnormals}
    rng = np.random.default_rng(2)
    spec = SPECS[fmt]
    low = math.frexp(float(Fraction(2) ** spec.emin))[1] - spec.p - 4
    spread = rng.standard_normal(1500) * 2.0 ** rng.uniform(max(low, -1060), math.frexp(spec.max)[1], 1500)
    x = np.concatenate([adversarial(fmt), spread])
    want = [round_exactly(v, fmt, **mode) for v in x.tolist()]
    assert_same_values(stored(x, fmt, **mode).astype(np.float64), want, f"{fmt} {mode}")


@pytest.mark.parametrize("fmt", FORMATS)
def test_toward_zero_never_grows(fmt):
    x = adversarial(fmt)
    x = x[np.isfinite(x)]
    for value, got in zip(x.tolist(), stored(x, fmt, rounding="toward_zero").astype(np.float64).tolist(), strict=True):
        assert math.isfinite(got) and abs(Fraction(got)) <= abs(Fraction(value))


def neighbours(value, fmt):
    down = round_exactly(value, fmt, rounding="toward_zero")
    p, emin = SPECS[fmt].p, SPECS[fmt].emin
    exponent = max(math.frexp(value)[1] - 1, emin)
    return down, down + math.copysign(math.ldexp(1.0, exponent - p + 1), value)


@pytest.mark.parametrize("fmt", [f for f in FORMATS if f != "float64"])
def test_stochastic_is_unbiased_and_stays_between_neighbours(fmt):
    spec, n = SPECS[fmt], 100_000
    tiny = float(Fraction(2) ** (spec.emin - spec.p + 1))
    for index, value in enumerate([1.1, -1 / 3, 100.7, tiny * 0.25, -tiny * 2.6, tiny / 64, 2.0**spec.emin * 1.999]):
        got = stored(np.full(n, value), fmt, rounding="stochastic", seed=index).astype(np.float64)
        low, high = neighbours(value, fmt)
        assert set(np.unique(got)) <= {low, high}
        p_up = float((Fraction(value) - Fraction(low)) / (Fraction(high) - Fraction(low)))
        sigma = math.sqrt(n * p_up * (1 - p_up))
        assert abs(np.count_nonzero(got == high) - n * p_up) <= 5 * sigma, (fmt, value, p_up)


def test_stochastic_is_reproducible_and_depends_on_seed_and_place(threads, isa):
    x = np.full(4096, 1 + 2.0**-12)
    first = stored(x, "float16", rounding="stochastic", seed=5)
    assert_same(stored(x, "float16", rounding="stochastic", seed=5), first)
    others = [stored(x, "float16", rounding="stochastic", seed=s) for s in (6, 7, 2**63)]
    for other in others:
        differ = np.count_nonzero(bits(other) != bits(first))
        assert 1200 < differ < 1900  # 2 p (1 - p) = 3/8 of 4096, 11 sigma
    up = np.flatnonzero(first.astype(np.float64) > 1)
    assert 850 < len(up) < 1200 and len(np.unique(np.diff(up))) > 5


def test_stochastic_keeps_what_is_exact():
    for fmt in NARROW:
        patterns = all_patterns(fmt)
        assert_same(stored(patterns, fmt, rounding="stochastic", seed=3), patterns)
    got = stored(np.full(1000, 65519.0), "float16", rounding="stochastic", seed=1)
    assert set(got.tolist()) == {65504.0, INF}
    got = stored(np.full(1000, 65519.0), "float16", rounding="stochastic", overflow="saturate", seed=1)
    assert set(got.tolist()) == {65504.0}


@pytest.mark.parametrize("fmt", FORMATS)
def test_overflow_and_flush_tables(fmt):
    spec = SPECS[fmt]
    beyond = INF if spec.has_inf else math.nan
    if fmt != "float64":
        edge = float(spec.overflow_from)
        first_over = edge if spec.has_inf else math.nextafter(edge, INF)
        last_in = math.nextafter(edge, 0) if spec.has_inf else edge
        x = np.array([last_in, first_over, -first_over, 1e300])
        assert_same_values(stored(x, fmt), [spec.max, beyond, -beyond, beyond])
        assert_same_values(stored(x, fmt, overflow="saturate"), [spec.max, spec.max, -spec.max, spec.max])
    infinities = [INF, -INF] if spec.has_inf else [math.nan, math.nan]
    for overflow in ("ieee", "saturate"):
        assert_same_values(stored([INF, -INF], fmt, overflow=overflow), infinities)
        assert np.all(np.isnan(stored([math.nan], fmt, overflow=overflow).astype(np.float64)))
    smallest = float(Fraction(2) ** spec.emin)
    below = smallest * (1 - 2.0 ** (1 - spec.p))
    got = stored([smallest, below, -below, -smallest], fmt, subnormals="flush")
    assert_same_values(got, [smallest, 0.0, -0.0, -smallest])
    assert_same_values(stored([below], fmt), [below])


TABLE = """
float64       53 1.797e308 -1022 -1074 -1075
float32       24 3.403e38   -126  -149  -150
tfloat32      11 3.401e38   -126  -136  -137
bfloat16       8 3.390e38   -126  -133  -134
float16       11 65504       -14   -24   -25
float8_e5m2    3 57344       -14   -16   -17
float8_e4m3fn  4 448          -6    -9   -10
"""
OVERFLOWS_AT = {
    "float64": INF, "float32": 2.0**128 - 2.0**103, "tfloat32": 3.4020e38, "bfloat16": 3.3962e38, "float16": 65520.0,
    "float8_e5m2": 61440.0, "float8_e4m3fn": 464.0,
}  # fmt: skip
BITS = {
    "float64": 64,
    "float32": 32,
    "tfloat32": 19,
    "bfloat16": 16,
    "float16": 16,
    "float8_e5m2": 8,
    "float8_e4m3fn": 8,
}


@pytest.mark.parametrize("line", TABLE.split("\n")[1:-1])
def test_finfo_is_section_4(line):
    name, p, largest, normal, subnormal, zero = line.split()
    info = gk.finfo(name)
    assert (info.name, info.bits, info.significand_bits) == (name, BITS[name], int(p))
    assert info.max == SPECS[name].max and info.max == pytest.approx(float(largest), rel=1e-3)
    assert info.smallest_normal == 2.0 ** int(normal)
    assert info.smallest_subnormal == math.ldexp(1, int(subnormal))
    assert info.zero_threshold == math.ldexp(1, int(zero))
    assert info.epsilon == 2.0 ** (1 - int(p))
    assert info.overflow_threshold == pytest.approx(OVERFLOWS_AT[name], rel=5e-5)
    if name != "float64":
        assert info.overflow_threshold == float(SPECS[name].overflow_from)
        assert info.overflows(info.overflow_threshold) is SPECS[name].has_inf
        assert info.overflows(math.nextafter(info.overflow_threshold, INF))
        assert not info.overflows(math.nextafter(info.overflow_threshold, 0))
    assert info.has_inf is (name != "float8_e4m3fn")
    assert info.dtype == np.dtype(SPECS[name].dtype)


def test_finfo_agrees_with_ml_dtypes():
    for name in NARROW:
        truth, info = ml_dtypes.finfo(SPECS[name].dtype), gk.finfo(name)
        assert float(truth.max) == info.max and float(truth.smallest_normal) == info.smallest_normal
        assert float(truth.smallest_subnormal) == info.smallest_subnormal and float(truth.eps) == info.epsilon


def test_finfo_aliases():
    torch = pytest.importorskip("torch")
    same = {
        "float16": ["fp16", "half", "f16", np.float16, np.dtype("float16"), torch.float16, torch.half],
        "bfloat16": ["bf16", ml_dtypes.bfloat16, torch.bfloat16],
        "float32": ["fp32", "single", np.float32, torch.float32, ">f4"],
        "float64": ["double", float, np.float64, torch.double],
        "float8_e4m3fn": ["e4m3", "e4m3fn", ml_dtypes.float8_e4m3fn, torch.float8_e4m3fn],
        "float8_e5m2": ["e5m2", ml_dtypes.float8_e5m2, torch.float8_e5m2],
        "tfloat32": ["tf32"],
    }
    for name, aliases in same.items():
        for alias in [*aliases, name, gk.finfo(name)]:
            if alias != ">f4":
                assert gk.finfo(alias).name == name, alias
    assert sorted(gk.formats()) == sorted(FORMATS)


@pytest.mark.parametrize("bad", ["float128", "", "fp4", int, np.int32, "float16 ", 3, np.complex64, object()])
def test_finfo_refuses(bad):
    with pytest.raises(ValueError, match="must be one of float64, float32"):
        gk.finfo(bad)


@pytest.mark.parametrize(
    "name", ["float8_e4m3", "float8_e4m3fnuz", "float8_e5m2fnuz", "float8_e4m3b11fnuz", "float8_e3m4"]
)
def test_other_float8_formats_are_refused_not_guessed(name):
    """ml_dtypes.float8_e4m3 has infinities and ends at 240; it is not float8_e4m3fn, which has none and ends at 448."""
    dtype = getattr(ml_dtypes, name)
    with pytest.raises(ValueError):
        gk.finfo(dtype)
    with pytest.raises((TypeError, ValueError)):
        gk.cast(np.ones(2, dtype), "float32")
