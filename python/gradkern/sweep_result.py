"""`SweepResult`: the rows of a sweep, their medians over seeds, tables, files and pictures."""

from __future__ import annotations

import html
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from gradkern._result import Result, plain
from gradkern._text import cell_width, padded, printable
from gradkern.rate import median_of_draws, share_of_draws
from gradkern.sweep_file import check_path, read_rows, write_rows
from gradkern.sweep_point import PARAMETERS, RATES, Row, checked, key_of

if TYPE_CHECKING:
    import pandas
    from matplotlib.axes import Axes

_SHOWN = 10  # rows of a repr
# Columns of a table, as far as there are such: the parameters that vary come before.
_TABLE = (
    "gradient_rate", "gradient_rate_low", "gradient_rate_high", "weight_rate", "effective_depth", "trainable_depth",
    "death_probability", "dead", "log2_scale_best", "draws", "severity", "error",
)  # fmt: skip
_HEADERS = {
    "gradient_rate": "gradients", "gradient_rate_low": "low", "gradient_rate_high": "high", "weight_rate": "weights",
    "effective_depth": "effective", "trainable_depth": "trainable", "death_probability": "P(dead)",
    "log2_scale_best": "log2 scale",
}  # fmt: skip


def _cell(value: Any) -> str:
    if value is None or value != value:
        return "-"
    return f"{value:.4g}" if isinstance(value, float) else printable(value)


