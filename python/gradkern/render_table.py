"""Tables of tensors as text, rich tables and HTML: trouble first; words and columns, no arithmetic."""

from __future__ import annotations

import html
import math
import textwrap
from collections import Counter
from typing import TYPE_CHECKING

from gradkern.joint_window import nonfinite_sentence
from gradkern.render import power
from gradkern.table import FORMATS, StatsTable
from gradkern.trouble import FormatTrouble, TableTrouble, TensorTrouble, judge

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table as RichTable

_SHOWN, _WIDTH = 20, 100
_SHORT = {"float8_e4m3fn": "e4m3fn", "float8_e5m2": "e5m2"}
_COUNTS = {"overflow": "ovf", "flushed": "flush", "subnormal": "sub"}
_COLOURS = {"overflow": "bold red", "flushed": "red", "subnormal": "yellow"}

Column = tuple[str, str, list[str], list[str]]  # group, name, cells, styles


def share(count: int, size: int) -> str:
    """Write a share in per cent in at most three characters; ``.`` is none at all, and 100 is all of them."""
    if count == 0:
        return "."
    if count == size:
        return "100"
    value = 100 * count / size
    return "<.1" if value < 0.05 else ">99" if value > 99.4 else f"{value:.1f}" if value < 9.95 else f"{value:.0f}"


def amount(value: int) -> str:
    """Write a number of entries in at most five characters."""
    for unit, letter in ((10**12, "T"), (10**9, "G"), (10**6, "M"), (10**3, "k")):
        if value >= unit:
            return f"{value / unit:.3g}{letter}" if value < 999.5 * unit else f"{value / unit:.0f}{letter}"
    return str(value)


def magnitudes(tensor: TensorTrouble) -> str:
    """Write log2 of the smallest and the largest non-zero magnitude."""
    stats = tensor.stats
    if not stats.nonzero:
        return "all zero" if stats.zero else "empty" if not stats.size else "-"
    low = math.floor(math.log2(stats.amin) + stats.exponent) if stats.amin > 0 else -math.inf
    return f"{low:.0f}..{math.floor(stats.log2_amax):.0f}"


def opening(table: StatsTable, judged: TableTrouble) -> str:
    """Say what was measured, in one line."""
    entries = sum(stats.size for stats in table.values())
    kinds = Counter(stats.dtype for stats in table.values())
    dtypes = next(iter(kinds)) if len(kinds) == 1 else ", ".join(f"{n} {dtype}" for dtype, n in kinds.most_common())
    tensors = f"{len(table):,} tensor{'s' * (len(table) != 1)}, {entries:,} entries, {dtypes}"
    return f"{tensors}; cast at scale {power(judged.scale)}"


def remarks(table: StatsTable, judged: TableTrouble) -> list[tuple[str, str]]:
    """Sentences beneath the formats, each with the colour it deserves: NaN, formats without a scale, what was skipped."""
    lines = []
    broken = nonfinite_sentence(judged.nonfinite, len(table)) if judged.nonfinite else ""
    if broken:
        lines.append((broken, "bold red"))
    for fmt in judged.formats:
        if not fmt.window.exists:
            lines.append((fmt.window.why.removesuffix(f"; {broken}"), "yellow"))  # said once for all formats
    if table.skipped:
        reasons = Counter(table.skipped.values()).most_common()
        words = [f"{n} {why}" if len(reasons) > 1 else why for why, n in reasons[:4]]
        lines.append((f"skipped {len(table.skipped)}: {'; '.join(words)}", "dim"))
    return lines


