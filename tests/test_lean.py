"""Bias: a truncating arithmetic shows it, a rounding one does not, and chance is no more likely than it is said to be."""

from __future__ import annotations

import math
import sys
from fractions import Fraction
from itertools import product

import numpy as np
import pytest

import gradkern as gk
from gradkern.lean import chance_of, leans

ROUNDING = ("float32", "float16", "float16_pure", "bfloat16", "bfloat16_pure", "float8_e4m3fn", "float8_e5m2", "tf32",
            "float16[rounding=stochastic,seed=1]", "bfloat16[rounding=stochastic,seed=2]")  # fmt: skip
TRUNCATING = ("float16[rounding=toward_zero]", "bfloat16[rounding=toward_zero]", "float8_e5m2[rounding=toward_zero]")


def nets():
    rng = np.random.default_rng(3)
    options = {"depth": 12, "width": 64, "bias_std": 0.1}
    yield gk.MLP.random(activation="tanh", init="xavier_normal", **options), rng.standard_normal((64, 64))
    yield (
        gk.MLP.random(activation="relu", init="he_normal", **options),
        rng.random((64, 64)),
    )  # positive, alike, saturated
    yield gk.RNN.random(hidden=64, inputs=8), rng.standard_normal((10, 64, 8))


NETS = dict(zip(("tanh", "relu", "rnn"), nets(), strict=True))


@pytest.mark.parametrize("kind", NETS)
@pytest.mark.parametrize("name", TRUNCATING)
def test_truncation_is_biased_toward_zero_from_either_side(kind, name):
    net, x = NETS[kind]
    rounding = name.partition("[")[0]
    pair = gk.compare(net, x, arithmetics=[rounding, name]).pairs[0]
    assert "biased toward zero" in pair.verdict
    finding = next(f for f in pair.findings if f.kind == "biased")
    assert finding.severity == "major" and finding.remedy == "rounding='nearest_even'" and name in finding.where
    back = gk.compare(net, x, arithmetics=[name, rounding]).pairs[0]
    assert f"not biased toward zero as {name} is" in back.verdict
    assert all(t.own_larger[1] == 0 for t in pair.tensors if t.own_chance[1] < 1e-9)


@pytest.mark.parametrize("kind", NETS)
@pytest.mark.parametrize("name", ROUNDING)
def test_rounding_is_not_called_biased(kind, name):
    net, x = NETS[kind]
    for reference in ("float64", "float16"):
        pair = gk.compare(net, x, arithmetics=[reference, name], scale=2.0**6).pairs[0]
        assert "biased" not in pair.verdict, pair.findings


def test_truncation_of_both_runs_is_no_difference_between_them():
    net, x = NETS["tanh"]
    pair = gk.compare(net, x, arithmetics=[TRUNCATING[0], TRUNCATING[1]]).pairs[0]
    assert "biased" not in pair.verdict


def test_truncating_sums_are_found_where_storage_does_not_hide_them(monkeypatch):
    def probe(net, x, *, arithmetic, **options):
        report = gk.probe(net, x, arithmetic="float32", **options)
        if arithmetic.operands == "tfloat32":  # stands in for a unit whose sums drop their last three bits
            for row in report.layers:
                if row.role in ("pre_activation", "grad_activation", "grad_weight"):
                    row.tensor.view(np.uint32)[...] &= np.uint32(0xFFFFFFF8)
        return report

    monkeypatch.setattr(sys.modules["gradkern.compare"], "probe", probe)
    net, x = NETS["tanh"]
    pair = gk.compare(net, x, arithmetics=["float32", "tf32"]).pairs[0]
    assert pair.verdict == "biased toward zero" and pair.findings[0].remedy.startswith("sums that round to nearest")


def test_long_sums_of_one_sign_on_matrix_units_are_biased_toward_zero():
    # Every sample has one gradient, and its rounding to tfloat32 moves nearly all of dL/dx to one side: chance, not bias.
    rng = np.random.default_rng(0)
    net = gk.MLP([gk.Dense(rng.uniform(0, 1 / 64, (48, 4096))), gk.Dense(rng.uniform(0, 1 / 8, (32, 48)))])
    names = ["float32", "tf32", "tfloat32@ampere", "tfloat32@hopper"]
    found = gk.compare(net, rng.uniform(0, 1, (48, 4096)), arithmetics=names)
    assert [pair.verdict for pair in found.pairs] == ["differs by rounding only"] + 2 * ["biased toward zero"]
    shares = [pair.rows("pre_activation")[0].bias for pair in found.pairs]
    assert abs(shares[0]) < 0.1
    assert shares[1:] == [-1, -1]
    assert abs(found.pairs[0].rows("grad_activation")[0].own_lean(1)) > 0.5


