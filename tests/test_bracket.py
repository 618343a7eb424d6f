"""Brackets: numbers where their ends agree, and honest where they do not."""

from __future__ import annotations

import numpy as np
import pytest

import gradkern as gk


def test_an_exact_bracket_is_a_number():
    five, many = gk.Bracket(5, 5), gk.Bracket(3, 12_000)
    assert int(five) == float(five) == five == 5 == five and five == 5.0 and five != 6 and hash(five) == hash(5)
    assert list(range(gk.Bracket(2, 2))) == [0, 1] and five in {5} and np.int64(5) == five
    assert five < 6 <= gk.Bracket(6, 6) and five >= 5 > gk.Bracket(4, 4) and bool(five) and not gk.Bracket(0, 0)
    assert (str(five), repr(five), f"{five:>4}", f"{gk.Bracket(1234, 1234)}") == ("5", "Bracket(5, 5)", "   5", "1,234")
    assert (str(many), repr(many), f"{many:d}") == ("3..12,000", "Bracket(3, 12000)", "3..12000")
    assert many == gk.Bracket(3, 12_000) != gk.Bracket(3, 11) and many != 3 and len({many, gk.Bracket(3, 12_000)}) == 1
    assert many > 2 and not many < 3 and many <= 12_000 and many < gk.Bracket(12_001, 12_002) and bool(many)
    assert sum([five, many, 1]) == gk.Bracket(9, 12_006) and 10 - five == 5 and many - five == gk.Bracket(-2, 11_995)
    for ask in (lambda: int(many), lambda: float(many), lambda: range(many), lambda: many < 5, lambda: many >= five,
                lambda: bool(gk.Bracket(0, 3))):  # fmt: skip
        with pytest.raises(ValueError, match=r"^Bracket: .*ask low or high"):
            ask()
    for wrong in (lambda: five < "6", lambda: five + "6", lambda: five - None, lambda: "6" - five):
        with pytest.raises(TypeError):
            wrong()
    assert five != "5" and gk.measure(np.ones(3)).fit("float16").to_dict()["kept"] == {"low": 3, "high": 3}


def test_fits_are_written_on_one_line():
    assert (
        repr(gk.measure(np.array([1.0, 1e-9, 1e9])).fit("float16"))
        == "FormatFit: overflow 1, subnormal 0, flushed 1, kept 1"
    )
