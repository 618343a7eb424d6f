"""Clipping by global norm: the table of edge cases, as other libraries get it wrong, one test a cell."""

from __future__ import annotations

import math
from fractions import Fraction

import ml_dtypes
import mpmath
import numpy as np
import pytest

import gradkern as gk

F32 = np.float32


def exact_norm(arrays, p=2):
    """Norm in 200 bits."""
    with mpmath.workprec(200):
        values = [mpmath.mpf(float(v)) for a in arrays for v in np.asarray(a).astype(np.float64).ravel()]
        if p == math.inf:
            return max(map(abs, values), default=mpmath.mpf(0))
        return mpmath.fsum(abs(v) ** p for v in values) ** (mpmath.mpf(1) / p)


def unchanged_after(arrays, call):
    """Bytes of the arrays before and after a call, and what it gave or raised."""
    before = [a.tobytes() for a in arrays]
    result = call()
    assert [a.tobytes() for a in arrays] == before
    return result


def test_norm_5_max_1_is_exactly_a_fifth():
    grads = {"weight": np.array([3.0, 0.0]), "bias": np.array([4.0])}
    result = gk.clip_by_global_norm(grads, 1.0)
    assert (result.norm, result.coefficient, result.clipped, result.skipped) == (5.0, 1 / 5, True, False)
    assert result.norms == {"weight": 3.0, "bias": 4.0}
    np.testing.assert_array_equal(grads["weight"], [3 * 0.2, 0])
    np.testing.assert_array_equal(grads["bias"], [4 * 0.2])


def test_eps_reproduces_torch():
    torch = pytest.importorskip("torch")
    ours = np.array([3.0, 4.0])
    theirs = torch.nn.Parameter(torch.zeros(2, dtype=torch.float64))
    theirs.grad = torch.from_numpy(ours.copy())
    torch.nn.utils.clip_grad_norm_([theirs], 1.0)
    result = gk.clip_by_global_norm([ours], 1.0, eps=1e-6)
    assert result.coefficient == 1 / (5 + 1e-6)
    np.testing.assert_array_equal(ours, theirs.grad.numpy())


@pytest.mark.parametrize("dtype", [np.float64, F32, np.float16, ml_dtypes.bfloat16])
@pytest.mark.parametrize("max_norm", [5.0, 5.5, math.inf, None])
def test_norm_at_most_max_writes_nothing(dtype, max_norm):
    x = np.array([3.0, 4.0], dtype)
    x.flags.writeable = True
    result = unchanged_after([x], lambda: gk.clip_by_global_norm([x], max_norm))
    assert (result.norm, result.coefficient, result.clipped) == (5.0, 1.0, False)


def test_norm_below_1e_6_is_not_swallowed_by_eps():
    x = np.array([3e-9, 4e-9])
    result = gk.clip_by_global_norm([x], 1e-9)
    assert result.coefficient == pytest.approx(0.2, rel=1e-15)
    np.testing.assert_allclose(x, [6e-10, 8e-10], rtol=1e-15)


def test_float16_norm_above_65504():
    x = np.full(1000, 4000.0, np.float16)
    result = gk.clip_by_global_norm([x], 1.0)
    assert result.norm == pytest.approx(126491.10640673517, rel=1e-15)
    np.testing.assert_array_equal(x, np.float16(4000 / 126491.10640673517))


@pytest.mark.parametrize("value", [1e30, 1e-30])
def test_float32_squares_beyond_float32(value):
    x = np.full(4, value, F32)
    result = gk.clip_by_global_norm([x], value / 2)
    assert result.norm == 2 * float(F32(value))
    np.testing.assert_allclose(x, value / 4, rtol=1e-6)


@pytest.mark.parametrize("value", [1e300, 1e-300, 1.7e308, 5e-324, 1e150, 1e-150])
def test_float64_squares_beyond_float64(value):
    x = np.full(4, value)
    result = gk.clip_by_global_norm([x], value)
    assert result.norm == (2 * value if value < 1e308 else math.inf)
    assert result.coefficient == 0.5
    np.testing.assert_array_equal(x, value * 0.5)