def test_sums_that_end_in_few_values_of_float8_show_their_bias_too():
    # Nearly all sums are stored as 32, or by a unit that truncates as 30: further away than one rounding goes.
    rng = np.random.default_rng(0)
    net, x = gk.MLP([gk.Dense(rng.uniform(0, 1 / 4, (48, 4096)))]), rng.uniform(0, 1 / 8, (48, 4096))
    names = ["float64", "float8_e4m3fn", "float8_e4m3fn@hopper.wgmma", "float8_e4m3fn@ada", "float8_e4m3fn@hopper"]
    found = gk.compare(net, x, arithmetics=names, scale=2.0**-2)
    rounding, biased = "differs by rounding only", "biased toward zero"
    assert [pair.verdict for pair in found.pairs] == [rounding, biased, biased, rounding]


def test_inherited_errors_of_one_sample_are_noise():
    # The one rounding of 1/3 scales everything after it, by powers of two: all entries lie on one side, no rounding is biased.
    weight = 2.0 ** np.arange(-5, 6)[:, None]
    net = gk.MLP([gk.Dense([[1 / 3]], None, "identity"), gk.Dense(weight, None, "identity")])
    pair = gk.compare(net, np.ones((20, 1)), arithmetics=["float64", "float16"]).pairs[0]
    row = next(t for t in pair.tensors if (t.layer, t.role) == (2, "pre_activation"))
    assert abs(row.bias) == 1 and row.compared == 220
    assert pair.verdict == "differs by rounding only"


@pytest.mark.parametrize("name", ["float16", "float16_pure", "bfloat16[rounding=toward_zero]"])
def test_fresh_errors_are_those_of_exact_rationals(name):
    rng = np.random.default_rng(5)
    net = gk.MLP.random(widths=[5, 4, 3], activation="tanh", bias_std=0.2)
    report = gk.probe(
        net, rng.standard_normal((3, 5)), arithmetic=name, keep="tensors", loss="mse", target=np.zeros((3, 3))
    )
    found = leans(report)
    assert set(found) == {(i, r) for i in (1, 2) for r in ("pre_activation", "grad_weight")} | {
        (0, "grad_activation"), (1, "grad_activation")}  # fmt: skip
    for layer in (1, 2):
        h, w, b = (_exact(report, *place) for place in ((layer - 1, "activation"), (layer, "weight"), (layer, "bias")))
        g = _exact(report, layer, "grad_pre_activation")
        for place, exact in (
            ((layer, "pre_activation"), h @ w.T + b), ((layer - 1, "grad_activation"), g @ w),
            ((layer, "grad_weight"), g.T @ h),
        ):  # fmt: skip
            stored = _exact(report, *place)
            pairs = [(abs(s), abs(e)) for s, e in zip(stored.flat, exact.flat, strict=True)]
            normal = [(s, e) for s, e in pairs if e >= gk.finfo(report.arithmetic.storage).smallest_normal]
            expected = sum(s > e for s, e in normal), sum(s < e for s, e in normal)
            assert (found[place].larger, found[place].smaller) == expected, place


def _exact(report, layer, role):
    tensor = report.row(layer, role).tensor.astype(np.float64)
    return np.vectorize(Fraction, otypes=[object])(tensor)


def test_the_bound_holds_for_every_outcome_of_coins():
    # Rows of any sizes, each with a sign of its own: of all 2^6 outcomes no more may have a small chance than it says.
    rows = np.array([[1.0] * n + [0.0] * (13 - n) for n in (1, 2, 3, 5, 8, 13)])
    stored = np.arange(rows.size).reshape(rows.shape)
    chances = np.array([chance_of(rows * np.array(signs)[:, None], stored) for signs in product((-1, 1), repeat=6)])
    for level in np.unique(chances):
        assert np.mean(chances <= level) <= level


def test_one_sided_counts_have_the_chance_of_the_formula():
    ones, stored = np.ones((40, 60)), np.random.default_rng(1).permutation(2400).reshape(40, 60)
    by_rows_and_columns = 1 / 40 + 1 / 60 - 1 / 2400
    assert chance_of(-ones, stored) == pytest.approx(2 * math.exp(-1 / (2 * by_rows_and_columns)))
    assert chance_of(ones, stored % 8) == pytest.approx(2 * math.exp(-4))  # eight values are eight coins
    assert chance_of(ones, stored % 8, (), stored, ones > 0) == chance_of(
        ones, stored
    )  # none of them moved so far by storage
    for one_coin in (ones[:1], ones[:, :1]):  # one sample, one unit
        assert chance_of(one_coin, np.arange(one_coin.size).reshape(one_coin.shape)) == 1
    equal_rows = np.repeat(stored[:1], 40, axis=0)  # one sample, forty times
    assert chance_of(ones, equal_rows) == chance_of(ones.T, equal_rows.T) == 1
    assert chance_of(0 * ones, stored) == 1
