"""A point of a sweep: a random network, an arithmetic and a loss scale, by name; one probe; one small record."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any

import numpy as np

from gradkern._arguments import finite, log2_of_scale, positive_integer
from gradkern.activation import activation_code
from gradkern.arithmetic import arithmetic
from gradkern.chain import probe
from gradkern.init import INITIALISATIONS
from gradkern.layer_row import GRADIENT_ROLES
from gradkern.net import MLP
from gradkern.report import ChainReport

Row = dict[str, Any]

_RECORD = 1  # version of what is measured: a row of another one answers another question
_LONGEST_ERROR = 300
_COUNTED = ("kept", "subnormal", "flushed", "cancelled", "inherited", "overflow", "invalid")
RATES = {"gradient_rate": "grad_pre_activation", "weight_rate": "grad_weight", "activation_rate": "activation"}


@dataclass(frozen=True)
class SweepPoint:
    """Parameters of one point: those of `MLP.random`, the arithmetic, the loss scale, and the rows of the input.

    With ``init="lecun_normal"``, `gain` and `bias_std` are the sigma_w and sigma_b of mean field theory.
    """

    depth: int = 20
    width: int = 64
    activation: str = "relu"
    init: str = "he_normal"
    gain: float = 1.0
    bias_std: float = 0.0
    arithmetic: str = "float16"
    scale: float = 1.0
    batch: int = 16
    seed: int = 0

    @property
    def key(self) -> str:
        """Name of the point, from its parameters alone."""
        return key_of(asdict(self))


PARAMETERS = tuple(field.name for field in fields(SweepPoint))


def key_of(parameters: Mapping[str, Any]) -> str:
    """80 bits of the SHA-256 of the JSON of parameters."""
    text = json.dumps({"record": _RECORD, **parameters}, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:20]


def checked(name: str, value: Any) -> Any:
    """Return a parameter's value as its canonical type and spelling.

    Raises
    ------
    TypeError, ValueError
        If there is no such parameter, or it cannot have this value.
    """
    if name not in PARAMETERS:
        raise ValueError(f"sweep: grid may have {', '.join(PARAMETERS)}, got {name!r}")
    if name in ("depth", "width", "batch"):
        return positive_integer(value, "sweep", name)
    if name == "seed":
        return positive_integer(value, "sweep", name, least=0)
    if name == "scale":
        return math.ldexp(1.0, log2_of_scale(value, "sweep"))
    if name in ("gain", "bias_std"):
        return finite(value, "sweep", name, negative=name == "gain") + 0.0  # -0.0 is 0.0
    if name == "arithmetic":
        return str(arithmetic(value))
    if not isinstance(value, str):
        raise TypeError(f"sweep: {name} must be a name, got {type(value).__name__}")
    if name == "activation":
        activation_code(value, "sweep")
    elif value not in INITIALISATIONS:
        raise ValueError(f"sweep: init must be one of {', '.join(INITIALISATIONS)}, got {value!r}")
    return value


def _record(report: ChainReport) -> Row:
    """Reduce a report to numbers and short words."""
    row: Row = {}
    for name, role in RATES.items():
        rate = report.decay_rate(role)
        row |= {name: rate.bits_per_layer, f"{name}_low": rate.low, f"{name}_high": rate.high}
    signals, biases = report.rows("grad_pre_activation"), report.rows("grad_bias")
    gradients = [gradient for role in GRADIENT_ROLES for gradient in report.rows(role)]
    counts = {fate: sum(gradient.fates[fate] for gradient in gradients) for fate in _COUNTED}
    overflow, window = report.first("overflow"), report.loss_scale_window()
    first, last = signals[0].reference_log2_norm, signals[-1].reference_log2_norm
    return row | {
        "gradient_bits": first - last if math.isfinite(last) else math.nan,
        "effective_depth": report.effective_depth(), "trainable_depth": report.effective_depth(role="grad_weight"),
        "dead": signals[0].live == 0,
        "dead_units": sum(b.fates["structural"] for b in biases) / sum(b.size for b in biases),
        "structural": sum(s.fates["structural"] for s in signals) / sum(s.size for s in signals),
        "entries": sum(gradient.size for gradient in gradients), **counts,
        "overflow_layer": overflow.layer if overflow else None, "overflow_role": overflow.role if overflow else None,
        "log2_scale_low": window.log2_low, "log2_scale_high": window.log2_high,
        "log2_scale_best": None if window.best is None else math.frexp(window.best)[1] - 1, "loss": report.loss,
        "severity": report.findings[0].severity if report.findings else None,
        "findings": " ".join(dict.fromkeys(finding.kind for finding in report.findings)),
    }  # fmt: skip


def failed(point: SweepPoint, error: BaseException) -> Row:
    """Return the row of a point that raised."""
    text = " ".join(f"{type(error).__name__}: {error}".split())[:_LONGEST_ERROR]
    return {"key": point.key, **asdict(point), "error": text}


def measure_point(point: SweepPoint) -> Row:
    """Probe one point: a pure function of it, whoever computes it, on whatever machine and with any number of threads.

    The network is ``MLP.random`` with the point's seed, the input standard normal from ``default_rng([seed, 1])``, the loss the
    sum of the outputs.
    """
    try:
        net = MLP.random(
            depth=point.depth, width=point.width, activation=point.activation, init=point.init, gain=point.gain,
            bias_std=point.bias_std, seed=point.seed,
        )  # fmt: skip
        x = np.random.default_rng([point.seed, 1]).standard_normal((point.batch, point.width))
        report = probe(net, x, arithmetic=point.arithmetic, scale=point.scale)
        return {"key": point.key, **asdict(point), **_record(report), "error": None}
    except Exception as error:
        return failed(point, error)
