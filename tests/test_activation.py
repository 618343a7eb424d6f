"""Activations and derivatives against mpmath in ulps; what frameworks compute from the stored output against torch."""

from __future__ import annotations

import math

import mpmath
import numpy as np
import pytest
from conftest import (
    INF,
    NAN,
    NARROW,
    SPECS,
    all_patterns,
    assert_same,
    assert_same_values,
    check_same_as_baseline,
    round_array,
    widened,
)

import gradkern as gk

mpmath.mp.prec = 200
MP = mpmath.mp
LAMBDA = MP.mpf("1.0507009873554804934193349852946")
LAMBDA_ALPHA = MP.mpf("1.7580993408473768599402175208123")
LINEAR, CUBIC = MP.sqrt(2 / MP.pi), MP.mpf("0.044715")


def _sigmoid(z):
    return 1 / (1 + MP.exp(-z)) if z > -20000 else MP.exp(z)


def _density(z):
    e = MP.exp(-min(abs(z), MP.mpf(20000)))
    return e / (1 + e) ** 2


def _pdf(z):
    return MP.exp(-min(z * z, MP.mpf(40000)) / 2) / MP.sqrt(2 * MP.pi)


def _cdf(z):
    return MP.erfc(-max(min(z, MP.mpf(100)), MP.mpf(-100)) / MP.sqrt(2)) / 2


def _softplus(z):
    return max(z, MP.mpf(0)) + MP.log1p(MP.exp(-min(abs(z), MP.mpf(20000))))


def _mish_gate(z):
    return MP.tanh(_softplus(z))


def _exp(z, function=MP.exp):
    return function(max(z, MP.mpf(-20000)))


def _expm1(z):
    return _exp(z, MP.expm1)


def _gelu_tanh_u(z):
    return 2 * LINEAR * (z + CUBIC * z**3)


# phi, and phi' as a list of terms: their sum is phi', the sum of their magnitudes is the scale near phi's extrema.
PHI = {
    "identity": (lambda z: z, lambda z: [MP.mpf(1)]),
    "relu": (lambda z: max(z, MP.mpf(0)), lambda z: [MP.mpf(z > 0)]),
    "leaky_relu(0.25)": (lambda z: z if z > 0 else z / 4, lambda z: [MP.mpf(1 if z > 0 else 0.25)]),
    "elu": (lambda z: z if z > 0 else _expm1(z), lambda z: [MP.mpf(1) if z > 0 else _exp(z)]),
    "elu(0.5)": (lambda z: z if z > 0 else _expm1(z) / 2, lambda z: [MP.mpf(1) if z > 0 else _exp(z) / 2]),
    "selu": (
        lambda z: LAMBDA * z if z > 0 else LAMBDA_ALPHA * _expm1(z),
        lambda z: [LAMBDA if z > 0 else LAMBDA_ALPHA * _exp(z)],
    ),
    "sigmoid": (_sigmoid, lambda z: [_density(z)]),
    "tanh": (MP.tanh, lambda z: [4 * _density(2 * z)]),
    "softplus": (_softplus, lambda z: [_sigmoid(z)]),
    "gelu": (lambda z: z * _cdf(z), lambda z: [z * _pdf(z), _cdf(z)]),
    "gelu_tanh": (
        lambda z: z * _sigmoid(_gelu_tanh_u(z)),
        lambda z: [z * _density(_gelu_tanh_u(z)) * 2 * LINEAR * (1 + 3 * CUBIC * z * z), _sigmoid(_gelu_tanh_u(z))],
    ),
    "silu": (lambda z: z * _sigmoid(z), lambda z: [z * _density(z), _sigmoid(z)]),
    "mish": (
        lambda z: z * _mish_gate(z),
        lambda z: [z * _sigmoid(z) / MP.cosh(min(_softplus(z), MP.mpf(20000))) ** 2, _mish_gate(z)],
    ),
}
# Largest error measured on 50,000 points in either precision, rounded up, in ulps: forward and derivative.
# The derivatives of gelu, gelu_tanh, silu and mish have a zero near -1; there the ulp is that of the larger of phi' and
# a quarter of its two terms' magnitudes. A gate that is subnormal is off by up to its quantum, times z.
BOUNDS = {
    "identity": (0, 0), "relu": (0, 0), "leaky_relu(0.25)": (0.5, 0), "elu": (0.6, 0.8), "elu(0.5)": (0.6, 0.8),
    "selu": (1.6, 1.6), "sigmoid": (0.8, 0.8), "tanh": (0.6, 0.8), "softplus": (1.5, 0.8), "gelu": (1.5, 3.5),
    "gelu_tanh": (3, 6), "silu": (1.5, 3.5), "mish": (4, 11),
}  # fmt: skip
NATURAL_ZERO = 0.25
GATED = ("gelu", "gelu_tanh", "silu", "mish")


