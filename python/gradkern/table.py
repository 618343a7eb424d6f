"""Statistics of many tensors from one read of each, and what any format at any scale would make of them all."""

from __future__ import annotations

import functools
import itertools
import operator
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gradkern import _saved_file
from gradkern._columns import Columns
from gradkern._merging import merged
from gradkern._result import Result, plain
from gradkern._text import cell_width, padded, printable
from gradkern.fit import Bracket, FormatFit, ScaleWindow
from gradkern.formats import FormatLike, finfo
from gradkern.joint_window import joint_window, listed, nonfinite_sentence
from gradkern.tensor_stats import TensorStats, log2_of_scale

if TYPE_CHECKING:
    import pandas
    from matplotlib.axes import Axes

FORMATS = ("float16", "bfloat16", "float8_e4m3fn", "float8_e5m2")  # those that tables and pictures show unasked
TABLE_KEY = "gradkern_table"  # what marks a file as a table
_SHOWN = 20  # tensors that a fit writes out


@dataclass(frozen=True, repr=False)
class TableFit(Result):
    """What casting every tensor of a table to a format at a scale would do.

    Attributes
    ----------
    format : str
        The format.
    scale : float
        The scale.
    tensors : dict of FormatFit
        By name.
    """

    format: str
    scale: float
    tensors: dict[str, FormatFit]

    @cached_property
    def total(self) -> FormatFit:
        """Counts over all tensors."""

        def over(count: str) -> Bracket:
            brackets = [getattr(fit, count) for fit in self.tensors.values()]
            return Bracket(sum(b.low for b in brackets), sum(b.high for b in brackets))

        return FormatFit(over("overflow"), over("subnormal"), over("flushed"), over("kept"))

    def plot(self, ax: Axes | None = None) -> Axes:
        """Draw what becomes of every tensor's entries, a bar each; matplotlib is loaded here."""
        from gradkern.plot_fit import plot_fits

        return plot_fits(self.tensors, ax, title=f"{self.format} at scale {self.scale:g}")

    def __getitem__(self, name: str) -> FormatFit:
        return self.tensors[name]

    def to_dict(self) -> dict[str, Any]:
        """Return the fields and the total."""
        return {**super().to_dict(), "total": self.total.to_dict()}

    def to_frame(self) -> pandas.DataFrame:
        """Return one row per tensor; brackets as two columns (pandas is loaded here)."""
        import pandas

        counts = ("overflow", "subnormal", "flushed", "kept")
        ends = [(count, end) for count in counts for end in ("low", "high")]
        rows = {
            name: {f"{count}_{end}": getattr(getattr(fit, count), end) for count, end in ends}
            for name, fit in self.tensors.items()
        }
        return pandas.DataFrame.from_dict(rows, orient="index")

    def __repr__(self) -> str:
        shown = {printable(name): fit for name, fit in itertools.islice(self.tensors.items(), _SHOWN)}
        width = max(map(cell_width, shown), default=0)
        lines = [f"  {padded(name, width)}  {_counts(fit)}" for name, fit in shown.items()]
        if len(self.tensors) > len(shown):
            lines.append(f"  and {len(self.tensors) - len(shown):,} more tensors")
        return "\n".join([f"TableFit: {self.format} at scale {self.scale:g}: {_counts(self.total)}", *lines])


def _counts(fit: FormatFit) -> str:
    return f"{fit.overflow} overflow, {fit.flushed} flushed, {fit.subnormal} subnormal, {fit.kept} kept"