@dataclass(frozen=True, repr=False, eq=False)
class SweepResult(Result):
    """Rows of a sweep, one per point, or after `quenched` one per group of draws.

    Attributes
    ----------
    rows : tuple of dict
        Each has its ``key``, the parameters of `SweepPoint`, ``error`` (None, or what was raised; then nothing else), and

        ``gradient_rate``, ``weight_rate``, ``activation_rate``, each with ``_low`` and ``_high``
            Decay rates of grad_pre_activation and grad_weight from the loss backwards, and of the activations forwards
            [bits/layer], with their 95 % intervals (`Rate`).
        ``gradient_bits``
            log2 of || dz_1 || / || dz_depth ||, of the true values.
        ``effective_depth``, ``trainable_depth``
            Layers from the loss whose activation gradients, and whose weight gradients, survive in the stored chain.
        ``dead``, ``dead_units``, ``structural``
            Whether no gradient at all reaches the first layer; share of the units that no sample of the batch moves; share of
            grad_pre_activation that is zero in real arithmetic.
        ``entries``, ``kept``, ``subnormal``, ``flushed``, ``cancelled``, ``inherited``, ``overflow``, ``invalid``
            Fates of the entries of all gradients.
        ``overflow_layer``, ``overflow_role``
            Where the first overflow happened, forward or backward; None without.
        ``log2_scale_low``, ``log2_scale_high``, ``log2_scale_best``
            The window of loss scales, and the scale to take; None where there is none.
        ``loss``, ``severity``, ``findings``
            The stored loss, the worst finding's severity, and the kinds of all findings.
    """

    rows: tuple[Row, ...]

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def failed(self) -> tuple[Row, ...]:
        """Rows of points that raised."""
        return tuple(row for row in self.rows if row.get("error") is not None)

    @property
    def varied(self) -> dict[str, list[Any]]:
        """Parameters that have several values, and which."""
        found = {name: list(dict.fromkeys(row[name] for row in self.rows if name in row)) for name in PARAMETERS}
        return {name: values for name, values in found.items() if len(values) > 1}

    def where(self, **parameters: Any) -> SweepResult:
        """Return the rows of some parameters' values.

        Raises
        ------
        TypeError, ValueError
            If there is no such parameter, or it cannot have this value.
        """
        wanted = {name: checked(name, value) for name, value in parameters.items()}
        return SweepResult(tuple(r for r in self.rows if all(r.get(name) == value for name, value in wanted.items())))

    def quenched(self, over: str | Iterable[str] = "seed") -> SweepResult:
        """Return medians over draws: what a typical network does.

        Norms are products of random factors: their mean is made by few lucky networks, and grows where nearly every single one
        vanishes. The median of the logs says what a network drawn at random does.

        Parameters
        ----------
        over : str or iterable of str
            Parameters that tell the draws apart.

        Returns
        -------
        SweepResult
            A row per group: medians of the numbers; as ``_low`` and ``_high`` of a rate the 95 % interval of its median, from six
            draws on; ``death_probability`` with Wilson's interval in place of ``dead``; ``draws``, those that did not fail. Words
            are left out.

        Raises
        ------
        ValueError
            If there is no such parameter.
        """
        names = [over] if isinstance(over, str) else list(over)
        unknown = [name for name in names if name not in PARAMETERS]
        if unknown or not names:
            raise ValueError(f"quenched: over must be of {', '.join(PARAMETERS)}, got {unknown or names}")
        kept = [name for name in PARAMETERS if name not in names and self.rows and name in self.rows[0]]
        groups: dict[tuple[Any, ...], list[Row]] = {}
        for row in self.rows:
            groups.setdefault(tuple(row[name] for name in kept), []).append(row)
        return SweepResult(tuple(_group(dict(zip(kept, values, strict=True)), rows) for values, rows in groups.items()))

    def to_dict(self) -> dict[str, Any]:
        """Return the rows, as JSON can hold them."""
        return {"points": len(self.rows), "failed": len(self.failed), "rows": plain(self.rows)}

    def to_frame(self) -> pandas.DataFrame:
        """Return one line per row (pandas is loaded here)."""
        import pandas

        return pandas.DataFrame(list(self.rows))

    def save(self, path: str | Path) -> None:
        """Write the rows to a .jsonl or .parquet file.

        Raises
        ------
        ValueError
            If the name has another ending, or the folder is missing.
        ImportError
            If pyarrow is missing, for .parquet.
        """
        write_rows(self.rows, check_path(path))

    @classmethod
    def load(cls, path: str | Path) -> SweepResult:
        """Read what `save` wrote, or all that is in the file of a sweep, finished or not.

        Raises
        ------
        ValueError
            If the file is missing or not one of a sweep.
        """
        return cls(tuple(read_rows(check_path(path))))

    def plot(
        self, ax: Axes | None = None, *, value: str | None = None, x: str | None = None, y: str | None = None
    ) -> Axes:
        """Draw medians over the seeds; matplotlib is loaded here.

        Parameters
        ----------
        ax : matplotlib.axes.Axes, optional
        value : str, optional
            What is drawn: by default the rate of the gradients over a plane, the trainable depth along a line.
        x, y : str, optional
            Parameters along the axes. With `y` the plane of both is drawn, with the contour where the value is zero; without it a
            line for every combination of the others. By default the plane of ``gain`` and ``bias_std``, if both vary, else lines
            along the depth.

        Raises
        ------
        ValueError
            If there is no such parameter or value, nothing varies, or the plane is not one: choose by `where`.
        """
        from gradkern.plot_sweep import plot_sweep

        return plot_sweep(self, ax, value, x, y)

    def table(self, most: int | None = None) -> tuple[list[str], list[list[str]]]:
        """Header and cells of the first rows: the parameters that vary, then what matters most."""
        rows = self.rows[:most]
        shown = [name for name in _TABLE if any(_cell(row.get(name)) != "-" for row in self.rows)]
        if "death_probability" not in shown and not any(row.get("dead") for row in self.rows):
            shown = [name for name in shown if name != "dead"]
        names = [*self.varied, *shown]
        return [_HEADERS.get(name, name) for name in names], [[_cell(row.get(name)) for name in names] for row in rows]

    def headline(self) -> str:
        """How many points, and what varies, in one line."""
        count = f"{len(self.rows):,} point{'s' * (len(self.rows) != 1)}"
        if self.failed:
            count += f", {len(self.failed):,} failed"
        axes = (
            f"{name} {', '.join(map(_cell, values)) if len(values) <= 4 else f'{_cell(values[0])} .. {_cell(values[-1])}'}"
            + f" ({len(values)})" * (len(values) > 4)
            for name, values in self.varied.items()
        )
        return "; ".join([count, *axes])

    def __repr__(self) -> str:
        """Return the headline and the first rows."""
        header, cells = self.table(_SHOWN)
        lines = [f"SweepResult: {self.headline()}"]
        if cells and header:
            widths = [max(map(cell_width, column)) for column in zip(header, *cells, strict=True)]
            for row in [header, *cells]:
                lines.append("  " + "  ".join(padded(c, w, right=True) for c, w in zip(row, widths, strict=True)))
        if len(self.rows) > _SHOWN:
            lines.append(f"  ... and {len(self.rows) - _SHOWN:,} more")
        return "\n".join(lines)

    def _repr_html_(self) -> str:
        header, cells = self.table(_SHOWN)
        head = "".join(f"<th>{html.escape(name)}</th>" for name in header)
        body = "".join("<tr>" + "".join(f"<td>{html.escape(c)}</td>" for c in row) + "</tr>" for row in cells)
        return f"<table><caption>{html.escape(self.headline())}</caption><tr>{head}</tr>{body}</table>"


def _group(parameters: Row, rows: list[Row]) -> Row:
    """Medians of the draws that did not fail, with their intervals."""
    good = [row for row in rows if row.get("error") is None]
    typical: Row = {"key": key_of(parameters), **parameters, "draws": len(good)}
    bounds = {f"{name}_{end}" for name in RATES for end in ("low", "high")}
    for name in dict.fromkeys(name for row in good for name in row):
        values = [row.get(name) for row in good]
        numbers = [value for value in values if isinstance(value, float | int)]
        if name in typical or name in PARAMETERS or name in bounds:
            continue
        if name == "dead":
            share = share_of_draws(sum(map(bool, numbers)), len(numbers))
            typical |= dict(zip(("death_probability", "death_low", "death_high"), share, strict=True))
        elif name in RATES:
            median = median_of_draws(np.array(numbers, dtype=np.float64))
            typical |= dict(zip((name, f"{name}_low", f"{name}_high"), median, strict=True))
        elif numbers:
            typical[name] = median_of_draws(np.array(numbers, dtype=np.float64))[0]
    return typical
