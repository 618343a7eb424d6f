"""The sums behind losses: rounded once, and infinite where float64 ends."""

from __future__ import annotations

import math
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import gradkern as gk
from gradkern.loss import _exact_sum

finite = st.floats(allow_nan=False, allow_infinity=False)


@given(st.lists(finite, max_size=40), st.lists(finite, max_size=3))
def test_rounded_once(numbers: list[float], opposed: list[float]) -> None:
    x = numbers + opposed + [-number for number in opposed]
    exact = sum(map(Fraction, x), Fraction(0))
    try:
        expected = float(exact)
    except OverflowError:
        expected = math.inf if exact > 0 else -math.inf
    assert _exact_sum(np.array(x)) == expected


@pytest.mark.parametrize("number", [5e-324, 2.0**-1022, 1.0, 1 + 2.0**-52, 1.7e308, 2.0**1023])
def test_many_of_one(number: float) -> None:
    for count in (1, 31, 4096):
        exact = count * Fraction(number)
        expected = float(exact) if exact < Fraction(2) ** 1024 else math.inf
        assert _exact_sum(np.full(count, number)) == expected
        assert _exact_sum(np.full((2, count), [[-number]])) == (-2 * expected if expected < 2.0**1022 else -math.inf)


@pytest.mark.parametrize("sign", [1.0, -1.0])
def test_finite_though_its_parts_are_not(sign: float) -> None:
    top = 2.0**1023
    for x in ([top, top, -(2.0**1000)], [top, top, top, -top, -(2.0**1001)], [1.7e308] * 9 + [-1.7e308] * 8):
        assert _exact_sum(sign * np.array(x)) == sign * float(sum(map(Fraction, x)))


def test_a_loss_beyond_float64_is_infinite() -> None:
    net = gk.MLP([gk.Dense(np.full((2, 1), 1.5e308), activation="identity")])
    report = gk.probe(net, np.ones((1, 1)), arithmetic="float64", reference=False)
    assert report.loss == math.inf
