"""Elementary functions against mpmath: error in ulps, every binade, limits, and the same bits everywhere."""

from __future__ import annotations

import math

import mpmath
import numpy as np
import pytest
from conftest import INF, NAN, bits

from gradkern import _backend, _core

mpmath.mp.prec = 160
MP = mpmath.mp


def _far(x):
    """x, but no further than 100 from zero, where erfc is far below every format: mpmath would take ages beyond."""
    return max(min(x, MP.mpf(100)), MP.mpf(-100))


def _cdf(x):
    return MP.erfc(-_far(x) / MP.sqrt(2)) / 2


def _logistic_density(x):
    e = MP.exp(-abs(x))
    return e / (1 + e) ** 2


TRUTH = {
    "exp": MP.exp,
    "expm1": MP.expm1,
    "log1p": MP.log1p,
    "tanh": MP.tanh,
    "sigmoid": lambda x: 1 / (1 + MP.exp(-x)),
    "erf": MP.erf,
    "erfc": lambda x: MP.erfc(_far(x)),
    "normal_cdf": _cdf,
    "normal_pdf": lambda x: MP.exp(-x * x / 2) / MP.sqrt(2 * MP.pi),
    "sigmoid_derivative": _logistic_density,
    "tanh_derivative": lambda x: 4 * _logistic_density(2 * x),
}
# What elementary.hpp states. The requirement behind it is 2 (3 for normal_cdf and the derivatives in float64).
ULPS = 1.0
KERNEL = {
    "float32": (_core.elementary_f32, np.float32, 24, -126),
    "float64": (_core.elementary_f64, np.float64, 53, -1022),
}
# Where some function changes its formula, saturates, overflows or becomes subnormal or zero.
CORNERS = [
    0.625, 0.625 * math.sqrt(2), math.log(2) / 2, math.log(2), 1.5 * math.log(2), math.sqrt(2) - 1, math.sqrt(0.5) - 1,
    -0.5, 1, 2, 3, 4.25, 9, 10, 10.2, 14.4, 17.3, 20, 27.3, 36.7, 38.6, 40, 44.4, 64 * math.log(2), 5.86, 8.29, 26.54,
    37.5, 87.33654, 88.72284, 89, 103.97208, 104, 107, 708.3964, 709.782712893384, 710, 745.1332, 746, 748, 13.15, 38.4,
    52, 354.9,    372.5, 6.05, 9.2, 26.2, 27.22, 14.17, 38.56, 22.18, 0.84, 0.8838834764831844,
]  # fmt: skip


def samples(dtype, per_binade, seed=0):
    """Random mantissas in every binade, subnormals too, both signs, and around every corner."""
    rng = np.random.default_rng(seed)
    info = np.finfo(dtype)
    low = int(math.log2(info.smallest_subnormal))
    exponents = np.repeat(np.arange(low, info.maxexp), per_binade)
    with np.errstate(all="ignore"):
        x = np.ldexp(1 + rng.random(len(exponents)), exponents).astype(dtype)
        x[0] = info.smallest_subnormal
    dense = np.concatenate([
        rng.uniform(-20, 20, 60 * per_binade), rng.uniform(-110, 110, 20 * per_binade),
        rng.uniform(-1, 1, 40 * per_binade),
    ]).astype(dtype)  # fmt: skip
    if dtype is np.float64:
        dense = np.concatenate([dense, rng.uniform(-760, 760, 100 * per_binade)])
    near = np.array(CORNERS, dtype=dtype)
    around = [near]
    for _ in range(3):
        around += [np.nextafter(around[-1], dtype(0))]
    up = near
    for _ in range(3):
        up = np.nextafter(up, dtype(INF))
        around.append(up)
    everything = np.concatenate([x, -x, dense, *around, *[-a for a in around]])
    return everything[np.isfinite(everything)]


def ulps_off(got, truth, p, emin):
    """|got - truth| in ulps of truth; an infinity counts as 2^(emax + 1), the first value beyond the range."""
    beyond = MP.ldexp(1, 2 - emin)
    if math.isinf(got) and abs(truth) >= beyond and (got > 0) == (truth > 0):
        return 0.0
    exponent = max(mpmath.frexp(truth)[1] - 1, emin) if truth else emin
    unit = MP.ldexp(1, exponent - p + 1)
    value = math.copysign(1, got) * beyond if math.isinf(got) else MP.mpf(got)
    return float(abs(value - truth) / unit)


def domain(name, x):
    return x[x > -1] if name == "log1p" else x


@pytest.mark.parametrize("precision", KERNEL)
@pytest.mark.parametrize("name", TRUTH)
def test_error_in_ulps(name, precision):
    function, dtype, p, emin = KERNEL[precision]
    x = domain(name, samples(dtype, per_binade=2 if precision == "float32" else 1))
    got = function(name, x)
    worst = max(
        (ulps_off(g, TRUTH[name](MP.mpf(v)), p, emin), v) for v, g in zip(x.tolist(), got.tolist(), strict=True)
    )
    assert worst[0] <= ULPS, f"{name}({worst[1]!r}) is {worst[0]:.3f} ulp off"


@pytest.mark.slow
@pytest.mark.parametrize("precision", KERNEL)
@pytest.mark.parametrize("name", TRUTH)
def test_error_in_ulps_many(name, precision):
    function, dtype, p, emin = KERNEL[precision]
    x = domain(name, samples(dtype, per_binade=40 if precision == "float32" else 12, seed=1))
    got = function(name, x)
    worst = max(
        (ulps_off(g, TRUTH[name](MP.mpf(v)), p, emin), v) for v, g in zip(x.tolist(), got.tolist(), strict=True)
    )
    assert worst[0] <= ULPS, f"{name}({worst[1]!r}) is {worst[0]:.3f} ulp off"


