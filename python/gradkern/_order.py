"""The orders in which libraries let a matrix unit walk along k: one walk, or several that are added outside the unit."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gradkern.cast import cast
from gradkern.formats import format_name

ORDERS = "'ascending', 'split:P', 'split:P/FORMAT', 'serial:P/FORMAT', 'sliced:S', 'sliced:SxW' or 'restart:N'"
_PATTERN = re.compile(r"(split|serial|sliced|restart):(\d+)(?:x(\d+))?(?:/(\w+))?")
_STRIPE = 32


@dataclass(frozen=True)
class Order:
    """Which k each walk takes, and what partial sums are rounded to before they are added."""

    kind: str
    count: int = 1
    stripe: int = _STRIPE
    partial: str | None = None

    def walks(self, k: int, step: int) -> list[NDArray[np.int64]]:
        """Return the k of each walk, in the order of the additions; parts are whole instructions of `step`."""
        every = np.arange(k)
        if self.kind == "ascending":
            return [every]
        if self.kind == "sliced":
            return [every[every // self.stripe % self.count == warp] for warp in range(self.count)]
        parts = step * max(1, -(-k // (step * self.count)))
        size = self.count if self.kind == "restart" else parts
        return [every[first : first + size] for first in range(0, max(k, 1), size)]

    def add(self, walked: list[NDArray[Any]]) -> NDArray[Any]:
        """Add the results of the walks in the accumulator's format, each addition rounded to nearest."""
        dtype = walked[0].dtype
        with np.errstate(all="ignore"):
            if self.kind == "serial":
                total = self._rounded(walked[0])
                for part in walked[1:]:
                    total = self._rounded(part + total)
                return total.astype(dtype)
            total, *rest = [self._rounded(part) for part in walked]
            for part in rest:
                total = (total + part).astype(dtype)
        return total

    def _rounded(self, part: NDArray[Any]) -> NDArray[Any]:
        return part if self.partial is None else cast(part, self.partial).values.astype(part.dtype)


def order_of(text: str, step: int, argument: str) -> Order:
    """Read an order by its name.

    Raises
    ------
    ValueError
        If there is none of this name.
    """
    if text == "ascending":
        return Order("ascending")
    found = _PATTERN.fullmatch(str(text))
    if found is None:
        raise ValueError(f"{argument} must be {ORDERS}, got {text!r}")
    kind, count, stripe, partial = found[1], int(found[2]), found[3], found[4]
    if count == 0 or (stripe is not None and (kind != "sliced" or int(stripe) == 0)):
        raise ValueError(f"{argument} must be {ORDERS}, with positive numbers, got {text!r}")
    if (kind == "serial") if partial is None else kind not in ("split", "serial"):
        raise ValueError(f"{argument}: serial has a format for its partial sums, split may have one, got {text!r}")
    try:
        order = Order(kind, count, int(stripe or _STRIPE), None if partial is None else format_name(partial))
    except ValueError as error:
        raise ValueError(f"{argument}: {text!r}: {error}") from None
    width = order.stripe if kind == "sliced" else count if kind == "restart" else step
    if width % step:
        raise ValueError(f"{argument}: {text!r} would cut an instruction of {step} products")
    return order
