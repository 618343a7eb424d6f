"""Fixtures, adversarial inputs and exact models that every test shares. Nothing here calls gradkern's kernels."""

from __future__ import annotations

import math
import signal
import threading
from dataclasses import dataclass
from fractions import Fraction

import ml_dtypes
import mpmath
import numpy as np
import ptx_kernels
import pytest

from gradkern import _backend, _core

INF, NAN = math.inf, math.nan

# Started in the background by a shell, Python inherits that Ctrl-C is ignored; some tests press it.
if threading.current_thread() is threading.main_thread() and signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(params=_backend.usable_isas())
def isa(request):
    """Run on each instruction set of this machine."""
    before = _backend.isa()
    _backend.select_isa(request.param)
    yield request.param
    _backend.select_isa(before)


@pytest.fixture(params=[1, 2, 3, 7])
def threads(request):
    """Run with several thread counts."""
    before = _backend.get_num_threads()
    _backend.set_num_threads(request.param)
    yield request.param
    _backend.set_num_threads(before)


@pytest.fixture(autouse=True)
def usual_width(monkeypatch):
    """Text is as wide as where nobody says how wide a terminal is."""
    monkeypatch.delenv("COLUMNS", raising=False)


@pytest.fixture(params=["simt", pytest.param("cuda", marks=pytest.mark.gpu)])
def device(request):
    """Run on each device that is usable here, by its name."""
    refusal = _core.device_why_not(request.param)
    if refusal:
        pytest.skip(f"device {request.param!r} cannot be used: {refusal}")
    return request.param


@pytest.fixture(scope="session")
def compiled(tmp_path_factory):
    """Where compiled CUDA kernels lie: a directory that the processes of a run share."""
    base = tmp_path_factory.getbasetemp()
    path = (base.parent if base.name.startswith("popen") else base) / "compiled"
    path.mkdir(exist_ok=True)
    return path


@pytest.fixture(scope="session")
def kernels(compiled):
    """The CUDA kernels as PTX."""
    return ptx_kernels.Kernels(compiled)


_baseline: dict = {}


def check_same_as_baseline(key, compute):
    """compute() on the machine settings of the moment equals that of the first instruction set with one thread."""
    if key not in _baseline:
        isa, threads = _backend.isa(), _backend.get_num_threads()
        _backend.select_isa(_backend.usable_isas()[0])
        _backend.set_num_threads(1)
        _baseline[key] = compute()
        _backend.select_isa(isa)
        _backend.set_num_threads(threads)
    assert compute() == _baseline[key], key


@dataclass(frozen=True)
class Spec:
    """A row of section 4 of the arithmetic contract, typed in by hand."""

    p: int
    emin: int
    max: float
    has_inf: bool
    dtype: type

    @property
    def overflow_from(self) -> Fraction:
        """Exact max plus half a unit in its last place."""
        exponent = math.frexp(self.max)[1] - 1
        return Fraction(self.max) + Fraction(2) ** (exponent - self.p)


SPECS = {
    "float64": Spec(53, -1022, 1.7976931348623157e308, True, np.float64),
    "float32": Spec(24, -126, float.fromhex("0x1.fffffep127"), True, np.float32),
    "tfloat32": Spec(11, -126, float.fromhex("0x1.ffcp127"), True, np.float32),
    "bfloat16": Spec(8, -126, float.fromhex("0x1.fep127"), True, ml_dtypes.bfloat16),
    "float16": Spec(11, -14, 65504.0, True, np.float16),
    "float8_e5m2": Spec(3, -14, 57344.0, True, ml_dtypes.float8_e5m2),
    "float8_e4m3fn": Spec(4, -6, 448.0, False, ml_dtypes.float8_e4m3fn),
}
NARROW = ["float16", "bfloat16", "float8_e5m2", "float8_e4m3fn"]
UINT = {1: np.uint8, 2: np.uint16, 4: np.uint32, 8: np.uint64}


