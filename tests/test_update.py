"""`sgd_update`: every bit and count against integer arithmetic, on every instruction set and thread count."""

from __future__ import annotations

import itertools
import math
from fractions import Fraction

import ml_dtypes
import numpy as np
import pytest
from conftest import (
    NARROW,
    SPECS,
    adversarial,
    assert_same_values,
    bits,
    check_same_as_baseline,
    fma,
    round_exactly,
    round_integer,
    split,
)

import gradkern as gk

FORMATS = ["float64", "float32", *NARROW]
MODES = [
    dict(zip(("rounding", "overflow", "subnormals"), names, strict=True))
    for names in itertools.product(("nearest_even", "toward_zero"), ("ieee", "saturate"), ("keep", "flush"))
]


def tensor(fmt: str, size: int, seed: int, spread: float = 4.0):
    """Random values of both signs over several binades, with the format's edges among them."""
    rng = np.random.default_rng(seed)
    values = rng.standard_normal(size) * 2.0 ** rng.uniform(-spread, spread, size)
    edges = adversarial(fmt)
    values[: 2 * len(edges) : 2] = edges
    with np.errstate(all="ignore"):
        return values.astype(SPECS[fmt].dtype)


def truth(weight, gradient, rate: float, fmt: str, mode) -> list[float]:
    """w - rate g with one rounding to float64 and one to storage, in integers."""
    w, g = weight.astype(np.float64), gradient.astype(np.float64)
    found = []
    for a, b in zip(w.tolist(), g.tolist(), strict=True):
        exact = fma(-rate, b, a, "float64")
        if math.isinf(exact) and math.isfinite(a) and math.isfinite(b):  # beyond float64 itself
            clamps = mode["overflow"] == "saturate" or mode["rounding"] == "toward_zero"
            exact = math.copysign(SPECS["float64"].max, exact) if clamps or not SPECS[fmt].has_inf else exact
            found.append(round_exactly(exact, fmt, **mode))
            continue
        found.append(round_exactly(exact, fmt, **mode))
    return found


@pytest.mark.parametrize("fmt", FORMATS)
@pytest.mark.parametrize("mode", MODES, ids=lambda m: "-".join(m.values()))
def test_bits_and_counts_are_those_of_integer_arithmetic(fmt, mode):
    weight = tensor(fmt, 300, 1)
    for gradient_format, rate in (("float32", 0.1), (fmt, 2.0**-9), ("float64", -0.3)):
        gradient = tensor(gradient_format, 300, 2)[np.random.default_rng(3).permutation(300)]
        result = gk.sgd_update(weight, gradient, rate, **mode)
        want = np.array(truth(weight, gradient, rate, fmt, mode))
        assert_same_values(result.weight, want, f"{fmt} {mode}")
        check_counts(result, weight, gradient, rate, fmt, mode)


def check_counts(result, weight, gradient, rate, fmt, mode) -> None:
    w, g, after = (np.asarray(a).astype(np.float64) for a in (weight, gradient, result.weight))
    report = result.report
    with np.errstate(all="ignore"):
        u = rate * g
        exact = np.array([fma(-rate, b, a, "float64") for a, b in zip(w.tolist(), g.tolist(), strict=True)])
    finite = np.isfinite(w) & np.isfinite(g)
    over = finite & np.array([beyond(x, fmt, mode["rounding"]) for x in exact.tolist()])
    rest = finite & ~over
    assert report.size == len(w) and report.nonfinite == np.sum(~finite) and report.overflow == np.sum(over)
    assert report.applied == np.sum(rest & (after != w))
    assert report.lost == np.sum(rest & (after == w) & (u != 0))
    assert report.unchanged == np.sum(rest & (after == w) & (u == 0))
    kept = finite & np.isfinite(after) & np.isfinite(u)
    assert report.flushed == np.sum(kept & ~over & (after == 0) & (exact != 0))
    first = np.flatnonzero(over)
    assert report.first_overflow == (int(first[0]) if first.size else None)


def beyond(x: float, fmt: str, rounding: str) -> bool:
    """Whether x, rounded to the format's digits at any exponent, is larger than its largest value."""
    if not math.isfinite(x):
        return math.isinf(x)
    spec, (m, e) = SPECS[fmt], split(x)
    kept, quantum = round_integer(abs(m), e, spec.p, spec.emin, rounding)
    return Fraction(kept) * Fraction(2) ** quantum > Fraction(spec.max)