def points(storage, seed=0):
    dtype, spec = np.dtype(storage).type, SPECS[storage]
    rng = np.random.default_rng(seed)
    exponents = np.arange(spec.emin - spec.p + 1, 2 - spec.emin, 1 if storage == "float32" else 5)
    z = np.ldexp(1 + rng.random(len(exponents)), exponents - 1)
    wide = 110 if storage == "float32" else 750
    z = np.concatenate([z, -z, rng.uniform(-wide, wide, 300), rng.uniform(-20, 20, 500), rng.uniform(-3, 3, 300)])
    return z.astype(dtype)


def worst(z, got, truth, scale, storage, name):
    """Largest error in ulps, after what a subnormal gate may cost."""
    spec = SPECS[storage]
    quantum, beyond = MP.ldexp(1, spec.emin - spec.p + 1), MP.ldexp(1, 2 - spec.emin)
    most = (0.0, 0)
    for index, (x, g, t, s) in enumerate(zip(z.tolist(), got.tolist(), truth, scale, strict=True)):
        if math.isinf(g) and abs(t) >= beyond:
            continue
        unit = MP.ldexp(1, max(mpmath.frexp(s)[1] - 1 if s else spec.emin, spec.emin) - spec.p + 1)
        value = math.copysign(1, g) * beyond if math.isinf(g) else MP.mpf(g)
        spread = abs(MP.mpf(x)) * (2 * LINEAR * (1 + 3 * CUBIC * x * x) if name == "gelu_tanh" else 1)
        excess = abs(value - t) - (spread * quantum if name in GATED else 0)
        most = max(most, (float(excess / unit), index))
    return most


@pytest.mark.parametrize("storage", ["float32", "float64"])
@pytest.mark.parametrize("name", PHI)
def test_forward_in_ulps(name, storage):
    z = points(storage)
    truth = [PHI[name][0](MP.mpf(v)) for v in z.tolist()]
    most, index = worst(z, gk.activation_forward(z, name, arithmetic=storage), truth, truth, storage, name)
    assert most <= BOUNDS[name][0], f"{name}({z[index]!r}): {most:.3f} ulp"


@pytest.mark.parametrize("storage", ["float32", "float64"])
@pytest.mark.parametrize("name", PHI)
def test_derivative_in_ulps(name, storage):
    z = points(storage, seed=1)
    terms = [PHI[name][1](MP.mpf(v)) for v in z.tolist()]
    truth = [MP.fsum(t) for t in terms]
    scale = [max(abs(d), NATURAL_ZERO * MP.fsum(map(abs, t))) for d, t in zip(truth, terms, strict=True)]
    got = gk.activation_backward(np.ones_like(z), z, name, arithmetic=storage)
    most, index = worst(z, got, truth, scale, storage, name)
    assert most <= BOUNDS[name][1], f"{name}'({z[index]!r}): {most:.3f} ulp"


@pytest.mark.parametrize("name", PHI)
def test_the_closed_forms_above_are_derivatives_and_complete(name):
    assert {known.partition("(")[0] for known in PHI} == set(gk.activations())
    for z in (-7.3, -1.6, -0.4, 0.3, 2.2, 9.1):
        want = mpmath.diff(PHI[name][0], MP.mpf(z))
        assert abs(MP.fsum(PHI[name][1](MP.mpf(z))) - want) < MP.mpf("1e-25")


@pytest.mark.parametrize("fmt", NARROW)
@pytest.mark.parametrize("name", PHI)
def test_narrow_storage_is_float32_rounded_once(name, fmt):
    """Every 8- or 16-bit z: fl(phi in float32), and fl(dh phi') with product and phi' in float32."""
    z = all_patterns(fmt)
    with np.errstate(invalid="ignore"):
        wide = widened(z).astype(np.float32)
    dh = round_array(np.random.default_rng(3).standard_normal(len(z)), fmt).astype(SPECS[fmt].dtype)
    forward = gk.activation_forward(wide, name, arithmetic="float32")
    assert_same_values(gk.activation_forward(z, name, arithmetic=fmt), round_array(forward, fmt))
    slope = gk.activation_backward(np.ones_like(wide), wide, name, arithmetic="float32")
    with np.errstate(all="ignore"):
        product = dh.astype(np.float32) * slope
    assert_same_values(gk.activation_backward(dh, z, name, arithmetic=fmt), round_array(product, fmt))


