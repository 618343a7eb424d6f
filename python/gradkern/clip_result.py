"""What clipping found and did: `ClipResult`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import islice
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gradkern._result import Result

_SHOWN = 8  # norms in a text


@dataclass(frozen=True, slots=True)
class NonFinite:
    """Entries of one tensor that are NaN or infinite.

    Attributes
    ----------
    count : int
        How many, ``nan + inf``.
    first : int
        Flat index of the first.
    nan, inf : int
        How many of each kind.
    """

    count: int
    first: int
    nan: int
    inf: int


class NormsByName(Mapping[str, float]):
    """Norms by name, from an array: thousands of them take no time until they are looked at."""

    def __init__(self, names: Sequence[str], values: NDArray[np.float64]) -> None:
        self._names, self._values = names, values
        self._dict: dict[str, float] | None = None

    def _by_name(self) -> dict[str, float]:
        if self._dict is None:
            self._dict = dict(zip(self._names, self._values.tolist(), strict=True))
        return self._dict

    def __getitem__(self, name: str) -> float:
        return self._by_name()[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._names)

    def __len__(self) -> int:
        return len(self._names)

    def __eq__(self, other: object) -> bool:
        """Whether names and norms are those of another mapping."""
        return isinstance(other, Mapping) and self._by_name() == dict(other)

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        """As a dict."""
        return repr(self._by_name())


@dataclass(frozen=True, repr=False)
class ClipResult(Result):
    """What clipping found and did.

    Attributes
    ----------
    norm : float
        Global norm before, of the true gradients: of the arrays divided by `scale`. With ``nonfinite="zero"`` it is that of
        the finite entries, else inf or NaN where an entry is.
    coefficient : float
        What the true gradients were multiplied by, in float64; 1 where nothing was clipped. The smallest one, where each
        tensor (or row) has its own.
    clipped : bool
        Whether the coefficient is below 1 and was applied.
    skipped : bool
        Whether nothing was modified because an entry is not finite (``nonfinite="skip"``).
    norms : mapping of str to float
        The norm of each tensor before, likewise; always of the finite entries.
    nonfinite : dict of str to NonFinite
        Of the tensors that hold NaN or infinity.
    flushed : int
        Entries that became zero.
    subnormal : int
        Entries that were normal and are subnormal now.
    overflow : int
        Entries that were finite and are not any more: a scale below 1 enlarges.
    zeroed : int
        Entries that were not finite and were set to zero (``nonfinite="zero"``).
    changed : int
        Entries that `clip_by_value` moved to a bound; 0 for the other kinds, which scale whole tensors or rows.
    amax : float
        Largest finite magnitude before, of the arrays as they were, scaled.
    margin : int or None
        How often `scale` could have doubled before a gradient overflowed: the least of all tensors. None where all
        entries are zero.
    size : int
        Entries, each counted once where arrays overlap.
    scale : float
        The loss scale that the arrays were divided by.
    arrays : object
        The clipped arrays, as they were given: a list, a dict or one array.
    """

    norm: float
    coefficient: float
    clipped: bool
    skipped: bool
    norms: Mapping[str, float]
    nonfinite: dict[str, NonFinite]
    flushed: int
    subnormal: int
    overflow: int
    zeroed: int
    changed: int
    amax: float
    margin: int | None
    size: int
    scale: float
    arrays: Any = field(default=None, repr=False)

    def _short(self) -> ClipResult:
        return replace(self, norms=dict(islice(self.norms.items(), _SHOWN)))

    def __repr__(self) -> str:
        """Return one line per field; of many norms the first."""
        if len(self.norms) <= _SHOWN:
            return super().__repr__()
        return f"{self._short()!r}\n  and the norms of {len(self.norms) - _SHOWN:,} more tensors"

    def _repr_html_(self) -> str:
        return super(ClipResult, self if len(self.norms) <= _SHOWN else self._short())._repr_html_()
