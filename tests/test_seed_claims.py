"""Every claim of the gallery: what its section prints is what exact arithmetic, mpmath or the literature says."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from decimal import Decimal, getcontext
from fractions import Fraction

import ml_dtypes
import mpmath
import numpy as np
import pytest
from conftest import SPECS, stored_chain
from gallery_pages import claims

getcontext().prec = 50
FORMATS = ("float8_e4m3fn", "float8_e5m2", "float16", "bfloat16", "float32", "float64")
NUMBER = r"[-+]?\d+(?:\.\d+)?(?:e[-+]?\d+)?"
CHECKS: dict[int, Callable[[list[str]], None]] = {}


def row(number: int) -> Callable[[Callable[[list[str]], None]], Callable[[list[str]], None]]:
    """Register the check of a claim; it is given the lines that the section prints."""
    return lambda check: CHECKS.setdefault(number, check)


def numbers(line: str) -> list[float]:
    return [float(number) for number in re.findall(NUMBER, line)]


def sigmoid_slope(z: float) -> float:
    with mpmath.workdps(40):
        return float(1 / (1 + mpmath.exp(-z)) / (1 + mpmath.exp(z)))


def tanh_slope(z: float) -> float:
    with mpmath.workdps(40):
        return float(mpmath.sech(z) ** 2)


@row(1)
def product_of_jacobians(lines: list[str]) -> None:
    assert lines == ["the product of 4 matrices is the gradient"]  # d = 6, t = 2


@row(2)
def a_layer(lines: list[str]) -> None:
    ours, theirs = (numbers(part) for part in lines[0].split("max(0, W h')"))
    assert ours == theirs == [max(0.0, v) for v in (1 - 2, -3 - 1, 0.5 - 0.25)]


@row(3)
def jacobian(lines: list[str]) -> None:
    assert numbers(lines[0]) == [0, 0, 0, 0, 0.5, 0.25]  # diag(f'(z)) W, 3 by 2: only the third unit is on
    assert numbers(lines[1]) == [50, 25, 50, 25]


@row(4)
def growth(lines: list[str]) -> None:
    assert lines[0] == repr(float(Fraction(3, 2) ** 100)) == "4.065611775352152e+17"
    for fmt, line in zip(FORMATS, lines[1:], strict=True):
        with np.errstate(over="ignore"):
            want = np.array(1.5**100).astype(SPECS[fmt].dtype)
        assert line.split()[0] == fmt and repr(float(line.split()[1])) == repr(float(want)), fmt


@row(5)
def last_layer_of_float32(lines: list[str]) -> None:
    shown = [line.rsplit(" ", 1)[1] for line in lines]
    assert shown == ["2^-149", "0.0", "0.0"]
    assert [float(np.float32(2.0**-t)) for t in (149, 150, 152)] == [2.0**-149, 0.0, 0.0]


@row(6)
def halves(lines: list[str]) -> None:
    for fmt, line in zip(FORMATS, lines, strict=True):
        smallest = ml_dtypes.finfo(SPECS[fmt].dtype).smallest_subnormal
        dead = 1 - math.frexp(float(smallest))[1] + 1
        assert re.findall(r"layer +(\d+)", line) == [str(dead), str(dead - 1)] and line.endswith("exact"), fmt
    assert [numbers(line.split("layer")[1])[0] for line in lines] == [10, 17, 25, 134, 150, 1075]


@row(7)
def powers(lines: list[str]) -> None:
    for line, (weight, depth) in zip(
        lines, ((Decimal("0.6"), 3), (Decimal("0.6"), 15), (Decimal("1.6"), 15)), strict=True
    ):
        assert float(line.split(" = ")[1]) == float(f"{weight**depth:.12g}")


@row(8)
def standard_normal(lines: list[str]) -> None:
    for line, bound in zip(lines[:2], (1, 3), strict=True):
        share, expected = numbers(line.split(": ")[1])
        assert expected == pytest.approx(float(mpmath.erf(bound / mpmath.sqrt(2))), abs=6e-6)
        assert abs(share - expected) < 4 * math.sqrt(expected * (1 - expected) / 1e6) + 5e-5
    assert lines[2].endswith("expected 0.31731")
    for line, gain in zip(lines[3:], (math.sqrt(100), math.sqrt(50)), strict=True):
        assert abs(numbers(line)[0] - math.log2(gain)) < 0.1  # depth 50: a standard error of 0.02 bits a layer


@row(9)
def distance_from_one(lines: list[str]) -> None:
    for line, weight in zip(lines[:3], (0.6, 1.0, 1.6), strict=True):
        assert numbers(line)[1] == pytest.approx(math.log2(weight), abs=6e-4)
    largest, rate = numbers(lines[3])
    assert largest < 0.5 and rate == 0  # orthogonal: every singular value is 1
    assert lines[4].endswith(" 0.0")


@row(10)
def sigmoid(lines: list[str]) -> None:
    for line, z in zip(lines, (-2, 0, 2), strict=True):
        want = float(1 / (1 + mpmath.exp(-z)))
        assert [float(v) for v in line.split(" = ")[1:]] == [pytest.approx(want, abs=6e-7)] * 2


@row(11)
def slope_of_sigmoid(lines: list[str]) -> None:
    for line, z, share in zip(lines, (5, 4), ("2.7 %", "7.1 %"), strict=True):
        value, rest = line.split(" = ")[1].split(", ")
        assert float(value) == pytest.approx(sigmoid_slope(z), rel=2.0**-52) and rest.startswith(share)
    assert sigmoid_slope(5) == pytest.approx(0.006648056670790155, rel=1e-15)
    assert sigmoid_slope(4) == pytest.approx(0.017662706213291118, rel=1e-15)


@row(12)
def bits(lines: list[str]) -> None:
    assert lines == ["16 16"]


@row(13)
def thresholds_of_float16(lines: list[str]) -> None:
    assert lines[:2] == [f"2^-14 = {2.0**-14:.3g}", f"2^-25 = {2.0**-25:.3g}"]
    for line, value in zip(lines[2:], (1e-6, 2.0**-25, math.nextafter(2.0**-25, 1)), strict=True):
        quanta = float(np.float16(value)) * 2**24
        assert line.startswith(f"{value} becomes {quanta:.0f} * 2^-24")
    assert "17 * 2^-24" in lines[2] and "0 * 2^-24" in lines[3] and "1 * 2^-24" in lines[4]


@row(14)
def slope_of_relu(lines: list[str]) -> None:
    assert numbers(lines[0]) == [0, 0, 1]


@row(15)
def norms_above_one(lines: list[str]) -> None:
    assert numbers(lines[0]) == [2, 2, 2]  # norm 2; both entries of the square times x are zero
    norm, _, peak, _, last, _ = numbers(lines[1])
    step, state, norms = np.array([[0.5, 100.0], [0.0, 0.5]]), np.array([0.0, 1.0]), []
    assert norm == round(np.linalg.svd(step)[1][0])
    for _ in range(400):
        state = step @ state
        norms.append(np.log2(np.linalg.norm(state)))
    assert peak == pytest.approx(max(norms), abs=0.06) and last == pytest.approx(norms[-1], abs=0.6)
    assert lines[2:4] == ["first: nilpotent", "second: transient"]
    with mpmath.workdps(300):  # the power in closed form: 0.5^n [[1, 200 n], [0, 1]]
        values = [mpmath.log(v, 2) for v in mpmath.svd_r(mpmath.matrix([[1, 200 * 400], [0, 1]]), compute_uv=False)]
        exponents = [float(v / 400 - 1) for v in values]
        growth = float(mpmath.log(max(mpmath.svd_r(mpmath.matrix([[1, 200], [0, 1]]), compute_uv=False)) / 2, 2))
    assert numbers(lines[4]) == [2, round(growth, 1), *(pytest.approx(e, abs=6e-4) for e in exponents), -1]


def descended(lr: float, steps: int, dtype: type = np.float16) -> tuple[list[tuple[float, float, float]], list]:
    """Eight layers by hand: layer 1's weight and gradient and the loss at each step; all weights after the last."""
    weights, seen = [dtype(1.1)] * 8, []
    for _ in range(steps):
        h = [dtype(1)]
        for weight in weights:
            h.append(dtype(float(weight) * float(h[-1])))
        error = float(h[-1]) - 1
        delta, grads = dtype(2 * error), [0.0] * 8
        for t in range(7, -1, -1):
            grads[t] = float(dtype(float(delta) * float(h[t])))
            delta = dtype(float(delta) * float(weights[t]))
        seen.append((float(weights[0]), grads[0], error**2))
        weights = [dtype(float(weight) - lr * grad) for weight, grad in zip(weights, grads, strict=True)]
    return seen, weights


