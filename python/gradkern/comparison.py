"""`Comparison`: the same pass in several arithmetics or on several devices, each run beside the first."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gradkern._result import Result, plain
from gradkern.arithmetic import Arithmetic, arithmetic
from gradkern.compared_tensor import ComparedTensor
from gradkern.layer_row import ROLES

if TYPE_CHECKING:
    import pandas
    from matplotlib.axes import Axes

    from gradkern.findings import Finding

_KEY = "gradkern_comparison"


@dataclass(frozen=True, repr=False)
class ComparedRun(Result):
    """One run.

    Attributes
    ----------
    arithmetic : Arithmetic
    device : str or None
        Where it ran; None is where the data is.
    loss : float or None
        From its stored output.
    """

    arithmetic: Arithmetic
    device: str | None
    loss: float | None

    def __str__(self) -> str:
        return f"{self.arithmetic}{f' on {self.device}' if self.device else ''}"

    def to_dict(self) -> dict[str, Any]:
        """Return the fields, the arithmetic by its name."""
        return {"arithmetic": str(self.arithmetic), "device": self.device, "loss": plain(self.loss)}

    @classmethod
    def from_dict(cls, saved: Mapping[str, Any]) -> ComparedRun:
        """Build from what `to_dict` returned."""
        loss = saved["loss"]
        return cls(arithmetic(saved["arithmetic"]), saved["device"], None if loss is None else float(loss))


@dataclass(frozen=True, repr=False)
class Divergence(Result):
    """The first entry, in the order in which a run makes its tensors, that tells two runs apart.

    Attributes
    ----------
    layer, role : int, str
        Of the tensor.
    index : int
        Flat index of the entry.
    place : str
        Sample and unit.
    reference_value, value : float
        In the reference run and in the other.
    """

    layer: int
    role: str
    index: int
    place: str
    reference_value: float
    value: float

    @classmethod
    def from_dict(cls, saved: Mapping[str, Any]) -> Divergence:
        """Build from what `to_dict` returned."""
        values = {name: float(saved[name]) for name in ("reference_value", "value")}
        return cls(**{**saved, **values})


@dataclass(frozen=True, repr=False, eq=False)
class ComparedPair(Result):
    """A run beside the reference run.

    Attributes
    ----------
    reference, other : ComparedRun
    unit : {"layer", "step"}
        What follows one another along the chain.
    tensors : list of ComparedTensor
        In the order in which a run makes them.
    first : Divergence or None
        Where they part.
    """

    reference: ComparedRun
    other: ComparedRun
    unit: str
    tensors: list[ComparedTensor]
    first: Divergence | None

    @property
    def identical(self) -> bool:
        """Whether all entries of all tensors have the same bits."""
        return all(tensor.identical for tensor in self.tensors)

    @property
    def size(self) -> int:
        """Entries of all tensors."""
        return sum(tensor.size for tensor in self.tensors)

    @property
    def equal(self) -> int:
        """Entries that are equal."""
        return sum(tensor.equal for tensor in self.tensors)

    @property
    def ulp(self) -> str:
        """What an ulp is here, in words."""
        a, b = self.reference.arithmetic.storage, self.other.arithmetic.storage
        return f"ulps of {a}" if a == b else f"ulps of {a} or {b}, whichever is coarser there"

    @cached_property
    def verdict(self) -> str:
        """The findings in a few words, the most severe first; ``"identical"`` or ``"the model holds"`` where there are none."""
        from gradkern.comparison_findings import verdict

        return verdict(self)

    @cached_property
    def findings(self) -> list[Finding]:
        """How the runs differ, most severe first, each with evidence and a remedy; empty where they are identical."""
        from gradkern.comparison_findings import find

        return find(self)

    def rows(self, role: str) -> list[ComparedTensor]:
        """Tensors of one role, by layer.

        Raises
        ------
        ValueError
            If there is no such role.
        """
        if role not in ROLES:
            raise ValueError(f"rows: role must be one of {', '.join(ROLES)}, got {role!r}")
        return sorted((t for t in self.tensors if t.role == role), key=lambda t: t.layer)

    def to_dict(self) -> dict[str, Any]:
        """Return the fields, verdict and findings as plain values."""
        return {
            "reference": self.reference.to_dict(), "other": self.other.to_dict(), "unit": self.unit, "ulp": self.ulp,
            "identical": self.identical, "verdict": self.verdict, "first": None if self.first is None else plain(self.first),
            "findings": [finding.to_dict() for finding in self.findings],
            "tensors": [tensor.to_dict() for tensor in self.tensors],
        }  # fmt: skip

    def to_frame(self) -> pandas.DataFrame:
        """Return one line per tensor (pandas is loaded here)."""
        import pandas

        lines = []
        for t in self.tensors:
            line = {name: v for name, v in vars(t).items() if not isinstance(v, list | tuple | dict)}
            line |= {"reference": str(self.reference), "other": str(self.other), "bias": t.bias, "lean": t.lean}
            for name, counts in {"zero": t.zero_only, "nonfinite": t.nonfinite_only}.items():
                line |= {f"{name}_reference_only": counts[0], f"{name}_other_only": counts[1]}
            lines.append(line)
        return pandas.DataFrame(lines)

    @classmethod
    def from_dict(cls, saved: Mapping[str, Any]) -> ComparedPair:
        """Build from what `to_dict` returned."""
        reference, other = (ComparedRun.from_dict(saved[name]) for name in ("reference", "other"))
        first = None if saved["first"] is None else Divergence.from_dict(saved["first"])
        return cls(reference, other, saved["unit"], [ComparedTensor.from_dict(t) for t in saved["tensors"]], first)

    def __repr__(self) -> str:
        from gradkern.render_comparison import pair_text

        return pair_text(self)

    def _repr_html_(self) -> str:
        from gradkern.render_comparison import pair_html

        return pair_html(self)


@dataclass(frozen=True, repr=False, eq=False)
class Comparison(Result):
    """What `compare` found: runs of one pass, each beside the first.

    Attributes
    ----------
    network : str
        In words.
    batch : int
        Rows of x.
    scale : float
        The loss scale of all runs.
    loss_name : str
        ``"sum"``, ``"mse"``, ``"cross_entropy"`` or ``"grad_output"``.
    runs : list of ComparedRun
        The reference run first.
    pairs : list of ComparedPair
        One for each other run, in order.
    """

    network: str
    batch: int
    scale: float
    loss_name: str
    runs: list[ComparedRun]
    pairs: list[ComparedPair]

    @property
    def reference(self) -> ComparedRun:
        """The run that the others are compared with."""
        return self.runs[0]

    @property
    def identical(self) -> bool:
        """Whether all runs have the same bits."""
        return all(pair.identical for pair in self.pairs)

    @property
    def rows(self) -> list[tuple[ComparedPair, ComparedTensor]]:
        """Every tensor of every pair."""
        return [(pair, tensor) for pair in self.pairs for tensor in pair.tensors]

    @property
    def findings(self) -> list[Finding]:
        """Those of all pairs, most severe first."""
        from gradkern.findings import SEVERITIES

        found = [finding for pair in self.pairs for finding in pair.findings]
        return sorted(found, key=lambda f: SEVERITIES.index(f.severity))

    def pair(self, name: str) -> ComparedPair:
        """Return the pair of a run, by ``str`` of the run or its arithmetic's name; the first where there are several.

        Raises
        ------
        KeyError
            If no run has that name.
        """
        for pair in self.pairs:
            if name in (str(pair.other), str(pair.other.arithmetic)):
                return pair
        raise KeyError(f"no run {name!r}; there are {', '.join(str(pair.other) for pair in self.pairs)}")

    def summary(self) -> str:
        """Return the story as plain text."""
        from gradkern.render_comparison import summary_text

        return summary_text(self)

    def plot(self, ax: Axes | None = None) -> Axes:
        """Draw distances, relative errors and bias by layer.

        matplotlib is loaded here. With `ax`, only the distances are drawn there.
        """
        from gradkern.plot_comparison import plot_comparison

        return plot_comparison(self, ax)

    def to_dict(self) -> dict[str, Any]:
        """Return everything as JSON can hold it."""
        return {
            "network": self.network, "batch": self.batch, "scale": self.scale, "loss_name": self.loss_name,
            "identical": self.identical, "runs": [run.to_dict() for run in self.runs],
            "pairs": [pair.to_dict() for pair in self.pairs],
        }  # fmt: skip

    def to_frame(self) -> pandas.DataFrame:
        """Return one line per pair and tensor (pandas is loaded here)."""
        import pandas

        return pandas.concat([pair.to_frame() for pair in self.pairs], ignore_index=True)

    def save(self, path: str | Path) -> None:
        """Write everything as JSON (gzip if the name ends in .gz)."""
        from gradkern import _saved_file

        _saved_file.write(Path(path), _KEY, self.to_dict())

    @classmethod
    def load(cls, path: str | Path) -> Comparison:
        """Read what `save` wrote.

        Raises
        ------
        ValueError
            If the file is not a comparison.
        """
        from gradkern import _saved_file

        return _saved_file.read(Path(path), _KEY, cls.__name__, cls.from_dict)

    @classmethod
    def from_dict(cls, saved: Mapping[str, Any]) -> Comparison:
        """Build from what `to_dict` returned.

        Raises
        ------
        ValueError
            If a field is missing or is none of ours.
        """
        try:
            runs = [ComparedRun.from_dict(run) for run in saved["runs"]]
            pairs = [ComparedPair.from_dict(pair) for pair in saved["pairs"]]
            given = {name: saved[name] for name in ("network", "batch", "scale", "loss_name")}
            return cls(**given, runs=runs, pairs=pairs)
        except (KeyError, TypeError, AttributeError) as error:
            raise ValueError(f"a field is missing or wrong: {error}") from None

    def __repr__(self) -> str:
        return self.summary()

    def _repr_html_(self) -> str:
        from gradkern.render_comparison import comparison_html

        return comparison_html(self)
