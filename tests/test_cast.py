"""`cast`: its report recomputed from the definitions, every kind of array, every error."""

from __future__ import annotations

import math
from fractions import Fraction

import ml_dtypes
import numpy as np
import pytest
from conftest import (
    INF,
    NAN,
    NARROW,
    SPECS,
    adversarial,
    assert_same,
    assert_same_values,
    check_same_as_baseline,
    round_array,
    round_exactly,
    round_integer,
    split,
)
from hypothesis import example, given, settings
from hypothesis import strategies as st

import gradkern as gk

COUNTS = ("exact", "inexact", "overflow", "subnormal", "flushed", "nan", "inf")
ROUNDINGS, OVERFLOWS, SUBNORMALS = ("nearest_even", "toward_zero"), ("ieee", "saturate"), ("keep", "flush")


def quantum(value: float, fmt: str) -> Fraction:
    """Unit in the last place of the destination at the exact value; Fractions, since it may be below 2^-1074."""
    spec = SPECS[fmt]
    return Fraction(2) ** (max(math.frexp(value)[1] - 1, spec.emin) - spec.p + 1)


def classify(value: float, got: float, fmt: str, rounding: str) -> str:
    spec = SPECS[fmt]
    if math.isnan(value):
        return "nan"
    if math.isinf(value):
        return "inf"
    if value == 0:
        return "exact"
    m, e = split(abs(value))
    integer, exponent = round_integer(m, e, spec.p, spec.emin, rounding)
    if Fraction(integer) * Fraction(2) ** exponent > Fraction(spec.max):  # as IEEE 754: with an unbounded exponent
        return "overflow"
    if got == 0:
        return "flushed"
    if abs(Fraction(got)) < Fraction(2) ** spec.emin:
        return "subnormal"
    return "exact" if got == value else "inexact"


def recompute(values, got, fmt, rounding="nearest_even"):
    """The report's fields from their definitions, exactly."""
    kinds = [classify(v, g, fmt, rounding) for v, g in zip(values, got, strict=True)]
    finite = [(v, g) for v, g in zip(values, got, strict=True) if math.isfinite(v) and math.isfinite(g)]
    errors = [(Fraction(g) - Fraction(v), v) for v, g in finite]
    return {
        **{name: kinds.count(name) for name in COUNTS},
        "first_overflow": kinds.index("overflow") if "overflow" in kinds else None,
        "first_flushed": kinds.index("flushed") if "flushed" in kinds else None,
        "max_ulp": float(max((abs(e) / quantum(v, fmt) for e, v in errors if e), default=0)),
        "signal": sum((Fraction(v) ** 2 for v, _ in finite), Fraction(0)),
        "noise": sum((e * e for e, _ in errors), Fraction(0)),
    }


def log2(x: Fraction) -> float:
    return math.log2(x.numerator) - math.log2(x.denominator)  # of integers of any size


def check_report(report, want):
    for name in (*COUNTS, "first_overflow", "first_flushed"):
        assert getattr(report, name) == want[name], name
    assert report.size == sum(want[name] for name in COUNTS)
    assert report.max_ulp == pytest.approx(want["max_ulp"], rel=2.0**-51)  # |stored - exact| rounds once
    if want["signal"] == 0:
        assert math.isnan(report.sqnr_db)
    elif want["noise"] == 0:
        assert report.sqnr_db == INF
    else:
        truth = 10 * math.log10(2) * (log2(want["signal"]) - log2(want["noise"]))
        # n terms squared and summed in float64: relative error (n + 3) 2^-53 each, 4.35 dB a unit; the rest is log2's
        size = report.size
        assert report.sqnr_db == pytest.approx(truth, abs=8.7 * (size + 3) * 2.0**-53 + 1e-12 * abs(truth) + 1e-11)


ANY_DOUBLE = st.floats(width=64)
MODERATE = st.floats(-7e4, 7e4, width=32) | st.floats(-1e-4, 1e-4, width=64) | st.sampled_from([0.0, -0.0, INF, NAN])


