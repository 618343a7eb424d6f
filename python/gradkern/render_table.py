"""Tables of tensors as text, rich tables and HTML: trouble first; words and columns, no arithmetic."""

from __future__ import annotations

import html
from collections.abc import Sequence
from typing import TYPE_CHECKING

from gradkern import _table_words as words
from gradkern._grid import Column, Line, lay_out, natural_width
from gradkern._text import printable, wrapped
from gradkern.table import FORMATS, StatsTable
from gradkern.trouble import TableTrouble, TensorTrouble, judge

if TYPE_CHECKING:
    from rich.console import Console

_WIDTH = 100  # of the text of a table; that of a terminal is its own


def _wrap(text: str, style: str, width: int) -> list[Line]:
    return [[(line, style)] for line in wrapped(text, width, "  " if width > 20 else "")]


def _format_lines(judged: TableTrouble, width: int) -> list[Line]:
    """Write the formats side by side, or one below the other where there is no room."""
    names, columns = [fmt.format for fmt in judged.formats], words.format_columns(judged)
    if natural_width(words.FORMATS_TITLE, names, columns) <= width:
        return lay_out(words.FORMATS_TITLE, names, columns, width)[0]
    lines: list[Line] = []
    for fmt in judged.formats:
        lines += [[(fmt.format, "bold")]]
        for text, style in words.format_sentences(fmt):
            lines += [[("  ", ""), *line] for line in _wrap(text, style, width - 2)]
    return lines


def _tensor_lines(judged: TableTrouble, shown: Sequence[TensorTrouble], table: StatsTable, width: int) -> list[Line]:
    columns = words.tensor_columns(judged, shown, table)
    lines, dropped = lay_out("tensor", [printable(tensor.name) for tensor in shown], columns, width)
    if dropped:
        lines += _wrap(f"left out at this width: {', '.join(dropped)}", "dim", width)
    return lines


def table_lines(
    table: StatsTable, judged: TableTrouble, width: int, *, top: int | None = None, everything: bool = False
) -> list[Line]:
    """Write a judged table in lines of at most so many columns of a terminal.

    Parameters
    ----------
    table : StatsTable
    judged : TableTrouble
        Of the same table.
    width : int
        From some 30 columns on nothing is cut but the middle of long names.
    top : int, optional
        How many tensors in trouble to show.
    everything : bool
        Show every tensor.

    Returns
    -------
    list of list of (str, str)
        Pieces of text and their styles.
    """
    lines = [*_wrap(words.opening(table, judged), "bold", width), *_format_lines(judged, width)]
    for text, style in words.remarks(table, judged):
        lines += _wrap(text, style, width)
    shown, rest = words.select(judged, top, everything)
    lines.append([("", "")])
    if shown:
        lines += _wrap(words.caption(judged, shown), "dim", width)
        lines += _tensor_lines(judged, shown, table, width)
    for text, style in words.verdict(judged, rest):
        lines += _wrap(text, style, width)
    return lines


def table_text(table: StatsTable) -> str:
    """Write a table as plain text: the formats, then the tensors in trouble."""
    if not table:
        return "StatsTable: no tensors"
    lines = table_lines(table, judge(table, FORMATS), _WIDTH)
    return "\n".join("".join(text for text, _ in line).rstrip() for line in lines)


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
    from rich.text import Text

    lines = table_lines(table, judged, console.width, top=top, everything=everything)
    if console.color_system is None:
        console.out("\n".join("".join(text for text, _ in line).rstrip() for line in lines), highlight=False)
        return
    console.print(Text("\n").join(Text.assemble(*line) for line in lines), soft_wrap=True)


def _grid(title: str, names: list[str], columns: list[Column]) -> str:
    """Write a table in HTML, with a line of groups where there are any."""

    def row(tag: str, values: list[str]) -> str:
        return "<tr>" + "".join(f"<{tag}>{html.escape(value)}</{tag}>" for value in values) + "</tr>"

    groups = [column.group for column in columns]
    first = [group if group != before else "" for group, before in zip(groups, ["", *groups[:-1]], strict=True)]
    rows = [row("th", ["", *first])] if any(groups) else []
    rows.append(row("th", [title, *(column.name for column in columns)]))
    rows += [row("td", [name, *(column.cells[index] for column in columns)]) for index, name in enumerate(names)]
    return f"<table>{''.join(rows)}</table>"


def table_html(table: StatsTable) -> str:
    """Write a table as HTML for a notebook."""
    if not table:
        return "<p>StatsTable: no tensors</p>"
    judged = judge(table, FORMATS)
    shown, rest = words.select(judged, None, False)
    formats = _grid(words.FORMATS_TITLE, [fmt.format for fmt in judged.formats], words.format_columns(judged))
    parts = [f"<p><strong>{html.escape(words.opening(table, judged))}</strong></p>", formats]
    parts += [f"<p>{html.escape(text)}</p>" for text, _ in words.remarks(table, judged)]
    if shown:
        names = [printable(tensor.name) for tensor in shown]
        parts.append(f"<p>{html.escape(words.caption(judged, shown))}</p>")
        parts.append(_grid("tensor", names, words.tensor_columns(judged, shown, table)))
    parts += [f"<p>{html.escape(text)}</p>" for text, _ in words.verdict(judged, rest)]
    return f"<div class='gradkern-table'>{''.join(parts)}</div>"
