"""What a report means: findings with evidence and a remedy, producers told apart from those that merely inherit."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from gradkern._result import Result
from gradkern.formats import finfo
from gradkern.render import scales
from gradkern.report import GRADIENT_ROLES

if TYPE_CHECKING:
    from gradkern.arithmetic import Arithmetic
    from gradkern.rate import Rate
    from gradkern.report import ChainReport, LayerRow

SEVERITIES = ("critical", "major", "minor")
_MAJOR_LOSS = 0.5  # a tensor that lost more than this fraction of its live entries has lost its signal
_MINOR_LOSS = 0.01
_FEW_DIGITS = 0.25
_FLAT = 3.0  # tanh and sigmoid tell few values beyond it apart
_SLOW, _TOTAL_BITS = 0.1, 8.0  # a decay is reported from 0.1 bits/layer that add up to 8 bits over the depth


@dataclass(frozen=True, repr=False)
class Finding(Result):
    """One thing that is wrong.

    Attributes
    ----------
    kind : str
        ``nonfinite_input``,
        ``overflow``, ``invalid``, ``flushed``, ``cancelled``, ``stalled``, ``few_digits``, ``dead``, ``vanishing`` or
        ``exploding``; of a `Trajectory` also ``loss_scale_floor``, ``diverging``, ``oscillating``, ``lost_updates``, ``skipped``
        or ``slow``; of a `Comparison` ``model``, ``saturated``, ``biased``, ``unrelated`` or ``rounding``.
    severity : {"critical", "major", "minor"}
        critical: NaN or inf reached the result; major: most of some tensor's signal is lost; minor: the rest.
    where : str
        Layers and role; the producer first.
    evidence : str
        Counts and figures.
    remedy : str
        What would cure it.
    """

    kind: str
    severity: str
    where: str
    evidence: str
    remedy: str

    def __str__(self) -> str:
        return f"[{self.severity}] {self.kind} in {self.where}: {self.evidence}. Remedy: {self.remedy}"


def layer_ranges(layers: list[int]) -> str:
    """Write sorted layer numbers as ranges: ``1-4, 7``."""
    numbers = sorted(set(layers))
    parts: list[str] = []
    start = 0
    for i in range(len(numbers)):
        if i + 1 == len(numbers) or numbers[i + 1] != numbers[i] + 1:
            parts.append(str(numbers[start]) if start == i else f"{numbers[start]}-{numbers[i]}")
            start = i + 1
    return ", ".join(parts)


def _where(rows: list[LayerRow]) -> str:
    layers = [row.layer for row in rows]
    plural = rows[0].unit + ("s" if len(set(layers)) > 1 else "")
    return f"{plural} {layer_ranges(layers)} ({', '.join(dict.fromkeys(row.role for row in rows))})"


def _place(report: ChainReport, row: LayerRow, fate: str) -> str:
    index = row.first[fate]
    assert index is not None
    return f"flat index {index} of {row.name} ({report.locate(row, index)})"


def _is_gradient(row: LayerRow) -> bool:
    return row.role in GRADIENT_ROLES


def scale_advice(report: ChainReport) -> str:
    """Say which loss scale would work in the run's format, or that none does and which format needs none."""
    window = report.loss_scale_window()
    if window.exists and window.best is not None:
        span = f" (window {scales(window)})" if scales(window) != "any" else ""
        if window.best <= report.scale <= (window.high or math.inf):
            return (
                f"the loss scale 2^{math.log2(report.scale):g} is right for the true gradients{span}: the loss is in the "
                "stored chain; use a format with more range or digits"
            )
        return f"a loss scale of 2^{math.log2(window.best):g}{span}"
    fitting = [f for f in ("bfloat16", "float32") if report.loss_scale_window(f).exists]
    other = f"; {fitting[0]} has one" if fitting else ""
    return f"{window.why}{other}"


def _nonfinite(report: ChainReport) -> list[Finding]:
    findings = []
    for kind in ("overflow", "invalid"):
        producers = [row for row in report.layers if row.fates[kind]]
        if not producers:
            continue
        first = producers[0]
        heirs = [
            row for row in report.layers if row.nonfinite and not row.fates["overflow"] and not row.fates["invalid"]
        ]
        count = sum(row.fates[kind] for row in producers)
        made = f" as {first.invalid_kind}" if first.invalid_kind and kind == "invalid" else ""
        evidence = (
            f"{count:,} entries{made}, the first at {_place(report, first, kind)}; "
            f"{len(producers)} tensors produce them, {len(heirs)} merely inherit non-finite values"
        )
        reached = any(row.nonfinite for row in report.layers if _is_gradient(row))
        clamped = not any(row.nonfinite for row in producers)
        severity = "critical" if reached and not clamped else "major"
        findings.append(Finding(kind, severity, _where(producers[:1]), evidence, _overflow_remedy(report, first, kind)))
    return findings


