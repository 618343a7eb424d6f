"""Statistics of one tensor: against exact rationals, on every instruction set and thread count."""

from __future__ import annotations

import json
import math
from fractions import Fraction

import numpy as np
import pytest
from conftest import NARROW, SPECS, check_same_as_baseline
from tensor_truth import SOURCES, assert_matches, normal, random_bits, reference, root

import gradkern as gk


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


@pytest.mark.parametrize("fmt, size", [("float8_e4m3fn", 2**12), ("float8_e5m2", 2**17 + 3)])
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
    assert stats.l2 == pytest.approx(root(sum(v * v * c for v, c in exact)), rel=1e-15)
    assert stats.std == pytest.approx(root(sum((v - mean) ** 2 * c for v, c in exact) / finite), rel=1e-15)
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


@pytest.mark.parametrize("fmt, size", [("float8_e4m3fn", 2**12 + 5), ("float8_e5m2", 2**12 + 5)])
def test_same_bits_where_patterns_are_counted(fmt, size, isa, threads):
    raw, y = random_bits(fmt, size, 15), normal(fmt, size, 16)
    y[::5] = 0
    check_same_as_baseline(("patterns", fmt), lambda: json.dumps([gk.measure(raw).to_dict(), gk.measure(y).to_dict()]))


def test_arrays_of_every_shape_and_kind():
    x = np.random.default_rng(17).standard_normal((6, 8))
    frozen = x.copy()
    frozen.flags.writeable = False
    wanted = gk.measure(np.ascontiguousarray(x[::-2, 1::3])).to_dict()
    for same in (x[::-2, 1::3], x[::-2, 1::3].astype(">f8"), frozen[::-2, 1::3]):
        assert gk.measure(same).to_dict() == wanted
    assert gk.measure(x.T.astype(">f4")).amax == gk.measure(x.astype(np.float32)).amax
    one, none = gk.measure(np.float32(-2.5)), gk.measure(np.zeros((0, 3)))
    assert (one.size, one.amax, one.mean, one.negative, gk.measure(2.5).amax) == (1, 2.5, -2.5, 1, 2.5)
    assert (none.size, none.amax, none.amin, none.mean, none.std) == (0, 0.0, math.inf, 0.0, 0.0)
    assert none.fit("float16").kept == 0 and none.loss_scale_window("float16").exists
    integers = gk.measure(np.array([0, -3, 4]))
    assert (integers.dtype, integers.zero, integers.l2) == ("float64", 1, 5.0)
    for wrong, message in (
        (x > 0, "got bool"),
        (x + 1j, "got complex128"),
        ("ab", "not an array"),
        (None, "not an array"),
    ):
        with pytest.raises(TypeError, match=f"^measure: x: .*{message}"):
            gk.measure(wrong)


def test_the_text_says_what_matters():
    x = np.array([1024.0, -2.0, 0.0, math.nan, math.inf])
    text = repr(gk.measure(x, name="<w>", scale=1024))
    assert text.splitlines() == [
        "TensorStats <w>: 5 entries, float64, times a loss scale of 1024",
        "  |x| 2 to 1024, mean 340.7, std 483.2, l2 1024",
        "  zero 1, negative 1, NaN 1, inf 1, first NaN or inf at 3",
    ]
    assert "&lt;w&gt;" in gk.measure(x, name="<w>")._repr_html_()
    assert repr(gk.measure(np.zeros(0))) == "TensorStats: 0 entries, float64"
    assert repr(gk.measure(2.0)).startswith("TensorStats: 1 entry, float64")
