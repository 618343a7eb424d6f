"""Two statistics as one: counts add, extrema are chosen, moments merge as in Chan, Golub and LeVeque (1983).

Squares are held in three ranges (see `moved_squares`), so that no square of a float64 is lost. Two records on different
scales meet on one that holds both exactly.
"""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gradkern import _core
from gradkern.tensor_stats import Parts, TensorStats

_COUNTS = ("size", "nan", "pos_inf", "neg_inf", "zero", "negative", "subnormal")
_RANGE = 1200  # a sum of squares is big * 2**1200 + medium + small * 2**-1200
_ROOM = 960  # where the largest magnitude goes if neither scale will do: sums of 2**60 of them are finite


def merged(a: TensorStats, b: TensorStats, *, mixed: bool = False) -> TensorStats:
    """Merge two statistics, a's entries first; with `mixed`, those of different formats, too.

    The result is on a's scale where that holds b exactly, else on b's, else on one between them.

    Raises
    ------
    ValueError
        If the formats differ, or no scale holds both.
    """
    if a.dtype != b.dtype and not mixed:
        raise ValueError(
            f"add: {a.name or 'the first tensor'} is {a.dtype}, {b.name or 'the second tensor'} is {b.dtype}: each "
            "format has its own subnormals, so only tensors of one format are added"
        )
    a, b = _on_one_scale(a, b)
    finite, mean, mean_rest, l1, deviations, squares = _core.merge_moments(_moments(a), _moments(b))
    first_binade, cells = _merged_cells(a, b)
    first = a.first_nonfinite
    if first is None and b.first_nonfinite is not None:
        first = a.size + b.first_nonfinite
    summary: dict[str, Any] = {name: getattr(a, name) + getattr(b, name) for name in _COUNTS}
    summary |= {
        "amax": max(a.amax, b.amax), "amin": min(a.amin, b.amin), "finite": finite, "mean": mean,
        "mean_rest": mean_rest, "l1": l1, "deviations": deviations, "squares": squares, "first_binade": first_binade,
        "cells": cells, "first_nonfinite": -1 if first is None else first,
    }  # fmt: skip
    dtype = a.dtype if a.dtype == b.dtype else "mixed"
    name = a.name if a.name == b.name else None
    return TensorStats.from_summary(summary, dtype, name=name, exponent=a.exponent, scale=a.scale)


def _moments(stats: TensorStats) -> tuple[float, float, float, float, Parts, Parts]:
    return stats.finite, stats.mean, stats.mean_rest, stats.l1, stats.deviations, stats.squares


def _merged_cells(a: TensorStats, b: TensorStats) -> tuple[int, NDArray[np.int64]]:
    """Return the first binade and the cells of both."""
    filled = [s for s in (a, b) if len(s.cells)]
    low = min((s.first_binade for s in filled), default=0)
    high = max((s.first_binade + len(s.cells) for s in filled), default=0)
    cells = np.zeros((high - low, len(_core.cell_edges)), np.int64)
    for s in filled:
        start = s.first_binade - low
        cells[start : start + len(s.cells)] += s.cells
    return low, cells


def _on_one_scale(a: TensorStats, b: TensorStats) -> tuple[TensorStats, TensorStats]:
    """Move both to the first exponent that holds both."""
    if a.exponent == b.exponent:
        return a, b
    tops = [math.frexp(s.amax)[1] + s.exponent for s in (a, b) if s.amax > 0]
    for exponent in (a.exponent, b.exponent, max(tops, default=0) - _ROOM):
        pair = _moved(a, exponent), _moved(b, exponent)
        if pair[0] is not None and pair[1] is not None:
            scale = {a.exponent: a.scale, b.exponent: b.scale}.get(exponent, 1.0)
            return replace(pair[0], scale=scale), replace(pair[1], scale=scale)
    raise ValueError(
        f"add: {a.name or 'the first tensor'}, on scale 2^{-a.exponent}, and {b.name or 'the second'}, on scale "
        f"2^{-b.exponent}, are too far apart: from 2^{min(map(_bottom, (a, b)))} to 2^{max(tops)}, beyond float64"
    )


def _bottom(stats: TensorStats) -> int:
    return math.frexp(stats.amin)[1] - 1 + stats.exponent if stats.amax > 0 else 10**9


def _moved(stats: TensorStats, exponent: int) -> TensorStats | None:
    """Return the same statistics with values that are the true ones times 2**-exponent; None where float64 cannot hold them."""
    k = stats.exponent - exponent
    if k == 0:
        return stats
    floats: dict[str, Any] = {
        name: shifted(getattr(stats, name), k) for name in ("amax", "amin", "mean", "mean_rest", "l1", "std", "l2")
    }
    floats |= {name: moved_squares(getattr(stats, name), 2 * k) for name in ("deviations", "squares")}
    moved = replace(stats, exponent=exponent, first_binade=stats.first_binade + k, **floats)
    exact = (shifted(moved.amin, -k), shifted(moved.amax, -k)) == (stats.amin, stats.amax)
    return moved if exact and math.isinf(moved.l1) == math.isinf(stats.l1) else None


def moved_squares(parts: Parts, k: int) -> Parts:
    """Return a sum of squares times 2**k, each part in the range that holds it."""
    found = [0.0, 0.0, 0.0]
    for part, middle in zip(parts, (_RANGE, 0, -_RANGE), strict=True):
        significand, exponent = math.frexp(part)
        exponent += middle + k
        place = 0 if exponent > 1000 else 2 if exponent < -800 else 1
        if part:
            found[place] += shifted(significand, exponent - (_RANGE, 0, -_RANGE)[place])
    return found[0], found[1], found[2]


def shifted(value: float, k: int) -> float:
    """Return value * 2**k; infinite where float64 ends."""
    try:
        return math.ldexp(value, k)
    except OverflowError:
        return math.copysign(math.inf, value)
