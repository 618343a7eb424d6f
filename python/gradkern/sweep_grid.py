"""The grid of a sweep: products of lists of parameters, gone through one point at a time."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from gradkern.sweep_point import SweepPoint, checked


def _axis(name: str, values: Any) -> list[Any]:
    scalar = isinstance(values, str | bytes) or not isinstance(values, Iterable) or getattr(values, "ndim", 1) == 0
    axis = [checked(name, value) for value in ([values] if scalar else values)]
    if not axis:
        raise ValueError(f"sweep: {name} is an empty list: the grid has no point")
    return axis


class Grid:
    """Points of one product, or of several one after the other; every value is checked, no point is made yet.

    Raises
    ------
    TypeError, ValueError
        If the grid is no dict and no list of dicts, or a name or value in it is wrong.
    """

    def __init__(self, grid: Mapping[str, Any] | Iterable[Mapping[str, Any]]) -> None:
        products = [grid] if isinstance(grid, Mapping) else list(grid) if isinstance(grid, Iterable) else [grid]
        for product in products:
            if not isinstance(product, Mapping):
                raise TypeError(
                    f"sweep: grid must be a dict of names and values, or a list of such, got {type(product).__name__}"
                )
        if not products:
            raise ValueError("sweep: grid is an empty list: there is no point")
        self.products = [{name: _axis(name, values) for name, values in product.items()} for product in products]

    def __len__(self) -> int:
        return sum(math.prod(map(len, axes.values())) for axes in self.products)

    def __iter__(self) -> Iterator[SweepPoint]:
        for axes in self.products:
            for values in itertools.product(*axes.values()):
                yield SweepPoint(**dict(zip(axes, values, strict=True)))
