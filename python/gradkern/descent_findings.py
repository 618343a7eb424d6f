"""What a trajectory means: a verdict in a word, and findings with evidence and a remedy."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

from gradkern.descent_step import DescentStep
from gradkern.findings import SEVERITIES, Finding, layer_ranges, or_more_range
from gradkern.formats import finfo
from gradkern.rate import theil_sen
from gradkern.update import UpdateReport

if TYPE_CHECKING:
    from gradkern.trajectory import Trajectory

_CONVERGED = 10.0  # bits that the gradient's norm has to fall by
_STALLED = 0.5  # share of lost updates
_LEVEL = 0.99  # a loss that stays above this share of the first is level
_KEPT, _FEW = (
    0.1,
    8,
)  # share of the fall predicted to first order, below which steps overshoot; in so many steps at least
_LOST, _FLUSHED = 0.25, 0.01  # shares that are worth a finding
_LOOP = 0.25  # bits a step by which norms grow in a loop

_MORE_DIGITS = (
    "master_weights='float32', rounding='stochastic', or a format with more digits; a larger rate if it is stable"
)


def _tail(run: Trajectory) -> list[DescentStep]:
    return run.steps[len(run.steps) // 2 :]


def _lost_share(run: Trajectory) -> float:
    """Share of the updates of the second half that rounding took for good: stochastic rounding keeps the mean."""
    if run.arithmetic.rounding == "stochastic":
        return 0.0
    steps = _tail(run)
    merged = UpdateReport.merged(u for s in steps for u in s.updates)
    return merged.lost_share if merged.wanted else 0.0


def _idle(steps: list[DescentStep]) -> bool:
    """Whether most steps could not move a weight: skipped, or without a gradient."""
    return sum(s.skipped or s.log2_gradient_norm == -math.inf for s in steps) > len(steps) / 2


def verdict(run: Trajectory) -> str:
    """Judge a run in a word; the rules are in docs/descent.md."""
    last, losses = run.steps[-1], run.losses
    reached = last.nonfinite is not None and not last.skipped
    if reached or (run.stopped and last.skipped) or not math.isfinite(last.loss):
        return "overflowed"
    end = losses[-max(1, len(losses) // 4) :]
    if np.median(end) > losses[0] or not np.isfinite(end).all():
        return "diverged"
    largest = max((s.log2_gradient_norm for s in run.steps if s.log2_gradient_norm < math.inf), default=-math.inf)
    quarter = run.steps[-len(end) :]
    small = all(s.log2_gradient_norm <= largest - _CONVERGED for s in quarter)
    if small and (last.log2_gradient_norm > -math.inf or losses[-1] <= 2.0**-_CONVERGED * losses[0]):
        return "converged"
    if _idle(_tail(run)) or _lost_share(run) >= _STALLED:
        return "stalled"
    if _oscillates(run):
        return "oscillates"
    return "slow" if losses[0] - losses[-1] < (1 - _LEVEL) * abs(losses[0]) else "descends"


def predicted_fall(run: Trajectory, steps: list[DescentStep]) -> float:
    """By how much the loss would fall were the rate infinitesimal: the sum of lr c |g|^2, c being the clip coefficient."""
    return math.fsum(
        abs(run.lr) * s.coefficient * 4.0**s.log2_gradient_norm
        for s in steps
        if not s.skipped and s.log2_gradient_norm < 500 and math.isfinite(s.coefficient)
    )


def _level(run: Trajectory) -> tuple[float, float, float]:
    """Return the median losses of the third and the last quarter, and the fall predicted between their middles."""
    half, quarter = len(run.steps) // 2, len(run.steps) * 3 // 4
    before, after = float(np.median(run.losses[half:quarter])), float(np.median(run.losses[quarter:]))
    return before, after, predicted_fall(run, run.steps[half:]) / 2


def _oscillates(run: Trajectory) -> bool:
    if len(run.steps) < _FEW:
        return False
    before, after, predicted = _level(run)
    fall = before - after
    return predicted > (1 - _LEVEL) * abs(before) and fall < _KEPT * min(predicted, abs(before))


def find(run: Trajectory) -> list[Finding]:
    """Say what is wrong, most severe first."""
    findings = [*_nonfinite(run), *_floor(run), *_trend(run), *_lost(run), *_flushed(run), *_skipped(run)]
    return sorted(findings, key=lambda f: SEVERITIES.index(f.severity))


def growth(run: Trajectory, attribute: str, until: int | None = None) -> float:
    """Bits per step that a global norm gained, by Theil and Sen, over the finite steps up to `until`, itself included.

    NaN of fewer than 2 steps.
    """
    steps = [s for s in run.steps if until is None or s.step <= until]
    norms = np.array([getattr(s, attribute) for s in steps])
    return theil_sen(np.arange(len(norms), dtype=np.float64), norms).bits_per_layer


def _loop(run: Trajectory, until: int) -> str:
    weights, gradients = (growth(run, f"log2_{name}_norm", until) for name in ("weight", "gradient"))
    if math.isnan(gradients) or gradients < _LOOP:
        return ""
    return (
        f"; until then weights grew by {weights:+.2f} and gradients by {gradients:+.2f} bits a step: "
        "larger weights, larger gradients, larger steps"
    )


def stable_rate(run: Trajectory) -> float:
    """Estimate the largest stable rate, 2 / curvature, from how gradients first grew: |g'| = |1 - lr curvature| |g|.

    NaN where the first two gradients are not finite, or did not grow.
    """
    norms = [s.log2_gradient_norm for s in run.steps[:2]]
    grown = norms[1] - norms[0] if len(norms) == 2 else math.nan
    if not 0 < grown < 500:
        return math.nan
    return float(2 * abs(run.lr) / (1 + 2.0**grown))


def _smaller(run: Trajectory) -> str:
    bound = stable_rate(run)
    about = (
        f" (its first step overshot as if the stable rates end at about {bound:.2g})" if math.isfinite(bound) else ""
    )
    clip = "" if run.clip else ", or clip to a norm that it can take"
    return f"a rate below {run.lr:g}{about}{clip}"


def _nonfinite(run: Trajectory) -> list[Finding]:
    origin = run.first_nonfinite
    if origin is None or not any(s.nonfinite and not s.skipped for s in run.steps):
        return []
    where = f"step {origin.step}, layer {origin.layer} ({origin.role})"
    if origin.cause == "given":
        return [Finding("nonfinite_input", "critical", where, origin.story, "clean the data; no rate can help")]
    loop = _loop(run, origin.step)
    scaler = "" if run.scaled or not origin.role.startswith("grad") else "; a LossScaler skips such steps"
    remedy = (
        _smaller(run)
        if loop or origin.step > run.start
        else f"a smaller init{or_more_range(run.arithmetic, above=0.0)}"
    )
    return [Finding("overflow", "critical", where, origin.story + loop, remedy + scaler)]


def _floor(run: Trajectory) -> list[Finding]:
    if not run.stopped or not run.steps[-1].skipped:
        return []
    where = f"step {run.steps[-1].step}"
    return [Finding("loss_scale_floor", "critical", where, run.stopped, _smaller(run))]


def _trend(run: Trajectory) -> list[Finding]:
    where, losses = f"steps {run.start}-{run.next_step - 1}", run.losses
    if run.verdict == "diverged":
        evidence = f"the loss rose from {losses[0]:.4g} to {losses[-1]:.4g}{_loop(run, run.next_step)}"
        return [Finding("diverging", "major", where, evidence, _smaller(run))]
    if run.verdict == "oscillates":
        before, after, predicted = _level(run)
        evidence = (
            f"between the last two quarters the median loss went from {before:.4g} to {after:.4g}, where gradients this large "
            f"make it fall by {predicted:.3g} at a small rate: steps overshoot the valley"
        )
        return [Finding("oscillating", "major", where, evidence, f"a rate below {run.lr:g}, falling in the end")]
    if run.verdict == "slow":
        evidence = (
            f"the loss fell by {100 * (losses[0] - losses[-1]) / abs(losses[0] or 1):.2g} %; the updates were made"
        )
        return [Finding("slow", "minor", where, evidence, f"a rate above {run.lr:g}")]
    return []


def _lost(run: Trajectory) -> list[Finding]:
    tail, share = _tail(run), _lost_share(run)
    if share < _LOST or run.verdict == "converged":
        return []
    by_layer = [_lost_share_of(tail, layer) for layer in range(run.depth)]
    worst = [layer + 1 for layer, lost in enumerate(by_layer) if lost >= share]
    epsilon = finfo(run.weight_format).epsilon
    evidence = (
        f"w + u == w in {100 * share:.3g} % of the updates of the last {len(tail)} steps, at most {100 * max(by_layer):.3g} % "
        f"of a layer: below half a unit in the last place of {run.weight_format}, at most {epsilon / 2:.2g} of the weight"
    )
    severity = "major" if run.verdict == "stalled" else "minor"
    remedy = _MORE_DIGITS if epsilon > finfo("float32").epsilon else "a larger rate, if it is stable"
    return [Finding("lost_updates", severity, f"layers {layer_ranges(worst)}", evidence, remedy)]


def _lost_share_of(steps: list[DescentStep], layer: int) -> float:
    lost, wanted = (sum(getattr(s.updates[layer], name) for s in steps if s.updates) for name in ("lost", "wanted"))
    return lost / wanted if wanted else 0.0


def _flushed(run: Trajectory) -> list[Finding]:
    gone = sum(s.log2_gradient_norm == -math.inf for s in run.steps)
    counts = run.events("flushed").sum(axis=0)
    if not counts.any() or (run.verdict == "converged") or (not gone and counts.sum() < _FLUSHED * _entries(run)):
        return []
    layers = [i + 1 for i, n in enumerate(counts) if n >= counts.mean()]
    evidence = f"{int(counts.sum()):,} entries flushed to zero over the run"
    evidence += f"; in {gone} of {len(run.steps)} steps no gradient was left" if gone else ""
    remedy = f"a loss scale (scaler=gk.LossScaler()){or_more_range(run.arithmetic)}"
    return [Finding("flushed", "major" if gone else "minor", f"layers {layer_ranges(layers)}", evidence, remedy)]


def _entries(run: Trajectory) -> float:
    """Entries of all tensors of the network, over the run."""
    weights = sum(a * b for a, b in zip(run.widths, run.widths[1:], strict=False))
    return len(run.steps) * (2.0 * weights + 4 * run.batch * sum(run.widths[1:]))


def _skipped(run: Trajectory) -> list[Finding]:
    count = sum(s.skipped for s in run.steps)
    if not count:
        return []
    origin = next(s.nonfinite for s in run.steps if s.skipped)
    evidence = f"{count} of {len(run.steps)} steps skipped, scale 2^{math.log2(run.steps[0].scale):g} to "
    evidence += f"2^{math.log2(run.steps[-1].scale):g}; the first at {origin}"
    severity = "major" if _idle(_tail(run)) else "minor"
    return [
        Finding("skipped", severity, "the loss scaler", evidence, "none while it looks for its scale; else start lower")
    ]
