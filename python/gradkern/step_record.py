"""What one step of a loss scaler did, in a record that JSON can hold and a scaler can replay."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

from gradkern._arguments import log2_of_scale, number
from gradkern._result import Result
from gradkern._text import printable
from gradkern.joint_window import listed


@dataclass(frozen=True, repr=False)
class StepRecord(Result):
    """What a step of `LossScaler` did.

    Attributes
    ----------
    step : int
        Number of the step, from 0.
    scale : float
        The loss scale that the gradients carried.
    skipped : bool
        Whether they held NaN or inf: they are as they were, and the weights should be left alone.
    tensor : str or None
        The first tensor, in the order given, that held NaN or inf.
    index : int or None
        Flat index of the first such entry in it.
    nonfinite : dict of int
        How many entries are NaN or infinite, by tensor; only tensors that have some.
    margin : int or None
        How often the scale could double before the largest of these gradients overflows the format it is stored or
        was computed in [binades]; None where all are zero, or some are beyond the edge already.
    flushed : float
        Fraction of the entries that unscaling and clipping made zero.
    norm : float
        Global norm of the true gradients, those divided by the scale, before clipping.
    coefficient : float
        What clipping multiplied them by; 1.0 where it did nothing.
    next_scale : float
        The scale for the next loss.
    """

    step: int
    scale: float
    skipped: bool
    tensor: str | None
    index: int | None
    nonfinite: dict[str, int]
    margin: int | None
    flushed: float
    norm: float
    coefficient: float
    next_scale: float

    @property
    def where(self) -> str:
        """Which entry is the first that is not finite, and how many there are in which tensors."""
        return where_nonfinite(self.tensor, self.index, self.nonfinite)

    @classmethod
    def from_dict(cls, saved: Mapping[str, Any]) -> StepRecord:
        """Build from what `to_dict` returned, through JSON or not.

        Raises
        ------
        ValueError
            If a field is missing or is not what it should be; names it.
        """
        missing = [field.name for field in fields(cls) if field.name not in saved]
        if missing:
            raise ValueError(f"StepRecord.from_dict: no {missing[0]}")
        values = {field.name: saved[field.name] for field in fields(cls)}
        for name in ("flushed", "norm", "coefficient"):
            values[name] = _float(values[name], name)
        for name in ("scale", "next_scale"):
            log2_of_scale(values[name], "StepRecord.from_dict", name)
            values[name] = float(values[name])
        if not isinstance(values["skipped"], bool):
            raise ValueError(f"StepRecord.from_dict: skipped must be true or false, got {values['skipped']!r}")
        if not isinstance(values["nonfinite"], dict):
            raise ValueError(f"StepRecord.from_dict: nonfinite must be counts by tensor, got {values['nonfinite']!r}")
        return cls(**values)

    def __repr__(self) -> str:
        outcome = "skipped" if self.skipped else "taken"
        lines = [f"StepRecord {self.step}: {outcome} at scale {power(self.scale)}, next {power(self.next_scale)}"]
        if self.tensor is not None:
            lines.append(f"  {self.where}")
        if self.skipped:
            return "\n".join(lines)
        clipped = f", clipped by {self.coefficient:.4g}" if self.coefficient != 1 else ""
        room = "" if self.margin is None else f", {self.margin} binades to overflow"
        lost = f", {100 * self.flushed:.2g} % flushed" if self.flushed else ""
        return "\n".join([*lines, f"  norm {self.norm:.4g}{clipped}{room}{lost}"])


def where_nonfinite(tensor: str | None, index: int | None, counts: Mapping[str, int]) -> str:
    """Say which entry is the first that is not finite, and how many there are in which tensors."""
    if tensor is None:
        return "every entry is finite"
    total, ranked = sum(counts.values()), sorted(counts.items(), key=lambda item: -item[1])
    first = f"{printable(tensor)}[{index}]"
    if total == 1:
        return f"{first} is NaN or infinite"
    shown = [f"{printable(name)} {count:,}" for name, count in ranked]
    return f"{first} is the first of {total:,} entries that are NaN or infinite: {listed(shown)}"


def _float(value: Any, name: str) -> float:
    """Return a float that JSON may hold as text, as it does NaN and inf."""
    if isinstance(value, str):
        try:
            return float(value)
        except ValueError:
            raise ValueError(f"StepRecord.from_dict: {name} must be a number, got {value!r}") from None
    return number(value, "StepRecord.from_dict", name)


def power(scale: float) -> str:
    """Write a power of two as one."""
    return f"2^{log2_of_scale(scale, 'power')}"
