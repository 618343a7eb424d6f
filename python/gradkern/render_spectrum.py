"""A spectrum in words."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

import numpy as np

from gradkern._text import arrowed
from gradkern.render import log2_norm

if TYPE_CHECKING:
    from gradkern.spectrum import Spectrum

_WORDS = {
    "explodes": "explodes: the largest Lyapunov exponent is positive",
    "vanishes": "vanishes: the largest Lyapunov exponent is negative",
    "transient": "grows, then vanishes: the largest Lyapunov exponent is negative",
    "steady": "keeps its size: the largest Lyapunov exponent is about zero",
    "nilpotent": "is exactly zero, whatever its layers' norms are",
    "undefined": "is not defined: a pre-activation is NaN",
}


def _power(log2: float) -> str:
    return {"zero": "0", "inf": "inf"}.get(log2_norm(log2), f"2^{round(log2, 1) + 0.0:.1f}")


def _between(values: list[float], unit: str, digits: str = "+.3f") -> str:
    low, high = (f"{round(end, 6) + 0.0:{digits}}" for end in (min(values), max(values)))
    return f"{low}{unit}" if low == high else f"{low} to {high}{unit}"


def headline(spectrum: Spectrum) -> str:
    """Sizes in one line."""
    shape = arrowed(spectrum.widths)
    return f"Jacobian of {spectrum.depth} {spectrum.unit}{'s' if spectrum.depth > 1 else ''}, {shape}"


def _facts(s: Spectrum) -> list[tuple[str, str]]:
    log2, count = s.log2_singular_values, len(s.log2_singular_values)
    ends = _power(log2[0]) if count == 1 else f"{_power(log2[0])} down to {_power(log2[-1])}"
    lines = [("singular values", f"{'the largest, ' if s.rank is None else ''}{ends}")]
    exponents = s.lyapunov[np.isfinite(s.lyapunov)].tolist()
    if exponents:
        zeros = count - len(exponents)
        lines.append(
            ("Lyapunov", _between(exponents, f" bits/{s.unit}") + (f", and {zeros} of an exact zero" if zeros else ""))
        )
    if s.rank is not None:
        condition = "singular" if s.log2_condition == np.inf else f"condition {_power(s.log2_condition)}"
        lines.append(("shape", f"rank {s.rank}, stable rank {s.stable_rank:.3g}, {condition}"))
    top = int(np.argmax(s.log2_growth))
    if s.log2_growth[top] > max(1.0, log2[0] + 1.0):
        lines.append(("growth", f"to {_power(s.log2_growth[top])} after {s.unit} {top + 1}, then decay"))
    if s.spectral_norm_per_layer is not None:
        norms = _between(s.spectral_norm_per_layer.tolist(), "", ".3g")
        lines.append((f"{s.unit} norms", f"{norms}; their product, {_power(s.log2_norm_bound)}, is an upper bound"))
    if s.iterations is not None:
        lines.append(("iterations", f"{s.iterations}, residual {s.residual:.1e}"))
    return lines


def summary_text(spectrum: Spectrum) -> str:
    """Say what the product does, and the numbers behind it."""
    if spectrum.samples is not None:
        kinds = Counter(spectrum.kind)
        counts = ", ".join(f"{count} {kind}" for kind, count in kinds.most_common())
        top = spectrum.lyapunov[:, 0]
        top = top[~np.isnan(top)]
        head = f"{headline(spectrum)}, at {spectrum.samples} points: {counts}"
        if not len(top):
            return head
        return (
            f"{head}\n"
            f"  largest Lyapunov exponent  median {np.median(top):+.3f} bits/{spectrum.unit}, "
            f"{np.min(top):+.3f} to {np.max(top):+.3f}"
        )
    kind = spectrum.kind
    lines = [f"{headline(spectrum)}: {_WORDS[kind]}"]
    if kind != "undefined":
        facts = _facts(spectrum)
        width = max(len(name) for name, _ in facts)
        lines += [f"  {name:<{width}}  {text}" for name, text in facts]
    return "\n".join(lines)
