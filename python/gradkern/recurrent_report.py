"""`RecurrentReport`: what a probe of an RNN found, one row per time step and role, and each step's share of dL/dW."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from gradkern._arguments import fraction
from gradkern._result import Result, plain
from gradkern.formats import FormatLike
from gradkern.layer_row import LayerRow
from gradkern.rate import Rate, theil_sen
from gradkern.report import ChainReport
from gradkern.tensor_stats import TensorStats

if TYPE_CHECKING:
    import pandas
    from matplotlib.axes import Axes

_SHOWN = 12
Wide = NDArray[np.float64]


@dataclass(frozen=True, repr=False, eq=False)
class Contributions(Result):
    """What each time step adds to dL/dW, from the last step backwards.

    dL/dW = sum over k of the immediate partials C_k = dz_k^T h_{k-1}. Norms of the parts do not add up to the norm of the
    sum, so the norm of the sum so far stands beside them (Pascanu, Mikolov, Bengio 2013, equations 3 to 5).

    Attributes
    ----------
    steps : array of int
        k, descending.
    log2_norm : array
        log2 || C_k ||, of the true values where the reference ran, else of the stored dz_k and h_{k-1}; no loss scale.
    stored_log2_norm : array
        Of the stored dz_k and h_{k-1}; NaN where they are not finite.
    running_log2_norm : array
        log2 || C_T + ... + C_k || of the true values; NaN without a reference.
    absorbed : array of int or None
        With ``step_accumulate="storage"``: entries whose share was not zero and yet left the rounded sum as it was.
    """

    steps: NDArray[np.int64]
    log2_norm: Wide
    stored_log2_norm: Wide
    running_log2_norm: Wide
    absorbed: NDArray[np.int64] | None
    truths: list[TensorStats] = field(repr=False)

    @classmethod
    def from_shares(cls, shares: dict[str, Any]) -> Contributions:
        """Wrap what the kernels recorded."""
        steps, stored = (np.asarray(shares[name]) for name in ("step", "log2_norm"))
        truths = [
            TensorStats.from_summary(summary, "float64", name=f"step {step} contribution", exponent=int(exponent))
            for step, summary, exponent in zip(steps, shares.get("truth", ()), shares.get("exponent", ()), strict=False)
        ]
        running = np.asarray(shares.get("log2_running_truth", np.full(len(steps), np.nan)))
        true = np.array([t.log2_l2 for t in truths]) if truths else stored
        absorbed = np.asarray(shares["absorbed"]) if "absorbed" in shares else None
        return cls(steps, true, stored, running, absorbed, truths)

    def __len__(self) -> int:
        return len(self.steps)

    def __repr__(self) -> str:
        """Return a table of about a dozen steps."""
        shown = sorted({round(i * (len(self) - 1) / (_SHOWN - 1)) for i in range(_SHOWN)}) if len(self) else []
        lines = [f"Contributions of {len(self)} steps to dL/dW (log2 of norms)", "   step   share  stored  sum so far"]
        for i in shown:
            norms = (self.log2_norm[i], self.stored_log2_norm[i], self.running_log2_norm[i])
            lines.append(f"  {self.steps[i]:>5}" + "".join(f"{value:>8.2f}" for value in norms))
        return "\n".join(lines)

    def to_frame(self) -> pandas.DataFrame:
        """Return one line a step (pandas is loaded here)."""
        import pandas

        columns = {
            "step": self.steps, "log2_norm": self.log2_norm, "stored_log2_norm": self.stored_log2_norm,
            "running_log2_norm": self.running_log2_norm,
        }  # fmt: skip
        if self.absorbed is not None:
            columns["absorbed"] = self.absorbed
        return pandas.DataFrame(columns)

    def plot(self, ax: Axes | None = None) -> Axes:
        """Draw the norms by step (matplotlib is loaded here)."""
        from gradkern.plot_recurrent import plot_contributions

        return plot_contributions(self, ax)


@dataclass(frozen=True, repr=False, eq=False)
class RecurrentReport(ChainReport):
    """What a probe of an RNN found: a `ChainReport` whose layers are time steps.

    Rows of step 0 are what all steps share: h_0, the weights and their gradients.

    Attributes
    ----------
    inputs : int
        Numbers of x at each step.
    bptt : int or None
        Steps that gradients go back, from the last; None: all.
    loss_at : {"last", "every"}
        Where there is a loss.
    step_accumulate : {"accumulate", "storage"}
        Whether dL/dW is rounded once or at every step.
    """

    inputs: int = 0
    bptt: int | None = None
    loss_at: str = "last"
    step_accumulate: str = "accumulate"
    shares: dict[str, Any] = field(repr=False, default_factory=dict)

    unit: ClassVar[str] = "step"
    weight_words: ClassVar[str] = "shares of dL/dW"

    @property
    def hidden(self) -> int:
        """Units."""
        return self.widths[0]

    @property
    def steps(self) -> int:
        """Time steps."""
        return self.depth

    @cached_property
    def contributions(self) -> Contributions:
        """What each step adds to dL/dW."""
        return Contributions.from_shares(self.shares)

    def weight_rate(self) -> Rate:
        """Bits per step that the norm of the shares of dL/dW gains or loses, backwards from the loss."""
        c = self.contributions
        return theil_sen(-c.steps.astype(np.float64), c.log2_norm, self.unit)

    def describe(self) -> str:
        """Return the network in words."""
        back = "" if self.bptt is None else f", gradients {self.bptt} steps back"
        return (
            f"RNN {self.inputs} inputs, {self.hidden} units ({self.activations[0]}), {self.steps} steps, "
            f"loss at {'the last' if self.loss_at == 'last' else 'every'} step{back}"
        )

    def effective_horizon(self, fmt: FormatLike | None = None, scale: float | None = None, p: float = 0.5) -> int:
        """Return the steps back from the last whose share of dL/dW survives.

        Parameters
        ----------
        fmt : str or dtype, optional
            None: the *stored chain* of this run, by its grad_pre_activation. A format: the *round once* model, the true share
            of each step cast at the end.
        scale : float, optional
            Loss scale of the round-once model, a power of two; default the run's.
        p : float
            Fraction of the non-zero entries that must be stored as finite non-zero values.

        Raises
        ------
        TypeError
            If p is no number.
        ValueError
            Without a reference, or if p is not between 0 and 1.
        """
        if fmt is None and scale is None:
            return self.effective_depth(p=p)
        if not self.has_reference:
            raise ValueError("effective_horizon: needs the reference chain; run probe(..., reference=True)")
        share = fraction(p, "effective_horizon", "p")
        horizon = 0
        for stats in self.contributions.truths:
            fit = stats.fit(fmt or self.arithmetic.storage, self.scale if scale is None else scale)
            if stats.nonzero == 0 or 1 - (fit.flushed.high + fit.overflow.high) / stats.nonzero < share:
                break
            horizon += 1
        return horizon

    def locate(self, row: LayerRow, index: int) -> str:
        """Say which unit a flat index of a row is, and of which sample."""
        columns = self.inputs if row.role in ("input", "input_weight", "grad_input_weight") else self.hidden
        return self._place(row, index, columns)

    def to_dict(self) -> dict[str, Any]:
        """Return everything but the tensors, as JSON can hold it."""
        c = self.contributions
        shares = {
            "steps": plain(c.steps), "log2_norm": plain(c.log2_norm), "stored_log2_norm": plain(c.stored_log2_norm),
            "running_log2_norm": plain(c.running_log2_norm), "absorbed": plain(c.absorbed),
        }  # fmt: skip
        return {
            **super().to_dict(), "inputs": self.inputs, "bptt": self.bptt, "loss_at": self.loss_at,
            "step_accumulate": self.step_accumulate, "contributions": shares,
            "effective_horizon": self.effective_horizon() if self.has_reference else None,
        }  # fmt: skip
