"""Statistics: against NumPy, mpmath and exact rationals; fit and loss scales against casting for real; merges."""

from __future__ import annotations

import functools
import json
import math
import operator
import pickle
from fractions import Fraction

import ml_dtypes
import numpy as np
import pytest
from conftest import NARROW, SPECS, check_same_as_baseline
from hypothesis import given, settings
from hypothesis import strategies as st

import gradkern as gk

SOURCES = ["float64", "float32", *NARROW]
COUNTS = ("size", "nan", "pos_inf", "neg_inf", "zero", "negative", "subnormal", "first_nonfinite", "amax", "amin")


def reference(x):
    """Every field of a measurement, from exact rationals."""
    x = np.asarray(x)
    smallest_normal = float(ml_dtypes.finfo(x.dtype).smallest_normal)
    with np.errstate(invalid="ignore"):  # signalling NaN
        values = x.astype(np.float64).ravel()
    finite = values[np.isfinite(values)]
    magnitudes = np.abs(finite[finite != 0])
    exact = [Fraction(v) for v in finite.tolist()]
    mean = sum(exact, Fraction(0)) / len(exact) if exact else Fraction(0)
    squares = sum((v * v for v in exact), Fraction(0))
    about = sum(((v - mean) ** 2 for v in exact), Fraction(0))
    bad = np.flatnonzero(~np.isfinite(values))
    return {
        "size": values.size,
        "nan": int(np.isnan(values).sum()),
        "pos_inf": int((values == np.inf).sum()),
        "neg_inf": int((values == -np.inf).sum()),
        "zero": int((values == 0).sum()),
        "negative": int((finite < 0).sum()),
        "subnormal": int((magnitudes < smallest_normal).sum()),
        "first_nonfinite": int(bad[0]) if bad.size else None,
        "amax": float(magnitudes.max(initial=0)),
        "amin": float(magnitudes.min(initial=math.inf)),
        "mean": float(mean),
        "l1": _float(sum(map(abs, exact), Fraction(0))),
        "l2": _sqrt(squares),
        "std": _sqrt(about / len(exact)) if exact else 0.0,
    }


def _float(x: Fraction) -> float:
    try:
        return float(x)
    except OverflowError:
        return math.inf


