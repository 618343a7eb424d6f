"""`LayerRow`: one tensor of a chain, its statistics, its rounding and the fate of its entries."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gradkern._result import Result, plain
from gradkern.cast import RoundingReport
from gradkern.formats import finfo
from gradkern.tensor_stats import TensorStats

FATES = ("structural", "kept", "subnormal", "flushed", "cancelled", "inherited", "overflow", "invalid")
FORWARD_ROLES = ("weight", "bias", "pre_activation", "activation", "input", "input_weight")
GRADIENT_ROLES = (
    "grad_activation",
    "grad_pre_activation",
    "grad_weight",
    "grad_bias",
    "grad_input_weight",
    "grad_output",
)
ROLES = FORWARD_ROLES + GRADIENT_ROLES


@dataclass(frozen=True, repr=False, eq=False)
class LayerRow(Result):
    """One tensor of the chain. Statistics are made from the kernels' counts when first asked for.

    Attributes
    ----------
    layer : int
        1 is the first layer; 0 is the input and its gradient. Of an RNN: the time step; 0 is what all steps share.
    role : str
        One of `ROLES`.
    size : int
        Entries.
    stats : TensorStats
        Of the stored tensor; gradients carry the loss scale in ``stats.exponent``, so true magnitudes are unscaled.
    rounding : RoundingReport
        What rounding this tensor to storage did.
    reference : TensorStats or None
        Of the true values.
    relative_error : float
        || stored / scale - true || / || true ||; NaN if anything stored is not finite, or without a reference.
    structural, kept, subnormal, flushed, cancelled, inherited, overflow, invalid : int
        The fate of every entry; they sum to size. None of them is known without a reference.
    stalled : int
        Entries that kept a subnormal value from the tensor before while their true magnitude fell.
    invalid_kind : str
        ``"inf - inf"`` or ``"0 * inf"`` where a NaN was made here.
    first : dict
        Flat index of the first entry of each fate.
    tensor, truth : array or None
        The stored tensor and its true values (times ``2**reference.exponent``), with ``keep="tensors"``.
    """

    layer: int
    role: str
    relative_error: float
    fates: dict[str, int]
    stalled: int
    invalid_kind: str
    first: dict[str, int | None] = field(repr=False)
    size: int
    storage: str = field(repr=False)
    log2_scale: int = field(repr=False)
    record: dict[str, Any] = field(repr=False)
    unit: str = field(repr=False, default="layer")

    @classmethod
    def from_record(cls, record: dict[str, Any], storage: str, log2_scale: int, unit: str = "layer") -> LayerRow:
        """Wrap what the kernels counted in one tensor."""
        get, role = record.get, record["role"]
        return cls(
            record["layer"], role, get("relative_error", math.nan), get("fates", {}), get("stalled", 0),
            get("invalid_kind", ""), get("first", {}), record["stored"]["size"], storage,
            log2_scale if role in GRADIENT_ROLES else 0, record, unit,
        )  # fmt: skip

    def __getattr__(self, name: str) -> int:
        if name in FATES:
            if name not in self.fates:
                raise AttributeError(f"{name} is known with the reference chain only; run probe(..., reference=True)")
            return self.fates[name]
        raise AttributeError(name)

    @property
    def name(self) -> str:
        """Layer or step, and role."""
        return f"{self.unit} {self.layer} {self.role}"

    @cached_property
    def stats(self) -> TensorStats:
        """Statistics of the stored tensor."""
        return TensorStats.from_summary(
            self.record["stored"], self.storage, name=self.name, exponent=-self.log2_scale, scale=2.0**self.log2_scale
        )

    @cached_property
    def rounding(self) -> RoundingReport:
        """What rounding this tensor to storage did."""
        return RoundingReport.from_counts(self.record["rounding"])

    @cached_property
    def reference(self) -> TensorStats | None:
        """Statistics of the true values; None without a reference."""
        summary = self.record.get("reference")
        if summary is None:
            return None
        return TensorStats.from_summary(summary, "float64", name=self.name, exponent=self.record["reference_exponent"])

    @property
    def tensor(self) -> NDArray[Any] | None:
        """The stored tensor, with ``keep="tensors"``."""
        tensor = self.record.get("tensor")
        if tensor is None:
            return None
        return np.asarray(tensor).view(finfo(self.storage).dtype).reshape(self.record["shape"])

    @property
    def truth(self) -> NDArray[np.float64] | None:
        """True values times ``2**reference.exponent``, with ``keep="tensors"``."""
        truth: NDArray[np.float64] | None = self.record.get("truth")
        return None if truth is None else truth.reshape(self.record["shape"])

    @property
    def nonfinite(self) -> int:
        """Stored entries that are NaN or infinite."""
        stored = self.record["stored"]
        return int(stored["nan"] + stored["pos_inf"] + stored["neg_inf"])

    @property
    def live(self) -> int:
        """Entries that are not zero in real arithmetic."""
        return self.size - self.fates.get("structural", 0)

    @property
    def surviving(self) -> float:
        """Fraction of the live entries stored as finite non-zero values; 0.0 where none is live, NaN without a reference."""
        if not self.fates:
            return math.nan
        return (self.fates["kept"] + self.fates["subnormal"]) / self.live if self.live else 0.0

    @property
    def log2_norm(self) -> float:
        """log2 of the stored tensor's 2-norm, without the loss scale; NaN where it holds NaN or inf."""
        return self.stats.log2_l2 if not self.nonfinite else math.nan

    @property
    def reference_log2_norm(self) -> float:
        """log2 of the true 2-norm; NaN without a reference, and where that holds NaN or inf."""
        return math.nan if self.reference is None or self.reference.nonfinite else self.reference.log2_l2

    @property
    def reference_top(self) -> tuple[int, float] | None:
        """Largest true magnitude as (exponent, mantissa), which compare as the values do; None for all zero or unknown."""
        summary = self.record.get("reference")
        if summary is None or summary["amax"] == 0:
            return None
        mantissa, exponent = math.frexp(summary["amax"])
        return exponent + self.record["reference_exponent"], mantissa

    @property
    def reference_floor(self) -> int:
        """Exponent of a binade below which no non-zero true magnitude lies."""
        return int(self.record["reference"]["first_binade"] + self.record["reference_exponent"])

    def __repr__(self) -> str:
        fates = ", ".join(f"{count:,} {fate}" for fate, count in self.fates.items() if count)
        norms = f"log2 norm {self.log2_norm:.2f}, true {self.reference_log2_norm:.2f}"
        return f"LayerRow({self.name}, {self.size:,} entries: {fates or 'fates unknown'}; {norms})"

    def to_dict(self) -> dict[str, Any]:
        """Return the fields, the statistics nested."""
        return {
            "layer": self.layer, "role": self.role, "size": self.size, "log2_norm": plain(self.log2_norm),
            "reference_log2_norm": plain(self.reference_log2_norm), "relative_error": plain(self.relative_error),
            **self.fates, "stalled": self.stalled, "invalid_kind": self.invalid_kind, "first": self.first,
            "stats": self.stats.to_dict(), "rounding": self.rounding.to_dict(),
            "reference": None if self.reference is None else self.reference.to_dict(),
        }  # fmt: skip