@dataclass(frozen=True, repr=False, eq=False)
class StatsTable(Result, Mapping[str, TensorStats]):
    """Statistics of named tensors, in order: a mapping from name to `TensorStats`.

    Attributes
    ----------
    tensors : mapping of TensorStats
        By name; a name here goes before the one that the statistics carry. Keys of other kinds are written as text.
    skipped : dict of str
        Entries that were not measured, and why.

    Raises
    ------
    ValueError
        If two keys are the same text.
    """

    tensors: Mapping[str, TensorStats]
    skipped: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Make text of every key."""
        if all(type(name) is str for name in self.tensors):
            return
        named: dict[str, TensorStats] = {}
        for key, stats in self.tensors.items():
            if str(key) in named:
                raise ValueError(f"StatsTable: two tensors are named {str(key)!r}")
            named[str(key)] = stats
        object.__setattr__(self, "tensors", named)

    def __getitem__(self, name: str) -> TensorStats:
        if name not in self.tensors:
            import difflib

            near = difflib.get_close_matches(str(name), self.tensors, 3, 0.4)
            reason = (
                f"skipped: {self.skipped[name]}" if name in self.skipped else f"did you mean {printable(listed(near))}?"
            )
            raise KeyError(f"no tensor {name!r}" + (f"; {reason}" if near or name in self.skipped else ""))
        return self.tensors[name]

    def __len__(self) -> int:
        return len(self.tensors)

    def __iter__(self) -> Iterator[str]:
        return iter(self.tensors)

    @cached_property
    def total(self) -> TensorStats:
        """All tensors as if they were one; of format ``mixed`` where they have several.

        Raises
        ------
        ValueError
            If the table is empty.
        """
        if not self.tensors:
            raise ValueError("total: the table is empty")
        total = functools.reduce(functools.partial(merged, mixed=True), self.tensors.values())
        return total

    @cached_property
    def columns(self) -> Columns:
        """The binades and extremes of all tensors as arrays, for questions to all of them."""
        return Columns(list(self.tensors.values()))

    def fit(self, fmt: FormatLike, scale: float = 1.0) -> TableFit:
        """Count what a nearest-even cast of ``scale * x`` to a format would do to every tensor, without reading any again.

        Raises
        ------
        ValueError
            If scale is not a power of two, or there is no such format.
        """
        log2_of_scale(scale, "fit")
        fits = {name: stats.fit(fmt, scale) for name, stats in self.tensors.items()}
        return TableFit(finfo(fmt).name, scale, fits)

    def loss_scale_window(self, fmt: FormatLike, lose: float = 1e-3) -> ScaleWindow:
        """Scales at which no tensor overflows and none flushes more than a fraction `lose` of its non-zero entries.

        Where there is none, ``why`` names the tensors that conflict and the formats that would fit.

        Raises
        ------
        ValueError
            If lose is not between 0 and 1, or there is no such format.
        """
        found = joint_window([], fmt, lose)  # of no tensors, which checks the arguments
        names, stats = list(self.tensors), list(self.tensors.values())
        # the two tensors that set the ends, under their names here, say what all of them would
        ends = [replace(stats[i], name=names[i], nan=0, pos_inf=0, neg_inf=0) for i in self.columns.ends(fmt, lose)]
        if ends:
            found = joint_window(ends, fmt, lose)
        broken = [name for name, one in zip(names, stats, strict=True) if one.nonfinite]
        if broken:
            found = replace(found, why=f"{found.why}; {nonfinite_sentence(broken, len(names))}")
        return found

    def __add__(self, other: StatsTable) -> StatsTable:
        """Merge two tables: tensors of one name by ``+``, the others side by side in order."""
        if not isinstance(other, StatsTable):
            return NotImplemented
        merged = dict(self.tensors)
        for name, stats in other.tensors.items():
            merged[name] = operator.add(merged[name], stats) if name in merged else stats
        skipped = {name: why for name, why in {**self.skipped, **other.skipped}.items() if name not in merged}
        return StatsTable(merged, skipped)

    def to_dict(self) -> dict[str, Any]:
        """Return everything as JSON can hold it."""
        tensors = {name: stats.to_dict() for name, stats in self.tensors.items()}
        return {"tensors": tensors, "skipped": plain(self.skipped)}

    @classmethod
    def from_dict(cls, fields: Mapping[str, Any]) -> StatsTable:
        """Build from what `to_dict` returned.

        Raises
        ------
        ValueError
            If it is not a table.
        """
        try:
            tensors = {str(name): TensorStats.from_dict(stats) for name, stats in fields["tensors"].items()}
            return cls(tensors, {str(name): str(why) for name, why in fields.get("skipped", {}).items()})
        except (KeyError, TypeError, AttributeError) as error:
            raise ValueError(f"StatsTable.from_dict: not a table ({error!r})") from None

    def to_frame(self) -> pandas.DataFrame:
        """Return one row per tensor (pandas is loaded here)."""
        import pandas

        names = [name for name, spec in TensorStats.__dataclass_fields__.items() if spec.repr and name != "name"]
        rows = {name: {field: getattr(stats, field) for field in names} for name, stats in self.tensors.items()}
        return pandas.DataFrame.from_dict(rows, orient="index")

    def save(self, path: str | Path) -> None:
        """Write the table as JSON (gzip if the name ends in .gz), or as .npz.

        Raises
        ------
        ValueError
            If the name ends in none of .json, .json.gz and .npz.
        OSError
            If the file cannot be written.
        """
        _saved_file.write(Path(path), TABLE_KEY, self.to_dict())

    @classmethod
    def load(cls, path: str | Path) -> StatsTable:
        """Read what `save` wrote.

        Raises
        ------
        ValueError
            If the file is missing or is not a table.
        """
        return _saved_file.read(Path(path), TABLE_KEY, "StatsTable", cls.from_dict)

    def plot(self, ax: Axes | None = None, formats: Sequence[FormatLike] = FORMATS, scale: float = 1.0) -> Axes:
        """Draw every tensor's magnitudes by binade, with the limits of the formats; matplotlib is loaded here."""
        from gradkern.plot_table import plot_table

        return plot_table(self, ax, formats=formats, scale=scale)

    def __repr__(self) -> str:
        from gradkern.render_table import table_text

        return table_text(self)

    def _repr_html_(self) -> str:
        from gradkern.render_table import table_html

        return table_html(self)
