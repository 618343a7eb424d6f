"""`descend`: plain gradient descent through the kernels, in a chosen arithmetic, every step recorded."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from gradkern._arguments import check_callback, log2_of_scale, number, positive_integer
from gradkern._backend import takes_device
from gradkern._descent import Clip, Descent
from gradkern.arithmetic import STORAGE_FORMATS, ArithmeticLike
from gradkern.arithmetic import arithmetic as arithmetic_of
from gradkern.chain import _batch, _network
from gradkern.descent_step import DescentStep
from gradkern.formats import FormatLike, format_name
from gradkern.loss import check_target
from gradkern.net import MLP, Dense
from gradkern.scale import LossScaler
from gradkern.trajectory import Trajectory
from gradkern.update import rate_of

Progress = Callable[[int, int], None]


def _clipping(clip: Any) -> tuple[float | Clip | None, str]:
    if clip is None:
        return None, ""
    function = getattr(clip, "clip", clip)
    if callable(function):
        name = type(clip).__name__ if function is not clip else getattr(clip, "__name__", type(clip).__name__)
        return function, name
    most = number(clip, "descend", "clip")
    if not most >= 0:
        raise ValueError(f"descend: clip must be a norm of at least 0, got {clip}")
    return most, f"global norm {most:g}"


def _scaling(scaler: Any) -> LossScaler | float:
    if scaler is None:
        return 1.0
    if isinstance(scaler, LossScaler):
        return scaler
    return math.ldexp(1.0, log2_of_scale(scaler, "descend", "scaler"))


def _weight_format(master_weights: FormatLike | None, storage: str) -> str:
    if master_weights is None:
        return storage
    name = format_name(master_weights)
    if name not in STORAGE_FORMATS:
        raise ValueError(f"descend: master_weights must be one of {', '.join(STORAGE_FORMATS)}, got {master_weights!r}")
    return name


@takes_device
def descend(
    net: MLP | Dense | list[Dense],
    x: Any,
    target: Any = None,
    *,
    lr: float,
    steps: int,
    loss: str = "mse",
    arithmetic: ArithmeticLike = "float16",
    clip: Any = None,
    scaler: LossScaler | float | None = None,
    master_weights: FormatLike | None = None,
    batch: int | None = None,
    start: int = 0,
    stop_at_nonfinite: bool = False,
    keep: str = "steps",
    callback: Callable[[DescentStep], Any] | None = None,
    progress: Progress | None = None,
    device: str | None = None,
) -> Trajectory:
    """Train by plain gradient descent in an arithmetic, and say what became of every step.

    Each step rounds the weights to storage, runs forward and backward as `probe` does, treats the gradients as asked, and
    updates with ``w' = fl(w - lr g / scale)``, rounded once to the format of the weights (see `sgd_update`).

    Parameters
    ----------
    net : MLP or list of Dense
        Not modified; the trajectory's `net` is the trained one.
    x : array, (rows, n_in)
    target : array, optional
        For ``mse`` (rows, n_out); for ``cross_entropy`` class numbers (rows,) or probabilities (rows, n_out).
    lr : float
        The learning rate, finite.
    steps : int
        How many, at least 1.
    loss : {"mse", "cross_entropy", "sum"}
        See `gradkern.loss`.
    arithmetic : str or Arithmetic
        See `arithmetics`. Its rounding, overflow and subnormals are those of the update, too.
    clip : float or callable, optional
        A global norm for the true gradients. Or what clips a dict of gradients in place, such as
        ``functools.partial(gk.clip_by_value, low=-1, high=1)`` or a `QuantileClipper`. NaN and infinity go through a norm as in
        PyTorch (``nonfinite="propagate"``); a callable that raises `NonFiniteError` has left the gradients alone.
    scaler : LossScaler or float, optional
        A loss scaler, which skips steps with NaN or infinite gradients and is left in its last state; or a fixed scale, a power
        of two. A scaler at its floor ends the run.
    master_weights : str or dtype, optional
        Keep and update the weights in this format, and round a copy to storage at every step.
    batch : int, optional
        Rows of a step, taken in order, round and round; default all.
    start : int
        Number of the first step: to go on from a trajectory, give its `net`, its `next_step` and the same scaler.
    stop_at_nonfinite : bool
        End the run after the first step with NaN or infinity that the scaler did not skip.
    keep : {"steps", "reports"}
        Keep the `ChainReport` of every step too, without a reference.
    callback : callable, optional
        Called with each `DescentStep`; a true result ends the run.
    progress : callable, optional
        Called after each step with (steps done, steps in all).
    device : {None, "cpu", "cuda", "simt"}
        Where to compute.

    Returns
    -------
    Trajectory

    Raises
    ------
    TypeError, ValueError
        For an argument of a wrong kind, dtype, shape or name. Overflow and NaN never raise: they are the result.

    Notes
    -----
    Where gradients are unscaled or clipped, that is done in float32 (float64 for float64 storage), so that it loses no digit;
    a fixed scale without clipping is part of the rate. The first step with NaN or infinity is run again with the reference chain,
    to tell where it came from.

    Examples
    --------
    >>> net = gk.MLP.random(depth=4, width=1, activation="identity", init="identity")
    >>> gk.descend(net, [[1.0]], [[0.5]], lr=0.1, steps=200, arithmetic="float64").verdict
    'converged'
    """
    rule, network = arithmetic_of(arithmetic), _network(net, "descend")
    data = _batch(x, network, "descend")
    wanted = check_target(loss, target, (data.shape[0], network.widths[-1]), "descend")
    count, rows = positive_integer(steps, "descend", "steps"), data.shape[0]
    size = rows if batch is None else positive_integer(batch, "descend", "batch")
    if size > rows:
        raise ValueError(f"descend: batch must be at most the {rows} rows of x, got {batch}")
    first = positive_integer(start, "descend", "start", least=0)
    if keep not in ("steps", "reports"):
        raise ValueError(f"descend: keep must be 'steps' or 'reports', got {keep!r}")
    check_callback(callback, "descend", "callback")
    check_callback(progress, "descend", "progress")
    how, clipping = _clipping(clip)
    scaling = _scaling(scaler)
    rate_of(lr, 1.0 if isinstance(scaling, LossScaler) else scaling, "descend")
    weight_format = _weight_format(master_weights, rule.storage)
    rate = number(lr, "descend", "lr")
    run = Descent(network, data, wanted, loss, rule, rate, weight_format, how, scaling, size, keep == "reports")
    taken, stopped = _loop(run, first, count, stop_at_nonfinite, callback, progress)
    return Trajectory(
        arithmetic=rule, weight_format=weight_format, lr=rate, loss_name=loss, clip=clipping,
        scaled=isinstance(scaling, LossScaler), widths=network.widths, activations=network.activations, batch=size,
        start=first, steps=taken, stopped=stopped, parameters=run.parameters,
    )  # fmt: skip


def _loop(
    run: Descent, first: int, count: int, stop_at_nonfinite: bool, callback: Callable[[DescentStep], Any] | None,
    progress: Progress | None,
) -> tuple[list[DescentStep], str]:  # fmt: skip
    taken: list[DescentStep] = []
    for step in range(first, first + count):
        latest, stuck = run.step(step)
        taken.append(latest)
        if progress is not None:
            progress(len(taken), count)
        if callback is not None and callback(latest):
            return taken, "callback"
        if stuck:
            return taken, stuck
        if stop_at_nonfinite and latest.nonfinite is not None and not latest.skipped:
            return taken, "NaN or infinity"
    return taken, ""
