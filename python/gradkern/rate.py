"""Decay rates: the robust slope of log2 norms along a chain, with its interval."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from gradkern._result import Result

_MOST_POINTS = 1500


@dataclass(frozen=True, repr=False)
class Rate(Result):
    """Bits gained (positive) or lost (negative) per layer, with a 95 % interval.

    Attributes
    ----------
    bits_per_layer : float
        Theil-Sen slope of log2 norms along the direction of travel: backwards from the loss for gradients.
    low, high : float
        Sen's interval from Kendall's statistic, 95 %.
    points : int
        Layers with a finite norm that were used.
    """

    bits_per_layer: float
    low: float
    high: float
    points: int

    def __str__(self) -> str:
        return f"{self.bits_per_layer:+.3f} bits/layer [{self.low:+.3f}, {self.high:+.3f}]"


def theil_sen(position: NDArray[np.float64], log2_norm: NDArray[np.float64]) -> Rate:
    """Fit the slope.

    References
    ----------
    Theil 1950; Sen, J. Am. Stat. Assoc. 63 (1968) 1379.
    """
    finite = np.isfinite(log2_norm)
    x, y = position[finite], log2_norm[finite]
    n = len(x)
    if n < 2:
        return Rate(math.nan, math.nan, math.nan, n)
    if n > _MOST_POINTS:  # all pairs of an even subsample
        keep = np.unique(np.linspace(0, n - 1, _MOST_POINTS).astype(np.int64))
        x, y = x[keep], y[keep]
    i, j = np.triu_indices(len(x), 1)
    slopes = np.sort((y[j] - y[i]) / (x[j] - x[i]))
    m = len(x)
    spread = 1.959963984540054 * math.sqrt(m * (m - 1) * (2 * m + 5) / 18)
    low = max(0, int((len(slopes) - spread) / 2))
    high = min(len(slopes) - 1, int((len(slopes) + spread) / 2) + 1)
    return Rate(float(np.median(slopes)), float(slopes[low]), float(slopes[high]), n)
