"""Gradients divided by their loss scale, checked and clipped in one go, and what of it a loss scaler wants to know."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from gradkern._text import printable
from gradkern.clip import clip_together
from gradkern.clip_result import ClipResult
from gradkern.errors import NonFiniteError
from gradkern.fit import headroom
from gradkern.formats import FormatLike, finfo


@dataclass(frozen=True)
class Outcome:
    """What unscaling found: the fields are those of `StepRecord`, but for the counts that make its fraction."""

    skipped: bool
    tensor: str | None
    index: int | None
    nonfinite: dict[str, int]
    margin: int | None
    lost: int
    size: int
    norm: float
    coefficient: float

    @property
    def flushed(self) -> float:
        """Fraction of the entries that became zero."""
        return self.lost / self.size if self.size else 0.0


def unscale(
    grads: Any, scale: float, max_norm: float | None = None, p: float = 2, format: FormatLike | None = None, *,
    function: str,
) -> Outcome:  # fmt: skip
    """Divide gradients by the scale in place, check and clip them; nothing is written if one is not finite."""
    computed = None if format is None else finfo(format)
    if isinstance(grads, Iterator):
        grads = list(grads)  # a generator gives its arrays once
    result = clip_together(grads, max_norm, p, scale, function=function)
    if result.skipped and scale < 1:
        _refuse_to_enlarge(result, clip_together(grads, None, 2, 1.0, function=function))
    counts = {name: found.count for name, found in result.nonfinite.items()}
    tensor = next(iter(counts), None)
    margin = headroom(result.amax, computed) if computed and result.amax else result.margin
    return Outcome(
        skipped=bool(result.skipped),
        tensor=tensor,
        index=None if tensor is None else result.nonfinite[tensor].first,
        nonfinite=counts,
        margin=None if result.skipped else margin,
        lost=result.flushed,
        size=result.size,
        norm=result.norm,
        coefficient=result.coefficient,
    )


def _refuse_to_enlarge(result: ClipResult, scaled: ClipResult) -> None:
    """Raise if nothing is wrong with the scaled gradients: no smaller scale would help those that unscaling makes infinite."""
    if scaled.nonfinite:
        return
    tensor, entries = next(iter(result.nonfinite.items()))
    raise NonFiniteError(
        f"LossScaler: {printable(tensor)}[{entries.first}] divided by a loss scale of {result.scale:g} is beyond the format "
        "that it is stored in; nothing was modified. Give the gradients in a wider one"
    )


def together(parts: Sequence[Outcome]) -> Outcome:
    """Several outcomes as one: of tensors under one scale that several optimizers hold."""
    if len(parts) == 1:
        return parts[0]
    counts = {f"optimizer {i} {name}": n for i, part in enumerate(parts) for name, n in part.nonfinite.items()}
    first = next(((i, part) for i, part in enumerate(parts) if part.tensor is not None), None)
    margins = [part.margin for part in parts if part.margin is not None]
    skipped = any(part.skipped for part in parts)
    return Outcome(
        skipped=skipped,
        tensor=None if first is None else f"optimizer {first[0]} {first[1].tensor}",
        index=None if first is None else first[1].index,
        nonfinite=counts,
        margin=min(margins, default=None) if not skipped else None,
        lost=sum(part.lost for part in parts),
        size=sum(part.size for part in parts),
        norm=math.hypot(*(part.norm for part in parts)),
        coefficient=1.0,
    )
