"""What is wrong with the tensors of a table in a format at a scale: which overflow, flush, lose digits, hold NaN.

Counts may be brackets (`gradkern.fit`). Whatever has consequences, severity and order and exit codes, rests on their low
ends, which are certain; what the high ends would add is told apart as a suspicion.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from gradkern._columns import Ints
from gradkern._judged import HURTS, SORTS, Judged, severity_word
from gradkern._result import Result
from gradkern.fit import Bracket, FormatFit, ScaleWindow
from gradkern.formats import FormatLike, finfo
from gradkern.table import StatsTable
from gradkern.tensor_stats import TensorStats


@dataclass(frozen=True, repr=False)
class TensorTrouble(Result):
    """One tensor in every format asked for.

    Attributes
    ----------
    name : str
        In the table.
    stats : TensorStats
        Its statistics.
    fits : dict of FormatFit
        By format.
    lose : float
        Fraction of the non-zero entries that may flush, or become subnormal, without being called trouble.
    severity : str or None
        ``critical`` for NaN, inf and overflow, ``major`` for flushing, ``minor`` for lost digits, None for health: by what
        is certain.
    suspicion : str or None
        The same by the high ends of the counts.
    """

    name: str
    stats: TensorStats
    fits: dict[str, FormatFit]
    lose: float
    severity: str | None
    suspicion: str | None

    def hurts(self, count: str, fmt: str) -> bool:
        """Whether overflow, flushed or subnormal of a format certainly is trouble."""
        allowed = 0.0 if count == "overflow" else self.lose * self.stats.nonzero
        low: int = getattr(self.fits[fmt], count).low
        return low > allowed

    def to_dict(self) -> dict[str, Any]:
        """Return name, severity, suspicion, statistics and fits as JSON can hold them."""
        fits = {fmt: fit.to_dict() for fmt, fit in self.fits.items()}
        return {
            "name": self.name, "severity": self.severity, "suspicion": self.suspicion, "stats": self.stats.to_dict(),
            "fits": fits,
        }  # fmt: skip


class TroubleList(Sequence[TensorTrouble]):
    """Judged tensors in an order; each becomes a `TensorTrouble` when it is looked at."""

    def __init__(self, judged: Judged, order: Ints) -> None:
        self._judged, self._order = judged, order

    def __len__(self) -> int:
        return len(self._order)

    def __getitem__(self, index: Any) -> Any:
        if isinstance(index, slice):
            return TroubleList(self._judged, self._order[index])
        return self._tensor(int(self._order[index]))

    def _tensor(self, index: int) -> TensorTrouble:
        judged = self._judged
        fits = {fmt: found[index] for fmt, found in judged.fits.items()}
        words = severity_word(int(judged.certain[index])), severity_word(int(judged.possible[index]))
        return TensorTrouble(judged.names[index], judged.stats[index], fits, judged.lose, *words)

    @property
    def entries(self) -> int:
        """Entries of all these tensors."""
        return int(self._judged.sizes[self._order].sum())

    @property
    def severity(self) -> str | None:
        """The worst of any; None for health."""
        return severity_word(int(self._judged.certain[self._order].max(initial=0)))

    @property
    def suspicion(self) -> str | None:
        """The worst of any, by the high ends of the counts."""
        return severity_word(int(self._judged.possible[self._order].max(initial=0)))

    def divided(self) -> tuple[TroubleList, TroubleList]:
        """Those in trouble or under suspicion, and the healthy."""
        hurt = self._judged.possible[self._order] > 0
        return TroubleList(self._judged, self._order[hurt]), TroubleList(self._judged, self._order[~hurt])


@dataclass(frozen=True, repr=False)
class FormatTrouble(Result):
    """How many tensors are in trouble in one format, and the scales that serve all of them, or most.

    Attributes
    ----------
    format : str
        The format.
    overflow, flushed, subnormal : Bracket
        Tensors that overflow, flush or lose digits: certainly at least `low`, at most `high`.
    window : ScaleWindow
        The scales that serve all tensors.
    best : float
        The best of them; where there are none, the scale that serves most.
    served : int
        Tensors that neither overflow nor flush at the best scale.
    """

    format: str
    overflow: Bracket
    flushed: Bracket
    subnormal: Bracket
    window: ScaleWindow
    best: float
    served: int


@dataclass(frozen=True, repr=False)
class TableTrouble(Result):
    """A table judged.

    Attributes
    ----------
    scale : float
        What the tensors are multiplied by before the cast.
    lose : float
        Fraction that may flush or lose digits.
    nonfinite : list of str
        Tensors that hold NaN or inf.
    blank : list of str
        Tensors without a finite non-zero entry, of which no format can lose anything.
    formats : list of FormatTrouble
        One per format.
    tensors : sequence of TensorTrouble
        In the order asked for.
    """

    scale: float
    lose: float
    nonfinite: list[str]
    blank: list[str]
    formats: list[FormatTrouble]
    tensors: TroubleList

    @property
    def severity(self) -> str | None:
        """The worst of any tensor; None for health."""
        return self.tensors.severity

    @property
    def troubled(self) -> TroubleList:
        """Tensors with a severity or a suspicion."""
        return self.tensors.divided()[0]

    def to_dict(self) -> dict[str, Any]:
        """Return everything as JSON can hold it."""
        return {
            "scale": self.scale, "lose": self.lose, "severity": self.severity, "nonfinite": self.nonfinite,
            "blank": self.blank, "formats": [fmt.to_dict() for fmt in self.formats],
            "tensors": [tensor.to_dict() for tensor in self.tensors],
        }  # fmt: skip


def _judge_format(table: StatsTable, judged: Judged, fmt: str) -> FormatTrouble:
    found = table.loss_scale_window(fmt, judged.lose)
    best, served = (found.best, len(table)) if found.best is not None else table.columns.most_served(fmt, judged.lose)
    overflow, flushed, subnormal = (judged.tally(fmt, count) for count in HURTS)
    return FormatTrouble(fmt, overflow, flushed, subnormal, found, best, served)


def judge(
    table: StatsTable, formats: Sequence[FormatLike], scale: float = 1.0, lose: float = 1e-3, sort: str = "trouble"
) -> TableTrouble:
    """Judge the tensors of a table.

    The order ``trouble`` puts the worst first: by severity; then those with NaN or inf; then by the share of the non-zero
    entries that overflow or flush, summed over all the formats, so that a tensor which two formats ruin comes before one
    that a single format ruins; then by the share that lose digits, summed likewise. Shares that `lose` allows count as
    none. Ties keep the order of the table. Of a count in brackets the low end is taken, and the high one among equals.

    Parameters
    ----------
    table : StatsTable
    formats : sequence of str or dtype
        Formats that the tensors might be cast to.
    scale : float
        A power of two that they are multiplied by first.
    lose : float
        Fraction of a tensor's non-zero entries that may flush or become subnormal.
    sort : str
        One of `SORTS`: ``overflow``, ``flushed`` and ``subnormal`` are shares summed over the formats. Largest first but
        for names.

    Raises
    ------
    ValueError
        If a format, the scale, the fraction or the order is none.
    """
    if sort not in SORTS:
        raise ValueError(f"sort: must be one of {', '.join(SORTS)}, got {sort!r}")
    names = list(dict.fromkeys(finfo(fmt).name for fmt in formats))
    if not names:
        raise ValueError("formats: needs at least one")
    judged = Judged(table, names, scale, lose)
    verdicts = [_judge_format(table, judged, fmt) for fmt in names]
    nonfinite = [judged.names[i] for i in np.flatnonzero(judged.nonfinite)]
    blank = [judged.names[i] for i in np.flatnonzero(judged.columns.nonzero == 0)]
    return TableTrouble(scale, lose, nonfinite, blank, verdicts, TroubleList(judged, judged.order(sort)))