def _given_nonfinite(report: ChainReport) -> list[Finding]:
    """Find NaN and inf that nothing here made: they came with the input, the target or grad_output."""
    rows = [row for row in report.layers if row.nonfinite]
    if not rows or rows[0].fates["overflow"] or rows[0].fates["invalid"]:
        return []
    first = rows[0]
    came_with = "the target or grad_output" if _is_gradient(first) else "x"
    evidence = (
        f"{first.nonfinite:,} of {first.size:,} entries of {first.name} are NaN or inf before any "
        f"rounding: they came with {came_with}; {len(rows)} tensors hold non-finite values"
    )
    reached = any(_is_gradient(row) for row in rows)
    severity = "critical" if reached else "major"
    return [
        Finding("nonfinite_input", severity, _where(rows[:1]), evidence, f"clean {came_with}; precision cannot help")
    ]


def _overflow_remedy(report: ChainReport, first: LayerRow, kind: str) -> str:
    if kind == "invalid" and report.first("overflow") is not None:
        return "cure the overflow: the NaN is made from its infinities"
    if _is_gradient(first):
        return scale_advice(report)
    largest = first.reference.log2_amax if first.reference else first.stats.log2_amax
    need = f"the largest true magnitude there is 2^{largest:.1f}"
    smaller = "scale x down" if first.layer == 0 else "a smaller init or gain"
    return (
        f"a loss scale cannot help the forward pass; {need}: {smaller}{or_more_range(report.arithmetic, above=largest)}"
    )


def or_more_range(arithmetic: Arithmetic, *, above: float | None = None) -> str:
    """Name a format that holds what the storage format does not: the largest, as log2, or smaller numbers; or none."""
    mine = finfo(arithmetic.storage)
    for name in ("bfloat16", "float64"):
        info = finfo(name)
        if above is not None and max(above, mine.max_exponent + 1) < info.max_exponent + 1:
            return f", or a format with more range ({name})"
        if above is None and info.min_exponent < mine.min_exponent:
            return f", or a format with more range ({name})"
    return ""


def _lost(report: ChainReport) -> list[Finding]:
    findings = []
    sides = {side: [r for r in report.layers if _is_gradient(r) == side] for side in (False, True)}
    for kind in ("flushed", "cancelled"):
        for gradient, candidates in sides.items():
            rows = [r for r in candidates if r.fates[kind] and r.fates[kind] > _MINOR_LOSS * r.live]
            if not rows:
                continue
            worst = max(rows, key=lambda row: row.fates[kind] / max(row.live, 1))
            heirs = [r for r in candidates if r.fates["inherited"] and r.fates["inherited"] > _MINOR_LOSS * r.live]
            fraction = worst.fates[kind] / max(worst.live, 1)
            dead = min((r.surviving for r in (rows + heirs)), default=1.0) < 1 - _MAJOR_LOSS
            evidence = (
                f"{sum(r.fates[kind] for r in rows):,} entries {kind} to zero in {len(rows)} tensors, at most "
                f"{100 * fraction:.1f} % of one ({worst.name}); {len(heirs)} tensors inherit zeros"
            )
            if gradient and kind == "flushed":
                remedy = scale_advice(report)
            elif kind == "flushed":
                remedy = f"a larger init or gain{or_more_range(report.arithmetic)}"
            else:
                exact = report.arithmetic.derivative == "exact"
                remedy = "more digits in accumulation or storage" if exact else "derivative='exact'"
            where = _where(rows)
            findings.append(Finding(kind, "major" if dead else "minor", where, evidence, remedy))
    return findings


def _stalled(report: ChainReport) -> list[Finding]:
    findings = []
    name = report.arithmetic.storage
    for gradient in (False, True):
        rows = [r for r in report.layers if _is_gradient(r) == gradient and r.live and r.stalled > _MAJOR_LOSS * r.live]
        if not rows:
            continue
        evidence = (
            f"{sum(r.stalled for r in rows):,} entries keep one subnormal value of {name} from tensor to tensor while the "
            "true value shrinks: the stored chain shows a plateau that does not exist"
        )
        remedy = scale_advice(report) if gradient else f"a larger init or gain{or_more_range(report.arithmetic)}"
        findings.append(Finding("stalled", "major", _where(rows), evidence, remedy))
    return findings