def test_norms_of_the_update_wanted_and_made():
    rng = np.random.default_rng(4)
    weight, gradient = rng.standard_normal(40000).astype(np.float16), rng.standard_normal(40000).astype(np.float32)
    result = gk.sgd_update(weight, gradient, 1e-3)
    moved = result.weight.astype(np.float64) - weight.astype(np.float64)
    assert result.report.log2_wanted == pytest.approx(
        math.log2(np.linalg.norm(1e-3 * gradient.astype(np.float64))), rel=1e-13
    )
    assert result.report.log2_made == pytest.approx(math.log2(np.linalg.norm(moved)), rel=1e-13)


@pytest.mark.parametrize("rounding", ["nearest_even", "toward_zero", "stochastic"])
@pytest.mark.parametrize("fmt", ["float64", "float32", "bfloat16", "float8_e4m3fn"])
def test_same_bits_everywhere(isa, threads, fmt, rounding):
    weight, gradient = tensor(fmt, 40001, 5, 2.0), tensor("float32", 40001, 6, 2.0)

    def compute():
        result = gk.sgd_update(weight, gradient, 0.01, rounding=rounding, seed=9)
        return bits(result.weight).tobytes(), result.report

    check_same_as_baseline(("update", fmt, rounding), compute)


def test_stochastic_rounding_keeps_the_mean():
    """An update of 1/16 of a unit: nearest even loses all; a share of 1/16 +- 5 standard errors moves."""
    size, ulp = 1 << 16, 2.0**-10
    weight, gradient = np.ones(size, np.float16), np.full(size, -ulp / 16)
    assert gk.sgd_update(weight, gradient, 1.0).report.lost == size
    moved = gk.sgd_update(weight, gradient, 1.0, rounding="stochastic").report.applied
    assert abs(moved / size - 1 / 16) < 5 * math.sqrt(15 / 256 / size)


def test_stochastic_rounding_of_float32_sees_what_float32_arithmetic_would_not():
    """2^-30 of the weight: w - u in float32 is w, so only a float64 difference leaves anything to round."""
    size = 1 << 22
    result = gk.sgd_update(np.ones(size, np.float32), np.full(size, -(2.0**-30)), 1.0, rounding="stochastic")
    chance = 2.0**-30 / 2.0**-23
    assert abs(result.report.applied / size - chance) < 5 * math.sqrt(chance / size)


def test_the_scale_is_part_of_the_rate():
    weight = np.linspace(0.5, 2, 1000, dtype=np.float32)
    gradient = np.linspace(-3, 3, 1000, dtype=np.float32)
    scaled = gk.sgd_update(weight, gradient * 1024, 0.1, scale=1024.0)
    plain = gk.sgd_update(weight, gradient, 0.1)
    assert np.array_equal(scaled.weight, plain.weight) and scaled.report == plain.report


def test_kinds_shapes_and_inputs_are_kept():
    torch = pytest.importorskip("torch")
    weight = torch.ones((3, 4), dtype=torch.bfloat16)
    result = gk.sgd_update(weight, torch.full((3, 4), 0.5), 0.5)
    assert isinstance(result.weight, torch.Tensor) and result.weight.dtype == torch.bfloat16
    assert torch.equal(result.weight, torch.full((3, 4), 0.75, dtype=torch.bfloat16)) and bool((weight == 1).all())
    strided = np.ones((4, 6), np.float32).T[::2]
    assert np.array_equal(gk.sgd_update(strided, np.ones((3, 4)), 1.0).weight, np.zeros((3, 4), np.float32))
    empty = gk.sgd_update(np.zeros((0, 3), ml_dtypes.bfloat16), np.zeros((0, 3)), 1.0)
    assert empty.weight.shape == (0, 3) and empty.report.size == 0 and math.isnan(empty.report.lost_share)


@pytest.mark.parametrize(
    ("change", "error", "words"),
    [
        ({"gradient": np.ones(3)}, ValueError, r"weight has shape \(4,\), gradient \(3,\)"),
        ({"lr": math.nan}, ValueError, "lr must be finite"),
        ({"lr": "fast"}, TypeError, "lr must be a number"),
        ({"scale": 3.0}, ValueError, "scale must be a power of two"),
        ({"rounding": "up"}, ValueError, "rounding must be one of"),
        ({"seed": -1}, ValueError, "seed must be between"),
        ({"weight": np.ones(4, complex)}, TypeError, "sgd_update: weight"),
        ({"device": "tpu"}, ValueError, "device must be"),
    ],
)
def test_bad_arguments_are_named(change, error, words):
    arguments = {"weight": np.ones(4), "gradient": np.ones(4), "lr": 0.1} | change
    weight, gradient, lr = (arguments.pop(name) for name in ("weight", "gradient", "lr"))
    with pytest.raises(error, match=words):
        gk.sgd_update(weight, gradient, lr, **arguments)
