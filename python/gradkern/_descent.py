"""The loop behind `descend`: weights, one step after another by the kernels, and what each step was."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gradkern import _core
from gradkern._arrays import Bits, as_bits_view, read, same_kind
from gradkern.activation import activation_code
from gradkern.arithmetic import Arithmetic
from gradkern.cast import round_to
from gradkern.clip import clip_by_global_norm
from gradkern.descent_step import EVENTS, NORM_ROLES, DescentStep, NonFiniteOrigin, nonfinite_rows, origin_in
from gradkern.errors import NonFiniteError
from gradkern.formats import finfo
from gradkern.layer_row import LayerRow
from gradkern.loss import Wide, loss_and_gradient
from gradkern.net import MLP
from gradkern.report import ChainReport
from gradkern.scale import LossScaler
from gradkern.step_record import StepRecord
from gradkern.update import UpdateReport, log2_hypot, update_into

Clip = Callable[[dict[str, NDArray[Any]]], Any]

_WEIGHT_STREAM, _UPDATE_STREAM = 1 << 33, 1 << 32  # apart from those of the chain, which count from 0


def step_seed(seed: int, step: int) -> int:
    """Seed of a step's stochastic rounding: that of the arithmetic at step 0, independent ones later."""
    return seed if step == 0 else int(np.random.SeedSequence((seed, step)).generate_state(1, np.uint64)[0])


@dataclass
class Treated:
    """Gradients after the remedies: what they still carry, and what was done."""

    gradients: dict[str, NDArray[Any]]
    scale: float
    coefficient: float = 1.0
    skipped: bool = False
    record: StepRecord | None = None
    stuck: str = ""