@settings(max_examples=150, deadline=None)
@given(
    values=st.lists(ANY_DOUBLE | MODERATE, max_size=40),
    fmt=st.sampled_from(list(SPECS)),
    rounding=st.sampled_from(ROUNDINGS),
    overflow=st.sampled_from(OVERFLOWS),
    subnormals=st.sampled_from(SUBNORMALS),
    power=st.integers(-8, 8),
)
@example([2.0**-1030], "float64", "nearest_even", "ieee", "flush", 0)
@example([1e10, 1.0], "float16", "nearest_even", "saturate", "keep", 0)
def test_report_from_definitions(values, fmt, rounding, overflow, subnormals, power):
    values = [v for v in values if v == 0 or not math.isfinite(v) or 1e-290 < abs(v) < 1e290 or power == 0]
    scaled = [v * 2.0**power for v in values]  # exact
    result = gk.cast(
        np.array(values), fmt, scale=2.0**power, rounding=rounding, overflow=overflow, subnormals=subnormals
    )
    got = result.values.astype(np.float64).tolist()
    want = [round_exactly(v, fmt, rounding=rounding, overflow=overflow, subnormals=subnormals) for v in scaled]
    assert_same_values(got, want)
    check_report(result.report, recompute(scaled, want, fmt, rounding))


@pytest.mark.parametrize("fmt", list(SPECS))
def test_report_of_adversarial_inputs(fmt, isa, threads):
    x = adversarial(fmt)
    result = gk.cast(x, fmt)
    got = result.values.astype(np.float64)
    assert_same_values(got, [round_exactly(v, fmt) for v in x.tolist()])
    check_report(result.report, recompute(x.tolist(), got.tolist(), fmt))
    assert result.report.max_ulp <= 0.5


def test_first_indices_in_long_arrays(threads):
    x = np.ones(300_003)
    x[[299_999, 170_000, 70_001]] = [1e9, 1e-9, 1e9]
    report = gk.cast(x.reshape(-1, 3)[:100_000], "float16").report
    assert (report.first_overflow, report.first_flushed, report.overflow) == (70_001, 170_000, 2)


def test_report_bits_do_not_depend_on_machine(isa, threads):
    x = np.random.default_rng(3).standard_normal(100_003) * 1e-3
    report = gk.cast(x, "float8_e4m3fn").report
    stored = round_array(x, "float8_e4m3fn").astype(np.longdouble)
    wide = x.astype(np.longdouble)
    truth = 10 * np.log10(np.sum(wide**2) / np.sum((stored - wide) ** 2))
    assert report.sqnr_db == pytest.approx(float(truth), abs=1e-9)
    check_same_as_baseline("cast report", lambda: gk.cast(x, "float8_e4m3fn").report.to_dict())


@pytest.mark.parametrize("fmt", ["float64", "float16", "bfloat16"])
@pytest.mark.parametrize("overflow", OVERFLOWS)
def test_scale_that_leaves_float64_is_overflow_not_inf(fmt, overflow):
    """The contract: overflow = exact value finite, stored value inf or clamped. 2^1000 * 2^100 is finite."""
    result = gk.cast([2.0**1000, INF], fmt, scale=2.0**100, overflow=overflow)
    assert (result.report.overflow, result.report.inf) == (1, 1)
    assert float(result.values[0]) == (SPECS[fmt].max if overflow == "saturate" else INF)


def test_scale_that_underflows_float64_is_flushed_not_exact():
    report = gk.cast([2.0**-1000, 0.0], "float64", scale=2.0**-100).report
    assert (report.flushed, report.exact) == (1, 1)


X = np.random.default_rng(4).standard_normal((6, 10))


@pytest.mark.parametrize("fmt", [*NARROW, "float32", "tfloat32"])
@pytest.mark.parametrize("view", [
    lambda x: x, lambda x: x.T, np.asfortranarray, lambda x: x[::-2, ::3], lambda x: x[2:5, 1:9], lambda x: x[0],
    lambda x: x[0, 0], lambda x: x[3, 4:4], lambda x: np.broadcast_to(x[0], (4, 10)), lambda x: x.reshape(3, 2, 5, 2),
    lambda x: x.tolist(), lambda x: tuple(x[1]), lambda x: x.astype(">f8"), lambda x: x.astype(">f4"),
    lambda x: x.astype(np.float16)[::2], lambda x: x.astype(ml_dtypes.bfloat16).T, lambda x: float(x[0, 0]),
    lambda x: x.astype(ml_dtypes.float8_e5m2)[:, ::-1], lambda x: (x * 9).astype(np.int8), lambda x: x[:0],
    lambda x: np.array(x[0, 0]), lambda x: [1, 2, 3],
])  # fmt: skip
def test_kinds_of_arrays(view, fmt):
    x = view(X)
    result = gk.cast(x, fmt)
    want = round_array(np.asarray(x), fmt)
    assert result.values.dtype == np.dtype(SPECS[fmt].dtype)
    assert_same_values(result.values, want)
    assert result.report.size == want.size


