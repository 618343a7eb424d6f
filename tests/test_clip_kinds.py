"""Every kind of clipping against exact models: norms, products, counts, the same bits on any machine."""

from __future__ import annotations

import math
from fractions import Fraction

import mpmath
import numpy as np
import pytest
from conftest import INF, SPECS, adversarial, all_patterns, bits, check_same_as_baseline, round_exactly, widened
from hypothesis import given, settings
from hypothesis import strategies as st

import gradkern as gk

F32 = np.float32
FORMATS = [name for name in SPECS if name != "tfloat32"]


def round24(x: float) -> Fraction:
    """Nearest value of 24 bits, at any exponent."""
    if x == 0:
        return Fraction(0)
    mantissa, exponent = math.frexp(x)
    return Fraction(round(Fraction(mantissa) * 2**24)) * Fraction(2) ** (exponent - 24)


def model(values, fmt: str, coefficient: float, log2_scale: int = 0):
    """Each entry times the coefficient over the scale: an exact product, float32 (float64), storage."""
    if fmt == "float64":
        return [v * coefficient * 2.0**-log2_scale for v in values]
    factor = round24(coefficient) / Fraction(2) ** log2_scale
    products = [float(Fraction(float(v)) * factor) if v else v for v in values]  # 48 bits fit float64
    return [round_exactly(round_exactly(p, "float32"), fmt) for p in products]


def finite(fmt: str):
    dtype = SPECS[fmt].dtype
    with np.errstate(over="ignore"):
        x = all_patterns(fmt) if np.dtype(dtype).itemsize <= 2 else adversarial(fmt).astype(dtype)
    return x[np.isfinite(widened(x))]


@pytest.mark.parametrize("fmt", FORMATS)
@pytest.mark.parametrize(("log2_norm", "log2_scale"), [(-1.7, 0), (0, 3), (-9.3, 12), (-40.1, 0), (-130.3, 5)])
@pytest.mark.filterwarnings("ignore:overflow")
def test_products_and_what_they_lose(fmt, log2_norm, log2_scale, isa):
    x = finite(fmt)
    if fmt == "float64":
        x = x[np.abs(x) < 1e300]
    before = widened(x)
    norm = gk.global_norm(x, scale=2.0**log2_scale)
    result = gk.clip_by_global_norm(x, norm * 2.0**log2_norm if log2_norm else None, scale=2.0**log2_scale)
    want = np.array(model(before, fmt, result.coefficient, log2_scale))
    got = widened(x)
    np.testing.assert_array_equal(got, want)
    np.testing.assert_array_equal(np.signbit(got), np.signbit(before))
    smallest = 2.0 ** SPECS[fmt].emin
    assert result.flushed == np.sum((want == 0) & (before != 0))
    assert result.subnormal == np.sum((want != 0) & (np.abs(want) < smallest) & (np.abs(before) >= smallest))
    assert result.overflow == 0


@pytest.mark.parametrize("fmt", ["float16", "float32", "float8_e4m3fn"])
def test_a_scale_below_1_that_overflows_is_refused_or_counted(fmt):
    x = np.array([SPECS[fmt].max / 2, 1.0, SPECS[fmt].max]).astype(SPECS[fmt].dtype)
    before = x.copy()
    with pytest.raises(
        gk.NonFiniteError, match=r"0\[0\] is the first of 2 entries that are beyond their format without"
    ):
        gk.clip_by_global_norm(x, None, scale=0.25)
    skipped = gk.clip_by_global_norm(x, None, scale=0.25, nonfinite="skip")
    assert skipped.skipped
    assert (skipped.nonfinite["0"].count, skipped.nonfinite["0"].first) == (2, 0)
    np.testing.assert_array_equal(bits(x), bits(before))
    result = gk.clip_by_global_norm(x, None, scale=0.25, nonfinite="propagate")
    assert result.overflow == 2
    assert not np.isfinite(widened(x)[[0, 2]]).any()
    assert widened(x)[1] == 4


def test_enlarging_within_the_format():
    x = np.array([1.0, -3.0], np.float16)
    assert gk.clip_by_global_norm(x, None, scale=0.125).overflow == 0
    np.testing.assert_array_equal(x, [8, -24])


