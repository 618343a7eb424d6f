"""`ComparedPair`: a run beside the reference run, tensor by tensor."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

from gradkern._result import Result, plain
from gradkern.arithmetic import Arithmetic, arithmetic
from gradkern.compared_tensor import ComparedTensor
from gradkern.layer_row import ROLES

if TYPE_CHECKING:
    import pandas

    from gradkern.findings import Finding


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
        """Whether all entries of all tensors are equal: the same bits or, of two formats, the same values."""
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
