"""Decay rates: the robust slope of log2 norms along a chain, with its interval; medians and shares over draws, with theirs."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from gradkern._result import Result

_MOST_POINTS = 1500
_Z = 1.959963984540054  # the normal distribution's 97.5 % quantile
# Variance of Theil and Sen's slope of a long random walk over that of the mean step; of least squares it is 6/5.
_INFLATION = 1.25

Floats = NDArray[np.float64]


@dataclass(frozen=True, repr=False)
class Rate(Result):
    """Bits gained (positive) or lost (negative) per layer, with a 95 % interval.

    Attributes
    ----------
    bits_per_layer : float
        Theil-Sen slope of log2 norms along the direction of travel: backwards from the loss for gradients.
    low, high : float
        95 % interval of the rate that the layers' random steps scatter about. Log norms are a random walk: the norm of one
        layer carries the luck of all before it, and an interval that took the points for independent, such as Sen's from
        Kendall's statistic, would be several times too narrow. This one is Student's from the spread of the steps. It is wider
        than need be where norms do not walk but keep to a level, and infinite where fewer than three are known.
    points : int
        Layers with a finite norm that were used.
    unit : {"layer", "step"}
        What the bits are gained or lost per: of an RNN a time step.
    """

    bits_per_layer: float
    low: float
    high: float
    points: int
    unit: str = "layer"

    def __str__(self) -> str:
        return f"{self.bits_per_layer:+.3f} bits/{self.unit} [{self.low:+.3f}, {self.high:+.3f}]"


def student_t(freedom: int) -> float:
    """97.5 % quantile of Student's t, to 0.2 %: Abramowitz and Stegun 26.7.5, and the exact values where it is too short."""
    exact = {1: 12.706204736174694, 2: 4.302652729749462}
    if freedom in exact:
        return exact[freedom]
    z, n = _Z, float(freedom)
    return (
        z
        + (z**3 + z) / (4 * n)
        + (5 * z**5 + 16 * z**3 + 3 * z) / (96 * n**2)
        + (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / (384 * n**3)
        + (79 * z**9 + 776 * z**7 + 1482 * z**5 - 1920 * z**3 - 945 * z) / (92160 * n**4)
    )


def _half_width(x: Floats, y: Floats) -> float:
    """Half the interval of the mean step of a random walk, widened for a slope that is not the mean step."""
    if len(x) < 3:
        return math.inf
    stretch = np.diff(x)  # a gap of k layers is k steps
    span, drift = float(x[-1] - x[0]), (y[-1] - y[0]) / (x[-1] - x[0])
    rest = np.diff(y) - drift * stretch
    freedom = len(rest) - 1
    variance = float(np.sum(rest**2 / np.abs(stretch))) / freedom
    return student_t(freedom) * math.sqrt(_INFLATION * variance / abs(span))


def theil_sen(position: Floats, log2_norm: Floats, unit: str = "layer") -> Rate:
    """Fit the slope.

    Parameters
    ----------
    position : array, (n,)
        Monotone.
    log2_norm : array, (n,)
        Those that are not finite are left out.
    unit : str
        What a step of the position is called.

    References
    ----------
    Theil 1950; Sen, J. Am. Stat. Assoc. 63 (1968) 1379. Log norms as random walks: Cohen and Newman, Ann. Probab. 12 (1984) 283.
    """
    finite = np.isfinite(log2_norm)
    x, y = position[finite], log2_norm[finite]
    n = len(x)
    if n < 2:
        return Rate(math.nan, math.nan, math.nan, n, unit)
    half = _half_width(x, y)
    if n > _MOST_POINTS:  # all pairs of an even subsample
        keep = np.unique(np.linspace(0, n - 1, _MOST_POINTS).astype(np.int64))
        x, y = x[keep], y[keep]
    i, j = np.triu_indices(len(x), 1)
    slope = float(np.median((y[j] - y[i]) / (x[j] - x[i])))
    return Rate(slope, slope - half, slope + half, n, unit)


def median_of_draws(values: Floats) -> tuple[float, float, float]:
    """Median over draws and its 95 % interval, whatever their distribution: the order statistics of the sign test.

    Draws that are NaN are left out; fewer than six allow no interval, and NaN stands for its ends.
    """
    known = np.sort(values[~np.isnan(values)])
    n = len(known)
    if n == 0:
        return math.nan, math.nan, math.nan
    middle = known[(n - 1) // 2], known[n // 2]
    median = float(middle[0]) if middle[0] == middle[1] else float(middle[0] / 2 + middle[1] / 2)
    outside, ways, rank = 0, 1, 0  # the largest rank with P(Binomial(n, 1/2) < rank) <= 2.5 %
    while 40 * (outside + ways) <= 2**n:
        outside, ways, rank = outside + ways, ways * (n - rank) // (rank + 1), rank + 1
    if rank == 0:
        return median, math.nan, math.nan
    return median, float(known[rank - 1]), float(known[n - rank])


def share_of_draws(count: int, draws: int) -> tuple[float, float, float]:
    """Share of the draws to which something happened, and its 95 % interval.

    References
    ----------
    Wilson, J. Am. Stat. Assoc. 22 (1927) 209.
    """
    if draws == 0:
        return math.nan, math.nan, math.nan
    share, z = count / draws, _Z**2 / draws
    centre = (share + z / 2) / (1 + z)
    half = math.sqrt(share * (1 - share) * z + z * z / 4) / (1 + z)
    return share, max(0.0, centre - half), min(1.0, centre + half)
