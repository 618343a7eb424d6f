"""Distances in ulps, against integers of NumPy's and ml_dtypes' own encodings and exact rationals."""

from __future__ import annotations

import math
from fractions import Fraction

import numpy as np
import pytest

from gradkern import finfo, ulp

ONE_FORMAT = ("float64", "float32", "float16", "bfloat16", "float8_e4m3fn", "float8_e5m2")


def finite_values(fmt: str) -> np.ndarray:
    """All finite values of a narrow format in ascending order, both zeros as one."""
    dtype = finfo(fmt).dtype
    unsigned = np.dtype(f"u{dtype.itemsize}")
    every = np.arange(2 ** (8 * dtype.itemsize), dtype=np.uint32).astype(unsigned).view(dtype)
    with np.errstate(invalid="ignore"):  # of signalling NaN
        wide = every.astype(np.float64)
    return np.unique(wide[np.isfinite(wide)]).astype(dtype)  # -0 == +0


@pytest.mark.parametrize("fmt", ["float16", "bfloat16", "float8_e4m3fn", "float8_e5m2"])
def test_steps_are_places_in_the_list_of_all_values(fmt):
    values = finite_values(fmt)
    rng = np.random.default_rng(0)
    i, j = rng.integers(0, len(values), (2, 5000))
    assert (ulp.steps_apart(values[i], values[j]) == np.abs(i - j)).all()
    assert (ulp.steps_apart(values[1:], values[:-1]) == 1).all()


@pytest.mark.parametrize("fmt", ["float64", "float32"])
def test_steps_of_wide_formats_are_those_of_nextafter(fmt):
    dtype = finfo(fmt).dtype
    start = np.array([0.0, 1.0, -1.0, 2.0, 1e-310, finfo(fmt).smallest_normal, -3.5], dtype)
    moved = start.copy()
    for count in range(1, 6):
        moved = np.nextafter(moved, dtype.type(np.inf))
        assert (ulp.steps_apart(start, moved) == count).all()


def test_zeros_are_one_and_the_whole_range_does_not_wrap():
    zeros = np.array([0.0, -0.0]), np.array([-0.0, 0.0])
    assert (ulp.steps_apart(*zeros) == 0).all()
    largest = np.array([np.finfo(np.float64).max])
    finite_positive = 2047 * 2**52 - 1
    assert ulp.steps_apart(largest, -largest)[0] == float(2 * finite_positive)


def exact_distance(reference: float, other: float, formats) -> Fraction:
    e = math.frexp(reference)[1] - 1 if reference else -(10**6)
    quantum = max(Fraction(2) ** (max(e, f.min_exponent) - f.significand_bits + 1) for f in formats)
    return abs(Fraction(other) - Fraction(reference)) / quantum


@pytest.mark.parametrize("other", ONE_FORMAT[1:])
@pytest.mark.parametrize("reference", ["float64", "float16"])
def test_distances_of_two_formats_are_exact_rationals(reference, other):
    formats = finfo(reference), finfo(other)
    rng = np.random.default_rng(1)
    wide = np.concatenate([[0.0, 1.0, 2.0, -1.5], rng.standard_normal(200) * 2.0 ** rng.integers(-30, 8, 200)])
    a = wide.astype(formats[0].dtype).astype(np.float64)
    b = (
        (wide * (1 + 0.01 * rng.standard_normal(len(wide))))
        .astype(np.float32)
        .astype(formats[1].dtype)
        .astype(np.float64)
    )
    both = np.isfinite(a) & np.isfinite(b)
    found = ulp.quanta_apart(a[both], b[both], formats)
    for x, y, distance in zip(a[both], b[both], found, strict=True):
        expected = exact_distance(x, y, formats)
        assert abs(Fraction(distance) - expected) <= expected * Fraction(1, 2**52)  # one subtraction in float64


@pytest.mark.parametrize("fmt", ONE_FORMAT[1:])
def test_one_rounding_is_at_most_half_an_ulp(fmt):
    values = np.random.default_rng(2).standard_normal(1000)
    rounded = values.astype(np.float32).astype(finfo(fmt).dtype) if fmt != "float32" else values.astype(np.float32)
    given = values.astype(np.float32).astype(np.float64) if fmt != "float32" else values
    distance = ulp.quanta_apart(given, rounded.astype(np.float64), (finfo("float64"), finfo(fmt)))
    assert 0.4 < distance.max() <= 0.5


def test_histogram_and_its_edges():
    distances = np.array([0, 0, 1e-300, 0.5, 0.51, 1, 1.5, 2, 3, 4, 5, 8, 1025.0])
    counts = ulp.by_power_of_two(distances)
    assert counts == [2, 2, 2, 2, 2, 2, 0, 0, 0, 0, 0, 0, 0, 1]
    edges = ulp.upper_edges(len(counts))
    assert list(edges[:6]) == [0, 0.5, 1, 2, 4, 8] and edges[-1] == 2048
    assert ulp.by_power_of_two(np.array([])) == []
    infinite = ulp.by_power_of_two(np.array([np.inf]))
    assert infinite[-1] == 1 and sum(infinite) == 1 and ulp.upper_edges(len(infinite))[-1] == np.inf
    assert ulp.upper_edges(len(infinite))[-2] < np.inf


def test_quantiles_are_those_of_the_inverse_distribution_function():
    distances = np.random.default_rng(3).exponential(size=997)
    shares = (0.5, 0.9, 0.99, 1.0)
    expected = np.quantile(distances, shares, method="inverted_cdf")
    assert ulp.quantiles(distances, shares) == list(expected)
    assert all(math.isnan(q) for q in ulp.quantiles(np.array([]), shares))