@row(16)
def learning_rate_loop(lines: list[str]) -> None:
    seen, weights = descended(0.5, 3)
    for line, (weight, gradient, loss) in zip(lines[:3], seen, strict=True):
        shown = numbers(line.split("layer 1:")[1])
        assert shown[1::2] == [pytest.approx(math.log2(abs(value)), abs=0.06) for value in (weight, gradient)]
        assert shown[4] == float(f"{loss:.3g}")
    assert abs(weights[0]) <= 65504 < abs(float(weights[0]) * float(weights[1]))  # h_1 is finite, h_2 is not
    assert lines[3] == "step 3: overflow in layer 2, pre_activation"
    assert numbers(lines[4])[1] < seen[0][2]
    assert descended(1e-5, 1)[1] == [np.float16(1.1)] * 8 and lines[5].endswith("100 % of the updates are lost")
    in_float32 = descended(1e-5, 40, np.float32)[0]
    assert numbers(lines[6])[1:] == [0, pytest.approx(in_float32[-1][2], abs=6e-5), 40]
    for line, factor in zip(lines[7:], (0.95, 1.05), strict=True):  # the error is multiplied by 1 - 2 D lr a step
        assert numbers(line)[1] == pytest.approx(math.log2(abs(1 - 2 * factor)), abs=6e-4)


