"""A count that is known exactly or between two bounds, and is a number wherever that says enough."""

from __future__ import annotations

import numbers
import operator
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, repr=False, eq=False)
class Bracket:
    """A count that lies between `low` and `high`; exact where they agree.

    An exact one is a number: ``int``, ``float``, ``range`` and formats take it, and it equals that number. One that is not
    equals only a bracket of the same bounds; it is less or greater than a number where all that lies within is, and
    comparing it raises ValueError where some of that is and some is not: ask `low` or `high`. As a condition it is what
    ``!= 0`` would say of the count. Sums and differences of brackets and numbers hold every possible one.
    """

    low: int
    high: int

    @property
    def exact(self) -> bool:
        """Whether the cells decide."""
        return self.low == self.high

    def __index__(self) -> int:
        if not self.exact:
            raise ValueError(f"Bracket: {self} is no single number; ask low or high")
        return self.low

    __int__ = __index__

    def __float__(self) -> float:
        return float(int(self))

    def __bool__(self) -> bool:
        return self._decided(self.low > 0 or self.high < 0, self.exact and self.low == 0, "!= 0")

    def __eq__(self, other: object) -> bool:
        if isinstance(other, Bracket):
            return (self.low, self.high) == (other.low, other.high)
        return bool(self.exact and self.low == other) if isinstance(other, numbers.Real) else NotImplemented

    def __hash__(self) -> int:
        return hash(self.low if self.exact else (self.low, self.high))

    def __lt__(self, other: Any) -> bool:
        return self._compare(operator.lt, "<", other)

    def __le__(self, other: Any) -> bool:
        return self._compare(operator.le, "<=", other)

    def __gt__(self, other: Any) -> bool:
        return self._compare(operator.gt, ">", other)

    def __ge__(self, other: Any) -> bool:
        return self._compare(operator.ge, ">=", other)

    def _compare(self, holds: Callable[[Any, Any], bool], sign: str, other: Any) -> bool:
        ends = _ends(other)
        if ends is None:
            raise TypeError(f"Bracket: compares with numbers and brackets, got {type(other).__name__}")
        answers = {bool(holds(mine, theirs)) for mine in (self.low, self.high) for theirs in ends}
        return self._decided(answers == {True}, answers == {False}, f"{sign} {other}")

    def _decided(self, yes: bool, no: bool, question: str) -> bool:
        if not (yes or no):
            raise ValueError(f"Bracket: whether {self} {question} is not known; ask low or high")
        return yes

    def __add__(self, other: Any) -> Bracket:
        ends = _ends(other)
        return NotImplemented if ends is None else Bracket(self.low + ends[0], self.high + ends[1])

    __radd__ = __add__  # sum() begins at 0

    def __sub__(self, other: Any) -> Bracket:
        ends = _ends(other)
        return NotImplemented if ends is None else Bracket(self.low - ends[1], self.high - ends[0])

    def __rsub__(self, other: Any) -> Bracket:
        ends = _ends(other)
        return NotImplemented if ends is None else Bracket(ends[0] - self.high, ends[1] - self.low)

    def __repr__(self) -> str:
        return f"Bracket({self.low}, {self.high})"

    def __str__(self) -> str:
        return format(self, ",")

    def __format__(self, spec: str) -> str:
        """Write the count, or both bounds, each as `spec` says; without one as `str` does."""
        spec = spec or ","
        return format(self.low, spec) if self.exact else f"{format(self.low, spec)}..{format(self.high, spec)}"


def _ends(value: Any) -> tuple[Any, Any] | None:
    if isinstance(value, Bracket):
        return value.low, value.high
    return (value, value) if isinstance(value, numbers.Real) else None
