"""`Trajectory`: what gradient descent did, step by step and layer by layer."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from gradkern import _saved_file
from gradkern._arrays import Bits
from gradkern._result import Result, plain
from gradkern.arithmetic import Arithmetic
from gradkern.arithmetic import arithmetic as arithmetic_of
from gradkern.descent_step import EVENTS, NORM_ROLES, DescentStep, NonFiniteOrigin
from gradkern.errors import NonFiniteError
from gradkern.net import MLP, Dense
from gradkern.update import UpdateReport

if TYPE_CHECKING:
    import pandas
    from matplotlib.axes import Axes

    from gradkern.findings import Finding

_KEY = "gradkern_trajectory"
_BY_STEP = ("step", "loss", "log2_weight_norm", "log2_gradient_norm", "lost_share", "scale", "skipped", "coefficient")


@dataclass(frozen=True, repr=False, eq=False)
class Trajectory(Result):
    """What gradient descent did.

    Attributes
    ----------
    arithmetic : Arithmetic
        Of the forward and backward pass.
    weight_format : str
        What the weights are kept in: the storage format, or that of master weights.
    lr : float
        The learning rate.
    loss_name : str
        ``"mse"``, ``"cross_entropy"`` or ``"sum"``.
    clip : str
        How gradients were clipped; empty for not at all.
    scaled : bool
        Whether a `LossScaler` ran.
    widths, activations : list
        The network.
    batch : int
        Rows of a step.
    start : int
        Number of the first step.
    steps : list of DescentStep
        In order.
    stopped : str
        Why the run ended before its last step; empty if it did not.
    parameters : dict of Bits
        Weights after the last step by name (``"layer 1 weight"``), in their format; empty after `load`.
    """

    arithmetic: Arithmetic
    weight_format: str
    lr: float
    loss_name: str
    clip: str
    scaled: bool
    widths: list[int]
    activations: list[str]
    batch: int
    start: int
    steps: list[DescentStep]
    stopped: str
    parameters: dict[str, Bits] = field(repr=False)

    @property
    def depth(self) -> int:
        """Layers of the network."""
        return len(self.activations)

    @property
    def next_step(self) -> int:
        """Number of the step that would follow: `start` of a run that goes on."""
        return self.start + len(self.steps)

    @property
    def losses(self) -> NDArray[np.float64]:
        """Loss of each step, before its update."""
        return np.array([s.loss for s in self.steps])

    def log2_norms(self, role: str = "grad_weight") -> NDArray[np.float64]:
        """log2 norms of a role, (steps, depth); gradients are true ones, NaN where an entry is NaN or infinite.

        Raises
        ------
        ValueError
            If there is no such role.
        """
        if role not in NORM_ROLES:
            raise ValueError(f"log2_norms: role must be one of {', '.join(NORM_ROLES)}, got {role!r}")
        return np.array([s.log2_norms[role] for s in self.steps])

    def events(self, kind: str) -> NDArray[np.int64]:
        """Entries with an event (overflow, flushed, subnormal, nonfinite), (steps, depth).

        Raises
        ------
        ValueError
            If there is no such event.
        """
        if kind not in EVENTS:
            raise ValueError(f"events: kind must be one of {', '.join(EVENTS)}, got {kind!r}")
        return np.array([s.events[kind] for s in self.steps], np.int64)

    @property
    def lost_share(self) -> NDArray[np.float64]:
        """Share of the entries with an update that did not move, by step; NaN where none had one."""
        return np.array([s.lost_share for s in self.steps])

    @cached_property
    def first_nonfinite(self) -> NonFiniteOrigin | None:
        """Where the first NaN or infinity that reached the weights came from; else the first that a scaler caught."""
        found = [s for s in self.steps if s.nonfinite]
        reached = [s for s in found if not s.skipped]
        return next((s.nonfinite for s in (*reached, *found)), None)

    @property
    def weights(self) -> list[NDArray[Any]]:
        """Weight matrices after the last step, NaN and all."""
        return [bits.values for name, bits in self.parameters.items() if name.endswith("weight")]

    @property
    def net(self) -> MLP:
        """The network after the last step, its weights in `weight_format`.

        Raises
        ------
        ValueError
            If the trajectory was loaded from a file, which holds no weights.
        NonFiniteError
            If a weight is NaN or infinite; see `weights`.
        """
        if not self.parameters:
            raise ValueError("Trajectory.net: a saved trajectory holds no weights")
        for name, bits in self.parameters.items():
            if not np.isfinite(bits.values.astype(np.float64)).all():
                raise NonFiniteError(f"Trajectory.net: {name} holds NaN or infinity; the weights are in .weights")
        layers = []
        for number, activation in enumerate(self.activations, 1):
            bias = self.parameters.get(f"layer {number} bias")
            weight = self.parameters[f"layer {number} weight"].values
            layers.append(Dense(weight, None if bias is None else bias.values, activation, name=f"layers.{number - 1}"))
        return MLP(layers)

    @cached_property
    def verdict(self) -> str:
        """``"converged"``, ``"descends"``, ``"slow"``, ``"stalled"``, ``"oscillates"``, ``"diverged"`` or ``"overflowed"``."""
        from gradkern.descent_findings import verdict

        return verdict(self)

    @cached_property
    def findings(self) -> list[Finding]:
        """What is wrong, most severe first, each with evidence and a remedy."""
        from gradkern.descent_findings import find

        return find(self)

    def update(self, layer: int) -> UpdateReport:
        """Add up what rounding made of all updates of a layer, 1 being the first."""
        return UpdateReport.merged(s.updates[layer - 1] for s in self.steps if s.updates)

    def summary(self) -> str:
        """Return the story in a few lines of text."""
        from gradkern.render_descent import summary_text

        return summary_text(self)

    def plot(self, ax: Axes | None = None) -> Axes:
        """Draw loss and norms by step, and the norms of the weight gradients by step and layer.

        matplotlib is loaded here. With `ax`, only loss and norms are drawn there.
        """
        from gradkern.plot_descent import plot_descent

        return plot_descent(self, ax)

    def to_dict(self) -> dict[str, Any]:
        """Return everything but the weights, as JSON can hold it."""
        names = [n for n in self.__dataclass_fields__ if n not in ("parameters", "arithmetic", "steps")]
        return {
            "arithmetic": str(self.arithmetic), **{name: plain(getattr(self, name)) for name in names},
            "verdict": self.verdict, "first_nonfinite": plain(self.first_nonfinite),
            "findings": [finding.to_dict() for finding in self.findings],
            "steps": [step.to_dict() for step in self.steps],
        }  # fmt: skip

    def to_frame(self, by: str = "step") -> pandas.DataFrame:
        """Return one line per step, or per step and layer (pandas is loaded here).

        Raises
        ------
        ValueError
            If `by` is neither ``"step"`` nor ``"layer"``.
        """
        import pandas

        if by == "step":
            return pandas.DataFrame([{name: getattr(s, name) for name in _BY_STEP} for s in self.steps])
        if by != "layer":
            raise ValueError(f"to_frame: by must be 'step' or 'layer', got {by!r}")
        lines = []
        for s in self.steps:
            for i in range(self.depth):
                line: dict[str, Any] = {"step": s.step, "layer": i + 1}
                line |= {f"log2_norm_{role}": norms[i] for role, norms in s.log2_norms.items()}
                line |= {kind: counts[i] for kind, counts in s.events.items()}
                if s.updates:
                    line |= {"lost": s.updates[i].lost, "applied": s.updates[i].applied}
                lines.append(line)
        return pandas.DataFrame(lines)

    def save(self, path: str | Path) -> None:
        """Write everything but the weights as JSON (gzip if the name ends in .gz), or as .npz.

        Raises
        ------
        ValueError
            If the name ends in none of .json, .json.gz and .npz.
        OSError
            If the file cannot be written.
        """
        _saved_file.write(Path(path), _KEY, self.to_dict())

    @classmethod
    def load(cls, path: str | Path) -> Trajectory:
        """Read what `save` wrote.

        Raises
        ------
        ValueError
            If the file is not a trajectory.
        """
        return _saved_file.read(Path(path), _KEY, cls.__name__, cls._from_dict)

    @classmethod
    def _from_dict(cls, saved: dict[str, Any]) -> Trajectory:
        fields = {name: saved[name] for name in cls.__dataclass_fields__ if name != "parameters"}
        fields["steps"] = [DescentStep.from_dict(step) for step in saved["steps"]]
        return cls(**{**fields, "arithmetic": arithmetic_of(saved["arithmetic"]), "parameters": {}})

    def __repr__(self) -> str:
        return self.summary()

    def _repr_html_(self) -> str:
        from gradkern.render_descent import trajectory_html

        return trajectory_html(self)