def test_read_only_and_big_endian_are_left_alone():
    x = X.astype(">f4")
    before = x.tobytes()
    x.setflags(write=False)
    gk.cast(x, "float16", scale=4.0)
    assert x.tobytes() == before and x.dtype == np.dtype(">f4")


def test_objects_that_only_offer_an_interface():
    class Interface:
        __array_interface__ = X.__array_interface__

    class Dlpack:
        def __dlpack__(self, **options):
            return X.__dlpack__(**options)

        def __dlpack_device__(self):
            return X.__dlpack_device__()

    for thing in (Interface(), Dlpack()):
        assert_same_values(gk.cast(thing, "float16").values, round_array(X, "float16"))


TORCH_DTYPES = ["float64", "float32", "float16", "bfloat16", "float8_e4m3fn", "float8_e5m2"]


@pytest.mark.parametrize("source", TORCH_DTYPES)
@pytest.mark.parametrize("fmt", TORCH_DTYPES)
def test_torch_in_torch_out(source, fmt):
    torch = pytest.importorskip("torch")
    x = torch.tensor(X).to(getattr(torch, source))
    want = round_array(x.to(torch.float64).numpy(), fmt)
    for tensor, truth in ((x, want), (x.T, want.T), (x[:0], want[:0]), (x[1:, ::2], want[1:, ::2])):
        got = gk.cast(tensor, fmt).values
        assert isinstance(got, torch.Tensor) and got.dtype == getattr(torch, fmt) and got.shape == tensor.shape
        assert_same_values(got.to(torch.float64).numpy(), truth)


@pytest.mark.parametrize("fmt", TORCH_DTYPES)
def test_torch_scalar_stays_a_scalar(fmt):
    torch = pytest.importorskip("torch")
    got = gk.cast(torch.tensor(X)[2, 3], fmt).values
    assert got.shape == () and float(got) == float(round_array(X[2, 3], fmt))


def test_torch_requires_grad_and_fresh_memory():
    torch = pytest.importorskip("torch")
    x = torch.ones(3, requires_grad=True)
    got = gk.cast(x, "float32").values
    assert not got.requires_grad
    got += 1
    assert x.tolist() == [1.0, 1.0, 1.0]


def test_result_never_shares_memory():
    for dtype in (np.float64, np.float32):
        x = X.astype(dtype)
        assert not np.shares_memory(gk.cast(x, dtype).values, x)


@pytest.mark.parametrize("fmt", list(SPECS))
def test_out(fmt):
    out = np.zeros((10, 6), SPECS[fmt].dtype).T
    result = gk.cast(X, fmt, out=out)
    assert result.values is out
    assert_same_values(out, round_array(X, fmt))


def test_out_may_be_x():
    x = X.astype(np.float32)
    assert_same(gk.cast(x, "float32", scale=2.0, out=x).values, X.astype(np.float32) * np.float32(2))
    assert_same(x, X.astype(np.float32) * np.float32(2))


@pytest.mark.parametrize("fmt", ["float64", "float32", "float16", "float8_e5m2"])
def test_out_of_every_kind(fmt):
    """Contiguous ones are written directly; strides, and memory that x is read from, take a copy."""
    x = np.arange(4096, dtype=np.float32).reshape(64, 64) - 2000.5
    want, dtype = round_array(x, fmt), np.dtype(SPECS[fmt].dtype)
    padded = np.zeros((66, 130), dtype)
    for out in (np.zeros((64, 64), dtype), padded[1:65, 1:65], padded[1:65, 1:129:2], padded[64:0:-1, 65:1:-1]):
        assert gk.cast(x, fmt, out=out).values is out
        assert_same_values(out, want)
    empty, scalar = np.zeros((0, 3), dtype), np.zeros((), dtype)
    assert gk.cast(np.zeros((0, 3)), fmt, out=empty).values is empty
    assert gk.cast(1.5, fmt, out=scalar).values is scalar and scalar == 1.5


@pytest.mark.parametrize("offset", [0, 1, 3, 16])
@pytest.mark.parametrize("special", [1.0, 1e10, NAN])
def test_out_that_overlaps_x(offset, special):
    """Shifted either way, narrower and as wide, and with a value that makes a block start over."""
    memory = np.linspace(-9, 9, 3000).astype(np.float32)
    memory[1500] = special
    for source, target in (
        (slice(offset, 2900 + offset), slice(0, 2900)),
        (slice(0, 2900), slice(offset, 2900 + offset)),
    ):
        for fmt in ("float32", "float16"):
            copy = memory.copy()
            x = copy[source]
            out = copy.view(SPECS[fmt].dtype)[target]
            want = gk.cast(x.copy(), fmt, overflow="saturate", scale=3.0)
            got = gk.cast(x, fmt, overflow="saturate", scale=3.0, out=out)
            assert_same_values(out, want.values)
            assert repr(got.report) == repr(want.report)


