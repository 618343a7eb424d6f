"""Arrays with names that are made when somebody looks at them: thousands of texts take longer than clipping."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, overload


class Numbered(Sequence[str]):
    """Names that are numbers put into a form."""

    def __init__(self, numbers: Sequence[int], form: str = "{}") -> None:
        self._numbers, self._form = numbers, form

    @overload
    def __getitem__(self, index: int) -> str: ...
    @overload
    def __getitem__(self, index: slice) -> list[str]: ...
    def __getitem__(self, index: int | slice) -> str | list[str]:
        if isinstance(index, slice):
            return [self._form.format(n) for n in self._numbers[index]]
        return self._form.format(self._numbers[index])

    def __iter__(self) -> Iterator[str]:
        return map(self._form.format, self._numbers)

    def __len__(self) -> int:
        return len(self._numbers)

    def put_into(self, form: str) -> Numbered:
        """Return the same numbers in another form."""
        return Numbered(self._numbers, form)


@dataclass
class Numerous:
    """Arrays of which each has a numbered name; None is left out."""

    values: list[Any]
    names: Sequence[str]

    @classmethod
    def of(cls, items: list[Any], form: str = "{}") -> Numerous:
        """Give each item its number, those that are None having one, too."""
        values = [item for item in items if item is not None]
        if len(values) == len(items):
            return cls(values, Numbered(range(len(items)), form))
        return cls(values, Numbered([i for i, item in enumerate(items) if item is not None], form))