@pytest.mark.parametrize(("fmt", "largest", "margin"), [
    ("float16", 65504.0, 0), ("float16", 1.0, 15), ("float16", 32760.0, 0), ("float16", 32752.0, 1),
    ("float32", 1.0, 127), ("float8_e4m3fn", 1.0, 8), ("float8_e4m3fn", 2.0**-9, 17), ("float64", 1.5, 1023),
    ("bfloat16", 2.0**-133, 260), ("float8_e5m2", 1.75, 15), ("float8_e4m3fn", 3.75, 6),
])  # fmt: skip
def test_margin(fmt, largest, margin):
    x = np.array([largest, 0.0]).astype(SPECS[fmt].dtype)
    want = next(k for k in range(3000) if not math.isfinite(round_exactly(math.ldexp(float(x[0]), k + 1), fmt))) if (
        fmt != "float64") else margin  # fmt: skip
    assert gk.clip_by_global_norm(x, None).margin == want


def test_margin_of_several_formats_and_of_zeros():
    grads = [np.array([2.0**100], F32), np.array([2.0**10], np.float16), np.zeros(3, np.float16)]
    assert gk.clip_by_global_norm(grads, None).margin == 5
    assert gk.clip_by_global_norm([np.zeros(3)], None).margin is None
    assert gk.clip_by_global_norm([], None).margin is None


@pytest.mark.parametrize("fmt", FORMATS)
@pytest.mark.parametrize("p", [1, 2, INF])
def test_same_bits_on_any_machine(fmt, p, isa, threads):
    rng = np.random.default_rng(5)
    sizes = [70000, 1, 15, 16, 17, 2048, 2049, 16384, 16385, 40000, 0]
    source = [(rng.standard_normal(n) * 3).astype(SPECS[fmt].dtype) for n in sizes]
    if fmt == "float64":
        source[0][:3000] *= 1e-200
        source[9][:3000] *= 1e200

    def compute():
        grads = [x.copy() for x in source]
        grads[1][:] = np.nan
        grads[9][7] = np.nan
        r = gk.clip_by_global_norm(grads, 2.0, p=p, scale=4.0, nonfinite="zero")
        fields = r.norm, r.coefficient, list(r.norms.values()), r.flushed, r.subnormal, r.zeroed, r.amax
        return repr(fields), b"".join(x.tobytes() for x in grads)

    check_same_as_baseline(("clip", fmt, p), compute)


@pytest.mark.parametrize("fmt", FORMATS)
@pytest.mark.parametrize(
    ("low", "high"), [(-0.7, 1.3), (0.1, 2.0), (-3.0, -0.0001), (-INF, 0.3), (0.0, 0.0), (-1e9, 1e-30)]
)
def test_by_value(fmt, low, high, isa):
    x = finite(fmt)
    x = np.concatenate([x, x[:7]])
    before = widened(x)
    values = np.unique(before)
    inside = values[(values >= low) & (values <= high)]
    if not len(inside) and high - low < 1e-3:
        return
    result = gk.clip_by_value(x, low, high)
    want = np.clip(before, inside.min() if low > -INF else -INF, inside.max())
    if fmt not in ("float64", "float32"):
        np.testing.assert_array_equal(widened(x), want)
    assert result.changed == np.sum((before < low) | (before > high))
    assert np.all((widened(x) >= low) & (widened(x) <= high))
    untouched = (before >= low) & (before <= high)
    np.testing.assert_array_equal(widened(x)[untouched], before[untouched])


def test_by_value_within_writes_nothing():
    x = np.array([-1.0, 1.0], F32)
    assert not gk.clip_by_value(x, -1.0, 1.0).clipped


def test_by_value_and_what_is_not_finite():
    def make():
        return np.array([np.nan, INF, -INF, 0.5, 9.0], np.float16)

    x = make()
    assert gk.clip_by_value(x, -2.0, 2.0, nonfinite="propagate").changed == 3
    np.testing.assert_array_equal(x, np.array([np.nan, 2, -2, 0.5, 2], np.float16))
    x = make()
    result = gk.clip_by_value(x, 0.25, 2.0, nonfinite="zero")
    np.testing.assert_array_equal(x, np.array([0.25, 0.25, 0.25, 0.5, 2], np.float16))
    assert (result.zeroed, result.changed) == (3, 4)