def test_ranges_mix():
    x = np.concatenate([np.full(5000, 3e-200), np.full(5000, 2e200), np.full(5000, 7.0)])
    assert gk.clip_by_global_norm([x.copy()], 1.0).norm == pytest.approx(float(exact_norm([x])), rel=1e-14)
    assert gk.clip_by_global_norm([x[:5000].copy(), x[10000:].copy()], 1.0).norm == pytest.approx(
        float(exact_norm([x[10000:]])), rel=1e-14
    )


@pytest.mark.parametrize("max_norm", [-1.0, -math.inf, math.nan])
def test_max_norm_negative_or_nan_touches_nothing(max_norm):
    x = np.array([3.0, 4.0], F32)

    def call():
        with pytest.raises(ValueError, match=r"clip_by_global_norm: max_norm must not be (negative|NaN)"):
            gk.clip_by_global_norm([x], max_norm)

    unchanged_after([x], call)


@pytest.mark.parametrize("empty", [[], {}, [np.zeros(0)], [None], np.zeros((3, 0), np.float16)])
def test_empty_list_has_norm_0(empty):
    result = gk.clip_by_global_norm(empty, 1.0)
    assert (result.norm, result.coefficient, result.clipped, result.size) == (0.0, 1.0, False, 0)


def test_small_coefficient_is_not_lost_to_float16():
    x = np.full(4, 60000.0, np.float16)
    result = gk.clip_by_global_norm([x], 1e-4)
    assert float(np.float16(result.coefficient)) == 0
    np.testing.assert_array_equal(x, np.float16(5e-5))


def test_product_is_rounded_once_from_float32():
    x = np.random.default_rng(1).standard_normal(5000).astype(np.float16)
    before = x.copy()
    coefficient = gk.clip_by_global_norm([x], 1.0).coefficient
    want = (before.astype(F32) * F32(coefficient)).astype(np.float16)
    np.testing.assert_array_equal(x, want)


def test_float32_product_is_the_exact_one_rounded():
    x = np.random.default_rng(1).standard_normal(200).astype(F32)
    before = x.copy()
    result = gk.clip_by_global_norm([x], 1.0, scale=2.0**10)
    factor = Fraction(float(F32(result.coefficient))) / 2**10
    want = [F32(float(Fraction(float(v)) * factor)) for v in before]  # 48 bits fit float64
    np.testing.assert_array_equal(x, want)


def test_unscaling_only_divides():
    x = np.array([1024.0, -3.0, 0.0, -0.0], F32)
    result = gk.clip_by_global_norm([x], None, scale=2.0**10)
    np.testing.assert_array_equal(x, np.array([1.0, -3 / 1024, 0.0, -0.0], F32))
    assert (result.coefficient, result.clipped, result.scale, result.amax) == (1.0, False, 1024.0, 1024.0)
    assert result.norm == pytest.approx(math.hypot(1, 3 / 1024), rel=1e-15)


@pytest.mark.parametrize("p", [1, 2, math.inf])
@pytest.mark.parametrize("fmt", ["float64", "float32", "float16", "bfloat16", "float8_e4m3fn", "float8_e5m2"])
def test_norms_of_every_format(fmt, p, isa):
    rng = np.random.default_rng(3)
    x = (rng.standard_normal(5000) * 4).astype(gk.finfo(fmt).dtype)
    y = (rng.standard_normal(37) * 4).astype(gk.finfo(fmt).dtype)
    want = float(exact_norm([x, y], p))
    result = gk.clip_by_global_norm([x, y], want * 2, p=p)
    assert result.norm == pytest.approx(want, rel=1e-14)
    assert result.norms["1"] == pytest.approx(float(exact_norm([y], p)), rel=1e-14)


def test_text_of_many_tensors_is_short():
    result = gk.clip_by_global_norm([np.ones(2)] + [np.ones(1) for _ in range(2000)], 1.0)
    assert repr(result).endswith("and the norms of 1,993 more tensors")
    assert len(repr(result)) < 1000
    assert len(result._repr_html_()) < 2000
    assert len(result.to_dict()["norms"]) == 2001
    assert "and the norms" not in repr(gk.clip_by_global_norm(np.ones(2), 1.0))
