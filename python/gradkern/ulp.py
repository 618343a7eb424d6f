"""Distances in units in the last place: representable values apart in one format, quanta of the coarser of two."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from gradkern._arrays import as_bits_view
from gradkern.formats import FormatInfo

Floats = NDArray[np.float64]

_BEYOND = 1024  # exponent of the distances that float64 cannot hold
_FIRST = 2  # place of the distances in (1/2, 1] in a histogram


def steps_apart(a: NDArray[Any], b: NDArray[Any]) -> Floats:
    """Count the representable values from each entry of `a` to that of `b`, both of one format, contiguous and not NaN.

    Infinity follows the largest finite value, and the two zeros are one.
    """
    places: list[NDArray[np.int64]] = []
    for array in (a, b):
        bits = as_bits_view(array)
        width = 8 * bits.itemsize
        magnitude = (bits & bits.dtype.type(2 ** (width - 1) - 1)).astype(np.int64)
        places.append(np.where(bits >> bits.dtype.type(width - 1), -magnitude, magnitude))
    high, low = np.maximum(*places), np.minimum(*places)
    apart = high.view(np.uint64) - low.view(np.uint64)  # below 2^64, so it cannot wrap
    return apart.astype(np.float64)


def quanta_apart(reference: Floats, other: Floats, formats: tuple[FormatInfo, FormatInfo]) -> Floats:
    """Divide ``|other - reference|`` by the quantum that the coarser of two formats has at the reference."""
    exponent = np.frexp(reference)[1] - 1
    exponent = np.where(reference == 0, min(info.min_exponent for info in formats), exponent)
    quanta = [np.maximum(exponent, info.min_exponent) - info.significand_bits + 1 for info in formats]
    with np.errstate(over="ignore", under="ignore"):
        gap = np.abs(other - reference)
        distance = np.ldexp(gap, -np.maximum(*quanta))
    return np.where(gap > 0, np.maximum(distance, np.nextafter(0, 1)), 0.0)


def by_power_of_two(distances: Floats) -> list[int]:
    """Count distances: zero, up to 1/2, up to 1, up to 2, up to 4, and so on; the list ends with the largest."""
    mantissa, exponent = np.frexp(np.where(np.isinf(distances), 1.0, distances))
    above = _FIRST + exponent - (mantissa == 0.5)  # ceil(log2)
    place = np.where(np.isinf(distances), _FIRST + _BEYOND, np.where(distances > 0.5, above, (distances > 0) * 1))
    return [int(n) for n in np.bincount(place.astype(np.int64))] if distances.size else []


def upper_edges(places: int) -> Floats:
    """Largest distance of each place of a histogram of `by_power_of_two`."""
    return np.array([0.0, *(2.0**k if k < _BEYOND else np.inf for k in range(-1, places - 2))])


def quantiles(distances: Floats, shares: tuple[float, ...]) -> list[float]:
    """Return the smallest distance that at least such a share of the entries does not exceed; NaN where there are none."""
    if not distances.size:
        return [np.nan] * len(shares)
    ranks = [max(int(np.ceil(share * distances.size)) - 1, 0) for share in shares]
    ordered = np.partition(distances, sorted(set(ranks)))
    return [float(ordered[rank]) for rank in ranks]
