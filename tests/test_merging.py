"""Statistics merge: exact counts in any order, moments that no square of a float64 breaks."""

from __future__ import annotations

import functools
import itertools
import json
import math
import operator

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tensor_truth import COUNTS, SOURCES, assert_matches, normal, random_bits

import gradkern as gk


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


@pytest.mark.parametrize("exponents", list(itertools.permutations([-1050, -20, 1000], 2)))
def test_merge_on_whatever_scale_holds_both(exponents):
    """Bits that cannot be lost: extremes, counts and binades are those of the true values, in either order."""
    parts = [gk.measure(np.array([1.5, -2.0, 0.0]), scale=2.0**k) for k in exponents]
    for a, b in (parts, parts[::-1]):
        if abs(exponents[0] - exponents[1]) > 2000:
            with pytest.raises(
                ValueError, match=r"^add: the first tensor, on scale 2\^.* too far apart: from 2\^-1000 to 2\^"
            ):
                a + b
            continue
        both = a + b
        assert math.frexp(both.amax)[1] + both.exponent == 2 - min(exponents)
        assert both.amin == math.ldexp(1.5, -max(exponents) - both.exponent) and both.size == 6
        assert both.scale in (1.0, 2.0**-both.exponent) and both.exponent in (
            -exponents[0],
            -exponents[1],
            both.exponent,
        )
        assert dict(zip(*map(np.ndarray.tolist, both.binades), strict=True))[-max(exponents)] == 1
        assert both.log2_l2 == pytest.approx(math.log2(2.5) - min(exponents), abs=1e-9)
        again = gk.TensorStats.from_dict(json.loads(json.dumps(both.to_dict())))
        assert again.to_dict() == both.to_dict()


def test_a_scale_between_the_two():
    large, tiny = gk.measure(np.array([1e308, 1e308]), scale=2.0**-20), gk.measure(np.array([5e-324]), scale=2.0**20)
    with pytest.raises(ValueError, match="too far apart"):
        large + tiny
    parts = (
        gk.measure(np.array([1.5 * 2.0**600]), scale=2.0**-250),
        gk.measure(np.array([2.0**-600, 0]), scale=2.0**250),
    )
    for a, b in (parts, parts[::-1]):  # neither's own scale will do: 2^1100 and 2^-1100
        both = a + b
        assert both.exponent not in (a.exponent, b.exponent) and both.scale == 1.0
        assert (math.frexp(both.amax)[1] - 1 + both.exponent, math.log2(both.amin) + both.exponent) == (850, -850)
        assert both.log2_l2 == pytest.approx(850 + math.log2(1.5), abs=1e-12)
        assert (both + gk.measure(np.array([4.0]))).binades[1].sum() == 3
        assert gk.TensorStats.from_dict(json.loads(json.dumps(both.to_dict()))).to_dict() == both.to_dict()


@pytest.mark.parametrize("a, b", list(itertools.permutations([1e300, 1e-300, 1.0, 3e-162, 1.7e308, 5e-324], 2)))
def test_moments_whose_squares_leave_float64(a, b):
    x, y = a * np.array([1.0, -0.5, 0.75]), b * np.array([1.0, 0.5, -0.25, 0.125])
    assert_matches(gk.measure(x) + gk.measure(y), np.concatenate([x, y]))
    again = (gk.measure(x) + gk.measure(y)).to_dict()
    assert again == (gk.measure(x.copy()) + gk.measure(y.copy())).to_dict()


@settings(max_examples=100, deadline=None)
@given(parts=st.lists(st.lists(st.floats(width=64), max_size=6), min_size=2, max_size=5), order=st.randoms())
def test_any_floats_in_any_order(parts, order):
    measured = [gk.measure(np.array(part, np.float64)) for part in parts]
    forward = functools.reduce(operator.add, measured)
    assert_matches(forward, np.array(list(itertools.chain(*parts)), np.float64))
    order.shuffle(measured)
    shuffled = functools.reduce(operator.add, measured)
    for name in {*COUNTS, "first_binade"} - {"first_nonfinite"}:
        assert getattr(shuffled, name) == getattr(forward, name), name
    assert np.array_equal(shuffled.cells, forward.cells)


def test_merge_keeps_what_both_have():
    x = np.ones(3, np.float32)
    assert (gk.measure(x, name="w") + gk.measure(x, name="w")).name == "w"
    assert (gk.measure(x, name="w") + gk.measure(x, name="v")).name is None
    with pytest.raises(ValueError, match=r"^add: w is float32, v is float16: .* only tensors of one format are added"):
        gk.measure(x, name="w") + gk.measure(x.astype(np.float16), name="v")
    total = gk.measure_many({"w": x, "v": x.astype(np.float16), "u": x}).total
    assert (total.size, total.dtype, total.amax) == (9, "mixed", 1.0)
    with pytest.raises(TypeError):
        gk.measure(x) + 1
