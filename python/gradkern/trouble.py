"""What is wrong with the tensors of a table in a format at a scale: which overflow, flush, lose digits, hold NaN."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from gradkern._result import Result
from gradkern.fit import FormatFit, ScaleWindow
from gradkern.formats import FormatLike, finfo
from gradkern.table import StatsTable
from gradkern.tensor_stats import TensorStats

SORTS = ("trouble", "name", "size", "amax", "overflow", "flushed", "subnormal", "nonfinite")
SEVERITIES = ("critical", "major", "minor")


@dataclass(frozen=True, repr=False)
class TensorTrouble(Result):
    """One tensor in every format asked for.

    Attributes
    ----------
    stats : TensorStats
        Its statistics.
    fits : dict of FormatFit
        By format.
    lose : float
        Fraction of the non-zero entries that may flush, or become subnormal, without being called trouble.
    """

    stats: TensorStats
    fits: dict[str, FormatFit]
    lose: float

    @property
    def name(self) -> str:
        """Name of the tensor."""
        return self.stats.name or "the tensor"

    def overflows(self, fmt: str) -> bool:
        """Whether anything may overflow."""
        return self.fits[fmt].overflow.high > 0

    def flushes(self, fmt: str) -> bool:
        """Whether more than the fraction that may is flushed to zero."""
        return self.fits[fmt].flushed.high > self.lose * self.stats.nonzero

    def loses_digits(self, fmt: str) -> bool:
        """Whether more than that fraction becomes subnormal."""
        return self.fits[fmt].subnormal.high > self.lose * self.stats.nonzero

    @property
    def severity(self) -> str | None:
        """``critical`` for NaN, inf and overflow, ``major`` for flushing, ``minor`` for lost digits, None for health."""
        if self.stats.nonfinite or any(map(self.overflows, self.fits)):
            return "critical"
        if any(map(self.flushes, self.fits)):
            return "major"
        return "minor" if any(map(self.loses_digits, self.fits)) else None

    def worst(self, count: str) -> float:
        """Largest share of the non-zero entries, over the formats, for overflow, flushed or subnormal."""
        counts: list[int] = [getattr(fit, count).high for fit in self.fits.values()]
        return max(counts) / max(self.stats.nonzero, 1)

    @property
    def rank(self) -> tuple[float, ...]:
        """Larger is worse: NaN, then overflow, flushing and lost digits, by how many formats and how many entries."""
        key = [float(self.stats.nonfinite > 0)]
        for hurt, count in ((self.overflows, "overflow"), (self.flushes, "flushed"), (self.loses_digits, "subnormal")):
            key += [float(sum(map(hurt, self.fits))), self.worst(count)]
        return tuple(key)

    def to_dict(self) -> dict[str, Any]:
        """Return name, severity, statistics and fits as JSON can hold them."""
        fits = {fmt: fit.to_dict() for fmt, fit in self.fits.items()}
        return {"name": self.name, "severity": self.severity, "stats": self.stats.to_dict(), "fits": fits}


@dataclass(frozen=True, repr=False)
class FormatTrouble(Result):
    """How many tensors are in trouble in one format, and the scales that serve all of them, or most.

    Attributes
    ----------
    format : str
        The format.
    overflow, flushed, subnormal : int
        Tensors that overflow, flush or lose digits.
    window : ScaleWindow
        The scales that serve all tensors.
    best : float
        The best of them; where there are none, the scale that serves most.
    served : int
        Tensors that neither overflow nor flush at the best scale.
    """

    format: str
    overflow: int
    flushed: int
    subnormal: int
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
    formats : list of FormatTrouble
        One per format.
    tensors : list of TensorTrouble
        In the order asked for.
    """

    scale: float
    lose: float
    nonfinite: list[str]
    formats: list[FormatTrouble]
    tensors: list[TensorTrouble]

    @property
    def severity(self) -> str | None:
        """The worst of any tensor; None for health."""
        found = {tensor.severity for tensor in self.tensors}
        return next((severity for severity in SEVERITIES if severity in found), None)

    @property
    def troubled(self) -> list[TensorTrouble]:
        """Tensors with a severity."""
        return [tensor for tensor in self.tensors if tensor.severity is not None]

    def to_dict(self) -> dict[str, Any]:
        """Return everything as JSON can hold it."""
        return {
            "scale": self.scale, "lose": self.lose, "severity": self.severity, "nonfinite": self.nonfinite,
            "formats": [fmt.to_dict() for fmt in self.formats], "tensors": [t.to_dict() for t in self.tensors],
        }  # fmt: skip


def most_served(tensors: Iterable[TensorStats], fmt: str, lose: float) -> tuple[float, int]:
    """Return the scale at which the most tensors neither overflow nor flush, the nearest to 1, and how many those are."""
    steps: Counter[int] = Counter()
    always = 0
    for stats in tensors:
        low, high = stats.smallest_scale(fmt, lose), stats.largest_scale(fmt)
        if low is None or high is None:
            always += 1
        elif max(low, -1022) <= min(high, 1023):
            steps[max(low, -1022)] += 1
            steps[min(high, 1023) + 1] -= 1
    served, best, edges = 0, (0, 0.0, 0), sorted(steps)
    for edge, end in zip(edges, [*edges[1:], 1024], strict=True):
        served += steps[edge]
        nearest = min(max(edge, 0), end - 1)
        best = max(best, (served, -abs(nearest), nearest))
    return 2.0 ** best[2], best[0] + always


def _sorted(tensors: list[TensorTrouble], sort: str) -> list[TensorTrouble]:
    from gradkern.tensor_file import natural_key

    if sort == "name":
        return sorted(tensors, key=lambda tensor: natural_key(tensor.name))
    keys = {
        "trouble": lambda tensor: tensor.rank,
        "size": lambda tensor: tensor.stats.size,
        "amax": lambda tensor: tensor.stats.log2_amax,
        "nonfinite": lambda tensor: tensor.stats.nonfinite / max(tensor.stats.size, 1),
    }
    return sorted(tensors, key=keys.get(sort, lambda tensor: tensor.worst(sort)), reverse=True)


def _judge_format(table: StatsTable, tensors: list[TensorTrouble], fmt: str, lose: float) -> FormatTrouble:
    found = table.loss_scale_window(fmt, lose)
    best, served = (found.best, len(tensors)) if found.best is not None else most_served(table.values(), fmt, lose)
    overflow, flushed = sum(t.overflows(fmt) for t in tensors), sum(t.flushes(fmt) for t in tensors)
    return FormatTrouble(fmt, overflow, flushed, sum(t.loses_digits(fmt) for t in tensors), found, best, served)


def judge(
    table: StatsTable, formats: Sequence[FormatLike], scale: float = 1.0, lose: float = 1e-3, sort: str = "trouble"
) -> TableTrouble:
    """Judge the tensors of a table.

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
        One of `SORTS`; largest first but for names.

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
    fits = {fmt: table.fit(fmt, scale) for fmt in names}
    tensors = [
        TensorTrouble(stats, {fmt: fits[fmt][name] for fmt in names}, lose) for name, stats in table.tensors.items()
    ]
    judged = [_judge_format(table, tensors, fmt, lose) for fmt in names]
    nonfinite = [name for name, stats in table.tensors.items() if stats.nonfinite]
    return TableTrouble(scale, lose, nonfinite, judged, _sorted(tensors, sort))