class Descent:
    """The state of a run: weights in their format, data, remedies."""

    def __init__(
        self, net: MLP, x: Bits, target: Wide | None, loss: str, arithmetic: Arithmetic, lr: float, weight_format: str,
        clip: float | Clip | None, scaler: LossScaler | float, batch: int, reports: bool,
    ) -> None:  # fmt: skip
        self.net, self.x, self.target, self.loss, self.arithmetic, self.lr = net, x, target, loss, arithmetic, lr
        self.clip, self.scaler, self.batch, self.reports = clip, scaler, batch, reports
        self.codes = [activation_code(layer.activation, "descend") for layer in net.layers]
        self.parameters: dict[str, Bits] = {}
        for number, layer in enumerate(net.layers, 1):
            for name, bits in zip(("weight", "bias"), layer.parameters, strict=True):
                if bits is not None:
                    self.parameters[f"layer {number} {name}"] = self._start(bits, weight_format)
        self.looked_into = {True: False, False: False}  # by whether the step was skipped

    def _start(self, bits: Bits, weight_format: str) -> Bits:
        a, stream = self.arithmetic, _WEIGHT_STREAM + len(self.parameters)
        if bits.format == weight_format and a.subnormals == "keep":
            return Bits(bits.bits.copy(), bits.format, same_kind)
        return read(round_to(bits, weight_format, a.mode, seed=a.seed, stream=stream)[0], "descend: net")

    @property
    def scale(self) -> float:
        """The loss scale of the next step."""
        return self.scaler.scale if isinstance(self.scaler, LossScaler) else self.scaler

    def _rows(self, step: int) -> tuple[Bits, Wide | None]:
        """Rows of a step, in order and round and round."""
        rows = self.x.shape[0]
        if self.batch == rows:
            return self.x, self.target
        chosen = (step * self.batch + np.arange(self.batch)) % rows
        target = None if self.target is None else np.ascontiguousarray(self.target[chosen])
        return Bits(np.ascontiguousarray(self.x.bits[chosen]), self.x.format, self.x.restore), target

    def _run(self, step: int, scale: float, reference: bool) -> tuple[list[dict[str, Any]], ChainReport]:
        a, (batch, target) = self.arithmetic, self._rows(step)
        layers = [
            (self.parameters[f"layer {n} weight"].pair, None if bias is None else bias.pair, *code)
            for n, code in enumerate(self.codes, 1)
            for bias in [self.parameters.get(f"layer {n} bias")]
        ]
        run = _core.ChainRun(
            layers, batch.pair, self.batch, *a.format_ids, *a.mode, step_seed(a.seed, step),
            a.derivative == "stored_output", scale, reference, not reference,
        )  # fmt: skip
        run.forward(None)
        shape = (self.batch, self.net.widths[-1])
        value, gradient, _ = loss_and_gradient(self.loss, run.output().reshape(shape), target)
        true_value, truth, exponent = None, None, 0
        if reference:
            values, exponent = run.reference_output()
            true_value, truth, exponent = loss_and_gradient(self.loss, values.reshape(shape), target, exponent)
        planned = run.planned_bytes()
        run.backward(np.ascontiguousarray(gradient), truth, exponent, None)
        records = list(run.take_records())
        slim = [{k: v for k, v in r.items() if k not in ("tensor", "truth")} for r in records]
        report = ChainReport(
            records=slim, arithmetic=a, scale=scale, widths=self.net.widths, activations=self.net.activations,
            batch=self.batch, loss_name=self.loss, loss=value, reference_loss=true_value, planned_bytes=planned,
        )  # fmt: skip
        return records, report

    def step(self, step: int) -> tuple[DescentStep, str]:
        """Take a step; also why the run cannot go on, or nothing."""
        scale = self.scale
        records, report = self._run(step, scale, False)
        treated = self._treat(self._gradients(records), scale)
        nonfinite, judged = self._origin(report, step, scale, treated.skipped)
        updates = [] if treated.skipped else self._update(treated, step)
        nonfinite = nonfinite or self._overflowed(updates, step)
        rows = report.layers
        taken = DescentStep(
            step=step, loss=float(report.loss if report.loss is not None else math.nan),
            log2_weight_norm=log2_hypot(r.log2_norm for r in rows if r.role in ("weight", "bias")),
            log2_gradient_norm=log2_hypot(r.log2_norm for r in rows if r.role in ("grad_weight", "grad_bias")),
            log2_norms={role: [row.log2_norm for row in report.rows(role) if row.layer] for role in NORM_ROLES},
            events=self._events(rows), updates=[UpdateReport.merged(u.values()) for u in updates], scale=scale,
            skipped=treated.skipped, coefficient=treated.coefficient, record=treated.record, nonfinite=nonfinite,
            report=judged or (report if self.reports else None),
        )  # fmt: skip
        return taken, treated.stuck

    def _gradients(self, records: list[dict[str, Any]]) -> dict[str, NDArray[Any]]:
        """Return the stored gradients by the name of their parameter, in the order of the layers."""
        dtype = finfo(self.arithmetic.storage).dtype
        found = {
            f"layer {r['layer']} {r['role'].removeprefix('grad_')}": np.asarray(r["tensor"])
            .view(dtype)
            .reshape(r["shape"])
            for r in records
            if r["role"] in ("grad_weight", "grad_bias")
        }
        return {name: found[name] for name in self.parameters}

    def _treat(self, gradients: dict[str, NDArray[Any]], scale: float) -> Treated:
        """Unscale and clip, in float32 (float64 for float64 storage), where a remedy asks for it."""
        scaled = isinstance(self.scaler, LossScaler)
        if not scaled and self.clip is None:
            return Treated(gradients, scale)
        wide = np.float64 if self.arithmetic.storage == "float64" else np.float32
        treated = Treated({name: g.astype(wide) for name, g in gradients.items()}, 1.0)
        most = self.clip if isinstance(self.clip, float) else None
        if isinstance(self.scaler, LossScaler):
            self._unscale(treated, self.scaler, most)
        else:
            treated.coefficient = clip_by_global_norm(
                treated.gradients, most, scale=scale, nonfinite="propagate"
            ).coefficient
        if callable(self.clip) and not treated.skipped:
            try:
                treated.coefficient = float(getattr(self.clip(treated.gradients), "coefficient", math.nan))
            except NonFiniteError:  # the clipper's own policy: it left the gradients alone
                treated.coefficient = math.nan
        return treated

    def _unscale(self, treated: Treated, scaler: LossScaler, most: float | None) -> None:
        try:
            record = scaler.step(treated.gradients, most, format=self.arithmetic.storage)
        except NonFiniteError as error:  # at the floor, or beyond float32 without a scale below 1: no scale helps
            treated.record, treated.skipped, treated.stuck = getattr(error, "record", None), True, str(error)
            return
        treated.record, treated.skipped, treated.coefficient = record, record.skipped, record.coefficient

    def _update(self, treated: Treated, step: int) -> list[dict[str, UpdateReport]]:
        """Move the weights; what rounding made of it, by layer and name."""
        a, rate = self.arithmetic, self.lr / treated.scale
        seed = step_seed(a.seed, step)
        reports: list[dict[str, UpdateReport]] = [{} for _ in self.net.layers]
        for stream, (name, gradient) in enumerate(treated.gradients.items()):
            bits, (_, number, kind) = self.parameters[name], name.split()
            g = Bits(as_bits_view(gradient), str(gradient.dtype), same_kind)
            reports[int(number) - 1][kind] = update_into(
                bits, g, bits.bits, rate, a.mode, seed, _UPDATE_STREAM + stream
            )
        return reports

    def _origin(
        self, report: ChainReport, step: int, scale: float, skipped: bool
    ) -> tuple[NonFiniteOrigin | None, ChainReport | None]:
        """Where the first NaN or infinity is; the first of all is looked into with the reference chain."""
        row = next(iter(nonfinite_rows(report)), None)
        if row is None:
            return None, None
        if not self.looked_into[skipped] and not (row.role in ("weight", "bias") and self.looked_into[False]):
            self.looked_into[skipped] = True
            judged = self._run(step, scale, True)[1]
            return origin_in(judged, step), judged
        return NonFiniteOrigin(step, row.layer, row.role, row.record["stored"]["first_nonfinite"], "", ""), None

    def _overflowed(self, updates: list[dict[str, UpdateReport]], step: int) -> NonFiniteOrigin | None:
        for number, reports in enumerate(updates, 1):
            for kind, report in reports.items():
                values = self.parameters[f"layer {number} {kind}"]
                if report.overflow and not np.isfinite(values.values.astype(np.float64)).all():
                    self.looked_into[False] = True
                    story = f"w - lr g is beyond {values.format} in {report.overflow:,} of {report.size:,} entries"
                    return NonFiniteOrigin(step, number, f"updated {kind}", report.first_overflow, "overflow", story)
        return None

    @staticmethod
    def _events(rows: list[LayerRow]) -> dict[str, list[int]]:
        events = {kind: [0] * max(row.layer for row in rows) for kind in EVENTS}
        for row in rows:
            if row.layer:
                for kind in ("overflow", "flushed", "subnormal"):
                    events[kind][row.layer - 1] += row.record["rounding"][kind]
                events["nonfinite"][row.layer - 1] += row.nonfinite
        return events