LIMITS = {  # phi(-inf), phi(inf), phi'(-inf), phi'(inf)
    "identity": (-INF, INF, 1, 1), "relu": (0, INF, 0, 1), "leaky_relu(0.25)": (-INF, INF, 0.25, 1),
    "elu": (-1, INF, 0, 1), "elu(0.5)": (-0.5, INF, 0, 1), "selu": (-float(LAMBDA_ALPHA), INF, 0, float(LAMBDA)),
    "sigmoid": (0, 1, 0, 0), "tanh": (-1, 1, 0, 0), "softplus": (0, INF, 0, 1), "gelu": (0, INF, 0, 1),
    "gelu_tanh": (0, INF, 0, 1), "silu": (0, INF, 0, 1), "mish": (0, INF, 0, 1),
}  # fmt: skip


@pytest.mark.parametrize("storage", ["float64", "float32", "float16", "bfloat16"])
@pytest.mark.parametrize("name", PHI)
def test_infinite_and_nan(name, storage, isa):
    largest = SPECS[storage].max
    low, high, slope_low, slope_high = (float(round_array(v, storage)) for v in LIMITS[name])
    got = widened(gk.activation_forward([-INF, INF, NAN], name, arithmetic=storage))
    assert got[:2].tolist() == [low, high] and np.isnan(got[2])
    got = widened(gk.activation_backward([1.0] * 5, [-INF, INF, NAN, largest, -largest], name, arithmetic=storage))
    assert got[[0, 1]].tolist() == [slope_low, slope_high]
    assert got[2] == 1.0 if name == "identity" else np.isnan(got[2])  # the identity's phi' does not depend on z
    assert got[[3, 4]].tolist() == [slope_high, slope_low]
    assert np.isnan(widened(gk.activation_backward([NAN], [1.0], name, arithmetic=storage)))[0]


@pytest.mark.parametrize("storage", ["float64", "float32", *NARROW])
@pytest.mark.parametrize("derivative", ["exact", "stored_output"])
def test_kinks_take_the_left_derivative(storage, derivative):
    a = gk.Arithmetic(storage, derivative=derivative)
    for name, want in (("relu", 0.0), ("leaky_relu(0.25)", 0.25), ("elu(0.5)", 0.5)):
        got = widened(gk.activation_backward([1.0, 1.0], [0.0, -0.0], name, arithmetic=a))
        assert got.tolist() == [want, want], name
    tiny = gk.finfo(storage).smallest_subnormal
    assert widened(gk.activation_backward([1.0], [tiny], "relu", arithmetic=a)).tolist() == [1.0]


def test_saturated_sigmoid_in_float16():
    """sigma'(9) = 1.2338e-4; frameworks store sigma(9) = 1 and get 0."""
    want = np.float16(float(_density(MP.mpf(9))))
    exact = gk.activation_backward([1.0], [9.0], "sigmoid", arithmetic="float16")
    assert exact[0] == want and f"{float(want):.2e}" == "1.23e-04"
    stored = gk.Arithmetic("float16", derivative="stored_output")
    assert gk.activation_backward([1.0], [9.0], "sigmoid", arithmetic=stored)[0] == 0
    assert gk.activation_backward([1.0], [-9.0], "sigmoid", arithmetic=stored)[0] > 0


def torch_backward(torch, name, g, h):
    """Gradients that PyTorch forms from the stored output."""
    ops = torch.ops.aten
    return {
        "relu": lambda: ops.threshold_backward(g, h, 0),
        "leaky_relu(0.25)": lambda: ops.leaky_relu_backward(g, h, 0.25, True),
        "elu": lambda: ops.elu_backward(g, 1.0, 1.0, 1.0, True, h),
        "elu(0.5)": lambda: ops.elu_backward(g, 0.5, 1.0, 1.0, True, h),
        "selu": lambda: ops.elu_backward(g, float(LAMBDA_ALPHA / LAMBDA), float(LAMBDA), 1.0, True, h),
        "sigmoid": lambda: ops.sigmoid_backward(g, h),
        "tanh": lambda: ops.tanh_backward(g, h),
    }[name]()


@pytest.mark.parametrize("storage", ["float64", "float32", "float16", "bfloat16"])
@pytest.mark.parametrize("name", ["relu", "leaky_relu(0.25)", "elu", "elu(0.5)", "selu", "sigmoid", "tanh"])
def test_stored_output_against_torch(name, storage):
    torch = pytest.importorskip("torch")
    rng = np.random.default_rng(5)
    dtype = SPECS[storage].dtype
    z, g = (round_array(v, storage).astype(dtype) for v in (rng.uniform(-12, 12, 3000), rng.standard_normal(3000)))
    h = widened(gk.activation_forward(z, name, arithmetic=storage))
    wide = torch_backward(torch, name, torch.tensor(widened(g)), torch.tensor(h)).numpy()
    got = gk.activation_backward(g, z, name, arithmetic=gk.Arithmetic(storage, derivative="stored_output"))
    # three operations in the wide format, whose 1 - h may amplify an error of h = 1 by nothing: h is exact here.
    eps = 2.0**-52 if storage == "float64" else 2.0**-23
    half = 0 if storage in ("float64", "float32") else 0.5 * gk.finfo(storage).epsilon
    floor = gk.finfo(storage).smallest_subnormal + eps * np.abs(widened(g))  # h + alpha and 1 - h h round near 1
    assert np.all(np.abs(widened(got) - wide) <= (4 * eps + half) * np.abs(wide) + floor)


