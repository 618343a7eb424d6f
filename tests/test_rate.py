"""Decay rates and their intervals: simulated walks, products of Gaussian matrices, and the tables of statistics."""

from __future__ import annotations

import math

import numpy as np
import pytest

import gradkern as gk
from gradkern.rate import median_of_draws, share_of_draws, student_t, theil_sen

stats = pytest.importorskip("scipy.stats")
special = pytest.importorskip("scipy.special")


def gaussian_rate(width: int) -> float:
    """E log2 of the norm ratio of a Gaussian layer N(0, 1/n): Newman, Commun. Math. Phys. 103 (1986) 121."""
    return float(special.digamma(width / 2) + math.log(2 / width)) / 2 / math.log(2)


def within(count: int, draws: int, low: float, high: float) -> bool:
    """Whether the share is in [low, high], give or take 3.5 binomial standard deviations."""
    slack = [3.5 * math.sqrt(p * (1 - p) / draws) for p in (low, high)]
    return low - slack[0] <= count / draws <= high + slack[1]


@pytest.mark.parametrize("freedom", [1, 2, 3, 4, 5, 10, 30, 1000, 10**7])
def test_students_quantile(freedom: int) -> None:
    assert student_t(freedom) == pytest.approx(stats.t.ppf(0.975, freedom), rel=2e-3 if freedom < 5 else 2e-4)


def test_a_straight_line_has_no_spread() -> None:
    rate = theil_sen(-np.arange(1.0, 30.0), 0.75 * np.arange(1.0, 30.0))
    assert (rate.bits_per_layer, rate.low, rate.high, rate.points) == (-0.75, -0.75, -0.75, 29)


def test_two_norms_allow_no_interval_and_one_no_rate() -> None:
    two = theil_sen(np.array([1.0, 2.0]), np.array([0.0, -3.0]))
    assert (two.bits_per_layer, two.low, two.high, two.points) == (-3.0, -math.inf, math.inf, 2)
    one = theil_sen(np.array([1.0, 2.0, 3.0]), np.array([0.0, -math.inf, math.nan]))
    assert math.isnan(one.bits_per_layer) and math.isnan(one.low) and one.points == 1


def test_one_wild_layer_does_not_move_the_slope() -> None:
    y = -2.0 * np.arange(40.0)
    y[17] += 30
    rate = theil_sen(np.arange(40.0), y)
    assert rate.bits_per_layer == pytest.approx(-2, abs=0.02)
    assert np.polyfit(np.arange(40.0), y, 1)[0] == pytest.approx(-2, abs=0.02)  # in the middle it has no leverage
    y[0] += 60
    assert theil_sen(np.arange(40.0), y).bits_per_layer == pytest.approx(-2, abs=0.03)
    assert abs(np.polyfit(np.arange(40.0), y, 1)[0] + 2) > 0.2


@pytest.mark.parametrize("step", ["normal", "exponential", "student"])
@pytest.mark.parametrize("layers", [6, 20, 80])
def test_the_interval_covers_the_drift_of_a_random_walk(layers: int, step: str) -> None:
    """1,000 walks: 95 % cover, where Sen's interval for independent points covers less than half."""
    rng, draws, drift = np.random.default_rng(layers), 1000, -0.3
    noise = {
        "normal": lambda: rng.normal(0, 0.2, layers - 1),
        "exponential": lambda: 0.2 * (rng.exponential(size=layers - 1) - 1),
        "student": lambda: 0.2 * rng.standard_t(4, layers - 1),
    }[step]
    x, covered, naive = np.arange(float(layers)), 0, 0
    for draw in range(draws):
        y = np.concatenate([[0.0], np.cumsum(drift + noise())])
        rate = theil_sen(x, y)
        covered += rate.low <= drift <= rate.high
        if draw < 200 and layers > 6:
            sen = stats.theilslopes(y, x)
            assert rate.bits_per_layer == pytest.approx(sen.slope, abs=1e-12)
            naive += sen.low_slope <= drift <= sen.high_slope
    # skewed steps and few of them: Student's interval is known to cover less (Sutton, J. Am. Stat. Assoc. 88 (1993) 802)
    assert within(covered, draws, 0.95 if step != "exponential" else 0.90, 0.98)
    if layers > 6:
        assert naive / 200 < 0.5


