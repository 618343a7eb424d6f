"""`Comparison`: the same pass in several arithmetics or on several devices, each run beside the first."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gradkern._result import Result
from gradkern.compared_pair import ComparedPair, ComparedRun
from gradkern.compared_tensor import ComparedTensor

if TYPE_CHECKING:
    import pandas
    from matplotlib.axes import Axes

    from gradkern.findings import Finding

_KEY = "gradkern_comparison"


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
        """Whether all pairs are identical."""
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
        """Write everything as JSON (gzip if the name ends in .gz), or as .npz.

        Raises
        ------
        ValueError
            If the name ends in none of .json, .json.gz and .npz.
        OSError
            If the file cannot be written.
        """
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
