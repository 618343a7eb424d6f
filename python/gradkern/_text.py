"""Text for terminals, whatever the names of tensors and files are: escaped, measured in cells, cut and wrapped."""

from __future__ import annotations

import textwrap
import unicodedata
from collections.abc import Sequence

_CUT = "..."


def printable(text: object) -> str:
    r"""Escape what is not printable: control characters, line ends, marks of direction, lone surrogates.

    A name can then neither move the cursor nor colour the terminal, and takes one line. Escaping twice changes nothing.

    Parameters
    ----------
    text : object
        Written by `str` first.

    Returns
    -------
    str

    Examples
    --------
    >>> printable("a\x1b[31m\nb")
    'a\\x1b[31m\\nb'
    """
    text = str(text)
    if text.isprintable():  # most of what there is
        return text
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in text)


def arrowed(sizes: Sequence[int]) -> str:
    """Write the sizes of a network from its input on; of more than six the first two and the last."""
    if len(sizes) <= 6:
        return " -> ".join(map(str, sizes))
    return f"{sizes[0]} -> {sizes[1]} -> ... -> {sizes[-1]}"


def cell_width(text: str) -> int:
    """Columns of a terminal that a text takes: two for a wide character, none for a combining one."""
    if text.isascii():
        return len(text)
    return sum(_cells_of(character) for character in text)


def _cells_of(character: str) -> int:
    if unicodedata.category(character) in ("Mn", "Me"):
        return 0
    return 2 if unicodedata.east_asian_width(character) in "WF" else 1


def head(text: str, width: int) -> str:
    """Return the longest beginning that takes at most so many columns."""
    taken = 0
    for index, character in enumerate(text):
        taken += _cells_of(character)
        if taken > width:
            return text[:index]
    return text


def elided(text: str, width: int, front: float = 1 / 3) -> str:
    """Cut the middle out of a text that takes more columns; a fraction of what is left stands in front of the cut."""
    if cell_width(text) <= width:
        return text
    if width <= len(_CUT) + 1:
        return head(text, width)
    first = head(text, round((width - len(_CUT)) * front))
    return first + _CUT + head(text[::-1], width - len(_CUT) - cell_width(first))[::-1]


def elided_names(names: Sequence[str], width: int) -> list[str]:
    """Cut the middle out of names, all at the place that keeps the most of them apart."""
    found: list[str] = []
    for front in (1 / 3, 1 / 2, 2 / 3, 5 / 6, 1 / 6, 1.0):
        cut = [elided(name, width, front) for name in names]
        if not found or len(set(cut)) > len(set(found)):
            found = cut
        if len(set(found)) == len(names):
            break
    return found


def padded(text: str, width: int, *, right: bool = False) -> str:
    """Fill a text with spaces up to so many columns, at its left if it is to stand right."""
    blank = " " * (width - cell_width(text))
    return blank + text if right else text + blank


def wrapped(text: str, width: int, indent: str = "") -> list[str]:
    """Break a text between words, and long words anywhere, into lines of at most so many columns.

    Parameters
    ----------
    text : str
    width : int
    indent : str
        Put before every line but the first.

    Returns
    -------
    list of str
    """
    if text.isascii():
        return textwrap.wrap(text, width, subsequent_indent=indent, break_on_hyphens=False)
    lines, line = [], ""
    for word in text.split():
        joined = f"{line} {word}" if line.strip() else line + word
        if cell_width(joined) <= width:
            line = joined
            continue
        if line.strip():
            lines.append(line)
        line = indent + word if lines else word
        while cell_width(line) > width and head(line, width).strip():
            lines.append(head(line, width))
            line = indent + line[len(lines[-1]) :]
    return [*lines, line] if line.strip() else lines
