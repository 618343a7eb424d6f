"""Fits and loss scales: against casting for real, at every scale; brackets no wider than they must be."""

from __future__ import annotations

import itertools
import math
from fractions import Fraction

import numpy as np
import pytest
from conftest import SPECS
from hypothesis import given, settings
from hypothesis import strategies as st
from tensor_truth import SOURCES, cast_for_real, edges, normal, random_bits

import gradkern as gk

# The formats whose every threshold begins a cell; the others may need a bracket within one.
EXACT = {"float16", "tfloat32", "float32"}


def assert_fits(x, fmt, k):
    fit = gk.measure(x).fit(fmt, 2.0**k)
    truth = cast_for_real(x, fmt, k)
    for name, count in zip(("overflow", "subnormal", "flushed", "kept"), truth, strict=True):
        bracket = getattr(fit, name)
        assert bracket.low <= count <= bracket.high, (name, fmt, k, fit, truth)
        if name == "flushed" or fmt in EXACT:
            assert bracket.exact, (name, fmt, k, fit)


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


def near(fmt, draw):
    """A scale that brings magnitudes around 1 to a threshold of the format, as far as float64 has one."""
    info = gk.finfo(fmt)
    return min(
        max(draw(st.sampled_from([info.max_exponent, info.min_exponent - 1, info.min_quantum - 1])), -1070), 1020
    )


@st.composite
def near_thresholds(draw):
    """Values of few binades, ties included, a format, and a scale that brings them to one of its thresholds."""
    fmt = draw(st.sampled_from(list(SPECS)))
    significand = st.one_of(
        st.sampled_from(
            [1.0, 1.75, 1.8125, 1.875, 2 - 2**-7, 2 - 2**-8, 2 - 2**-10, 2 - 2**-11, 2 - 2**-23, 2 - 2**-24]
        ),
        st.floats(1, 2 - 2**-52),
    )
    step = st.sampled_from([-(2.0**-50), 0.0, 0.0, 2.0**-50])
    value = st.builds(lambda s, d, e: math.ldexp(max(s + d, 1.0), e), significand, step, st.integers(-2, 2))
    values = draw(st.lists(value, min_size=1, max_size=12))
    return np.array(values), fmt, near(fmt, draw) + draw(st.integers(-2, 2))


def in_cell_of(x, threshold):
    """Which magnitudes share a cell with a threshold that lies inside it, and the ends of the cell."""
    exponent = 0
    while Fraction(2) ** (exponent + 1) <= threshold:
        exponent += 1
    while Fraction(2) ** exponent > threshold:
        exponent -= 1
    unit = Fraction(2) ** exponent
    edges = [unit * Fraction(e) for e in (1, 2 - 2**-10, 2 - 2**-11, 2 - 2**-23, 2 - 2**-24, 2)]
    for low, high in itertools.pairwise(edges):
        if low < threshold < high:
            held = np.array([low <= Fraction(v) < high and Fraction(v) != unit for v in x.tolist()])
            return (held, float(low), float(high)) if held.any() else (held, 0.0, 0.0)
    return np.zeros(len(x), bool), 0.0, 0.0


def moved(x, threshold, up):
    """The same statistics with as many as can be on one side of a threshold: only the extremes must stay."""
    held, low, high = in_cell_of(x, threshold)
    free = held.copy()
    for extreme in (int(x.argmax()), int(x.argmin())):
        free[extreme] = False
    y = x.copy()
    if up:
        y[free] = x.max() if held[x.argmax()] else math.nextafter(high, 0.0)
    else:
        y[free] = x.min() if held[x.argmin()] else math.nextafter(low, math.inf)
    return y


@settings(max_examples=300, deadline=None)
@given(near_thresholds())
def test_both_ends_of_a_bracket_are_reached(case):
    """So none can be narrower: other tensors of the very same statistics lose as many as each end says."""
    x, fmt, k = case
    spec, stats = SPECS[fmt], gk.measure(x)
    fit = stats.fit(fmt, 2.0**k)
    normal_from = (Fraction(2) ** spec.emin - Fraction(2) ** (spec.emin - spec.p)) / Fraction(2) ** k
    overflow_from = spec.overflow_from / Fraction(2) ** k
    found = {}
    for over, over_up in (("fewest", False), ("most", True)):
        for norm, norm_up in (("fewest", False), ("most", True)):
            y = moved(moved(x, overflow_from, over_up), normal_from, norm_up)
            same = gk.measure(y)
            assert np.array_equal(same.cells, stats.cells) and (same.amin, same.amax) == (stats.amin, stats.amax)
            found[over, norm] = cast_for_real(y, fmt, k)
    for index, name in enumerate(("overflow", "subnormal", "flushed", "kept")):
        counts = [counts[index] for counts in found.values()]
        assert (min(counts), max(counts)) == (getattr(fit, name).low, getattr(fit, name).high), (name, fit)
    truth = cast_for_real(x, fmt, k)
    for index, (name, threshold) in enumerate((("overflow", overflow_from), ("subnormal", normal_from))):
        bracket = getattr(fit, name)
        assert bracket.low <= truth[index] <= bracket.high
        assert bracket.high - bracket.low <= max(0, in_cell_of(x, threshold)[0].sum())