@pytest.mark.parametrize(("low", "high"), [(1.0, -1.0), (math.nan, 1.0), (1e6, 2e6), (1.0001, 1.0002)])
def test_by_value_bounds_that_hold_nothing(low, high):
    x = np.array([3.0], np.float16)
    with pytest.raises(ValueError, match="clip_by_value"):
        gk.clip_by_value(x, low, high)
    assert x[0] == 3


@pytest.mark.parametrize("p", [1, 2, INF])
def test_by_norm_is_per_tensor(p):
    grads = {"a": np.array([3.0, 4.0]), "b": np.array([0.25, 0.5], F32), "c": np.array([8.0, 8.0], np.float16)}
    before = {name: x.copy() for name, x in grads.items()}
    result = gk.clip_by_norm(grads, 2.0, p=p)
    for name, x in before.items():
        alone = x.copy()
        own = gk.clip_by_global_norm(alone, 2.0, p=p)
        np.testing.assert_array_equal(grads[name], alone)
        assert result.norms[name] == own.norm
    assert result.coefficient == 2.0 / gk.global_norm(before["c"], p)


@pytest.mark.parametrize("p", [1, 2, INF])
@pytest.mark.parametrize("eps", [0.0, 1e-6, 1e300])
def test_by_norm_at_the_ends_of_the_range(p, eps):
    grads = [
        np.array([x, -x / 3, 0.0]) for x in (0.0, 5e-324, 1e-310, 1e-200, 1e-6, 1.0, 1e100, 1.5e308, math.inf, math.nan)
    ]
    grads.append(np.full(3000, 1.7e308))  # a norm beyond float64
    for most in (0.0, 5e-324, 1e-305, 1e-3, 1.0, 1e308, INF):
        for scale, nonfinite in ((1.0, "propagate"), (2.0**40, "zero"), (2.0**-1000, "propagate")):
            got, options = [x.copy() for x in grads], {"p": p, "scale": scale, "eps": eps, "nonfinite": nonfinite}
            gk.clip_by_norm(got, most, **options)
            for x, y in zip(grads, got, strict=True):
                alone = x.copy()
                gk.clip_by_global_norm([alone], most, **options)
                np.testing.assert_array_equal(y.view(np.uint64), alone.view(np.uint64), f"{most} {options} {x[:3]}")


def test_by_block_rms():
    grads = [np.full((3, 4), 2.0), np.full(5, 0.5, F32), np.zeros(0)]
    result = gk.clip_by_block_rms(grads, 1.0)
    np.testing.assert_array_equal(grads[0], 1.0)
    np.testing.assert_array_equal(grads[1], F32(0.5))
    assert (result.coefficient, result.clipped) == (0.5, True)


@pytest.mark.parametrize("kind", [gk.clip_by_norm, gk.clip_by_block_rms, gk.clip_by_global_norm])
@pytest.mark.parametrize("value", [-1.0, math.nan])
def test_bounds_are_checked(kind, value):
    with pytest.raises(ValueError, match=r"must not be (negative|NaN)"):
        kind(np.ones(3), value)


def adaptive_model(grad, weight, clip, eps):
    grad, weight = grad.astype(np.float64), weight.astype(np.float64)
    rows = (len(grad), -1) if grad.ndim > 1 else (1, -1)
    g, w = (np.sqrt((x.reshape(rows) ** 2).sum(1)) for x in (grad, weight))
    with np.errstate(divide="ignore"):
        return np.minimum(1, clip * np.maximum(w, eps) / g)


