"""A dense layer, forward and backward, under the arithmetic contract."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from gradkern import _core
from gradkern._arrays import Bits, as_bits_view, check_one_place, read, read_in_place
from gradkern._backend import takes_device
from gradkern._result import Result
from gradkern.activation import activation_code, to_storage, wide_bits
from gradkern.arithmetic import Arithmetic, ArithmeticLike, arithmetic
from gradkern.cast import RoundingReport, round_to


@dataclass(frozen=True, repr=False)
class DenseOutput(Result):
    """What `dense_forward` returns.

    Attributes
    ----------
    output, pre_activation : array
        h and z, (batch, n_out), in the storage format.
    events : dict of str to RoundingReport
        What each rounding did: of the inputs that were wider than storage, of z, and of h.
    """

    output: Any
    pre_activation: Any
    events: dict[str, RoundingReport]

    def to_dict(self) -> dict[str, Any]:
        """Return the events."""
        return {name: report.to_dict() for name, report in self.events.items()}


@dataclass(frozen=True, repr=False)
class DenseGradients(Result):
    """What `dense_backward` returns: gradients of the input, the weight and the bias, and the events of each rounding."""

    input: Any
    weight: Any
    bias: Any
    events: dict[str, RoundingReport]

    def to_dict(self) -> dict[str, Any]:
        """Return the events."""
        return {name: report.to_dict() for name, report in self.events.items()}


class _Rounder:
    """Rounds tensors of one call, each from its own stream, and keeps the reports."""

    def __init__(self, a: Arithmetic) -> None:
        self.arithmetic = a
        self.events: dict[str, RoundingReport] = {}

    def __call__(self, source: Bits, name: str) -> Bits:
        a = self.arithmetic
        stored, self.events[name] = round_to(source, a.storage, a.mode, seed=a.seed, stream=len(self.events))
        return Bits(as_bits_view(stored), a.storage, source.restore)

    def argument(self, x: Any, name: str, function: str) -> Bits:
        return self(read_in_place(x, f"{function}: {name}"), name)


def _matrix(bits: Bits, name: str, function: str) -> Bits:
    if len(bits.shape) != 2:
        raise ValueError(f"{function}: {name} must be a matrix, got shape {bits.shape}")
    return bits


def _product(
    a: Arithmetic,
    left: Bits,
    right: Bits,
    *,
    left_t: bool = False,
    right_t: bool = False,
    bias: Bits | None = None,
    is_sum: bool = False,
) -> Bits:
    storage, operands, accumulate, unit = a.format_ids
    operands = storage if is_sum and not unit else operands  # a sum has no operands to round; a unit multiplies by ones
    wide = _core.product(
        left.bits, left.format_id, left_t, right.bits, right.format_id, right_t,
        None if bias is None else bias.bits, 0 if bias is None else bias.format_id, operands, accumulate, unit,
    )  # fmt: skip
    return wide_bits(wide)


@takes_device
def dense_forward(
    x: Any,
    weight: Any,
    bias: Any = None,
    *,
    activation: str = "identity",
    arithmetic: ArithmeticLike = "float32",
    device: str | None = None,
) -> DenseOutput:
    """Compute z = fl(x W^T + b) and h = fl(phi(z)).

    Each z[i, j] is one chain of fused multiply-adds over k ascending, from +0, in the accumulation format, then the bias is
    added there, then one rounding to storage: the same bits on every instruction set and thread count.

    Parameters
    ----------
    x : array, (batch, n_in)
        Rounded to storage first, and that is reported.
    weight : array, (n_out, n_in)
        Likewise.
    bias : array, (n_out,), optional
        Likewise.
    activation : str
        See `activations`.
    arithmetic : str or Arithmetic
        See `Arithmetic`.
    device : {None, "cpu", "cuda", "simt"}
        Where to compute. None: where the arrays lie.

    Returns
    -------
    DenseOutput

    Raises
    ------
    TypeError, ValueError
        For an argument of a wrong kind, dtype, shape or name.
    """
    function = "dense_forward"
    a = _arithmetic(arithmetic)
    code, alpha = activation_code(activation, function)
    rounded = _Rounder(a)
    inputs = _matrix(rounded.argument(x, "x", function), "x", function)
    w = _matrix(rounded.argument(weight, "weight", function), "weight", function)
    check_one_place(function, x=inputs, weight=w)
    if inputs.shape[1] != w.shape[1]:
        raise ValueError(f"{function}: x has shape {inputs.shape}, weight {w.shape}: the last sizes must agree")
    b = None if bias is None else rounded.argument(bias, "bias", function)
    check_one_place(function, x=inputs, bias=b)
    if b is not None and b.shape != w.shape[:1]:
        raise ValueError(f"{function}: bias has shape {b.shape}, weight {w.shape}: bias must be ({w.shape[0]},)")
    z = rounded(_product(a, inputs, w, right_t=True, bias=b), "pre_activation")
    wide = _core.activation_forward(z.bits, z.format_id, code, alpha)
    h = rounded(wide_bits(wide.reshape(z.shape)), "output")
    return DenseOutput(inputs.restore(h.values), inputs.restore(z.values), rounded.events)


@takes_device
def dense_backward(
    grad_output: Any,
    x: Any,
    weight: Any,
    pre_activation: Any = None,
    *,
    activation: str = "identity",
    arithmetic: ArithmeticLike = "float32",
    device: str | None = None,
) -> DenseGradients:
    """Compute the gradients of a dense layer.

    dz = fl(dh * phi'(z)), then dx = fl(dz W) over j ascending, dW = fl(dz^T x) and db = fl(sum of dz) over the batch ascending.

    Parameters
    ----------
    grad_output : array, (batch, n_out)
        dL/dh.
    x : array, (batch, n_in)
        The layer's input.
    weight : array, (n_out, n_in)
        The layer's weight.
    pre_activation : array, (batch, n_out), optional
        z of the forward pass; needed unless the activation is the identity.
    activation : str
        See `activations`.
    arithmetic : str or Arithmetic
        See `Arithmetic`.
    device : {None, "cpu", "cuda", "simt"}
        Where to compute. None: where the arrays lie.

    Returns
    -------
    DenseGradients

    Raises
    ------
    TypeError, ValueError
        For an argument of a wrong kind, dtype, shape or name.
    """
    function = "dense_backward"
    a = _arithmetic(arithmetic)
    code, alpha = activation_code(activation, function)
    rounded = _Rounder(a)
    dh = _matrix(rounded.argument(grad_output, "grad_output", function), "grad_output", function)
    inputs = _matrix(rounded.argument(x, "x", function), "x", function)
    w = _matrix(rounded.argument(weight, "weight", function), "weight", function)
    check_one_place(function, grad_output=dh, x=inputs, weight=w)
    if dh.shape != (inputs.shape[0], w.shape[0]) or inputs.shape[1] != w.shape[1]:
        raise ValueError(
            f"{function}: grad_output has shape {dh.shape}, x {inputs.shape}, weight {w.shape}: "
            "they must be (batch, n_out), (batch, n_in) and (n_out, n_in)"
        )
    if pre_activation is None:
        if activation != "identity":
            raise ValueError(f"{function}: pre_activation is needed for activation {activation!r}")
        dz = rounded(dh, "grad_pre_activation")
    else:
        z = rounded.argument(pre_activation, "pre_activation", function)
        check_one_place(function, grad_output=dh, pre_activation=z)
        if z.shape != dh.shape:
            raise ValueError(f"{function}: pre_activation has shape {z.shape}, grad_output {dh.shape}")
        h = None
        if a.derivative == "stored_output":
            h = rounded(wide_bits(_core.activation_forward(z.bits, z.format_id, code, alpha)), "output").bits
        wide = _core.activation_backward(dh.bits, z.bits, h, z.format_id, code, alpha)
        dz = rounded(wide_bits(wide.reshape(z.shape)), "grad_pre_activation")
    ones = to_storage(read([[1.0] * dh.shape[0]], function), a)
    grad_input = rounded(_product(a, dz, w), "input")
    grad_weight = rounded(_product(a, dz, inputs, left_t=True), "weight_gradient")
    grad_bias = rounded(_product(a, ones, dz, is_sum=True), "bias_gradient")
    restore = dh.restore
    return DenseGradients(
        restore(grad_input.values),
        restore(grad_weight.values),
        restore(grad_bias.values.reshape(w.shape[:1])),
        rounded.events,
    )


_arithmetic = arithmetic