@row(17)
def twenty_layers(lines: list[str]) -> None:
    assert numbers(lines[0]) == [0.42045, 0.43816]
    for line in lines[1:5]:
        factor, layers = numbers(line)
        with mpmath.workdps(30):
            assert layers == sum(mpmath.mpf(factor) ** t > mpmath.mpf(2) ** -25 for t in range(1, 101))
    linear, relu, sigmoid_ = (numbers(line)[:2] for line in lines[5:])
    for activations, weights in (linear, relu):
        assert activations == pytest.approx(math.log2(0.43), abs=0.1) and abs(weights) < 0.1
    assert sigmoid_[0] < -2 and sigmoid_[1] < -2


@row(18)
def best_of_sigmoid(lines: list[str]) -> None:
    assert numbers(lines[0]) == [0.25, 0]


@row(19)
def relu_still_vanishes(lines: list[str]) -> None:
    """Hanin and Nica 2020: log2 of the norm falls by 5/(4 n ln 2) a layer on average, with variance 5/(4 n (ln 2)^2)."""
    drift, deviation = 5 / (4 * 32 * math.log(2)), math.sqrt(5 / (4 * 32)) / math.log(2)
    error = 1.25 * 1.1 * deviation / math.sqrt(20 * 40)  # a median of 40 robust slopes over 20 layers
    for line, expected in zip(lines[:2], (-drift, -drift - 0.5), strict=True):
        measured, shown = numbers(line)
        assert shown == pytest.approx(expected, abs=6e-4) and abs(measured - expected) < 3 * error
    assert lines[2].endswith("dead")


@row(20)
def leaky(lines: list[str]) -> None:
    for line, slope in zip(lines, (0.0, 0.01, 0.2, 1.0), strict=False):
        assert float(line.split()[-1]) == pytest.approx(math.sqrt(2 / (1 + slope**2)), abs=6e-7)
    assert numbers(lines[4].split(":")[1]) == [0.2, 1]


@row(21)
def he(lines: list[str]) -> None:
    assert [numbers(line.split("=")[1])[0] for line in lines] == [2, 1]


@row(22)
def xavier(lines: list[str]) -> None:
    assert [numbers(line.split("=")[1])[0] for line in lines] == [2, 6]


@row(23)
def mean_square_gain(lines: list[str]) -> None:
    for line, weight in zip(lines, (math.sqrt(2 / 400), math.sqrt(1 / 400)), strict=True):
        size, gain = numbers(line)
        assert size == pytest.approx(weight, abs=6e-3) and gain == pytest.approx(1, abs=0.1)


@row(24)
def clipping_by_value(lines: list[str]) -> None:
    value, norm = (numbers(line) for line in lines[:2])
    angle = math.degrees(math.atan2(0.8, 1) - math.atan2(0.8, 6))
    assert value == [1, 0.8, round(angle, 1)]
    assert norm == [round(6 / math.hypot(6, 0.8), 3), round(0.8 / math.hypot(6, 0.8), 3), 0]
    assert lines[2].endswith(" 0")


@row(25)
def sum_over_steps(lines: list[str]) -> None:
    w, h, states = Fraction(1, 2), Fraction(0), []
    for _ in range(5):
        states.append(h)
        h = w * h + 1
    shares = [w ** (4 - k) * state for k, state in enumerate(states)]
    assert lines[0] == "contributions: " + " ".join(map(str, shares)) == "contributions: 0 1/8 3/8 7/8 15/8"
    polynomial = sum(k * w ** (k - 1) for k in range(1, 5))  # h_5 = 1 + w + w^2 + w^3 + w^4
    assert lines[1] == f"dL/dW = {polynomial}" == f"dL/dW = {sum(shares)}" == "dL/dW = 13/4"