def _few_digits(report: ChainReport) -> list[Finding]:
    rows = [r for r in report.layers if _is_gradient(r) and r.fates["subnormal"] > _FEW_DIGITS * max(r.live, 1)]
    if not rows:
        return []
    info = finfo(report.arithmetic.storage)
    evidence = (
        f"more than {100 * _FEW_DIGITS:.0f} % of the live entries are below the smallest normal {info.smallest_normal:g} "
        f"in {len(rows)} tensors and have lost digits"
    )
    return [Finding("few_digits", "minor", _where(rows), evidence, scale_advice(report))]


def _dead(report: ChainReport) -> list[Finding]:
    rows = [r for r in report.rows("grad_pre_activation") if r.live == 0]
    if not rows:
        return []
    evidence = "every entry of the gradient is zero in real arithmetic: all units are masked for every sample"
    remedy = f"another init or a positive bias, leaky_relu, or fewer {report.unit}s; precision cannot help"
    return [Finding("dead", "major", _where(rows), evidence, remedy)]


def changes(rate: Rate, depth: int) -> bool:
    """Whether a norm changes along a chain of some depth: beyond doubt, and by enough to matter."""
    bits = rate.bits_per_layer
    return math.isfinite(bits) and abs(bits) >= max(_SLOW, _TOTAL_BITS / depth) and rate.low * rate.high > 0


def _course(rate: Rate, depth: int) -> str:
    bits = rate.bits_per_layer
    if not changes(rate, depth):
        return f"keep their size ({bits:+.2f} bits per {rate.unit})"
    verb = "lose" if bits < 0 else "gain"
    over = "depth" if rate.unit == "layer" else "steps"
    return f"{verb} {abs(bits):.2f} bits per {rate.unit}, {bits * (depth - 1):+.0f} over the {over}"


def _saturated(report: ChainReport) -> float | None:
    """Return the root mean square of the pre-activations where most layers' lie beyond what their activation tells apart."""
    if not set(report.activations) & {"tanh", "sigmoid"}:
        return None
    rows = [row.reference or row.stats for row in report.rows("pre_activation")]
    sizes = sorted(
        2.0 ** min(s.log2_l2 - math.log2(s.size) / 2, 1000.0) for s in rows if s.size and math.isfinite(s.log2_l2)
    )
    middle = sizes[len(sizes) // 2] if sizes else 0.0
    return middle if middle > _FLAT else None


def _decay(report: ChainReport) -> list[Finding]:
    """Find gradients that change with depth: those of the activations and those of the weights, which need not agree."""
    signal, weights, depth = report.decay_rate(), report.weight_rate(), report.depth
    moved = [rate for rate in (signal, weights) if changes(rate, depth)]
    if not moved:
        return []
    bits = moved[0].bits_per_layer
    kind, phi = "vanishing" if bits < 0 else "exploding", report.activations[0]
    evidence = f"activation gradients {_course(signal, depth)}; {report.weight_words} {_course(weights, depth)}"
    where = "the whole chain"
    remedy = f"multiply the weights by {2.0 ** max(-60.0, min(60.0, -bits)):.3g}, or take the init that matches {phi}"
    flat = _saturated(report)
    if kind == "vanishing" and flat is not None:
        remedy = (
            f"smaller weights: the pre-activations are {flat:.3g} in the root mean square, where {phi} is flat; "
            f"take the init that matches {phi}"
        )
    elif kind == "vanishing" and phi == "sigmoid":
        remedy = (
            f"sigmoid loses at least 2 bits a {report.unit} at unit gain, whatever the init: "
            "use tanh or relu with a matching init"
        )
    if len(moved) == 1 and moved[0] is signal and report.unit == "layer":
        where = "the activation gradients"
        same = "shrink" if bits < 0 else "grow"
        evidence += f": they are these times the layer's input, and activations {same} forwards by as much"
    elif len(moved) == 1 and moved[0] is weights:
        where = f"the {report.weight_words}"
        remedy = "keep the size of the activations from layer to layer: the gradients that travel back keep theirs"
    return [Finding(kind, "minor", where, evidence, remedy)]


def find(report: ChainReport) -> list[Finding]:
    """Judge a report; most severe first. Without a reference only overflow and NaN can be judged."""
    if not report.has_reference:
        return _without_reference(report)
    findings = [
        *_given_nonfinite(report),
        *_nonfinite(report), *_lost(report), *_stalled(report), *_few_digits(report), *_dead(report), *_decay(report),
    ]  # fmt: skip
    return sorted(findings, key=lambda f: SEVERITIES.index(f.severity))


def _without_reference(report: ChainReport) -> list[Finding]:
    rows = [row for row in report.layers if row.rounding.overflow or row.nonfinite]
    if not rows:
        return []
    evidence = f"{sum(r.nonfinite for r in rows):,} non-finite entries in {len(rows)} tensors"
    return [Finding("overflow", "critical", _where(rows[:1]), evidence, "run with reference=True to attribute them")]
