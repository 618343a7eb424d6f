"""Every tensor of a table in every format, judged as arrays: how bad each is, and in which order they come.

A count in brackets is taken at its low end where it has consequences; its high end makes a suspicion.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gradkern._columns import Bools, Brackets, Fits, Ints
from gradkern.fit import Bracket
from gradkern.table import StatsTable

SORTS = ("trouble", "name", "size", "amax", "overflow", "flushed", "subnormal", "nonfinite")
SEVERITIES = ("critical", "major", "minor")
HURTS = {"overflow": "critical", "flushed": "major", "subnormal": "minor"}  # what each count amounts to

Floats = NDArray[np.float64]


def severity_word(code: int) -> str | None:
    """Return the word of a code: 3 is critical, 0 healthy."""
    return SEVERITIES[len(SEVERITIES) - code] if code else None


class Judged:
    """Every tensor of a table in every format, as arrays; 3 is critical, 0 healthy."""

    def __init__(self, table: StatsTable, formats: Sequence[str], scale: float, lose: float) -> None:
        self.names, self.stats, self.lose = list(table), list(table.values()), lose
        self.columns = table.columns
        self.fits: dict[str, Fits] = {fmt: self.columns.fits(fmt, scale) for fmt in formats}
        self.sizes: Ints = np.array([stats.size for stats in self.stats], np.int64)
        self.nonfinite: Ints = np.array([stats.nonfinite for stats in self.stats], np.int64)
        self.certain, self.possible = self._severity("low"), self._severity("high")

    def hurt(self, fmt: str, count: str, end: str) -> Bools:
        """Whether a count, taken at one end, is trouble: any overflow, more than may flush or lose digits."""
        allowed = 0.0 if count == "overflow" else self.lose * self.columns.nonzero
        hurt: Bools = getattr(getattr(self.fits[fmt], count), end) > allowed
        return hurt

    def _severity(self, end: str) -> Ints:
        codes = np.where(self.nonfinite > 0, len(SEVERITIES), 0)
        for fmt in self.fits:
            for count, severity in HURTS.items():
                code = len(SEVERITIES) - SEVERITIES.index(severity)
                codes = np.maximum(codes, np.where(self.hurt(fmt, count, end), code, 0))
        return codes

    def share(self, *counts: str, end: str = "low") -> Floats:
        """Sum over the formats of the shares of the non-zero entries that a count hurts; what may be lost counts as none."""
        total = np.zeros(len(self.names))
        for fmt, fits in self.fits.items():
            for count in counts:
                total += np.where(self.hurt(fmt, count, end), getattr(getattr(fits, count), end), 0)
        return total / np.maximum(self.columns.nonzero, 1)

    def tally(self, fmt: str, count: str) -> Bracket:
        """Tensors that a count hurts."""
        low, high = (int(self.hurt(fmt, count, end).sum()) for end in ("low", "high"))
        return Bracket(low, high)

    def _keys(self, sort: str) -> list[NDArray[Any]]:
        if sort == "trouble":
            return [
                self.certain, self.nonfinite > 0, self.share("overflow", "flushed"), self.share("subnormal"),
                self.possible, self.share("overflow", "flushed", end="high"), self.share("subnormal", end="high"),
            ]  # fmt: skip
        columns: dict[str, Callable[[], NDArray[Any]]] = {
            "size": lambda: self.sizes,
            "amax": lambda: np.array([stats.log2_amax for stats in self.stats]),
            "nonfinite": lambda: self.nonfinite / np.maximum(self.sizes, 1),
        }
        if sort in columns:
            return [columns[sort]()]
        sums: list[Brackets] = [getattr(fits, sort) for fits in self.fits.values()]
        shares = [sum(getattr(b, end) for b in sums) / np.maximum(self.columns.nonzero, 1) for end in ("low", "high")]
        return list(shares)

    def order(self, sort: str) -> Ints:
        """Return the tensors in an order; among equals, that of the table."""
        if sort == "name":
            from gradkern.tensor_file import natural_key

            return np.array(sorted(range(len(self.names)), key=lambda i: natural_key(self.names[i])), np.int64)
        return np.lexsort([-np.asarray(key, np.float64) for key in reversed(self._keys(sort))]).astype(np.int64)