def format_rows(judged: TableTrouble) -> list[list[str]]:
    """Header and one row per format: tensors in trouble, and the scales that serve all."""

    def cells(fmt: FormatTrouble) -> list[str]:
        counts = [f"{n:,}" if n else "." for n in (fmt.overflow, fmt.flushed, fmt.subnormal)]
        window = fmt.window
        if not window.exists:
            return [fmt.format, *counts, "none", power(fmt.best), f"{fmt.served:,}"]
        if window.log2_low is None or window.best is None:
            return [fmt.format, *counts, "any", "any", f"{fmt.served:,}"]
        scales = f"2^{window.log2_low}..2^{window.log2_high}"
        return [fmt.format, *counts, scales, power(window.best), f"{fmt.served:,}"]

    header = ["tensors that", "overflow", "flush", "lose digits", "scales for all", "best", "serves"]
    return [header, *map(cells, judged.formats)]


def tensor_columns(judged: TableTrouble, shown: list[TensorTrouble]) -> list[Column]:
    """Columns of the table of tensors; those in which nothing happens are left out."""
    plain = [""] * len(shown)
    columns: list[Column] = [("", "size", [amount(tensor.stats.size) for tensor in shown], plain)]
    if len({tensor.stats.dtype for tensor in judged.tensors}) > 1:
        columns.append(("", "dtype", [tensor.stats.dtype.removeprefix("float8_") for tensor in shown], plain))
    columns.append(("", "log2|x|", [magnitudes(tensor) for tensor in shown], plain))
    broken = [share(tensor.stats.nonfinite, tensor.stats.size) for tensor in shown]
    columns.append(("", "NaN/inf", broken, ["bold red" if cell != "." else "dim" for cell in broken]))
    for fmt in (fmt.format for fmt in judged.formats):
        for count, name in _COUNTS.items():
            cells = [share(getattr(t.fits[fmt], count).high, t.stats.nonzero) for t in shown]
            hurts = {"overflow": TensorTrouble.overflows, "flushed": TensorTrouble.flushes}
            hurt = [hurts.get(count, TensorTrouble.loses_digits)(tensor, fmt) for tensor in shown]
            styles = [_COLOURS[count] if bad else "dim" for bad in hurt]
            columns.append((_SHORT.get(fmt, fmt), name, cells, styles))
    return [column for column in columns if column[1] in ("size", "dtype", "log2|x|") or set(column[2]) != {"."}]


def select(judged: TableTrouble, top: int | None, everything: bool) -> tuple[list[TensorTrouble], str]:
    """Tensors to show, and a sentence on those that are not."""
    if everything:
        return judged.tensors, ""
    troubled = judged.troubled
    shown = troubled[: _SHOWN if top is None else top]
    healthy = len(judged.tensors) - len(troubled)
    words = [f"{len(troubled) - len(shown)} more in trouble"] if len(troubled) > len(shown) else []
    entries = amount(sum(tensor.stats.size for tensor in judged.tensors if tensor.severity is None))
    words += [f"{healthy:,} healthy tensor{'s' * (healthy != 1)} ({entries} entries)"] if healthy else []
    return shown, f"not shown: {' and '.join(words)}" if words else ""


def caption(judged: TableTrouble) -> str:
    """Say what the columns of tensors hold."""
    return (
        f"% of the non-zero entries that overflow, flush to zero or lose digits (subnormal) at scale "
        f"{power(judged.scale)}; trouble is any overflow, or more than {100 * judged.lose:g} % of the others"
    )


def _plain_rows(columns: list[Column], names: list[str]) -> list[list[str]]:
    groups, heads, cells, _ = zip(*columns, strict=True)
    first = [group if group != before else "" for group, before in zip(groups, ["", *groups[:-1]], strict=True)]
    body = zip(*cells, strict=True)
    return [["", *first], ["tensor", *heads], *([name, *row] for name, row in zip(names, body, strict=True))]