def test_torch_source_with_out():
    torch = pytest.importorskip("torch")
    out = np.zeros(X.shape, np.float16)
    assert gk.cast(torch.tensor(X), "float16", out=out).values is out
    assert_same_values(out, round_array(X, "float16"))


@pytest.mark.parametrize("source", ["float32", "float16", "bfloat16", "float8_e4m3fn"])
@pytest.mark.parametrize("fmt", list(SPECS))
@pytest.mark.parametrize("options", [{}, {"overflow": "saturate"}, {"subnormals": "flush"}, {"scale": 2.0**-7}])
def test_report_of_blocks_without_specials(source, fmt, options, isa):
    """Values that stay within a block's fast lanes, beside a few that overflow, exactly."""
    x = (np.random.default_rng(5).standard_normal(700) * 2.0 ** np.arange(-14, 0).repeat(50)).astype(source)
    x[::9] = 0
    for values in (x, np.concatenate([x, np.array([300, -3e4], source)])):
        result = gk.cast(values, fmt, **options)
        scaled = [float(v) * options.get("scale", 1.0) for v in values]
        rest = {k: v for k, v in options.items() if k != "scale"}
        want = [round_exactly(v, fmt, **rest) for v in scaled]
        assert_same_values(result.values.astype(np.float64).tolist(), want)
        check_report(result.report, recompute(scaled, want, fmt))


def test_out_errors_leave_it_alone():
    frozen = np.full((6, 10), 7, np.float16)
    frozen.setflags(write=False)
    cases = [
        (np.full((6, 10), 7, np.float32), TypeError, "float16, got float32"),
        (np.full((10, 6), 7, np.float16), ValueError, r"\(6, 10\), got \(10, 6\)"),
        (np.full((6, 1), 7, np.float16), ValueError, r"\(6, 10\), got \(6, 1\)"),
        (frozen, ValueError, "read-only"),
        ([0.0] * 60, TypeError, "NumPy array, got list"),
        (np.full((6, 10), 7, ">f2"), TypeError, "out"),
    ]
    for out, error, message in cases:
        with pytest.raises(error, match=message):
            gk.cast(X, "float16", out=out)
        assert isinstance(out, list) or np.all(out == 7)


@pytest.mark.parametrize("options, error, message", [
    ({"fmt": "float12"}, ValueError, r"float8_e5m2.*got 'float12'"),
    ({"scale": 0.0}, ValueError, "scale must be positive and finite, got 0"),
    ({"scale": -2.0}, ValueError, "got -2"),
    ({"scale": INF}, ValueError, "got inf"),
    ({"scale": NAN}, ValueError, "got nan"),
    ({"rounding": "up"}, ValueError, "rounding must be one of nearest_even, toward_zero, stochastic, got 'up'"),
    ({"overflow": "wrap"}, ValueError, "overflow must be one of ieee, saturate, got 'wrap'"),
    ({"subnormals": "drop"}, ValueError, "subnormals must be one of keep, flush, got 'drop'"),
    ({"seed": -1}, ValueError, "seed"),
    ({"seed": 2**64}, ValueError, "seed"),
    ({"device": "tpu"}, ValueError, "device must be None, 'cpu', 'cuda' or 'simt', got 'tpu'"),
    ({"device": ["cpu"]}, ValueError, "device must be"),
])  # fmt: skip
def test_option_errors(options, error, message):
    x = X.copy()
    with pytest.raises(error, match=message):
        gk.cast(x, **({"fmt": "float16"} | options))
    assert np.array_equal(x, X)


@pytest.mark.parametrize("x", [
    np.ones(2, np.complex128), np.array(["a"]), np.array([True]), np.array([None]), "text", None, {1: 2}, object(),
    [[1.0], [1.0, 2.0]], np.array([1], "datetime64[s]"), [1j],
])  # fmt: skip
def test_what_is_not_an_array_of_numbers(x):
    with pytest.raises(TypeError, match="cast: x"):
        gk.cast(x, "float16")


def test_readable():
    result = gk.cast([1.0, 1e-9, 7e4], "float16")
    assert result.report.to_dict()["flushed"] == 1 and "flushed" in repr(result.report)
    assert "first_overflow" in result.report._repr_html_()