@row(26)
def tanh_chain(lines: list[str]) -> None:
    for line, depth in zip(lines[:3], (100, 1000, 10_000), strict=True):
        h, product = 1.0, 1.0
        for _ in range(depth):
            h = math.tanh(h)
            product *= 1 - h * h
        assert float(line.split("2^")[1]) == pytest.approx(math.log2(product), abs=6e-3)
    assert numbers(lines[3].split("t^")[1])[0] == pytest.approx(-1.5, abs=0.005)


@row(27)
def spectral_norm(lines: list[str]) -> None:
    step = mpmath.matrix([[3, 0], [4, 5]])
    with mpmath.workdps(300):
        for line, depth in zip(lines, (1, 10, 100), strict=True):
            product = mpmath.log(max(mpmath.svd_r(step**depth, compute_uv=False)), 2)
            shown = [float(value) for value in re.findall(r"2\^(\S+?)(?:,|$)", line)]
            assert shown == [pytest.approx(float(v), abs=6e-4) for v in (product, depth * mpmath.log(45, 2) / 2)]


@row(28)
def both_ends(lines: list[str]) -> None:
    for line, slope in zip(lines, (sigmoid_slope, tanh_slope), strict=True):
        assert line.split(": ")[1].split() == [f"{slope(z):.3g}" for z in (-700.0, -40.0, 40.0, 700.0)]


@row(29)
def kinds_of_nan(lines: list[str]) -> None:
    assert lines[:2] == ["layer 2, pre_activation: inf - inf", "layer 2, pre_activation: 0 * inf"]
    assert "[1]" in lines[2] and lines[2].endswith("nothing was modified")


@row(30)
def horizon(lines: list[str]) -> None:
    """Step k adds 2^(k - 200) h_(k-1), of which a format keeps what its own type does not cast to zero."""
    states = [Fraction(0)]
    for _ in range(200):
        states.append(states[-1] / 2 + 1)
    shares = [states[k - 1] / 2 ** (200 - k) for k in range(200, 0, -1)]  # from the last step
    for fmt, line in zip(FORMATS, lines[:6], strict=True):
        half = Fraction(float(ml_dtypes.finfo(SPECS[fmt].dtype).smallest_subnormal)) / 2
        assert line.split()[:2] == [fmt, str(sum(share > half for share in shares))], fmt
    scaled = [share * 2**13 for share in shares]
    assert numbers(lines[6])[-1] == sum(share > Fraction(1, 2**25) for share in scaled)
    assert sum(scaled) < 65520 < 2 * sum(scaled)  # the largest scale that dL/dW bears
    rest = math.log2(sum(shares[26:]))
    assert numbers(lines[7])[1::3] == [pytest.approx(math.log2(sum(shares)), abs=6e-4), pytest.approx(rest, abs=0.06)]


@row(31)
def resnet_152(lines: list[str]) -> None:
    assert numbers(lines[0].split(":")[1]) == [-304]  # (1/4)^152
    assert "'float32': 74" in lines[1] and "'float16': 12" in lines[1]  # 4^-74 = 2^-148, 4^-12 = 2^-24


def test_every_claim_of_the_pages_is_checked():
    assert sorted(claims()) == sorted(CHECKS)


@pytest.mark.parametrize("number", sorted(CHECKS))
def test_claim(number: int) -> None:
    _, claim = claims()[number]
    assert claim.said and claim.right
    CHECKS[number](claim.output)


def test_row_4_first_overflows() -> None:
    """Exact integers for the powers; float64 arithmetic on NumPy's and ml_dtypes' types for the stored chains."""
    shown = [numbers(line.split("from 1.5")[1]) for line in claims()[4][0].output]
    for fmt, (once, stored) in zip(FORMATS, shown, strict=True):
        spec = SPECS[fmt]
        limit = spec.overflow_from - (0 if spec.has_inf else Fraction(-1, 10**6))
        power = Fraction(3, 2) ** int(once)
        assert power >= limit > power / Fraction(3, 2), fmt
        chain = stored_chain(1.5, fmt, int(stored))
        assert [math.isfinite(value) for value in chain[-2:]] == [True, False], fmt
    assert [once for once, _ in shown] == [16, 28, 28, 219, 219, 1751]
