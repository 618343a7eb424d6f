"""What a comparison means: how two runs differ, in a few words, with evidence and a remedy."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import TYPE_CHECKING

from gradkern.findings import SEVERITIES, Finding
from gradkern.formats import finfo
from gradkern.layer_row import GRADIENT_ROLES

if TYPE_CHECKING:
    from gradkern.compared_pair import ComparedPair
    from gradkern.compared_tensor import ComparedTensor

_CHANCE = 0.05  # of all tensors of a pair together
_LEAN = 0.1  # 55 of 100 inexact sums lie on one side, and
_OF_COARSE = 3  # so many epsilons more: products on the coarse grid of a narrow format lean by themselves
_FLUSHED, _MOST = 0.01, 0.5  # shares of the non-zero entries of a tensor
_UNRELATED = 0.5  # a difference of half the tensor's size

_Judged = tuple[str, Finding]  # a verdict in a few words, and what it rests on


def find(pair: ComparedPair) -> list[Finding]:
    """Judge a pair; most severe first, nothing where it is identical."""
    return [finding for _, finding in _judged(pair)]


def verdict(pair: ComparedPair) -> str:
    """Say in a few words how two runs differ."""
    if not pair.identical:
        return "; ".join(dict.fromkeys(words for words, _ in _judged(pair)))
    one_format = pair.reference.arithmetic.storage == pair.other.arithmetic.storage
    known = f"{len(pair.tensors):,} tensors, {pair.size:,} values equal{' to the bit' if one_format else ''}"
    return f"{'the model holds' if is_model(pair) else 'identical'}: {known}"


def is_model(pair: ComparedPair) -> bool:
    """Whether a device is compared with what should have the same bits: the same arithmetic elsewhere."""
    mine, theirs = pair.reference, pair.other
    return mine.arithmetic == theirs.arithmetic and mine.device != theirs.device


def name_of(pair: ComparedPair, tensor: ComparedTensor) -> str:
    """Layer or step, and role."""
    return f"{pair.unit} {tensor.layer} {tensor.role}"


def surely_biased(pair: ComparedPair, tensor: ComparedTensor, side: int) -> bool:
    """Whether a run (reference 0, other 1) rounds a tensor to one side by more than chance, of so many tensors."""
    storage = (pair.reference, pair.other)[side].arithmetic.storage
    least = _LEAN + _OF_COARSE * finfo(storage).epsilon
    return abs(tensor.own_lean(side)) >= least and tensor.own_chance[side] * len(pair.tensors) < _CHANCE


def _judged(pair: ComparedPair) -> list[_Judged]:
    if pair.identical:
        return []
    judged = [*_nonfinite(pair), *_nonfinite_in_both(pair), *_flushed(pair), *_biased(pair), *_unrelated(pair)]
    if is_model(pair):
        judged.append(_broken_model(pair))
    judged = judged or [_rounding(pair)]
    return sorted(judged, key=lambda item: SEVERITIES.index(item[1].severity))


def _finding(
    pair: ComparedPair, kind: str, severity: str, tensor: ComparedTensor, evidence: str, remedy: str
) -> Finding:
    return Finding(kind, severity, f"{pair.other}: {name_of(pair, tensor)}", evidence, remedy)


def _names(pair: ComparedPair, side: int) -> tuple[str, str]:
    """Name the run of a side, and the other one."""
    both = str(pair.reference), str(pair.other)
    return both[side], both[1 - side]


def _only(tensor: ComparedTensor, event: str, side: int) -> bool:
    counts = tensor.events.get(event, (0, 0))
    return counts[side] > 0 and counts[1 - side] == 0


def _nonfinite(pair: ComparedPair) -> Iterator[_Judged]:
    for side in (1, 0):
        rows = [
            t for t in pair.tensors if t.nonfinite_only[side] or _only(t, "overflow", side) or _only(t, "invalid", side)
        ]
        if not rows:
            continue
        first, (name, without) = rows[0], _names(pair, side)
        count = sum(t.nonfinite_only[side] for t in rows)
        made = first.events.get("overflow", (0, 0))[side] or not first.events.get("invalid", (0, 0))[side]
        clamped = (pair.reference, pair.other)[side].arithmetic.overflow == "saturate"
        kind = ("saturated" if clamped else "overflow") if made else "invalid"
        act = {"overflow": "overflow", "saturated": "saturate", "invalid": "make NaN"}[kind]
        words = f"{act.replace('make', 'makes') if ' ' in act else act + 's'} where {without} does not"
        if side == 0:
            words = f"does not {act} where {name} does"
        evidence = (
            f"{count:,} entries are NaN or infinite in {name} only, in {sum(t.nonfinite_only[side] > 0 for t in rows)} "
            f"tensors; {sum(_only(t, 'overflow', side) for t in rows)} tensors overflow in {name} only"
        )
        reached = any(t.nonfinite_only[side] and t.role in GRADIENT_ROLES for t in rows)
        remedy = f"gradkern.probe in {name} tells the cause: a loss scale, a smaller init, or a format with more range"
        yield words, _finding(pair, kind, "critical" if reached else "major", first, evidence, remedy)


def _nonfinite_in_both(pair: ComparedPair) -> Iterator[_Judged]:
    counts = [t.size - t.compared - sum(t.nonfinite_only) for t in pair.tensors]
    rows = [t for t, count in zip(pair.tensors, counts, strict=True) if count > 0]
    if not rows:
        return
    evidence = (
        f"{sum(counts):,} of {pair.size:,} values are NaN or infinite in both runs, in {len(rows)} tensors: they cannot be "
        "compared"
    )
    severity = "critical" if any(t.role in GRADIENT_ROLES for t in rows) else "major"
    remedy = f"gradkern.probe in {pair.reference} tells the cause; compare runs that are finite"
    yield "holds NaN or infinity, as the other does", _finding(pair, "nonfinite", severity, rows[0], evidence, remedy)


def _flushed(pair: ComparedPair) -> Iterator[_Judged]:
    for side in (1, 0):
        shares = {
            i: (t.zero_only[side] - t.zero_only[1 - side]) / t.nonzero for i, t in enumerate(pair.tensors) if t.nonzero
        }
        lost = [pair.tensors[i] for i, share in shares.items() if share > _FLUSHED]
        if not lost:
            continue
        worst = max(shares, key=lambda i: shares[i])
        name, without = _names(pair, side)
        words = f"flushes to zero what {without} keeps" if side else f"keeps what {name} flushes to zero"
        evidence = (
            f"{sum(t.zero_only[side] for t in lost):,} entries are zero in {name} only, in {len(lost)} tensors; at most "
            f"{100 * shares[worst]:.1f} % of one ({name_of(pair, pair.tensors[worst])})"
        )
        severity = "major" if shares[worst] > _MOST else "minor"
        remedy = f"gradkern.probe in {name} tells the loss scales that fit, and which zeros merely inherit others"
        yield words, _finding(pair, "flushed", severity, lost[0], evidence, remedy)


def _biased(pair: ComparedPair) -> Iterator[_Judged]:
    for side in (1, 0):
        rows = [t for t in pair.tensors if surely_biased(pair, t, side) and not surely_biased(pair, t, 1 - side)]
        if not rows:
            continue
        name, without = _names(pair, side)
        clearest = min(rows, key=lambda t: (t.own_chance[side], -abs(t.own_lean(side))))
        where = "toward zero" if clearest.own_lean(side) < 0 else "away from zero"
        evidence = (
            f"in {len(rows)} tensors {name} rounds its sums to one side by more than chance, and {without} does not; in "
            f"{name_of(pair, clearest)} {clearest.own_smaller[side]:,} are stored smaller in magnitude than exact and "
            f"{clearest.own_larger[side]:,} larger"
        )
        truncates = (pair.reference, pair.other)[side].arithmetic.rounding == "toward_zero"
        remedy = "rounding='nearest_even'" if truncates else "sums that round to nearest, or in a wider format"
        words = f"biased {where}" if side else f"not biased {where} as {name} is"
        yield words, _finding(pair, "biased", "major", rows[0], evidence, remedy)


def _unrelated(pair: ComparedPair) -> Iterator[_Judged]:
    rows = [t for t in pair.tensors if t.difference >= _UNRELATED]
    if not rows:
        return
    worst = max(rows, key=lambda t: t.difference)
    evidence = (
        f"the norm of the difference is at least {_UNRELATED:.0%} of the tensor's in {len(rows)} of {len(pair.tensors)} tensors, "
        f"and {worst.difference:.3g} times it in {name_of(pair, worst)}"
    )
    words = "differs as much as the numbers themselves"
    yield (
        words,
        _finding(pair, "unrelated", "major", rows[0], evidence, "more digits; small errors grow along this chain"),
    )


def _broken_model(pair: ComparedPair) -> _Judged:
    place = pair.first
    assert place is not None
    evidence = (
        f"{pair.size - pair.equal:,} of {pair.size:,} values differ; the first is {place.value!r} in place of "
        f"{place.reference_value!r}, flat index {place.index} ({place.place})"
    )
    tensor = next(t for t in pair.tensors if not t.identical)
    remedy = (
        f"feed that {pair.unit}'s operands to gradkern.mma, and compare with {pair.other.device} product by product"
    )
    return "the model does not hold", _finding(pair, "model", "critical", tensor, evidence, remedy)


def _rounding(pair: ComparedPair) -> _Judged:
    apart = [t for t in pair.tensors if t.compared]
    worst = max(apart, key=lambda t: t.difference)
    largest = max(apart, key=lambda t: t.max_ulp)
    errors = [max((e for e in values if not math.isnan(e)), default=math.nan) for values in (
        [t.relative_error for t in apart], [t.reference_error for t in apart])]  # fmt: skip
    evidence = (
        f"{pair.equal:,} of {pair.size:,} values equal; at most {largest.max_ulp:.4g} ulp apart ({name_of(pair, largest)}); the "
        f"difference is at most {worst.difference:.2g} of a tensor's norm; no event on one side, no bias beyond chance"
    )
    if not math.isnan(errors[0]):
        evidence += f"; error against the true chain at most {errors[0]:.2g}, of {pair.reference} {errors[1]:.2g}"
    remedy = "none is needed where these digits are enough"
    return "differs by rounding only", _finding(pair, "rounding", "minor", worst, evidence, remedy)