def _sqrt(x: Fraction) -> float:
    """Correctly rounded enough: of a rational of any size."""
    if x == 0:
        return 0.0
    shift = 2 * ((200 - x.numerator.bit_length() + x.denominator.bit_length()) // 2)
    scaled = x * Fraction(2) ** shift
    return _float(Fraction(math.isqrt(int(scaled))) / Fraction(2) ** (shift // 2))


def assert_matches(stats, x):
    truth = reference(x)
    for name in COUNTS:
        assert getattr(stats, name) == truth[name], name
    for name in ("l1", "l2", "std"):
        assert getattr(stats, name) == pytest.approx(truth[name], rel=1e-12, abs=5e-324), name
    assert abs(stats.mean - truth["mean"]) <= 1e-12 * truth["l1"] / max(1, stats.size) + 5e-324


def random_bits(fmt, size, seed=0):
    dtype = np.dtype(SPECS[fmt].dtype)
    return np.random.default_rng(seed).integers(0, 256, size * dtype.itemsize, dtype=np.uint8).view(dtype)


def normal(fmt, size, seed=0, scale=0.02):
    return (np.random.default_rng(seed).standard_normal(size) * scale).astype(SPECS[fmt].dtype)


@pytest.mark.parametrize("fmt", SOURCES)
@pytest.mark.parametrize("size", [0, 1, 15, 16, 33, 1000, 2047, 2048, 2049, 16385])
def test_every_field_against_exact_rationals(fmt, size, isa):
    x = normal(fmt, size, size)
    assert_matches(gk.measure(x), x)
    x[size // 2 : size // 2 + 3] = [0.0, -0.0, np.nan][: len(x[size // 2 : size // 2 + 3])]
    assert_matches(gk.measure(x), x)


@pytest.mark.parametrize("fmt", SOURCES)
def test_random_bit_patterns(fmt, isa):
    x = random_bits(fmt, 5000)
    assert_matches(gk.measure(x), x)


@pytest.mark.parametrize("fmt", NARROW)
def test_every_bit_pattern(fmt, isa):
    dtype = np.dtype(SPECS[fmt].dtype)
    x = np.arange(2 ** (8 * dtype.itemsize), dtype=f"u{dtype.itemsize}").view(dtype)
    assert_matches(gk.measure(x), x)


@pytest.mark.parametrize("exponent", [1023, 1000, 510, 490, 0, -395, -405, -700, -1050])
def test_norms_where_squares_leave_float64(exponent, isa):
    x = np.ldexp(np.random.default_rng(1).standard_normal(3000), min(exponent, 1020)).clip(-1.7e308, 1.7e308)
    stats = gk.measure(x)
    truth = reference(x)
    assert stats.l2 == pytest.approx(truth["l2"], rel=1e-12, abs=1e-323)
    assert stats.std == pytest.approx(truth["std"], rel=1e-12, abs=1e-323)
    assert gk.measure(np.full(7, 1.7e308)).mean == 1.7e308
    giants = gk.measure(np.repeat([1.7e308, -1.7e308], 4096))
    assert abs(giants.mean) <= 1e-12 * 1.7e308 and giants.std == pytest.approx(1.7e308, rel=1e-12)


@pytest.mark.parametrize("offset", [1.0, 1e3, 1e7, -1e12])
def test_moments_far_from_zero(offset, isa):
    x = offset + np.random.default_rng(2).standard_normal(5000)
    assert_matches(gk.measure(x), x)


def test_constants_have_no_deviation():
    for value in (0.1, 1e-300, 3e300, 5e-324):
        stats = gk.measure(np.full(100_000, value))
        assert (stats.mean, stats.std) == (value, 0.0)


@pytest.mark.slow
def test_hundred_million_elements():
    x = np.random.default_rng(3).standard_normal(10**8, dtype=np.float32)
    stats = gk.measure(x)
    wide = x.reshape(1000, -1).astype(np.longdouble) if np.finfo(np.longdouble).nmant > 60 else x.reshape(1000, -1)
    total = math.fsum(float(row.sum()) for row in wide)
    squares = math.fsum(float((row * row).sum()) for row in wide)
    assert stats.mean == pytest.approx(total / 1e8, rel=1e-12)
    assert stats.l2 == pytest.approx(math.sqrt(squares), rel=1e-12)
    assert stats.std == pytest.approx(math.sqrt(squares / 1e8 - (total / 1e8) ** 2), rel=1e-12)


@pytest.mark.parametrize("fmt, size", [("bfloat16", 2**20), ("float8_e4m3fn", 2**12), ("float8_e5m2", 2**17 + 3)])
def test_large_tensors_of_few_bits(fmt, size, isa):
    """Measured by pattern: exact but for the last bits, and the same in any order."""
    x = random_bits(fmt, size)
    x[::2] = 0
    stats = gk.measure(x)
    wide = gk.cast(x, "float64").values
    values, counts = np.unique(wide[np.isfinite(wide)], return_counts=True)
    exact = [(Fraction(v), int(c)) for v, c in zip(values, counts, strict=True)]
    finite = int(counts.sum())
    mean = sum(v * c for v, c in exact) / finite
    assert stats.mean == pytest.approx(float(mean), rel=1e-15)
    assert stats.l1 == pytest.approx(float(sum(abs(v) * c for v, c in exact)), rel=1e-15)
    assert stats.l2 == pytest.approx(_sqrt(sum(v * v * c for v, c in exact)), rel=1e-15)
    assert stats.std == pytest.approx(_sqrt(sum((v - mean) ** 2 * c for v, c in exact) / finite), rel=1e-15)
    for name in ("nan", "pos_inf", "neg_inf", "zero", "negative", "amax", "amin"):
        assert getattr(stats, name) == getattr(gk.measure(wide), name), name
    assert stats.subnormal == gk.measure(x[: size // 2]).subnormal + gk.measure(x[size // 2 :]).subnormal
    assert stats.first_nonfinite == int(np.flatnonzero(~np.isfinite(wide))[0])
    shuffled = gk.measure(np.random.default_rng(1).permutation(x))
    assert (shuffled.mean, shuffled.std, shuffled.l1, shuffled.l2) == (stats.mean, stats.std, stats.l1, stats.l2)


@pytest.mark.parametrize("fmt", SOURCES)
def test_same_bits_on_every_isa_and_thread_count(fmt, isa, threads):
    x = random_bits(fmt, 100_000, 5)
    y = normal(fmt, 50_000, 6)
    y[::7] = 0
    check_same_as_baseline(("measure", fmt), lambda: json.dumps([gk.measure(x).to_dict(), gk.measure(y).to_dict()]))


# The formats whose every threshold begins a cell; the others may need a bracket within one.
EXACT = {"float16", "tfloat32", "float32", "float64"}


def cast_for_real(x, fmt, k):
    """Overflow, subnormal, flushed, kept of 2**k * x, from exact rationals."""
    spec = SPECS[fmt]
    normal = Fraction(2) ** spec.emin
    quantum = normal / 2 ** (spec.p - 1)
    counts = [0, 0, 0, 0]
    for value in np.asarray(x, np.float64).ravel().tolist():
        if not math.isfinite(value) or value == 0:
            continue
        v = abs(Fraction(value)) * Fraction(2) ** k
        if v > spec.overflow_from or (v == spec.overflow_from and spec.has_inf):
            counts[0] += 1
        elif v <= quantum / 2:
            counts[2] += 1
        elif v < normal - quantum / 2:
            counts[1] += 1
        else:
            counts[3] += 1
    return counts


def assert_fits(x, fmt, k):
    fit = gk.measure(x).fit(fmt, 2.0**k)
    truth = cast_for_real(x, fmt, k)
    for name, count in zip(("overflow", "subnormal", "flushed", "kept"), truth, strict=True):
        bracket = getattr(fit, name)
        assert bracket.low <= count <= bracket.high, (name, fmt, k, fit, truth)
        if name == "flushed" or fmt in EXACT:
            assert bracket.exact, (name, fmt, k, fit)


def edges():
    """Values at, just above and just below every threshold of every format, at any power of two."""
    significands = [
        1.0,
        1.25,
        1.5,
        1.75,
        1.8125,
        1.875,
        2 - 2**-7,
        2 - 2**-8,
        2 - 2**-10,
        2 - 2**-11,
        2 - 2**-23,
        2 - 2**-24,
    ]
    return st.builds(
        lambda s, e, step, sign: sign * math.ldexp(s + step * 2.0**-40, e),
        st.sampled_from(significands), st.integers(-160, 130), st.sampled_from([-1, 0, 0, 1]), st.sampled_from([-1, 1]),
    )  # fmt: skip


@settings(max_examples=150, deadline=None)
@given(
    values=st.lists(
        st.one_of(edges(), st.floats(width=64), st.sampled_from([2.0**-25, 2.0**-24, 65520.0, 464.0])), max_size=60
    ),
    source=st.sampled_from(SOURCES),
    fmt=st.sampled_from(list(SPECS)),
    k=st.integers(-40, 40),
)
def test_fit_brackets_a_real_cast(values, source, fmt, k):
    with np.errstate(all="ignore"):
        x = np.array(values, np.float64).astype(SPECS[source].dtype)
    assert_fits(x, fmt, k)


@pytest.mark.parametrize("fmt", list(SPECS))
@pytest.mark.parametrize("source", SOURCES)
def test_fit_at_every_power_of_two(source, fmt):
    x = np.concatenate([random_bits(source, 40, 7), normal(source, 40, 8)])
    for k in range(-300, 301, 7):
        assert_fits(x, fmt, k)


def test_fit_agrees_with_cast():
    x = normal("float32", 20_000, 9) * np.float32(1e-4)
    for fmt in ("float16", "bfloat16", "float8_e5m2"):
        for k in range(-8, 40, 3):
            report, fit = gk.cast(x, fmt, scale=2.0**k).report, gk.measure(x).fit(fmt, 2.0**k)
            for name in ("overflow", "subnormal", "flushed"):
                assert getattr(fit, name).low <= getattr(report, name) <= getattr(fit, name).high, (fmt, k, name)


@settings(max_examples=100, deadline=None)
@given(
    values=st.lists(st.one_of(edges(), st.sampled_from([2.0**-25, 2.0**-14, 0.0])), min_size=1, max_size=40),
    fmt=st.sampled_from(["float16", "float8_e4m3fn", "float8_e5m2", "bfloat16"]),
    lose=st.sampled_from([0.0, 1e-3, 0.1, 0.5]),
)
def test_window_is_what_casting_at_every_scale_says(values, fmt, lose):
    x = np.array(values)
    window = gk.measure(x).loss_scale_window(fmt, lose)
    nonzero = int((x != 0).sum())
    if not nonzero:
        assert window.exists
        return

    def fits(k):
        overflow, _, flushed, _ = cast_for_real(x, fmt, k)
        return overflow == 0 and flushed <= math.floor(lose * nonzero)

    allowed = [k for k in range(-400, 401) if fits(k)]
    assert window.exists == bool(allowed)
    if allowed:
        assert (window.log2_low, window.log2_high) == (min(allowed), max(allowed))
        assert fits(round(math.log2(window.best)))
    else:
        assert not fits(window.log2_low) and not fits(window.log2_high)
        assert "no loss scale fits" in window.why


def test_scaled_tensors_are_measured_without_their_scale():
    x = normal("float32", 3000, 10)
    plain, scaled = gk.measure(x), gk.measure(x * 1024, scale=1024)
    assert plain.log2_l2 == pytest.approx(scaled.log2_l2, abs=1e-12)
    assert plain.fit("float16", 2.0**-8) == scaled.fit("float16", 2.0**-8)
    assert np.array_equal(plain.binades[0], scaled.binades[0])


def test_variances_merge_as_chan_has_it():
    rng = np.random.default_rng(11)
    x, y = rng.standard_normal(200_000), 5 + rng.standard_normal(200_000)
    both = gk.measure(x) + gk.measure(y)
    assert both.std**2 == pytest.approx(7.25, rel=0.01)
    assert both.std == pytest.approx(np.concatenate([x, y]).std(), rel=1e-13)
    assert both.mean == pytest.approx(np.concatenate([x, y]).mean(), rel=1e-12)


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 2**32),
    cuts=st.lists(st.integers(0, 3000), max_size=4),
    source=st.sampled_from(SOURCES),
    raw=st.booleans(),
)
def test_merged_parts_are_the_whole(seed, cuts, source, raw):
    x = random_bits(source, 3000, seed) if raw else normal(source, 3000, seed)
    parts = [gk.measure(part) for part in np.split(x, sorted(cuts))]
    merged, whole = functools.reduce(operator.add, parts), gk.measure(x)
    for name in COUNTS:
        assert getattr(merged, name) == getattr(whole, name), name
    assert np.array_equal(merged.cells, whole.cells) and merged.first_binade == whole.first_binade
    for name in ("l1", "l2", "std"):
        assert getattr(merged, name) == pytest.approx(getattr(whole, name), rel=1e-12, abs=5e-324), name
    again = functools.reduce(operator.add, [gk.measure(part.copy()) for part in np.split(x, sorted(cuts))])
    assert merged.to_dict() == again.to_dict()
    backwards = functools.reduce(operator.add, parts[::-1])
    for name in set(COUNTS) - {"first_nonfinite"}:
        assert getattr(merged, name) == getattr(backwards, name), name


def test_merge_of_different_loss_scales():
    x = normal("float32", 3000, 12)
    merged = gk.measure(x) + gk.measure(x * 4096, scale=4096)
    assert merged.l2 == pytest.approx(math.sqrt(2) * gk.measure(x).l2, rel=1e-13)
    assert np.array_equal(merged.binades[1], 2 * gk.measure(x).binades[1])
    with pytest.raises(ValueError, match="too far apart"):
        gk.measure(np.array([1e-300]), name="a") + gk.measure(np.array([5e-324]), scale=2.0**10, name="b")


def test_merge_keeps_what_both_have():
    x = np.ones(3, np.float32)
    assert (gk.measure(x, name="w") + gk.measure(x, name="w")).name == "w"
    both = gk.measure(x, name="w") + gk.measure(x.astype(np.float16), name="v")
    assert (both.name, both.dtype) == (None, "mixed")
    with pytest.raises(TypeError):
        gk.measure(x) + 1


@pytest.mark.parametrize("fmt", SOURCES)
def test_json_and_pickle_bring_every_bit_back(fmt):
    for x in (random_bits(fmt, 3000, 13), normal(fmt, 100, 14), np.zeros(0, SPECS[fmt].dtype)):
        stats = gk.measure(x, name="layer.0", scale=2.0**5)
        for again in (
            gk.TensorStats.from_dict(json.loads(json.dumps(stats.to_dict(), allow_nan=False))),
            pickle.loads(pickle.dumps(stats)),
        ):
            assert again.to_dict() == stats.to_dict()
            assert (again + stats).to_dict() == (stats + stats).to_dict()
            assert again.fit("float16") == stats.fit("float16")


def test_from_dict_names_what_is_missing():
    fields = gk.measure(np.ones(3)).to_dict()
    del fields["amax"]
    with pytest.raises(ValueError, match="'amax'"):
        gk.TensorStats.from_dict(fields)