def test_softplus_from_its_output():
    """phi' = 1 - e^-h."""
    z = np.random.default_rng(6).uniform(-12, 12, 500).astype(np.float16)
    h = widened(gk.activation_forward(z, "softplus", arithmetic="float16"))
    got = gk.activation_backward(np.ones_like(z), z, "softplus", arithmetic="float16[derivative=stored_output]")
    assert np.all(np.abs(widened(got) / -np.expm1(-h) - 1) <= 2.0**-11 + 2.0**-22)


@pytest.mark.parametrize("name", ["identity", "gelu", "gelu_tanh", "silu", "mish"])
def test_stored_output_is_exact_where_frameworks_use_z(name):
    z = all_patterns("float16")
    ones = np.ones(len(z), np.float16)
    stored = gk.activation_backward(ones, z, name, arithmetic="float16[derivative=stored_output]")
    assert_same(stored, gk.activation_backward(ones, z, name, arithmetic="float16"))


def check_same_bits(z, storage, what):
    for name in PHI:

        def compute(name=name):
            a = gk.Arithmetic(storage, derivative="stored_output")
            result = [gk.activation_forward(z, name, arithmetic=storage),
                      gk.activation_backward(z, z, name, arithmetic=a),
                      gk.activation_backward(z[::-1], z, name, arithmetic=storage)]  # fmt: skip
            return [r.tobytes() for r in result]

        check_same_as_baseline((name, storage, what), compute)


@pytest.mark.parametrize("storage", ["float64", "float32", "float16", "float8_e4m3fn"])
def test_same_bits_on_every_isa_and_thread_count(storage, isa, threads):
    z = np.concatenate([points("float32"), [INF, -INF, 0.0, -0.0]]).astype(np.float64)
    check_same_bits(np.tile(z, 9), storage, "numbers")  # several chunks


@pytest.mark.parametrize("storage", ["float64", "float32", "float16", "float8_e4m3fn"])
def test_same_bits_of_nan_on_every_isa(storage, isa):
    """The sign of a NaN is a bit too: whatever it is, it must not depend on the machine."""
    check_same_bits(np.array([NAN, -NAN, 1.0, INF, -INF, 0.0, -NAN, -NAN, NAN] * 5), storage, "nan")


@pytest.mark.parametrize("shape", [(), (0,), (3, 0), (5,), (2, 3, 4)])
def test_shapes_and_out(shape):
    z = np.random.default_rng(7).standard_normal(shape)
    h = gk.activation_forward(z, "tanh", arithmetic="bfloat16")
    assert h.shape == shape and h.dtype == SPECS["bfloat16"].dtype
    out = np.zeros_like(h)
    assert gk.activation_forward(z, "tanh", arithmetic="bfloat16", out=out) is out
    assert_same(out, h)
    assert gk.activation_backward(z, z, "tanh", arithmetic="bfloat16", out=out) is out
    assert_same(out, gk.activation_backward(z, z, "tanh", arithmetic="bfloat16"))


@pytest.mark.parametrize("name", ["swish", "", "relu(1)", "leaky_relu(", "leaky_relu(x)", "elu(nan)", "elu(1", "RELU"])
def test_unknown_names_and_parameters(name):
    for call in (lambda: gk.activation_forward([1.0], name), lambda: gk.activation_backward([1.0], [1.0], name)):
        with pytest.raises(ValueError, match="activation"):
            call()


def test_errors():
    with pytest.raises(ValueError, match=r"grad_output has shape \(2,\), pre_activation \(3,\)"):
        gk.activation_backward([1.0, 2.0], [1.0, 2.0, 3.0], "relu")
    with pytest.raises(TypeError, match="pre_activation: not an array"):
        gk.activation_forward("z", "relu")
    with pytest.raises(TypeError, match="out must have dtype float32, got float64"):
        gk.activation_forward([1.0], "relu", out=np.zeros(1))
    with pytest.raises(ValueError, match=r"out must have shape \(1,\), got \(2,\)"):
        gk.activation_forward([1.0], "relu", out=np.zeros(2, np.float32))
    with pytest.raises(ValueError, match="must be an Arithmetic or one of"):
        gk.activation_forward([1.0], "relu", arithmetic="float12")
    with pytest.raises(ValueError, match="device"):
        gk.activation_forward([1.0], "relu", device="gpu")
