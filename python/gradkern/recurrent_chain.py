"""`probe` of an `RNN`: backpropagation through time, one record per time step and role."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gradkern import _core
from gradkern._arguments import positive_integer
from gradkern._arrays import Bits, read
from gradkern.activation import activation_code
from gradkern.arithmetic import Arithmetic
from gradkern.loss import check_target, loss_and_gradient
from gradkern.recurrent import RNN
from gradkern.recurrent_report import RecurrentReport

Wide = NDArray[np.float64]
LOSS_AT = ("last", "every")
ACCUMULATIONS = ("accumulate", "storage")
OPTIONS = ("bptt", "loss_at", "initial", "step_accumulate")  # of `probe`, for an RNN only


def sequence_of(x: Any, net: RNN, function: str) -> Bits:
    """Take x as (steps, batch, inputs), (steps, inputs) being a batch of one."""
    bits = read(x, f"{function}: x")
    shape = bits.shape
    if len(shape) == 2:
        shape = (shape[0], 1, shape[1])
    if len(shape) != 3 or shape[2] != net.inputs:
        raise ValueError(
            f"{function}: x has shape {bits.shape}, but RNN.input_weight has {(net.hidden, net.inputs)}: x must be "
            f"(steps, batch, {net.inputs}) or (steps, {net.inputs})"
        )
    if 0 in shape:
        raise ValueError(f"{function}: x has shape {bits.shape}: there must be at least one step and one sample")
    return Bits(bits.bits.reshape(shape), bits.format, bits.restore)


def initial_of(value: Any, shape: tuple[int, int], function: str) -> Bits | None:
    """Take h_0, (batch, hidden) or a vector where the batch is one; None stays None."""
    if value is None:
        return None
    bits = read(value, f"{function}: initial")
    if bits.shape != shape and not (shape[0] == 1 and bits.shape == shape[1:]):
        raise ValueError(f"{function}: initial has shape {bits.shape}, h_0 is {shape}")
    return bits


def _choice(value: str, choices: tuple[str, ...], name: str) -> str:
    if value not in choices:
        raise ValueError(f"probe: {name} must be {' or '.join(map(repr, choices))}, got {value!r}")
    return value


class _Losses:
    """The loss of the last steps, its gradients for the stored outputs and for the true ones.

    ``sum`` adds over the steps; ``mse`` and ``cross_entropy`` are means over the steps too, as of one flattened batch.
    """

    def __init__(self, run: _core.Recurrence, steps: int, shape: tuple[int, int], at: str) -> None:
        self.run, self.shape = run, shape
        self.steps = range(1, steps + 1) if at == "every" else range(steps, steps + 1)
        self.loss: float | None = None
        self.true_loss: float | None = None
        self.exponents: list[int] = []
        self.truth: Wide | None = None

    def given(self, value: Any) -> Wide:
        gradient = read(value, "probe: grad_output").values.astype(np.float64)
        full = (len(self.steps), *self.shape)
        if gradient.shape not in (full, self.shape if len(self.steps) == 1 else full):
            raise ValueError(f"probe: grad_output has shape {gradient.shape}, the outputs {full}")
        self.truth, self.exponents = np.ascontiguousarray(gradient), [0] * len(self.steps)
        return self.truth

    def targets(self, loss: str, target: Any) -> list[Wide | None]:
        """One target a step."""
        if target is None or loss == "sum" or len(self.steps) == 1:
            return [check_target(loss, target, self.shape)] * len(self.steps)
        values = read(target, "probe: target").values
        if values.shape[:1] != (len(self.steps),):
            raise ValueError(
                f"probe: target has shape {values.shape}, but there is one loss at each of {len(self.steps)} steps"
            )
        return [check_target(loss, step, self.shape) for step in values]

    def computed(self, loss: str, targets: list[Wide | None], reference: bool) -> Wide:
        share = 1.0 if loss == "sum" else 1.0 / len(self.steps)
        stored, true, gradients, truths = [], [], [], []
        for step, target in zip(self.steps, targets, strict=True):
            value, gradient, _ = loss_and_gradient(loss, self.run.output(step).reshape(self.shape), target)
            stored.append(value)
            gradients.append(gradient * share)
            if reference:
                values, exponent = self.run.reference_output(step)
                value, truth, exponent = loss_and_gradient(loss, values.reshape(self.shape), target, exponent)
                true.append(value)
                truths.append(truth * share)
                self.exponents.append(exponent)
        self.loss = float(np.sum(stored) * share)
        if reference:
            self.true_loss, self.truth = float(np.sum(true) * share), np.ascontiguousarray(truths)
        return np.ascontiguousarray(gradients)


def probe_recurrent(
    net: RNN,
    x: Any,
    *,
    loss: str,
    target: Any,
    grad_output: Any,
    arithmetic: Arithmetic,
    scale: float,
    reference: bool,
    keep: str,
    progress: Callable[[int, int], None] | None,
    bptt: int | None = None,
    loss_at: str = "last",
    initial: Any = None,
    step_accumulate: str = "accumulate",
) -> RecurrentReport:
    """Run an RNN forward and backward through time; see `probe`."""
    a, sequence = arithmetic, sequence_of(x, net, "probe")
    steps, batch, _ = sequence.shape
    shape = (batch, net.hidden)
    back = 0 if bptt is None else positive_integer(bptt, "probe", "bptt")
    first = initial_of(initial, shape, "probe")
    every_step = _choice(step_accumulate, ACCUMULATIONS, "step_accumulate") == "storage"
    recurrent, from_input, bias = net.parameters
    run = _core.Recurrence(
        recurrent.pair, from_input.pair, None if bias is None else bias.pair, activation_code(net.activation, "probe"),
        sequence.pair, None if first is None else first.pair, back, every_step, list(a.format_ids), list(a.mode), a.seed,
        a.derivative == "stored_output", scale, reference, keep == "tensors",
    )  # fmt: skip
    losses = _Losses(run, steps, shape, _choice(loss_at, LOSS_AT, "loss_at"))
    given = None if grad_output is None else losses.given(grad_output)
    targets = [] if given is not None else losses.targets(loss, target)
    run.forward(progress)
    gradients = given if given is not None else losses.computed(loss, targets, reference)
    run.backward(gradients, losses.truth if reference else None, losses.exponents if reference else [], progress)
    shares, planned_bytes = run.contributions(), run.planned_bytes()
    return RecurrentReport(
        records=run.take_records(),
        arithmetic=a,
        scale=scale,
        widths=[net.hidden] * (steps + 1),
        activations=[net.activation] * steps,
        batch=batch,
        loss_name="grad_output" if given is not None else loss,
        loss=losses.loss,
        reference_loss=losses.true_loss,
        planned_bytes=planned_bytes,
        inputs=net.inputs,
        bptt=bptt,
        loss_at=loss_at,
        step_accumulate=step_accumulate,
        shares=shares,
    )