def bits(array):
    """Raw bits as unsigned integers."""
    array = np.ascontiguousarray(array)
    return array.view(UINT[array.dtype.itemsize])


def all_patterns(fmt):
    """Every bit pattern of an 8- or 16-bit format, as an array of it."""
    dtype = np.dtype(SPECS[fmt].dtype)
    return np.arange(2 ** (8 * dtype.itemsize), dtype=UINT[dtype.itemsize]).view(dtype)


def widened(array):
    """Values as float64 by ml_dtypes or NumPy, without the warning for signalling NaN."""
    with np.errstate(invalid="ignore"):
        return np.asarray(array).astype(np.float64)


def assert_same(got, want, what=""):
    """Equal bits, but for the payload of NaN (its sign counts)."""
    got, want = np.asarray(got), np.asarray(want)
    assert got.dtype == want.dtype and got.shape == want.shape, (got.dtype, want.dtype, got.shape, want.shape)
    if np.array_equal(bits(got), bits(want)):
        return
    wide_got, wide_want = widened(got), widened(want)
    both_nan = np.isnan(wide_got) & np.isnan(wide_want) & (np.signbit(wide_got) == np.signbit(wide_want))
    bad = np.flatnonzero(~((bits(got) == bits(want)).reshape(got.shape) | both_nan))
    assert bad.size == 0, (
        f"{what}: {bad.size} differ, first [{bad[0]}]: {got.flat[bad[0]]!r}, want {want.flat[bad[0]]!r}"
    )


def assert_same_values(got, want, what=""):
    """Equal values with signed zeros told apart; any NaN equals any NaN."""
    got, want = widened(got), widened(want)
    assert got.shape == want.shape, (got.shape, want.shape)
    same = ((got == want) & (np.signbit(got) == np.signbit(want))) | (np.isnan(got) & np.isnan(want))
    bad = np.flatnonzero(~same)
    assert bad.size == 0, (
        f"{what}: {bad.size} differ, first [{bad[0]}]: {got.flat[bad[0]]!r}, want {want.flat[bad[0]]!r}"
    )


def round_integer(m: int, e: int, p: int, emin: int, rounding: str = "nearest_even") -> tuple[int, int]:
    """Round |m| * 2^e to p bits with quantum at least 2^(emin - p + 1), in integers; m >= 0."""
    if m == 0:
        return 0, 0
    quantum = max(e + m.bit_length() - 1, emin) - p + 1
    shift = quantum - e
    if shift <= 0:
        return m << -shift, quantum
    kept, rest, half = m >> shift, m & ((1 << shift) - 1), 1 << (shift - 1)
    if rounding == "nearest_even" and (rest > half or (rest == half and kept & 1)):
        kept += 1
    return kept, quantum


def finish(
    m: int, e: int, negative: bool, spec: Spec, rounding="nearest_even", overflow="ieee", subnormals="keep"
) -> float:
    """+-m * 2^e stored in a format: one rounding, then overflow, then flush, as section 1 and 4 say."""
    kept, quantum = round_integer(m, e, spec.p, spec.emin, rounding)
    sign = -1.0 if negative else 1.0
    if kept == 0:
        return sign * 0.0
    top = Fraction(spec.max)
    value = Fraction(kept) * Fraction(2) ** quantum if quantum >= 0 else Fraction(kept, 1 << -quantum)
    if value > top:
        if overflow == "saturate" or rounding == "toward_zero":
            return sign * spec.max
        return sign * INF if spec.has_inf else NAN
    if subnormals == "flush" and value < Fraction(2) ** spec.emin:
        return sign * 0.0
    return sign * math.ldexp(kept, quantum)


def split(x: float) -> tuple[int, int]:
    """x = m * 2^e with integers."""
    mantissa, exponent = math.frexp(x)
    return int(mantissa * 2**53), exponent - 53


