"""`ComparedTensor`: one tensor of two runs, how far its entries lie apart and on which side."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gradkern import ulp
from gradkern._result import Result, floats
from gradkern.formats import finfo
from gradkern.layer_row import LayerRow
from gradkern.lean import Lean

EVENTS = ("overflow", "invalid", "flushed", "cancelled", "subnormal", "inherited")
_SHARES = (0.5, 0.9, 0.99, 1.0)
Floats = NDArray[np.float64]
Two = tuple[int, int]


@dataclass(frozen=True, repr=False)
class ComparedTensor(Result):
    """One tensor of two runs. Pairs of counts are those of the reference run and of the other.

    Attributes
    ----------
    layer : int
        As in the reports of `probe`: of an RNN the time step.
    role : str
        ``pre_activation``, ``activation``, ``grad_activation``, ``grad_pre_activation``, ``grad_weight``, ``grad_bias``, and
        what the runs were given, rounded: ``weight``, ``bias`` and the input.
    size : int
        Entries.
    equal : int
        Entries with the same bits (of two formats: with the same value and sign); every NaN counts as the same one.
    compared : int
        Entries that are finite in both runs; distances and bias are theirs.
    median_ulp, p90_ulp, p99_ulp, max_ulp : float
        Quantiles of the distances in ulps (see `compare`): the smallest that so many entries do not exceed.
    max_ulp_index : int or None
        Flat index of the largest distance.
    ulp_counts : list of int
        Distances of zero, up to 1/2, 1, 2, 4, 8, ... ulps; `ulp_histogram` gives the edges.
    larger, smaller : int
        Entries whose magnitude is larger, smaller, than in the reference run.
    own_larger, own_smaller : tuple of int
        Entries of products (pre_activation, grad_activation, grad_weight) that are stored with a larger, smaller, magnitude
        than the exact sum over the run's own stored operands has: how this run rounds, whatever it inherited.
    own_chance : tuple of float
        At most so likely would unbiased rounding lean so far to one side; 1 for what is no product, and in float64.
    log2_ratio : float
        log2 of the norm over that of the reference run, of the entries compared.
    difference : float
        || other - reference || / || reference ||, of the entries compared.
    relative_error, reference_error : float
        || stored - true || / || true || of the other run and of the reference run, against the float64 reference chain; NaN
        where anything stored is not finite, or without that chain.
    nonzero : int
        Entries compared that are not zero in at least one run.
    zero_only, nonfinite_only : tuple of int
        Entries that are zero, NaN or infinite, in the reference run only, and in the other only.
    events : dict of tuple
        Entries by fate (overflow, invalid, flushed, cancelled, subnormal, inherited) where there are any.
    first : int or None
        Flat index of the first divergent entry: of one format the first that is not equal; of two, the first further away than
        half an ulp, or finite in one run only.
    first_values : tuple of float or None
        Its values.
    """

    layer: int
    role: str
    size: int
    equal: int
    compared: int
    median_ulp: float
    p90_ulp: float
    p99_ulp: float
    max_ulp: float
    max_ulp_index: int | None
    ulp_counts: list[int]
    larger: int
    smaller: int
    own_larger: Two
    own_smaller: Two
    own_chance: tuple[float, float]
    log2_ratio: float
    difference: float
    relative_error: float
    reference_error: float
    nonzero: int
    zero_only: Two
    nonfinite_only: Two
    events: dict[str, Two]
    first: int | None
    first_values: tuple[float, float] | None

    @property
    def identical(self) -> bool:
        """Whether all entries are equal."""
        return self.equal == self.size

    @property
    def bias(self) -> float:
        """Share of the entries compared that are larger in magnitude, less the share that are smaller; NaN for none."""
        return (self.larger - self.smaller) / self.compared if self.compared else math.nan

    @property
    def lean(self) -> float:
        """The same among the entries that differ: -1 where all of them are smaller; 0 where none differs."""
        different = self.larger + self.smaller
        return (self.larger - self.smaller) / different if different else 0.0

    def own_lean(self, side: int) -> float:
        """How a run rounds its sums: -1 where all inexact ones are stored smaller; of the reference run 0, of the other 1."""
        larger, smaller = self.own_larger[side], self.own_smaller[side]
        return (larger - smaller) / (larger + smaller) if larger + smaller else 0.0

    @property
    def ulp_histogram(self) -> tuple[Floats, NDArray[np.int64]]:
        """Upper edges (0, 1/2, 1, 2, 4, ...) and counts."""
        return ulp.upper_edges(len(self.ulp_counts)), np.array(self.ulp_counts, np.int64)

    @classmethod
    def from_dict(cls, saved: Mapping[str, Any]) -> ComparedTensor:
        """Build from what `to_dict` returned."""
        values = {f.name: saved[f.name] for f in fields(cls)}
        for name in ("zero_only", "nonfinite_only", "own_larger", "own_smaller", "own_chance"):
            values[name] = tuple(values[name])
        values["events"] = {kind: tuple(counts) for kind, counts in values["events"].items()}
        values = {name: floats(v) for name, v in values.items()}
        if values["first_values"] is not None:
            values["first_values"] = tuple(map(float, values["first_values"]))
        return cls(**values)

    def __repr__(self) -> str:
        """Say in a line how far the entries lie apart."""
        return (
            f"ComparedTensor({self.layer} {self.role}, {self.equal:,} of {self.size:,} equal, median {self.median_ulp:g} ulp, "
            f"max {self.max_ulp:g}, difference {self.difference:.2g}, bias {self.bias:+.3f})"
        )


def _log2_norm(values: Floats) -> float:
    largest = float(np.max(np.abs(values), initial=0.0))
    if largest == 0 or not math.isfinite(largest):
        return -math.inf if largest == 0 else math.inf
    exponent = math.frexp(largest)[1]
    return exponent + math.log2(float(np.sum(np.ldexp(values, -exponent) ** 2))) / 2


def _log2_ratio(numerator: float, denominator: float) -> float:
    """log2 of a quotient of two norms; of two zeros 0."""
    return 0.0 if numerator == denominator else numerator - denominator


def _difference(reference: Floats, other: Floats, log2_norm: float) -> float:
    if not len(reference):
        return math.nan
    with np.errstate(over="ignore"):
        gap = _log2_norm(other - reference)
    if gap == -math.inf:
        return 0.0
    return 2.0 ** (gap - log2_norm) if gap - log2_norm < 1024 else math.inf


def _one_sided(reference: NDArray[np.bool_], other: NDArray[np.bool_]) -> Two:
    return int(np.sum(reference & ~other)), int(np.sum(other & ~reference))


def _counts(row: LayerRow) -> dict[str, int]:
    return {kind: row.fates[kind] if row.fates else getattr(row.rounding, kind, 0) for kind in EVENTS}


def compare_rows(reference: LayerRow, other: LayerRow, leans: tuple[Lean, Lean]) -> ComparedTensor:
    """Compare one tensor of two runs that kept theirs.

    Parameters
    ----------
    reference, other : LayerRow
        Of the same layer, role and shape, with their tensors.
    leans : tuple of Lean
        How each of them is rounded.
    """
    stored = np.ascontiguousarray(reference.tensor), np.ascontiguousarray(other.tensor)
    a, b = (tensor.astype(np.float64) for tensor in stored)
    formats = finfo(reference.storage), finfo(other.storage)
    finite = np.isfinite(a), np.isfinite(b)
    both = finite[0] & finite[1]
    same = ((a == b) & (np.signbit(a) == np.signbit(b))) | (np.isnan(a) & np.isnan(b))
    x, y = a[both], b[both]
    one_format = reference.storage == other.storage
    apart = ulp.steps_apart(stored[0][both], stored[1][both]) if one_format else ulp.quanta_apart(x, y, formats)

    distance = np.zeros(a.shape)
    distance[both] = apart
    divergent = ~same if one_format else ~same & (~both | (distance > 0.5))
    first = int(np.argmax(divergent)) if divergent.any() else None
    norm = _log2_norm(x)
    mine, theirs = _counts(reference), _counts(other)
    median, p90, p99, largest = ulp.quantiles(apart, _SHARES)
    return ComparedTensor(
        layer=reference.layer, role=reference.role, size=reference.size, equal=int(same.sum()), compared=len(x),
        median_ulp=median, p90_ulp=p90, p99_ulp=p99, max_ulp=largest,
        max_ulp_index=int(np.argmax(distance)) if distance.any() else None, ulp_counts=ulp.by_power_of_two(apart),
        larger=int(np.sum(np.abs(y) > np.abs(x))), smaller=int(np.sum(np.abs(y) < np.abs(x))),
        own_larger=(leans[0].larger, leans[1].larger), own_smaller=(leans[0].smaller, leans[1].smaller),
        own_chance=(leans[0].chance, leans[1].chance),
        log2_ratio=_log2_ratio(_log2_norm(y), norm) if len(x) else math.nan,
        difference=0.0 if same.all() else _difference(x, y, norm),
        relative_error=other.relative_error, reference_error=reference.relative_error,
        nonzero=int(np.sum((x != 0) | (y != 0))), zero_only=_one_sided(both & (a == 0), both & (b == 0)),
        nonfinite_only=_one_sided(~finite[0], ~finite[1]),
        events={kind: (mine[kind], theirs[kind]) for kind in EVENTS if mine[kind] or theirs[kind]},
        first=first, first_values=None if first is None else (float(a.flat[first]), float(b.flat[first])),
    )  # fmt: skip
