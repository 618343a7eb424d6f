"""`ChainReport`: what a probe found, one row per layer and role."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from gradkern import _core
from gradkern._arguments import fraction
from gradkern._result import Result, plain
from gradkern._text import arrowed
from gradkern.arithmetic import Arithmetic
from gradkern.fit import ScaleWindow, window
from gradkern.formats import FormatLike, finfo
from gradkern.joint_window import window_of
from gradkern.layer_row import FATES, FORWARD_ROLES, GRADIENT_ROLES, ROLES, LayerRow
from gradkern.rate import Rate, theil_sen
from gradkern.tensor_stats import TensorStats

_FLOAT64_TIE = 1074  # a binade 2**-k needs the scale 2**(k - 1074), or half of it, to be stored in float64

__all__ = ["FATES", "FORWARD_ROLES", "GRADIENT_ROLES", "ROLES", "ChainReport", "LayerRow"]

if TYPE_CHECKING:
    import pandas
    from matplotlib.axes import Axes

    from gradkern.findings import Finding
    from gradkern.flush_profile import FlushProfile


@dataclass(frozen=True, repr=False, eq=False)
class ChainReport(Result):
    """What a probe found.

    Attributes
    ----------
    arithmetic : Arithmetic
        What was probed.
    scale : float
        The loss scale.
    widths, activations : list
        The network.
    batch : int
        Rows of x.
    loss_name : str
        ``"sum"``, ``"mse"``, ``"cross_entropy"`` or ``"grad_output"``.
    loss, reference_loss : float or None
        From the stored output and from the true one.
    planned_bytes : int
        What the probe meant to hold in memory at most: tensors, working space and records, from the shapes alone.
    records : sequence of dict
        What the kernels counted, in the order of computation; `layers` gives them meaning.
    """

    arithmetic: Arithmetic
    scale: float
    widths: list[int]
    activations: list[str]
    batch: int
    loss_name: str
    loss: float | None
    reference_loss: float | None
    planned_bytes: int
    records: Sequence[dict[str, Any]] | _core.ChainRecords = field(repr=False)

    unit: ClassVar[str] = "layer"  # what follows one another along the chain
    weight_words: ClassVar[str] = "weight gradients"  # what `weight_rate` is of

    @cached_property
    def layers(self) -> list[LayerRow]:
        """Rows in the order of computation: forward from layer 0, then backward from the loss."""
        log2_scale = int(math.log2(self.scale))
        storage, unit = self.arithmetic.storage, self.unit
        return [LayerRow.from_record(record, storage, log2_scale, unit) for record in self.records]

    @cached_property
    def _by_role(self) -> dict[str, dict[int, LayerRow]]:
        table: dict[str, dict[int, LayerRow]] = {role: {} for role in ROLES}
        for row in self.layers:
            table[row.role][row.layer] = row
        return {role: dict(sorted(rows.items())) for role, rows in table.items()}

    @cached_property
    def _limits(self) -> dict[float, tuple[TensorStats, TensorStats] | None]:
        return {}  # by the fraction that may flush

    @property
    def depth(self) -> int:
        """Layers of the network."""
        return len(self.activations)

    @cached_property
    def has_reference(self) -> bool:
        """Whether the reference chain ran."""
        return len(self.records) > 0 and "reference" in self.records[0]

    def rows(self, role: str) -> list[LayerRow]:
        """Rows of one role, by layer.

        Raises
        ------
        ValueError
            If there is no such role.
        """
        if role not in ROLES:
            raise ValueError(f"role: must be one of {', '.join(ROLES)}, got {role!r}")
        return list(self._by_role[role].values())

    def row(self, layer: int, role: str) -> LayerRow:
        """Return the row of a layer and role.

        Raises
        ------
        KeyError
            If the report has none.
        """
        if layer not in self._by_role.get(role, {}):
            raise KeyError(f"no row for {self.unit} {layer} and role {role!r}")
        return self._by_role[role][layer]

    def describe(self) -> str:
        """Return the network in words."""
        shape = arrowed(self.widths)
        names = ", ".join(dict.fromkeys(self.activations))
        return f"{self.depth} layer{'s' if self.depth > 1 else ''} {shape} ({names})"

    def locate(self, row: LayerRow, index: int) -> str:
        """Say which unit a flat index of a row is, and of which sample."""
        is_weight = row.role in ("weight", "grad_weight")
        return self._place(row, index, self.widths[row.layer - 1 if is_weight else row.layer])

    @staticmethod
    def _place(row: LayerRow, index: int, columns: int) -> str:
        if row.role in ("bias", "grad_bias"):
            return f"unit {index}"
        first, second = divmod(index, columns)
        if "weight" in row.role:
            return f"weight of unit {first} for input {second}"
        return f"sample {first}, {'input' if row.role == 'input' else 'unit'} {second}"

    def decay_rate(self, role: str = "grad_pre_activation") -> Rate:
        """Bits per layer that the norm of a role gains or loses, backwards from the loss for gradients.

        Taken from the reference chain where it ran (round once at most), else from the stored tensors. Since
        dL/dW_l = dz_l^T h_{l-1}, the log2 norm of ``"grad_weight"`` is that of ``"grad_pre_activation"`` plus that of the
        ``"activation"`` before (exactly for a batch of one). In linear and ReLU nets of equal widths one falls backwards as the
        other rises, and the weights of all layers get gradients of the same size however fast the activation gradients vanish.
        """
        rows = self.rows(role)
        norms = [row.reference_log2_norm if self.has_reference else row.log2_norm for row in rows]
        direction = -1.0 if role in GRADIENT_ROLES else 1.0
        return theil_sen(
            np.array([direction * row.layer for row in rows]), np.array(norms, dtype=np.float64), self.unit
        )

    def weight_rate(self) -> Rate:
        """Bits per layer that the norm of the weight gradients gains or loses, backwards from the loss."""
        return self.decay_rate("grad_weight")

    def effective_depth(
        self,
        fmt: FormatLike | None = None,
        p: float = 0.5,
        scale: float | None = None,
        role: str = "grad_pre_activation",
    ) -> int:
        """Layers from the loss backwards whose gradient survives.

        Parameters
        ----------
        fmt : str or dtype, optional
            None: the *stored chain* of this run. A format: the *round once* model, true gradients cast at the end.
        p : float
            Fraction of the role's non-structural entries that must be stored as finite non-zero values.
        scale : float, optional
            Loss scale of the round-once model; default the run's.
        role : str
            ``"grad_weight"`` gives the trainable depth, layers whose weights get a gradient, which is another where activations
            are large or small; ``"grad_bias"`` that of the biases.

        Raises
        ------
        TypeError
            If p is no number.
        ValueError
            Without a reference, if p is not between 0 and 1, or for another role.
        """
        if not self.has_reference:
            raise ValueError("effective_depth: needs the reference chain; run probe(..., reference=True)")
        if role not in ("grad_pre_activation", "grad_weight", "grad_bias"):
            raise ValueError(
                f"effective_depth: role must be grad_pre_activation, grad_weight or grad_bias, got {role!r}"
            )
        share = fraction(p, "effective_depth", "p")
        depth = 0
        for row in reversed(self.rows(role)):
            if self._survival(row, fmt, scale) < share:
                break
            depth += 1
        return depth

    def _survival(self, row: LayerRow, fmt: FormatLike | None, scale: float | None) -> float:
        if fmt is None and scale is None:
            return row.surviving
        assert row.reference is not None
        if row.reference.nonzero == 0:
            return 0.0
        fit = row.reference.fit(fmt or self.arithmetic.storage, self.scale if scale is None else scale)
        return 1 - (fit.flushed.high + fit.overflow.high) / row.reference.nonzero

    def flush_profile(
        self, fmt: FormatLike | None = None, scale: float | None = None, role: str = "grad_pre_activation"
    ) -> FlushProfile:
        """Predict what a format at a loss scale makes of a role, layer by layer, without running again.

        Parameters
        ----------
        fmt : str or dtype, optional
            Default the run's storage format.
        scale : float, optional
            A power of two; default the run's.
        role : str
            One of `ROLES`; of forward roles no scale is taken.

        Raises
        ------
        ValueError
            Without a reference, or for a role, format or scale that is none.
        """
        from gradkern.flush_profile import profile

        return profile(self, fmt, scale, role)

    def first(self, event: str) -> LayerRow | None:
        """First row, in the order of computation, where an event happened; its index is ``row.first[event]``.

        Parameters
        ----------
        event : str
            A fate (``"overflow"``, ``"flushed"``, ``"invalid"``, ``"cancelled"``, ...) or ``"stalled"``.

        Raises
        ------
        ValueError
            If there is no such event.
        """
        if event != "stalled" and event not in FATES:
            raise ValueError(f"first: event must be one of {', '.join(FATES)}, stalled, got {event!r}")
        for row in self.layers:
            if event == "stalled":
                count = row.stalled
            elif self.has_reference:
                count = row.fates[event]
            else:
                count = getattr(row.rounding, event, 0)
            if count:
                return row
        return None

    def loss_scale_window(self, fmt: FormatLike | None = None, lose: float = 1e-3) -> ScaleWindow:
        """Loss scales that fit every gradient tensor at once (round once model), and the tensors that set the limits.

        Parameters
        ----------
        fmt : str or dtype, optional
            Default the run's storage format.
        lose : float
            Fraction of each tensor's non-zero entries that may flush.

        Raises
        ------
        TypeError
            If lose is no number.
        ValueError
            Without a reference, or if lose is not between 0 and 1.
        """
        if not self.has_reference:
            raise ValueError("loss_scale_window: needs the reference chain; run probe(..., reference=True)")
        lose = fraction(lose, "loss_scale_window", "lose")
        name = finfo(fmt or self.arithmetic.storage).name
        if lose not in self._limits:
            self._limits[lose] = self._limiting(lose)
        limits = self._limits[lose]
        if limits is None:
            return window(name, None, None, "")
        return window_of(limits, name, lose)

    def _limiting(self, lose: float) -> tuple[TensorStats, TensorStats] | None:
        """Gradients that need the largest scale and that allow the smallest: the same two for every format."""
        rows = [row for role in GRADIENT_ROLES for row in self._by_role[role].values() if row.reference_top is not None]
        if not rows:
            return None
        worst, most = rows[0], -(10**9)
        for row in sorted(rows, key=lambda row: row.reference_floor):
            if -row.reference_floor <= most:  # no row from here on needs more
                break
            need = row.reference.smallest_scale("float64", lose) if row.reference else None
            if need is not None and need + _FLOAT64_TIE > most:
                worst, most = row, need + _FLOAT64_TIE
        largest = max(rows, key=lambda row: row.reference_top or (0, 0.0))
        assert worst.reference is not None and largest.reference is not None
        return worst.reference, largest.reference

    @cached_property
    def findings(self) -> list[Finding]:
        """What is wrong, most severe first, each with evidence and a remedy."""
        from gradkern.findings import find

        return find(self)

    def summary(self) -> str:
        """Return the story in a few lines of text."""
        from gradkern.render import summary_text

        return summary_text(self)

    def plot(self, ax: Axes | None = None) -> Axes:
        """Draw true gradient magnitudes by layer, with the format's limits, and the fate of the entries.

        matplotlib is loaded here.
        """
        from gradkern.plot import plot_chain

        return plot_chain(self, ax)

    def to_dict(self) -> dict[str, Any]:
        """Return everything but the tensors, as JSON can hold it."""
        rate = self.decay_rate().to_dict()
        return {
            "arithmetic": str(self.arithmetic), "scale": self.scale, "widths": self.widths,
            "activations": self.activations, "batch": self.batch, "loss_name": self.loss_name, "loss": plain(self.loss),
            "reference_loss": plain(self.reference_loss), "planned_bytes": self.planned_bytes, "decay_rate": rate,
            "decay_rate_grad_weight": self.decay_rate("grad_weight").to_dict(),
            "effective_depth": self.effective_depth() if self.has_reference else None,
            "loss_scale_window": self.loss_scale_window().to_dict() if self.has_reference else None,
            "findings": [finding.to_dict() for finding in self.findings],
            "layers": [row.to_dict() for row in self.layers],
        }  # fmt: skip

    def to_frame(self) -> pandas.DataFrame:
        """Return one line per layer and role (pandas is loaded here)."""
        import pandas

        lines = []
        for row in self.layers:
            line = {k: v for k, v in row.to_dict().items() if not isinstance(v, dict)}
            line |= {"amax": row.stats.amax, "log2_amax": row.stats.log2_amax, "max_ulp": row.rounding.max_ulp}
            line |= {"sqnr_db": row.rounding.sqnr_db, "log2_norm": row.log2_norm, "relative_error": row.relative_error}
            line |= {"reference_log2_norm": row.reference_log2_norm}
            lines.append(line)
        return pandas.DataFrame(lines)

    def save(self, path: str | Path) -> None:
        """Write the report as JSON (gzip if the name ends in .gz), or as .npz. Kept tensors are not written.

        Raises
        ------
        ValueError
            If the name ends in none of .json, .json.gz and .npz.
        OSError
            If the file cannot be written.
        """
        from gradkern._saved_report import write

        write(self, Path(path))

    @classmethod
    def load(cls, path: str | Path) -> ChainReport:
        """Read what `save` wrote, that of an RNN too.

        Raises
        ------
        ValueError
            If the file is not a report.
        """
        from gradkern._saved_report import read

        return read(Path(path))

    def __repr__(self) -> str:
        return self.summary()

    def _repr_html_(self) -> str:
        from gradkern.render import report_html

        return report_html(self)