SPECIAL_VALUES = {
    "exp": [(0.0, 1.0), (-0.0, 1.0), (INF, INF), (-INF, 0.0)],
    "expm1": [(0.0, 0.0), (-0.0, -0.0), (INF, INF), (-INF, -1.0)],
    "log1p": [(0.0, 0.0), (-0.0, -0.0), (INF, INF), (-1.0, -INF), (-INF, NAN), (-1.5, NAN)],
    "tanh": [(0.0, 0.0), (-0.0, -0.0), (INF, 1.0), (-INF, -1.0)],
    "sigmoid": [(0.0, 0.5), (-0.0, 0.5), (INF, 1.0), (-INF, 0.0)],
    "erf": [(0.0, 0.0), (-0.0, -0.0), (INF, 1.0), (-INF, -1.0)],
    "erfc": [(0.0, 1.0), (-0.0, 1.0), (INF, 0.0), (-INF, 2.0)],
    "normal_cdf": [(0.0, 0.5), (-0.0, 0.5), (INF, 1.0), (-INF, 0.0)],
    "normal_pdf": [(INF, 0.0), (-INF, 0.0)],
    "sigmoid_derivative": [(0.0, 0.25), (-0.0, 0.25), (INF, 0.0), (-INF, 0.0)],
    "tanh_derivative": [(0.0, 1.0), (-0.0, 1.0), (INF, 0.0), (-INF, 0.0)],
}


@pytest.mark.parametrize("precision", KERNEL)
@pytest.mark.parametrize("name", TRUTH)
def test_special_values(name, precision, isa):
    function, dtype, _, _ = KERNEL[precision]
    x = np.array([x for x, _ in SPECIAL_VALUES[name]], dtype)
    want = np.array([y for _, y in SPECIAL_VALUES[name]], dtype)
    got = function(name, x)
    number = ~np.isnan(want)
    assert np.array_equal(np.isnan(got), np.isnan(want))
    assert np.array_equal(bits(got)[number], bits(want)[number]), (got, want)
    either_sign = np.array([NAN, -NAN], dtype)
    assert set(bits(function(name, either_sign)).tolist()) == {bits(np.array([np.nan], dtype))[0]}, "one NaN comes back"


@pytest.mark.parametrize("precision", KERNEL)
@pytest.mark.parametrize("name", TRUTH)
def test_same_bits_on_every_isa_and_at_every_length(name, precision):
    function, dtype, _, _ = KERNEL[precision]
    x = np.concatenate([samples(dtype, 3), np.array([NAN, -NAN, INF, -INF, 0.0, -0.0], dtype)])
    before = _backend.isa()
    try:
        results = {}
        for isa in _backend.usable_isas():
            _backend.select_isa(isa)
            results[isa] = function(name, x).tobytes()
            for length in (0, 1, 7, 15, 17, 33):
                assert function(name, x[5 : 5 + length]).tobytes() == function(name, x)[5 : 5 + length].tobytes()
    finally:
        _backend.select_isa(before)
    assert len(set(results.values())) == 1


@pytest.mark.parametrize("precision", KERNEL)
@pytest.mark.parametrize("name", ["exp", "expm1", "log1p", "tanh", "sigmoid", "erf", "normal_cdf"])
def test_monotone_across_thresholds(name, precision):
    """Consecutive floats around every corner never go down by more than the two errors allow, and not at all in exp."""
    function, dtype, _, _ = KERNEL[precision]
    for corner in [*CORNERS, *[-c for c in CORNERS]]:
        if name == "log1p" and corner <= -1:
            continue
        x = np.array([corner], dtype)
        run = [x[0]]
        for _ in range(200):
            run.append(np.nextafter(run[-1], dtype(INF)))
        y = function(name, np.array(run))
        with np.errstate(invalid="ignore"):
            drops = (y[:-1] - y[1:])[y[1:] < y[:-1]]
        assert np.all(drops <= np.spacing(np.abs(y).max(initial=0, where=np.isfinite(y)))), (name, corner)


@pytest.mark.parametrize("precision", KERNEL)
def test_symmetries_are_exact(precision):
    function, dtype, _, _ = KERNEL[precision]
    x = samples(dtype, 2)
    for name in ("tanh", "erf"):
        assert np.array_equal(function(name, -x), -function(name, x)), name
    for name in ("normal_pdf", "sigmoid_derivative", "tanh_derivative"):
        assert np.array_equal(function(name, -x), function(name, x)), name


@pytest.mark.parametrize("precision", KERNEL)
def test_ranges_are_kept(precision):
    function, dtype, _, _ = KERNEL[precision]
    x = samples(dtype, 2)
    for name, low, high in (("sigmoid", 0, 1), ("normal_cdf", 0, 1), ("tanh", -1, 1), ("erf", -1, 1), ("erfc", 0, 2),
                            ("sigmoid_derivative", 0, 0.25), ("tanh_derivative", 0, 1)):  # fmt: skip
        y = function(name, x)
        assert np.all((y >= low) & (y <= high)), name


def test_unknown_name():
    with pytest.raises(ValueError, match="unknown function 'sine'"):
        _core.elementary_f64("sine", np.ones(1))
