"""Columns of text laid out within a width: what matters least goes first, then the columns fold, and names lose their middle."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby

from gradkern._text import cell_width, elided, elided_names, padded

Segment = tuple[str, str]  # text and style
Line = list[Segment]

ALWAYS = 9
_NAME = 16  # columns that names keep at least
_GAP, _GROUP_GAP = 1, 2


@dataclass(frozen=True)
class Column:
    """One column, right-justified.

    Attributes
    ----------
    group : str
        Written once above neighbours of the same group; empty for none.
    name : str
        Header.
    cells, styles : list of str
        One per row.
    keep : int
        The columns with the least go first where there is no room; `ALWAYS` never does.
    """

    group: str
    name: str
    cells: list[str]
    styles: list[str]
    keep: int = ALWAYS

    @property
    def width(self) -> int:
        """Columns of the terminal that it takes."""
        return max(map(cell_width, [self.name, *self.cells]))


def _spread(columns: Sequence[Column]) -> tuple[list[int], list[int]]:
    """Widths of columns, widened where a group's name needs it, and the gaps before them."""
    widths = [column.width for column in columns]
    gaps = [
        _GROUP_GAP if i == 0 or column.group != columns[i - 1].group or not column.group else _GAP
        for i, column in enumerate(columns)
    ]
    for group, members in groupby(range(len(columns)), key=lambda i: columns[i].group):
        block = list(members)
        taken = sum(widths[i] for i in block) + sum(gaps[i] for i in block[1:])
        widths[block[0]] += max(cell_width(group) - taken, 0)
    return widths, gaps


def _taken(columns: Sequence[Column]) -> int:
    widths, gaps = _spread(columns)
    return sum(widths) + sum(gaps)


def natural_width(title: str, names: Sequence[str], columns: Sequence[Column]) -> int:
    """Columns of the terminal that the whole table takes."""
    return max(map(cell_width, [title, *names])) + _taken(columns)


def _heads(columns: Sequence[Column], widths: Sequence[int], gaps: Sequence[int]) -> str:
    """Write the line of the groups' names, each in the middle above its columns."""
    text = ""
    for group, members in groupby(range(len(columns)), key=lambda i: columns[i].group):
        block = list(members)
        room = sum(widths[i] for i in block) + sum(gaps[i] for i in block[1:])
        text += " " * gaps[block[0]] + group.center(room)
    return text


def _block(title: str, names: Sequence[str], columns: Sequence[Column], name_width: int) -> list[Line]:
    widths, gaps = _spread(columns)
    lines: list[Line] = []
    groups = _heads(columns, widths, gaps).rstrip()
    if groups:
        lines.append([(" " * name_width + groups, "dim")])
    header = [padded(c.name, gap + w, right=True) for c, w, gap in zip(columns, widths, gaps, strict=True)]
    lines.append([(padded(elided(title, name_width), name_width) + "".join(header), "dim")])
    for row, name in enumerate(elided_names(names, name_width)):
        line = [(padded(name, name_width), "")]
        for column, width, gap in zip(columns, widths, gaps, strict=True):
            line.append((padded(column.cells[row], gap + width, right=True), column.styles[row]))
        lines.append(line)
    return lines


def _folded(columns: Sequence[Column], room: int) -> list[list[Column]]:
    """Divide columns into as few runs as fit; one column at least."""
    blocks: list[list[Column]] = []
    for column in columns:
        if blocks and _taken([*blocks[-1], column]) <= room:
            blocks[-1].append(column)
        else:
            blocks.append([column])
    return blocks


def lay_out(title: str, names: Sequence[str], columns: Sequence[Column], width: int) -> tuple[list[Line], list[str]]:
    """Write a table of at most so many columns of the terminal.

    Parameters
    ----------
    title : str
        Above the names.
    names : sequence of str
        One per row; where they are too long, their middle goes.
    columns : sequence of Column
    width : int

    Returns
    -------
    lines : list of Line
        Where the columns do not fit beside each other they come in several blocks, each with the names.
    dropped : list of str
        Names of the columns that were left out.
    """
    longest = max(map(cell_width, [title, *names]))
    least = min(longest, _NAME)
    shown, dropped = list(columns), []
    while _taken(shown) + least > width and any(column.keep < ALWAYS for column in shown):
        goes = min(shown, key=lambda column: column.keep)
        shown.remove(goes)
        dropped.append(goes.name)
    lines: list[Line] = []
    blocks = _folded(shown, width - least)
    name_width = max(min(longest, width - max(map(_taken, blocks))), 1)
    for block in blocks:
        lines += [*([[("", "")]] if lines else []), *_block(title, names, block, name_width)]
    return lines, dropped