def _aligned(rows: list[list[str]]) -> list[str]:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return [
        "  ".join(
            c.ljust(w) if i == 0 else c.rjust(w) for i, (c, w) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    ]


def table_text(table: StatsTable) -> str:
    """Write a table as plain text: the formats, then the tensors in trouble."""
    if not table:
        return "StatsTable: no tensors"
    judged = judge(table, FORMATS)
    lines = [opening(table, judged), "", *_aligned(format_rows(judged))]
    for text, _ in remarks(table, judged):
        lines += textwrap.wrap(text, _WIDTH, subsequent_indent="  ")
    shown, rest = select(judged, None, False)
    if shown:
        rows = _plain_rows(tensor_columns(judged, shown), [tensor.name for tensor in shown])
        lines += ["", *textwrap.wrap(caption(judged), _WIDTH), *_aligned(rows)]
    return "\n".join([*lines, *([rest] if rest else [])])


def table_html(table: StatsTable) -> str:
    """Write a table as HTML for a notebook."""

    def grid(rows: list[list[str]], heads: int) -> str:
        lines = []
        for index, row in enumerate(rows):
            tag = "th" if index < heads else "td"
            lines.append("<tr>" + "".join(f"<{tag}>{html.escape(cell)}</{tag}>" for cell in row) + "</tr>")
        return f"<table>{''.join(lines)}</table>"

    if not table:
        return "<p>StatsTable: no tensors</p>"
    judged = judge(table, FORMATS)
    shown, rest = select(judged, None, False)
    parts = [f"<p><strong>{html.escape(opening(table, judged))}</strong></p>", grid(format_rows(judged), 1)]
    parts += [f"<p>{html.escape(text)}</p>" for text, _ in remarks(table, judged)]
    if shown:
        rows = _plain_rows(tensor_columns(judged, shown), [tensor.name for tensor in shown])
        parts += [f"<p>{html.escape(caption(judged))}</p>", grid(rows, 2)]
    return f"<div class='gradkern-table'>{''.join(parts)}<p>{html.escape(rest)}</p></div>"


def _tensor_table(columns: list[Column], names: list[str]) -> RichTable:
    from rich.table import Table as RichTable
    from rich.text import Text

    grid = RichTable(box=None, padding=(0, 1, 0, 0), header_style="dim")
    grid.add_column("\ntensor", overflow="fold", ratio=None)
    before = ""
    for group, name, _, _ in columns:
        grid.add_column(f"{group if group != before else ''}\n{name}", justify="right", no_wrap=True)
        before = group
    for index, name in enumerate(names):
        row = [Text(cells[index], style=styles[index]) for _, _, cells, styles in columns]
        grid.add_row(Text(name), *row)
    return grid


def render_table(
    table: StatsTable, judged: TableTrouble, console: Console, *, top: int | None = None, everything: bool = False
) -> None:
    """Print a judged table with colour: the formats first, then the tensors.

    Parameters
    ----------
    table : StatsTable
    judged : TableTrouble
        Of the same table.
    console : rich.console.Console
        Where to print.
    top : int, optional
        How many tensors in trouble to show.
    everything : bool
        Show every tensor.
    """
    from rich.table import Table as RichTable
    from rich.text import Text

    console.print(Text(opening(table, judged), style="bold"))
    header, *rows = format_rows(judged)
    grid = RichTable(box=None, padding=(0, 2, 0, 0), header_style="dim")
    for index, name in enumerate(header):
        grid.add_column(name, justify="right" if index else "left", overflow="fold")
    for row in rows:
        styles = ["", *_COLOURS.values(), "yellow" if row[4] == "none" else "green", "bold", ""]
        grid.add_row(*(Text(c, style="dim" if c == "." else style) for c, style in zip(row, styles, strict=True)))
    console.print(grid)
    for text, style in remarks(table, judged):
        console.print(Text(text, style=style))
    shown, rest = select(judged, top, everything)
    console.print()
    if shown:
        console.print(Text(caption(judged), style="dim"))
        console.print(_tensor_table(tensor_columns(judged, shown), [tensor.name for tensor in shown]))
    if judged.severity is None:
        console.print(Text("healthy: every format here holds every tensor", style="bold green"))
    if rest:
        console.print(Text(rest, style="dim"))
