"""`FlushProfile`: what any format at any loss scale would make of a chain's tensors, from one reference run."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from gradkern._arguments import log2_of_scale
from gradkern._colours import FATE_COLOURS
from gradkern._result import Result, plain
from gradkern.bracket import Bracket
from gradkern.fit import FormatFit
from gradkern.formats import FormatLike, finfo
from gradkern.layer_row import GRADIENT_ROLES

if TYPE_CHECKING:
    import pandas
    from matplotlib.axes import Axes

    from gradkern.report import ChainReport

COUNTS = ("flushed", "subnormal", "kept", "overflow")  # by magnitude
_SHOWN = 12

Floats = NDArray[np.float64]


@dataclass(frozen=True, repr=False, eq=False)
class FlushProfile(Result):
    """Shares of each layer's entries that a format at a loss scale would flush, keep with fewer digits, keep, or overflow.

    It is the *round once* model: true values, times the scale, are cast once at the end, to nearest even. A chain that runs in
    the format rounds after every layer: what it flushed stays zero from there on (inherited), what it rounded carries errors on,
    and a subnormal may stall on its plateau. So a run loses what this says only to first order; `probe` says the rest.

    Attributes
    ----------
    format : str
    scale : float
        1.0 for forward roles, which carry none.
    role : str
    layers : list of int
    nonzero : list of int
        Entries that are not zero in real arithmetic, which the shares are of.
    fits : list of FormatFit
        Counts per layer, exact or in brackets (`gradkern.fit`).
    """

    format: str
    scale: float
    role: str
    layers: list[int]
    nonzero: list[int]
    fits: list[FormatFit] = field(repr=False)

    def counts(self, name: str) -> list[Bracket]:
        """Return the counts per layer of ``"flushed"``, ``"subnormal"``, ``"kept"`` or ``"overflow"``.

        Raises
        ------
        ValueError
            If there is no such count.
        """
        if name not in COUNTS:
            raise ValueError(f"FlushProfile: name must be one of {', '.join(COUNTS)}, got {name!r}")
        return [getattr(fit, name) for fit in self.fits]

    def share(self, name: str) -> tuple[Floats, Floats]:
        """Return the least and the greatest share per layer, 0 to 1; NaN where no entry is live.

        Raises
        ------
        ValueError
            If there is no such count.
        """
        size = np.array([n or math.nan for n in self.nonzero])
        brackets = self.counts(name)
        return np.array([b.low for b in brackets]) / size, np.array([b.high for b in brackets]) / size

    def to_dict(self) -> dict[str, Any]:
        """Return one object per layer, the counts as brackets."""
        lines = [
            {"layer": layer, "nonzero": nonzero, **{name: plain(getattr(fit, name)) for name in COUNTS}}
            for layer, nonzero, fit in zip(self.layers, self.nonzero, self.fits, strict=True)
        ]
        return {"format": self.format, "scale": self.scale, "role": self.role, "layers": lines}

    def to_frame(self) -> pandas.DataFrame:
        """Return one line per layer, least and greatest counts (pandas is loaded here)."""
        import pandas

        columns: dict[str, Any] = {"layer": self.layers, "nonzero": self.nonzero}
        for name in COUNTS:
            columns[f"{name}_low"] = [b.low for b in self.counts(name)]
            columns[f"{name}_high"] = [b.high for b in self.counts(name)]
        return pandas.DataFrame(columns)

    def plot(self, ax: Axes | None = None) -> Axes:
        """Draw the shares along the depth, brackets at their middle; matplotlib is loaded here."""
        from gradkern.plot import _figure

        ax = _figure().subplots() if ax is None else ax
        shares = [50 * np.nan_to_num(sum(self.share(name))) for name in COUNTS]
        edges = np.append(np.array(self.layers) - 0.5, self.layers[-1] + 0.5)
        ax.stackplot(
            edges, *(np.append(share, share[-1]) for share in shares), labels=COUNTS, step="post", lw=0,
            colors=[FATE_COLOURS[name] for name in COUNTS],
        )  # fmt: skip
        ax.set(ylim=(0, 100), xlim=(edges[0], edges[-1]), xlabel="layer", ylabel="non-zero entries [%]")
        ax.set_title(self._title(), fontsize=11, loc="left")
        handles, labels = ax.get_legend_handles_labels()
        ax.legend(handles[::-1], labels[::-1], loc="center left", bbox_to_anchor=(1.0, 0.5), frameon=False)
        return ax

    def _title(self) -> str:
        return f"{self.role} in {self.format} at scale 2^{int(math.log2(self.scale))}, rounded once"

    def _table(self) -> list[list[str]]:
        """Header and about a dozen layers, from the loss backwards."""
        last = len(self.layers) - 1
        shown = sorted({round(i * last / (_SHOWN - 1)) for i in range(_SHOWN)}, reverse=True)
        rows = [[self.layers[i], self.nonzero[i], *(self.counts(name)[i] for name in COUNTS)] for i in shown]
        return [
            ["layer", "nonzero", *COUNTS],
            *([f"{cell:,}" if isinstance(cell, int) else str(cell) for cell in row] for row in rows),
        ]

    def __repr__(self) -> str:
        rows = self._table()
        widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
        lines = ("  ".join(cell.rjust(width) for cell, width in zip(row, widths, strict=True)) for row in rows)
        return "\n  ".join([f"FlushProfile: {self._title()}", *lines])

    def _repr_html_(self) -> str:
        header, *rows = self._table()
        head = "".join(f"<th>{name}</th>" for name in header)
        body = "".join("<tr>" + "".join(f"<td>{cell}</td>" for cell in row) + "</tr>" for row in rows)
        return f"<table><caption>{self._title()}</caption><tr>{head}</tr>{body}</table>"


def profile(report: ChainReport, fmt: FormatLike | None, scale: float | None, role: str) -> FlushProfile:
    """Read the fits of a role off a report; see `ChainReport.flush_profile`."""
    if not report.has_reference:
        raise ValueError("flush_profile: needs the reference chain; run probe(..., reference=True)")
    factor = report.scale if scale is None else scale
    log2_of_scale(factor, "flush_profile")
    factor = float(factor) if role in GRADIENT_ROLES else 1.0
    rows = report.rows(role)
    name = finfo(fmt or report.arithmetic.storage).name
    references = [row.reference for row in rows if row.reference is not None]
    return FlushProfile(
        name, factor, role, [row.layer for row in rows], [r.nonzero for r in references],
        [r.fit(name, factor) for r in references],
    )  # fmt: skip