def test_gaps_are_several_steps() -> None:
    rng, covered = np.random.default_rng(3), 0
    for _ in range(1000):
        y = np.cumsum(rng.normal(0.5, 1.0, 30))
        y[rng.choice(np.arange(1, 29), 15, replace=False)] = math.nan
        rate = theil_sen(np.arange(30.0), y)
        covered += rate.low <= 0.5 <= rate.high
        assert rate.points == 15
    assert within(covered, 1000, 0.95, 0.98)


@pytest.mark.parametrize("width", [2, 8])
def test_the_interval_covers_the_exact_rate_of_gaussian_layers(width: int) -> None:
    draws, covered, rates = 300, 0, []
    for seed in range(draws):
        net = gk.MLP.random(depth=25, width=width, activation="identity", init="lecun_normal", seed=seed)
        rate = gk.probe(net, np.ones((1, width)), arithmetic="float64").decay_rate()
        covered += rate.low <= gaussian_rate(width) <= rate.high
        rates.append(rate.bits_per_layer)
    # the log of chi-square is skewed to the left
    assert within(covered, draws, 0.93, 0.98)
    assert abs(np.mean(rates) - gaussian_rate(width)) < 4 * np.std(rates) / math.sqrt(draws)


def test_the_mean_of_norms_is_not_what_a_network_does() -> None:
    """N(0, 1/n) layers keep the mean square of the norm exactly, and nearly every network still vanishes."""
    width, depth, draws = 4, 60, 100
    bits = []
    for seed in range(draws):
        net = gk.MLP.random(depth=depth, width=width, activation="identity", init="lecun_normal", seed=seed)
        rows = gk.probe(net, np.ones((1, width)), arithmetic="float64").rows("grad_pre_activation")
        bits.append(rows[0].reference_log2_norm - rows[-1].reference_log2_norm)
    steps = depth - 1
    median, low, high = median_of_draws(np.array(bits))
    assert low <= steps * gaussian_rate(width) <= high  # -0.195 bits a layer
    assert median < -8
    log2_mean_square = math.log2(np.mean(np.exp2(2 * np.array(bits)))) / 2
    largest = max(bits) - math.log2(draws) / 2  # what the luckiest network alone adds to the mean
    assert log2_mean_square - median > 4 and log2_mean_square - largest < 1.5


@pytest.mark.parametrize(
    "n, ranks",
    [(5, None), (6, (1, 6)), (10, (2, 9)), (15, (4, 12)), (20, (6, 15)), (25, (8, 18)), (50, (18, 33)), (3001, None)],
)
def test_the_interval_of_a_median(n: int, ranks: tuple[int, int] | None) -> None:
    """Ranks as Conover, Practical Nonparametric Statistics, takes them from the sign test."""
    values = np.random.default_rng(n).permutation(np.arange(1.0, n + 1))
    median, low, high = median_of_draws(np.append(values, math.nan))
    assert median == np.median(values)
    if n == 5:
        assert math.isnan(low) and math.isnan(high)
    elif ranks is None:
        rank = int(stats.binom.ppf(0.025, n, 0.5))
        assert (low, high) in [(rank, n + 1 - rank), (rank + 1, n - rank)]
    else:
        assert (low, high) == ranks
    assert math.isnan(median_of_draws(np.array([math.nan]))[0])
    assert median_of_draws(np.array([-math.inf, -math.inf]))[0] == -math.inf


@pytest.mark.parametrize("count, draws", [(0, 10), (3, 10), (10, 10), (1, 1000)])
def test_the_interval_of_a_share(count: int, draws: int) -> None:
    want = stats.binomtest(count, draws).proportion_ci(method="wilson")
    assert share_of_draws(count, draws) == pytest.approx((count / draws, want.low, want.high), abs=1e-12)
    assert math.isnan(share_of_draws(0, 0)[0])