@pytest.mark.parametrize("fmt", [fmt for fmt in SPECS if fmt != "float64"])
def test_extremes_at_a_threshold_decide(fmt):
    """Entries on the very threshold, and next to it: counted exactly wherever an extreme says on which side all lie."""
    spec = SPECS[fmt]
    thresholds = float(spec.overflow_from), float(Fraction(2) ** spec.emin - Fraction(2) ** (spec.emin - spec.p))
    for t in (*thresholds, math.ldexp(1.0, spec.emin - spec.p)):
        below, above = math.nextafter(t, 0.0), math.nextafter(t, math.inf)
        for x in ([t], [below], [above], [t, above], [t, t], [below, t], [below, above], [below, below]):
            fit, truth = gk.measure(np.array(x)).fit(fmt), cast_for_real(x, fmt, 0)
            assert [fit.overflow, fit.subnormal, fit.flushed, fit.kept] == truth, x


@pytest.mark.parametrize("fmt", list(SPECS))
def test_every_scale_against_cast(fmt):
    rng = np.random.default_rng(3)
    x = np.concatenate(
        [rng.standard_normal(40), 2.0 ** rng.integers(-30, 30, 20), [2.0**-25, 3 * 2.0**-26, 65520, 464]]
    )
    stats = gk.measure(x)
    for k in range(-1022, 1024):
        report, fit = gk.cast(x, fmt, scale=2.0**k).report, stats.fit(fmt, 2.0**k)
        everything = fit.flushed + fit.subnormal + fit.kept + fit.overflow
        assert fit.flushed == report.flushed and everything.low <= x.size <= everything.high
        for name in ("overflow", "subnormal"):
            bracket, count = getattr(fit, name), getattr(report, name)
            assert bracket == count if fmt in EXACT else bracket.low <= count <= bracket.high, (k, name)


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


@pytest.mark.parametrize("fmt", ["float16", "bfloat16", "float8_e4m3fn", "float8_e5m2"])
@pytest.mark.parametrize("log2_scale", [-9, 0, 10])
def test_scaled_tensors_against_casting_the_true_values(fmt, log2_scale):
    true = normal("float64", 2000, 10) * 2.0 ** np.random.default_rng(4).integers(-30, 20, 2000)
    given_ = true * 2.0**log2_scale
    stats = gk.measure(given_, scale=2.0**log2_scale)
    assert (stats.amax, stats.scale) == (np.abs(given_).max(), 2.0**log2_scale)  # in the units of the tensor
    assert stats.log2_amax == pytest.approx(math.log2(np.abs(true).max()), abs=1e-12)  # of true values, by its name
    assert stats.log2_l2 == pytest.approx(gk.measure(true).log2_l2, abs=1e-12)
    assert np.array_equal(stats.binades[0], gk.measure(true).binades[0])
    for k in (-8, 0, 7, 15):
        assert stats.fit(fmt, 2.0**k) == gk.measure(true).fit(fmt, 2.0**k)
        report, fit = gk.cast(true, fmt, scale=2.0**k).report, stats.fit(fmt, 2.0**k)
        assert fit.flushed == report.flushed and fit.overflow.low <= report.overflow <= fit.overflow.high
    assert stats.fit(fmt, stats.scale).flushed == gk.cast(given_, fmt).report.flushed
    window = stats.loss_scale_window(fmt, 0.1)
    assert window.log2_high == gk.measure(true).loss_scale_window(fmt, 0.1).log2_high
    assert gk.cast(true, fmt, scale=window.high).report.overflow == 0
    assert gk.cast(true, fmt, scale=2 * window.high).report.overflow > 0
    low = window.log2_low
    assert (
        gk.cast(true, fmt, scale=2.0**low).report.flushed
        <= 200
        < gk.cast(true, fmt, scale=2.0 ** (low - 1)).report.flushed
    )


def test_where_every_entry_may_flush_no_scale_is_too_small():
    x = normal("float32", 500, 11)
    stats = gk.measure(x, name="w")
    assert stats.smallest_scale("float16", 1.0) is None and stats.smallest_scale("float16", 0.999) is not None
    window = stats.loss_scale_window("float16", 1.0)
    assert window.exists and (window.low, window.log2_low, window.headroom_bits) == (None, None, None)
    assert window.high == stats.loss_scale_window("float16").high and window.best == 1.0
    assert gk.cast(x, "float16", scale=window.high).report.overflow == 0
    assert window.why == f"every entry may flush, w overflows above 2^{window.log2_high}"
    table = gk.measure_many({"small": x, "large": x * 2.0**30, "zero": np.zeros(3)})
    joint = table.loss_scale_window("float16", 1.0)
    assert joint.exists and joint.low is None and joint.high == table["large"].loss_scale_window("float16").high
    assert joint.best == 2.0 ** (joint.log2_high - 2)  # below 1, with headroom
    assert not table.loss_scale_window("float8_e4m3fn", 0.0).exists
    assert gk.measure(np.zeros(3)).loss_scale_window("float16", 1.0).high is None
    report = gk.probe(gk.MLP.random(depth=2, width=4, activation="tanh"), np.ones((2, 4)))
    assert report.loss_scale_window(lose=1.0).low is None and report.loss_scale_window(lose=1.0).high is not None


@pytest.mark.parametrize(
    ("value", "fmt"), [(1.7e308, "float64"), (1.7e308, "bfloat16"), (1.7e308, "float16"), (1e305, "float64")]
)
def test_a_window_whose_middle_is_beyond_float64(value, fmt):
    stats = gk.measure(np.array([value]))
    found = stats.loss_scale_window(fmt)
    assert found.exists and found.best >= 2.0**-1022 and found.log2_low <= math.log2(found.best) <= found.log2_high
    assert stats.fit(fmt, scale=found.best).kept == 1
    assert gk.cast(np.array([value]), fmt, scale=found.best).report.overflow == 0
