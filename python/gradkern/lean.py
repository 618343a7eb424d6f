"""Whether the sums of a run are rounded to one side: each beside the exact sum of its own stored operands, and a sign test."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from gradkern._units import accumulator
from gradkern.dense import dense_backward, dense_forward
from gradkern.formats import finfo
from gradkern.layer_row import LayerRow
from gradkern.recurrent_report import RecurrentReport
from gradkern.report import ChainReport
from gradkern.ulp import quanta_apart

_SURE = 8.0  # squared deviations from no lean that may be one: a chance of 4 % by itself
_FARTHEST = 0.51  # ulps: half of one by the rounding to storage, and a little by a sum in float32

Floats = NDArray[np.float64]
Place = tuple[int, str]  # layer and role


@dataclass(frozen=True)
class Lean:
    """Entries of a tensor stored with a larger, with a smaller magnitude than exact, and the chance of that."""

    larger: int = 0
    smaller: int = 0
    chance: float = 1.0


def leans(report: ChainReport) -> dict[Place, Lean]:
    """Say of every product of matrices of a run that kept its tensors how the stored sums lie beside the exact ones.

    Only fresh errors count, for the operands are the run's own; what they inherited shows no lean of the rounding. Values in
    the normal range of the storage format are taken. Those of float64 cannot be told from our own sums, in float64.
    """
    if report.arithmetic.storage == "float64":
        return {}
    info = finfo(report.arithmetic.storage)
    wider = accumulator(report.arithmetic.accumulate, "leans").format != report.arithmetic.storage
    found = {}
    with np.errstate(all="ignore"):
        for row, exact, operands in _products(report):
            stored, magnitude = _wide(row), np.abs(exact)
            normal = (magnitude >= info.smallest_normal) & (magnitude <= info.max) & np.isfinite(stored)
            side = np.where(normal, np.sign(np.abs(stored) - magnitude), 0.0)
            larger, smaller = int(np.sum(side > 0)), int(np.sum(side < 0))
            beyond = wider & (quanta_apart(exact, stored, (info, info)) > _FARTHEST)
            found[row.layer, row.role] = Lean(larger, smaller, chance_of(side, stored, operands, exact, beyond))
    return found


def _wide(row: LayerRow) -> Floats:
    return np.asarray(row.tensor).astype(np.float64)


def _products(report: ChainReport) -> Iterator[tuple[LayerRow, Floats, tuple[Floats, Floats]]]:
    """Give every product of a run, the same product of its stored operands in float64, and these."""
    rows = {(row.layer, row.role): row for row in report.layers}

    def value(layer: int, role: str) -> Floats:
        return _wide(rows[layer, role])

    recurrent = isinstance(report, RecurrentReport)
    whole = not isinstance(report, RecurrentReport) or (report.bptt is None and report.loss_at == "last")
    for layer in range(1, report.depth + 1):
        owner = 0 if recurrent else layer  # of the weights
        before, weight = value(layer - 1, "activation"), value(owner, "weight")
        operands = before, weight
        if recurrent:
            operands = np.hstack([before, value(layer, "input")]), np.hstack([weight, value(0, "input_weight")])
        bias = value(owner, "bias") if (owner, "bias") in rows else None
        yield rows[layer, "pre_activation"], dense_forward(*operands, bias, arithmetic="float64").output, operands
        if (layer, "grad_pre_activation") not in rows:
            continue
        gradient = value(layer, "grad_pre_activation")
        sums = dense_backward(gradient, before, weight, arithmetic="float64")
        if (layer - 1, "grad_activation") in rows and whole:  # else losses of other steps are in it
            yield rows[layer - 1, "grad_activation"], sums.input, (gradient, weight)
        if not recurrent:  # an RNN has that of all steps together only
            yield rows[layer, "grad_weight"], sums.weight, (gradient, before)


def chance_of(
    side: Floats,
    stored: Floats,
    operands: Sequence[Floats] = (),
    exact: Floats | None = None,
    beyond: NDArray[np.bool_] | None = None,
) -> float:
    """Bound the probability that symmetric errors lean so far to one side.

    The roundings of different sums are taken for independent, but those of a row (column) may share the rounding of an operand,
    and so the variance of the sum of signs is taken by rows and by columns (two-way clusters), and is never less than by either
    alone; rows that are equal, of samples with one gradient, are one. Nor is it less than by stored values: where entries crowd
    within an ulp, they are rounded to one value and all to one side, unless they are `beyond` what that can do. And there are
    no more coins than the operands have different magnitudes. Where the rows' sums are symmetric, and independent of one
    another, ``|sum| >= t sqrt(sum of their squares)`` with a probability of at most ``2 exp(-t**2 / 2)``, whatever their sizes.

    Parameters
    ----------
    side : array
        1, 0 or -1 for each entry, (rows, columns).
    stored : array
        What it was rounded to.
    operands : sequence of array
        What it is a product of.
    exact : array, optional
        The sums, by which rows are told apart; default `stored`.
    beyond : array of bool, optional
        Entries that lie further from the exact ones than one rounding to storage moves them, so that a sum in a wider format
        must have erred.

    References
    ----------
    Cameron, Gelbach, Miller, "Robust inference with multiway clustering", J. Bus. Econ. Stat. 29 (2011) 238.
    Hoeffding, "Probability inequalities for sums of bounded random variables", J. Am. Stat. Assoc. 58 (1963) 13, applied to the
    signs; Efron, "Student's t-test under symmetry conditions", J. Am. Stat. Assoc. 64 (1969) 1278.
    """
    total = float(side.sum())
    if total == 0:
        return 1.0
    alone = float(np.sum(side * side))
    sums = stored if exact is None else exact
    rows, columns = (float(np.sum(_row_sums(*pair) ** 2)) for pair in ((side, sums), (side.T, sums.T)))
    _, place = np.unique(stored, return_inverse=True)
    near, far = (side, 0 * side) if beyond is None else (np.where(beyond, 0, side), np.where(beyond, side, 0))
    values = float(np.sum(np.bincount(place.ravel(), near.ravel()) ** 2) + np.sum(far * far))
    variance = max(rows + columns - alone, rows, columns, values)
    if total * total > _SURE * variance:  # sorting operands takes time
        coins = min((np.count_nonzero(np.unique(np.abs(operand))) for operand in operands), default=side.size)
        variance = max(variance, total * total / max(coins, 1))
    return min(1.0, 2 * math.exp(-total * total / (2 * variance)))


def _row_sums(side: Floats, sums: Floats) -> Floats:
    """Sum the signs of each row, of equal rows together."""
    _, place = np.unique([hash(row.tobytes()) for row in sums], return_inverse=True)
    return np.bincount(place, side.sum(axis=1)).astype(np.float64)
