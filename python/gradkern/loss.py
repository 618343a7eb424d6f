"""Losses and their gradients, in float64 from the stored output, before the loss scale.

``sum``: L = sum(out). ``mse``: L = mean((out - target)^2) over all entries. ``cross_entropy``: softmax over the last axis, mean
over the batch; the target holds class numbers (batch,) or probabilities (batch, classes). Values may carry a power-of-two
exponent (the reference chain's): true output = values * 2**exponent.
"""

from __future__ import annotations

import math
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from gradkern import _core
from gradkern._arrays import read

Wide: TypeAlias = NDArray[np.float64]

LOSSES = ("sum", "mse", "cross_entropy")


def check_target(loss: str, target: Any, shape: tuple[int, int], function: str = "probe") -> Wide | None:
    """Return the target as (batch, n_out) float64, one-hot where class numbers were given.

    Raises
    ------
    ValueError
        If the loss is unknown, the target is missing or superfluous, has the wrong shape, a class is out of range, or rows are
        no probabilities.
    """
    if loss not in LOSSES:
        raise ValueError(f"{function}: loss must be one of {', '.join(LOSSES)}, got {loss!r}")
    if loss == "sum":
        if target is not None:
            raise ValueError(f"{function}: loss='sum' takes no target; did you mean loss='mse' or 'cross_entropy'?")
        return None
    if target is None:
        raise ValueError(f"{function}: loss={loss!r} needs a target")
    values = read(target, f"{function}: target").values.astype(np.float64)
    if loss == "cross_entropy" and values.ndim == 1:
        return _one_hot(values, shape, function)
    if values.shape != shape and values.size == shape[0] * shape[1] and values.ndim <= 2 and 1 in shape:
        values = values.reshape(shape)
    if values.shape != shape:
        wanted = ": class numbers (batch,) or probabilities of that shape" if loss == "cross_entropy" else ""
        raise ValueError(f"{function}: target has shape {values.shape}, the output {shape}{wanted}")
    if loss == "cross_entropy":
        _check_probabilities(values, function)
    return values


def _check_probabilities(rows: Wide, function: str) -> None:
    bad = ~((rows >= 0) & np.isfinite(rows)).all(axis=1)
    if bad.any():
        row = int(np.argmax(bad))
        raise ValueError(
            f"{function}: target of cross_entropy must hold class numbers (batch,) or probabilities; row {row} holds "
            f"{rows[row].min():g}"
        )


def _one_hot(classes: Wide, shape: tuple[int, int], function: str) -> Wide:
    if classes.shape != shape[:1]:
        raise ValueError(f"{function}: target has shape {classes.shape}, the output {shape}: one class number a row")
    if not np.all((classes >= 0) & (classes < shape[1]) & (classes == np.floor(classes))):
        bad = classes[~((classes >= 0) & (classes < shape[1]) & (classes == np.floor(classes)))][0]
        raise ValueError(f"{function}: target holds {bad:g}, classes are whole numbers from 0 to {shape[1] - 1}")
    return np.asarray(np.arange(shape[1])[None, :] == classes[:, None], dtype=np.float64)


def _exp(x: Wide) -> Wide:
    return _core.elementary_f64("exp", np.ascontiguousarray(x))


def _ldexp(x: Wide, exponent: int) -> Wide:
    return np.ldexp(x, max(-5000, min(5000, exponent))) if exponent else x


def _exact_sum(x: Wide) -> float:
    """Return the sum of finite numbers, rounded once; infinite where float64 ends."""
    parts = _core.exact_parts(np.ascontiguousarray(x))
    try:
        return math.fsum(parts)
    except OverflowError:
        return math.copysign(math.inf, parts[0])


def _mse(output: Wide, target: Wide, exponent: int) -> tuple[float, Wide, int]:
    if exponent < 0 and np.any(target):
        output, exponent = _ldexp(output, exponent), 0
    difference = output - _ldexp(target, -exponent)
    squares = _ldexp(difference, exponent) ** 2
    finite = bool(np.all(np.isfinite(squares)))
    value = _exact_sum(squares) / output.size if finite else float(np.sum(squares))
    return value, 2.0 * difference / output.size, exponent


def _others(x: Wide) -> Wide:
    """Sum of the other entries of each row, in a fixed order and without subtracting."""
    before, after = np.zeros_like(x), np.zeros_like(x)
    for column in range(1, x.shape[1]):
        before[:, column] = before[:, column - 1] + x[:, column - 1]
        after[:, -1 - column] = after[:, -column] + x[:, -column]
    return before + after


def _cross_entropy(output: Wide, target: Wide, exponent: int) -> tuple[float, Wide, int]:
    shifted = _ldexp(output - np.max(output, axis=1, keepdims=True), exponent)
    exponentials = _exp(shifted)
    total = np.zeros((len(output), 1))
    for column in range(output.shape[1]):  # ascending, so that the sum does not depend on the machine
        total = total + exponentials[:, column : column + 1]
    # p_j sum(t) - t_j, as e_j (sum of the other t) - t_j (sum of the other e): a certain p does not cancel.
    gradient = (exponentials * _others(target) - target * _others(exponentials)) / total / len(output)
    log_total = _core.elementary_f64("log1p", total - 1.0)
    with np.errstate(invalid="ignore"):
        terms = np.where(target != 0, target * (log_total - shifted), 0.0)
    finite = bool(np.all(np.isfinite(terms)))
    value = _exact_sum(terms) / len(output) if finite else float(np.sum(terms)) / len(output)
    return value, gradient, 0


def loss_and_gradient(loss: str, output: Wide, target: Wide | None, exponent: int = 0) -> tuple[float, Wide, int]:
    """Return (loss, gradient, exponent of the gradient)."""
    with np.errstate(all="ignore"):
        if loss == "sum" or target is None:
            finite = bool(np.all(np.isfinite(output)))
            value = _exact_sum(output) if finite else float(np.sum(output))
            return float(_ldexp(np.array(value), exponent)), np.ones_like(output), 0
        if loss == "mse":
            return _mse(output, target, exponent)
        return _cross_entropy(output, target, exponent)
