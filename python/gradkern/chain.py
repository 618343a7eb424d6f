"""`probe`: one forward and backward pass in a chosen arithmetic, every rounding watched, the reference chain beside it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from gradkern import _core
from gradkern._arguments import check_callback, log2_of_scale
from gradkern._arrays import Bits, read
from gradkern._backend import takes_device
from gradkern.activation import activation_code
from gradkern.arithmetic import ArithmeticLike, arithmetic
from gradkern.loss import check_target, loss_and_gradient
from gradkern.net import MLP, Dense
from gradkern.recurrent import RNN
from gradkern.recurrent_chain import OPTIONS, probe_recurrent
from gradkern.report import ChainReport

Progress = Callable[[int, int], None]


def _network(net: Any, function: str = "probe") -> MLP:
    if isinstance(net, MLP):
        return net
    if isinstance(net, Dense):
        return MLP([net])
    if isinstance(net, list | tuple) and all(isinstance(layer, Dense) for layer in net):
        return MLP(net)
    recurrent = " or an RNN" if function in ("probe", "jacobian") else ""
    raise TypeError(f"{function}: net must be an MLP or a list of Dense layers{recurrent}, got {type(net).__name__}")


def _batch(x: Any, net: MLP, function: str = "probe") -> Bits:
    bits = read(x, f"{function}: x")
    n_in, first = net.layers[0].n_in, net.layers[0]
    shape = bits.shape
    row_size = int(np.prod(shape[1:])) if len(shape) > 1 else 0
    if len(shape) > 1 and row_size == n_in:
        rows = shape[0]
    elif len(shape) <= 1 and bits.bits.size == n_in:
        rows = 1
    else:
        raise ValueError(
            f"{function}: x has shape {shape}, but {first.name}.weight has {(first.n_out, n_in)}: x must be (batch, {n_in})"
        )
    if rows == 0:
        raise ValueError(f"{function}: x has shape {shape}: the batch is empty")
    return Bits(bits.bits.reshape(rows, n_in), bits.format, bits.restore)


def _grad_output(value: Any, shape: tuple[int, int]) -> np.ndarray[Any, np.dtype[np.float64]]:
    gradient = read(value, "probe: grad_output").values.astype(np.float64)
    if gradient.shape != shape and gradient.size == shape[0] * shape[1] and 1 in shape:
        gradient = gradient.reshape(shape)
    if gradient.shape != shape:
        raise ValueError(f"probe: grad_output has shape {gradient.shape}, the output {shape}")
    return np.ascontiguousarray(gradient)


def given_both(loss: str, target: Any, grad_output: Any) -> bool:
    """Whether a loss is given beside its gradient."""
    return grad_output is not None and (loss != "sum" or target is not None)


@takes_device
def probe(
    net: MLP | Dense | list[Dense] | RNN,
    x: Any,
    *,
    loss: str = "sum",
    target: Any = None,
    grad_output: Any = None,
    arithmetic: ArithmeticLike = "float16",
    scale: float = 1.0,
    reference: bool = True,
    keep: str = "reports",
    device: str | None = None,
    progress: Progress | None = None,
    **recurrent: Any,
) -> ChainReport:
    """Run a network forward and backward in an arithmetic and say what happened to every number.

    Parameters
    ----------
    net : MLP, list of Dense or RNN
        Weights may be in any format; they are rounded to storage first, and that is reported.
    x : array, (batch, n_in)
        The input; (batch, ...) with n_in numbers a row is flattened, one row may be a vector. NaN and inf are measured.
        Of an RNN (steps, batch, inputs), or (steps, inputs) for one sample.
    loss : {"sum", "mse", "cross_entropy"}
        See `gradkern.loss`. Computed in float64 from the stored output.
    target : array, optional
        For ``mse`` (batch, n_out); for ``cross_entropy`` class numbers (batch,) or probabilities (batch, n_out).
    grad_output : array, (batch, n_out), optional
        dL/d output, instead of a loss.
    arithmetic : str or Arithmetic
        See `arithmetics`.
    scale : float
        The loss scale, a power of two; gradients in the report's `stored` statistics carry it.
    reference : bool
        Run the reference chain (float64 with an exponent per tensor, from the unrounded weights and input) and attribute
        every lost entry. Without it only the rounding counts are known.
    keep : {"reports", "tensors"}
        Keep every stored tensor too, as ``row.tensor``, and its true values as ``row.truth``.
    device : {None, "cpu", "cuda", "simt"}
        Where to compute. Without a reference and kept tensors, all stays on the device until the end: `planned_bytes` are
        then mostly the device's.
    progress : callable, optional
        Called between layers with (steps done, steps in all). Ctrl-C is honoured there. A GPU is given layers ahead of its
        work.
    bptt : int, optional
        Of an RNN: gradients go back so many steps, counted in blocks from the last step (truncated backpropagation through
        time, Williams and Peng 1990). Default: all steps.
    loss_at : {"last", "every"}
        Of an RNN: a loss of the last output, or of every step's; ``target`` and ``grad_output`` are then (steps, batch, ...),
        ``sum`` adds the steps' losses, the others are means over the steps too. The gradient of a step's own loss is
        rounded to storage and added, as a bias is, before dL/dh_t is rounded.
    initial : array, (batch, hidden), optional
        Of an RNN: h_0, default zeros.
    step_accumulate : {"accumulate", "storage"}
        Of an RNN: the sum over time steps goes on in the accumulator and is rounded once, or every step's share is rounded to
        storage and so is each sum, as autograd does.

    Returns
    -------
    ChainReport
        Of an RNN a `RecurrentReport`.

    Raises
    ------
    TypeError, ValueError
        For an argument of a wrong kind, dtype, shape or name. Overflow and NaN never raise: they are the result.

    Examples
    --------
    >>> net = gk.MLP.random(depth=30, width=64, activation="tanh", init="xavier_normal")
    >>> report = gk.probe(net, np.random.default_rng(0).standard_normal((32, 64)), arithmetic="float16")
    >>> print(report.summary())
    """
    a = _arithmetic(arithmetic)
    log2_of_scale(scale, "probe")
    check_callback(progress, "probe", "progress")
    if keep not in ("reports", "tensors"):
        raise ValueError(f"probe: keep must be 'reports' or 'tensors', got {keep!r}")
    if given_both(loss, target, grad_output):
        raise ValueError("probe: give either grad_output or a loss, not both")
    for name in recurrent.keys() - set(OPTIONS):
        raise TypeError(f"probe: there is no argument {name!r}")
    if isinstance(net, RNN):
        return probe_recurrent(
            net, x, loss=loss, target=target, grad_output=grad_output, arithmetic=a, scale=float(scale),
            reference=bool(reference), keep=keep, progress=progress, **recurrent,
        )  # fmt: skip
    if recurrent:
        raise TypeError(f"probe: {', '.join(recurrent)} can be given for an RNN only, net is {type(net).__name__}")
    network = _network(net)
    batch = _batch(x, network)
    widths = network.widths
    shape = (batch.shape[0], widths[-1])
    given = None if grad_output is None else _grad_output(grad_output, shape)
    wanted = None if given is not None else check_target(loss, target, shape)

    layers = []
    for layer in network.layers:
        weight, bias = layer.parameters
        code, alpha = activation_code(layer.activation, "probe")
        layers.append((weight.pair, None if bias is None else bias.pair, code, alpha))
    run = _core.ChainRun(
        layers, batch.pair, shape[0], *a.format_ids, *a.mode, a.seed, a.derivative == "stored_output", float(scale),
        bool(reference), keep == "tensors",
    )  # fmt: skip
    run.forward(progress)

    loss_value: float | None = None
    true_loss: float | None = None
    truth, exponent = None, 0
    if given is not None:
        gradient, truth = given, given
    else:
        loss_value, gradient, _ = loss_and_gradient(loss, run.output().reshape(shape), wanted)
        if reference:
            values, exponent = run.reference_output()
            true_loss, truth, exponent = loss_and_gradient(loss, values.reshape(shape), wanted, exponent)
    planned_bytes = run.planned_bytes()
    run.backward(np.ascontiguousarray(gradient), truth if reference else None, exponent, progress)
    return ChainReport(
        records=run.take_records(),
        arithmetic=a,
        scale=float(scale),
        widths=widths,
        activations=network.activations,
        batch=shape[0],
        loss_name="grad_output" if given is not None else loss,
        loss=loss_value,
        reference_loss=true_loss,
        planned_bytes=planned_bytes,
    )


_arithmetic = arithmetic
