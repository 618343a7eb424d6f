"""`DescentStep` and `NonFiniteOrigin`: one step of gradient descent, and where its first NaN or infinity came from."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any

from gradkern._result import Result, floats
from gradkern.layer_row import LayerRow
from gradkern.report import ChainReport
from gradkern.step_record import StepRecord
from gradkern.update import UpdateReport

NORM_ROLES = ("weight", "activation", "grad_pre_activation", "grad_weight")
EVENTS = ("overflow", "flushed", "subnormal", "nonfinite")


@dataclass(frozen=True, repr=False)
class NonFiniteOrigin(Result):
    """The first entry of a step that is NaN or infinite, in the order of computation.

    Attributes
    ----------
    step, layer : int
        Which; layer 0 is the input.
    role : str
        A role of `ChainReport`, or ``"updated weight"``, ``"updated bias"``.
    index : int or None
        Flat index of the entry.
    cause : str
        ``"overflow"``, ``"inf - inf"``, ``"0 * inf"``, ``"given"``, or ``""`` where it was not looked into.
    story : str
        What followed, in words.
    """

    step: int
    layer: int
    role: str
    index: int | None
    cause: str
    story: str

    def __str__(self) -> str:
        """Say where and why in a line."""
        return f"step {self.step}, layer {self.layer} {self.role}: {self.story or 'NaN or inf'}"


def nonfinite_rows(report: ChainReport) -> list[LayerRow]:
    """Rows with NaN or inf, in the order of computation; the gradient of the input moves no weight and is left out."""
    return [row for row in report.layers if row.nonfinite and (row.layer, row.role) != (0, "grad_activation")]


def origin_in(report: ChainReport, step: int) -> NonFiniteOrigin | None:
    """Find the first non-finite row of a report with a reference, and say what made it and what it made."""
    bad = nonfinite_rows(report)
    if not bad:
        return None
    first = bad[0]
    index = first.record["stored"]["first_nonfinite"]
    if not first.fates["overflow"] and not first.fates["invalid"]:
        source = "the target" if first.role.startswith("grad") else "x"
        return NonFiniteOrigin(step, first.layer, first.role, index, "given", f"it came with {source}")
    kind = "overflow" if first.fates["overflow"] else "invalid"
    index = first.first[kind]
    cause = first.invalid_kind if kind == "invalid" else kind
    return NonFiniteOrigin(step, first.layer, first.role, index, cause, _story(report, first, kind, bad))


def _story(report: ChainReport, first: LayerRow, kind: str, bad: list[LayerRow]) -> str:
    if kind == "invalid":
        text = f"{first.fates[kind]:,} of {first.size:,} entries are NaN, made as {first.invalid_kind}"
    else:
        largest = first.reference.log2_amax if first.reference else math.nan
        share = f"{first.fates[kind]:,} of {first.size:,} entries"
        text = f"{share} are beyond {report.arithmetic.storage}, the largest 2^{largest:.1f}"
        heirs = [row for row in bad if row.fates["invalid"]]
        if heirs:
            text += f"; its inf made NaN ({heirs[0].invalid_kind}) in layer {heirs[0].layer} {heirs[0].role}"
    return f"{text}; {len(bad)} of {len(report.layers)} tensors hold NaN or inf"


@dataclass(frozen=True, repr=False)
class DescentStep(Result):
    """One step of gradient descent.

    Lists by layer begin with layer 1.

    Attributes
    ----------
    step : int
        Its number.
    loss : float
        Before the update, in float64 from the stored output.
    log2_weight_norm, log2_gradient_norm : float
        log2 of the norm over all weights and biases as the kernels used them, and over their true gradients (without the loss
        scale, before clipping); NaN where an entry is NaN or infinite.
    log2_norms : dict of list
        By role (weight, activation, grad_pre_activation, grad_weight) and layer, likewise.
    events : dict of list
        By kind (overflow, flushed, subnormal, nonfinite) and layer: entries of all tensors of the layer.
    updates : list of UpdateReport
        By layer, weight and bias together; empty where the step was skipped.
    scale : float
        The loss scale.
    skipped : bool
        Whether the scaler left the weights alone, as gradients were NaN or infinite.
    coefficient : float
        What clipping multiplied the gradients by; 1 where it did nothing, NaN where it refused.
    record : StepRecord or None
        The loss scaler's.
    nonfinite : NonFiniteOrigin or None
        The first NaN or infinity of the step.
    report : ChainReport or None
        With ``keep="reports"``, and without for the steps whose `nonfinite` was looked into.
    """

    step: int
    loss: float
    log2_weight_norm: float
    log2_gradient_norm: float
    log2_norms: dict[str, list[float]]
    events: dict[str, list[int]]
    updates: list[UpdateReport]
    scale: float
    skipped: bool
    coefficient: float
    record: StepRecord | None
    nonfinite: NonFiniteOrigin | None
    report: ChainReport | None = field(default=None, repr=False)

    @property
    def update(self) -> UpdateReport:
        """What rounding made of the update of all layers together."""
        return UpdateReport.merged(self.updates)

    @property
    def lost_share(self) -> float:
        """Share of the entries with an update that did not move; NaN where none had one."""
        return self.update.lost_share

    @classmethod
    def from_dict(cls, saved: Mapping[str, Any]) -> DescentStep:
        """Build from what `to_dict` returned."""
        values = {f.name: floats(saved[f.name]) for f in fields(cls) if f.repr}
        values["updates"] = [UpdateReport(**update) for update in values["updates"]]
        if values["record"] is not None:
            values["record"] = StepRecord.from_dict(values["record"])
        if values["nonfinite"] is not None:
            values["nonfinite"] = NonFiniteOrigin(**values["nonfinite"])
        return cls(**values)

    def __repr__(self) -> str:
        """Say in a line what the step did."""
        update = (
            "skipped" if self.skipped else f"{100 * (0 if math.isnan(self.lost_share) else self.lost_share):.3g} % lost"
        )
        bad = f"; {self.nonfinite}" if self.nonfinite else ""
        return (
            f"DescentStep {self.step}: loss {self.loss:.6g}, log2 |w| {self.log2_weight_norm:.2f}, "
            f"log2 |g| {self.log2_gradient_norm:.2f}, {update}{bad}"
        )