def round_exactly(x: float, fmt: str, **mode) -> float:
    """Value of the float64 x stored in a format: pure integer arithmetic."""
    spec = SPECS[fmt]
    if math.isnan(x):
        return x
    if math.isinf(x):
        return x if spec.has_inf else math.copysign(NAN, x)
    m, e = split(x)
    return finish(abs(m), e, math.copysign(1, x) < 0, spec, **mode)


def round_array(x, fmt: str, rounding="nearest_even"):
    """Vectorised nearest even or toward zero, ieee, narrower than float64: scale, rint or trunc, scale back."""
    spec = SPECS[fmt]
    x = widened(x)
    if fmt == "float64":
        return x.copy()
    with np.errstate(all="ignore"):
        exponent = np.where(np.isfinite(x) & (x != 0), np.frexp(x)[1] - 1, 0)
        quantum = np.maximum(exponent, spec.emin) - spec.p + 1
        integer = (np.rint if rounding == "nearest_even" else np.trunc)(np.ldexp(x, -quantum))
        rounded = np.copysign(np.ldexp(integer, quantum), x)
        beyond = spec.max if rounding == "toward_zero" else (INF if spec.has_inf else NAN)
        rounded = np.where(np.abs(rounded) > spec.max, np.copysign(beyond, x), rounded)
        infinite = np.copysign(INF if spec.has_inf else NAN, x)
        return np.where(np.isinf(x), infinite, np.where(np.isnan(x), x, rounded))


SPECIALS = [0.0, -0.0, INF, -INF, NAN, math.copysign(NAN, -1.0)]


def adversarial(fmt: str):
    """Values that break careless code: thresholds, ties and their neighbours, subnormals, huge, mixed signs."""
    spec = SPECS[fmt]
    tiny = Fraction(2) ** (spec.emin - spec.p + 1)
    points = [
        1, 1 + Fraction(2) ** -spec.p, 1 + Fraction(3) * Fraction(2) ** -spec.p, Fraction(3, 2), Fraction(1, 3),
        Fraction(spec.max), spec.overflow_from, Fraction(spec.max) + Fraction(spec.max) / 2**spec.p,
        Fraction(2) ** spec.emin, Fraction(2) ** spec.emin - tiny / 2, Fraction(2) ** spec.emin - tiny,
        tiny, tiny / 2, tiny * 3 / 2, tiny * 5 / 2, tiny / 4, tiny * 7,
    ]  # fmt: skip
    values = []
    for point in points:
        if abs(point) > Fraction(1.7976931348623157e308):
            continue
        v = float(point)
        values += [v, math.nextafter(v, 0.0), math.nextafter(v, INF)]
    values += [1.7976931348623157e308, 5e-324, 2.2250738585072014e-308, 1e-45, 1e-40, 3.4e38, 1e30]
    return np.array(SPECIALS + values + [-v for v in values])


def ulp(value: float, p: int, emin: int) -> float:
    """Unit in the last place of a format at a real value (given near enough as a float64)."""
    exponent = math.frexp(value)[1] - 1 if value else emin
    return math.ldexp(1.0, max(exponent, emin) - p + 1)


def stored_chain(w, fmt, depth, start=1.0):
    """start, then fl(w fl(...)): float32 products (float64 in float64) and one rounding a layer, in integers."""
    w, values = round_exactly(w, fmt), [round_exactly(start, fmt)]
    for _ in range(depth):
        product = w * values[-1]  # exact but in float64, where the machine rounds it once
        values.append(product if fmt == "float64" else round_exactly(round_exactly(product, "float32"), fmt))
    return values