@pytest.mark.parametrize("dtype", [np.float64, F32, np.float16])
@pytest.mark.parametrize("shape", [(7, 33), (5, 3, 2, 2), (11,), (), (4, 0)])
def test_adaptive_is_that_of_the_paper(dtype, shape):
    rng = np.random.default_rng(6)
    grad, weight = (np.asarray(rng.standard_normal(shape)).astype(dtype) for _ in range(2))
    if len(shape) > 1 and grad.size:
        weight[0] = 0
        grad[1] = 0
        grad[2] *= dtype(2.0**-10)
    want = adaptive_model(grad, weight, 0.01, 1e-3)
    before, kept = grad.copy(), weight.copy()
    result = gk.clip_adaptive({"w": grad}, {"w": weight})
    np.testing.assert_array_equal(weight, kept)
    factor = want.reshape((-1,) + (1,) * (len(shape) - 1)) if len(shape) > 1 else want[0]
    tolerance = {8: 1e-14, 4: 3e-7, 2: 1e-3}[grad.itemsize]
    np.testing.assert_allclose(
        widened(grad), widened(before) * factor, rtol=tolerance, atol=1e-7 if dtype is np.float16 else 0
    )
    if len(shape) > 1 and grad.size:
        np.testing.assert_array_equal(bits(grad[1:3]), bits(before[1:3]))
    assert result.norm == pytest.approx(float(np.linalg.norm(widened(before))), rel=1e-13)


def test_adaptive_names_the_row_in_the_whole():
    grad = np.ones((3, 4))
    grad[2, 1] = INF
    with pytest.raises(gk.NonFiniteError, match=r"w\[9\] is the only entry that is NaN or infinite"):
        gk.clip_adaptive({"w": grad}, {"w": np.ones((3, 4))})
    zeroed = gk.clip_adaptive({"w": grad}, {"w": np.ones((3, 4))}, nonfinite="zero")
    assert (zeroed.zeroed, grad[2, 1]) == (1, 0)


@pytest.mark.parametrize(("weights", "words"), [({"w": np.ones(3)}, "shape"), ({"v": np.ones((2, 3))}, "names")])
def test_adaptive_needs_weights_that_fit(weights, words):
    with pytest.raises(ValueError, match=words):
        gk.clip_adaptive({"w": np.ones((2, 3))}, weights)


@given(
    st.lists(st.lists(st.floats(allow_nan=False, allow_infinity=False), max_size=40), max_size=5),
    st.floats(0, allow_nan=False, allow_infinity=False),
    st.sampled_from([1, 2, INF]),
)
@settings(max_examples=200, deadline=None)
def test_any_float64(lists, max_norm, p):
    grads = [np.array(values, np.float64) for values in lists]
    before = [x.copy() for x in grads]
    entries = [Fraction(float(abs(v))) for x in before for v in x]
    total = max(entries, default=0) if p == INF else sum((v**p for v in entries), Fraction(0))
    result = gk.clip_by_global_norm(grads, max_norm, p=p)
    if math.isfinite(result.norm):
        high, low = (Fraction(result.norm) * (1 + s * Fraction(1, 10**13)) for s in (1, -1))
        tiny = Fraction(5e-324)
        power = 1 if p == INF else p
        assert max(low - tiny, 0) ** power <= total <= (high + tiny) ** power
    if not result.clipped:
        assert [x.tobytes() for x in grads] == [x.tobytes() for x in before]
    else:
        after = gk.global_norm(grads, p)
        assert after <= max_norm * (1 + 1e-9) + 1e-300


@pytest.mark.parametrize("kind", [gk.clip_by_global_norm, gk.clip_by_norm, gk.clip_adaptive])
@pytest.mark.parametrize(
    ("size", "most"),
    [(1e300, 1e-13), (3e307, 7e-18), (1e10, 1e-305), (1.0, 5e-324), (7e3, 3e-322), (1e298, 8e-86), (1e306, 1e-190)],
)
def test_coefficients_below_the_smallest_normal_keep_their_digits(kind, size, most):
    x = np.random.default_rng(5).standard_normal((1, 50)) * size
    with mpmath.workprec(200):
        factor = mpmath.mpf(most) / mpmath.norm(x[0].tolist(), 2)
        want = np.array([float(v * factor) for v in x[0].tolist()])
    kind([x], *([[np.eye(1, 50)], most] if kind is gk.clip_adaptive else [most]))
    np.testing.assert_allclose(x[0], want, rtol=1e-14, atol=5e-324)
    assert x.any() == want.any()