def torch_tensors(torch, net, x, loss, target, grad_output):
    """Every tensor of the forward and backward pass by autograd, keyed as the report's rows are."""
    phi = {"relu": torch.relu, "tanh": torch.tanh, "gelu": torch.nn.functional.gelu}
    h = torch.tensor(x, dtype=torch.float64, requires_grad=True)
    found, leaves = {(0, "activation"): h}, {(0, "grad_activation"): h}
    for number, layer in enumerate(net.layers, 1):
        w = torch.tensor(layer.weight, dtype=torch.float64, requires_grad=True)
        b = torch.tensor(layer.bias, dtype=torch.float64, requires_grad=True)
        z = h @ w.T + b
        h = phi[layer.activation](z)
        found |= {(number, "pre_activation"): z, (number, "activation"): h}
        leaves |= {(number, "grad_weight"): w, (number, "grad_bias"): b, (number, "grad_pre_activation"): z,
                   (number, "grad_activation"): h}  # fmt: skip
    if grad_output is not None:
        value = (h * torch.tensor(grad_output)).sum()
    elif loss == "sum":
        value = h.sum()
    elif loss == "mse":
        value = torch.nn.functional.mse_loss(h, torch.tensor(target))
    else:
        value = torch.nn.functional.cross_entropy(h, torch.tensor(target))
    grads = torch.autograd.grad(value, list(leaves.values()))
    found |= dict(zip(leaves, grads, strict=True))
    return {key: t.detach().numpy() for key, t in found.items()}, float(value.detach())


def fma(x: float, w: float, a: float, acc: str) -> float:
    """x * w + a with one rounding to acc, nearest even, in integers; IEEE 754 specials."""
    if not (math.isfinite(x) and math.isfinite(w) and math.isfinite(a)):
        if math.isnan(x) or math.isnan(w) or math.isnan(a):
            return NAN
        if math.isinf(x) or math.isinf(w):
            if x == 0 or w == 0:
                return NAN
            product = math.copysign(INF, math.copysign(1, x) * math.copysign(1, w))
            return NAN if math.isinf(a) and a != product else product
        return a
    if x == 0 or w == 0 or a == 0:
        negative = math.copysign(1, x) * math.copysign(1, w) < 0
        if x == 0 or w == 0:
            if a == 0:
                return -0.0 if negative and math.copysign(1, a) < 0 else 0.0
            return a
    (mx, ex), (mw, ew), (ma, ea) = split(x), split(w), split(a)
    m, e = mx * mw, ex + ew
    if ma:
        if e > ea:
            m, e = m << (e - ea), ea
        m += ma << (ea - e)
    if m == 0:
        return 0.0
    return finish(abs(m), e, m < 0, SPECS[acc])


def chain(xs, ws, acc, bias=None):
    a = 0.0
    for x, w in zip(xs, ws, strict=True):
        a = fma(x, w, a, acc)
    return a if bias is None else fma(1.0, bias, a, acc)


def true_chain(net, x, formulas):
    """Forward and backward of sum(output) in 200 bits with any exponent: {(layer, role): list of mpf}."""
    h, found, slopes, inputs = [[mpmath.mpf(v) for v in row] for row in x], {}, [], []
    for number, layer in enumerate(net.layers, 1):
        inputs.append(h)
        z = [[mpmath.fdot(row, w) + b for w, b in zip(layer.weight.tolist(), layer.bias, strict=True)] for row in h]
        phi, terms = formulas[layer.activation]
        h, slopes = [[phi(v) for v in row] for row in z], [*slopes, [[mpmath.fsum(terms(v)) for v in row] for row in z]]
        found |= {(number, "pre_activation"): z, (number, "activation"): h}
    dh = [[mpmath.mpf(1)] * len(h[0]) for _ in h]
    for number, layer in reversed(list(enumerate(net.layers, 1))):
        dz = [[a * b for a, b in zip(*rows, strict=True)] for rows in zip(dh, slopes[number - 1], strict=True)]
        columns = list(zip(*dz, strict=True))
        dw = [[mpmath.fdot(c, k) for k in zip(*inputs[number - 1], strict=True)] for c in columns]
        dh = [[mpmath.fdot(row, w) for w in layer.weight.T.tolist()] for row in dz]
        found |= {(number, "grad_pre_activation"): dz, (number, "grad_weight"): dw, (number - 1, "grad_activation"): dh}
    return {key: [v for row in rows for v in row] for key, rows in found.items()}