@given(st.integers(0, 2**32 - 1), st.integers(1, 60))
@settings(max_examples=30, deadline=None)
def test_grouping_moves_no_more_than_the_last_bits(seed, pieces):
    rng = np.random.default_rng(seed)
    x = rng.standard_normal(5000).astype(F32)
    whole = gk.global_norm(x)
    cuts = np.sort(rng.integers(0, 5000, pieces))
    assert gk.global_norm(np.split(x, cuts)) == pytest.approx(whole, rel=5e-16)
    assert gk.global_norm(list(reversed(np.split(x, cuts)))) == pytest.approx(whole, rel=5e-16)


def test_a_hundred_million_entries():
    piece = (np.random.default_rng(7).standard_normal(10**6) * 1e-3).astype(F32)
    want = math.sqrt(100 * math.fsum((piece.astype(np.float64) ** 2).tolist()))
    assert gk.global_norm(np.resize(piece, 10**8)) == pytest.approx(want, rel=1e-12)


def test_a_group_is_looked_up_once_and_sees_new_values():
    a, b = np.zeros(3), np.zeros((2, 6), F32)[:, ::2]
    group = gk.GradientGroup({"a": a, "b": b})
    for k in range(1, 4):
        a[...], b[...] = k, 2 * k
        result = gk.clip_by_global_norm(group, 1.0)
        assert result.norm == pytest.approx(math.sqrt(3 * k * k + 6 * 4 * k * k), rel=1e-15)
        np.testing.assert_allclose(b, 2 * k * result.coefficient, rtol=1e-6)
    assert (len(group), group.names, repr(group)) == (2, ["a", "b"], "GradientGroup of 2 arrays")
    assert gk.global_norm(group) == pytest.approx(1, rel=1e-6)


@pytest.mark.parametrize("weights", [[math.nan, 1.0], [INF, 1.0], [math.nan, math.nan]])
@pytest.mark.parametrize("policy", ["raise", "zero"])
def test_weights_that_bound_nothing_are_refused(weights, policy):
    grads = {"a": np.ones(2), "w": np.ones(2)}
    with pytest.raises(gk.NonFiniteError, match="clip_adaptive: weights: w holds NaN or infinity") as caught:
        gk.clip_adaptive(grads, {"a": np.ones(2), "w": np.array(weights)}, nonfinite=policy)
    assert caught.value.tensor == "w"
    assert all((g == 1).all() for g in grads.values())


def test_a_weight_that_is_nan_propagates_on_request():
    grads = {"a": np.full(2, 1e-9), "w": np.ones(2)}
    gk.clip_adaptive(grads, {"a": np.ones(2), "w": np.array([math.nan, 1.0])}, nonfinite="propagate")
    assert (grads["a"] == 1e-9).all() and np.isnan(grads["w"]).all()


def test_messages_name_the_array_in_its_argument():
    shut, x = np.ones(2), np.ones(2)
    shut.flags.writeable = False
    cases = [
        (shut, None, "arrays: is read-only"), ([x, shut], None, r"arrays\[1\]: is read-only"),
        ([None, 3], None, r"arrays\[1\]: not an array, got int"), ({"w": shut}, None, "w: is read-only"),
        ([("w", shut)], None, "w: is read-only"), ({"a": {"w": shut}}, None, r"a\.w: is read-only"),
        ((a for a in [shut]), None, r"arrays\[0\]: is read-only"), ([x], [shut], r"out\[0\]: is read-only"),
        (x, shut, "out: is read-only"), ([x], [np.ones(3)], r"out\[0\] must have dtype float64 and shape \(2,\)"),
        (x, np.ones(3), "out must have dtype"), ({"w": x}, {"w": shut}, "out: w: is read-only"),
        ([x.view(np.int64)], None, r"arrays\[0\]: dtype must be a floating-point format"),
    ]  # fmt: skip
    for arrays, out, message in cases:
        with pytest.raises((TypeError, ValueError), match=f"^clip_by_global_norm: {message}"):
            gk.clip_by_global_norm(arrays, 1.0, out=out)
    with pytest.raises(ValueError, match=r"^clip_adaptive: grads\[0\]: is read-only$"):
        gk.clip_adaptive([shut], [x])
    with pytest.raises(ValueError, match=r"^GradientGroup: arrays\[0\]: is read-only$"):
        gk.GradientGroup([shut])
