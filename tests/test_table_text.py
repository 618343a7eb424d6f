"""Tables in narrow places and with hostile names: no line too long, nothing but text reaches the terminal."""

from __future__ import annotations

import io
import re

import numpy as np
import pytest
from conftest import NAN

import gradkern as gk
from gradkern._grid import Column, lay_out
from gradkern._text import cell_width, elided, elided_names, padded, printable, wrapped
from gradkern.render_table import render_table, table_lines
from gradkern.trouble import judge

NARROW = ("float16", "bfloat16", "float8_e4m3fn", "float8_e5m2")
HOSTILE = (
    "a\x1b[31mred\x1b]0;title\x07", "two\nlines", "tab\there", "[red]markup[/red]", ":smile:", "back\\slash",
    "\u202eturned", "zero\u200bwidth", "\u65e5\u672c\u8a9e.weight", "e\u0301combined", "\ud800lone", "",
)  # fmt: skip


def hurt_table():
    rng = np.random.default_rng(0)
    arrays = {
        f"encoder.layer.{i}.attention.self.query.weight": rng.standard_normal(50) * 2.0 ** (6 * i - 40)
        for i in range(12)
    }
    arrays["broken"] = np.array([NAN, 1.0])
    return gk.measure_many(arrays)


def text_at(table, width, **options):
    return ["".join(text for text, _ in line) for line in table_lines(table, judge(table, NARROW), width, **options)]


@pytest.mark.parametrize("width", [30, 40, 50, 60, 80, 100, 160])
def test_no_line_is_wider_than_the_terminal(width):
    lines = text_at(hurt_table(), width, everything=True)
    assert max(map(cell_width, lines)) <= width
    text = " ".join(" ".join(lines).split())
    for fmt in NARROW:
        assert fmt in text
    for word in ("flush", "sub", "NaN/inf", "scales for all", "best", "serves", "holds NaN or inf"):
        assert word in text, f"{word} at {width}"
    assert len(re.findall(r"^enc", "\n".join(lines), re.MULTILINE)) % 12 == 0, "every tensor in every block"


def test_what_goes_first_where_there_is_no_room():
    table = gk.measure_many({"a" * 30: np.array([1e6, 1.0]), "b": np.ones(2, np.float32)})
    judged = judge(table, ["float16"])

    def text(width):
        return "\n".join("".join(t for t, _ in line) for line in table_lines(table, judged, width, everything=True))

    assert "left out" not in text(100) and "dtype" in text(100) and "a" * 30 in text(100)
    assert "left out at this width: dtype\n" in text(41) + "\n"
    assert "left out at this width: dtype, size\n" in text(35) + "\n" and "log2|x|" in text(35)
    assert "ovf" in text(20) and "aaa...aaaaa" in text(20)


def test_columns_fold_and_names_stay_apart():
    columns = [Column(f"g{i}", f"c{i}", [f"{i}"] * 3, [""] * 3) for i in range(8)]
    names = [f"layers.{i}.attention.weight" for i in range(3)]
    lines, dropped = lay_out("tensor", names, columns, 30)
    rows = ["".join(text for text, _ in line) for line in lines]
    assert dropped == [] and rows.count("") == 2, "three blocks"
    shown = [row.split()[0] for row in rows if row.startswith("lay")]
    assert len(shown) == 9 and len(set(shown)) == 3, "the digit that tells them apart is not cut out"
    assert max(map(len, rows)) <= 30 and " ".join(rows).count("c7") == 1


@pytest.mark.parametrize("name", HOSTILE)
def test_names_are_only_text(name):
    table = gk.measure_many({name: np.array([1e6, 2.0**-40]), "fine": np.array([NAN])})
    from rich.console import Console

    stream = io.StringIO()
    console = Console(file=stream, width=100, force_terminal=True, color_system=None, highlight=False)
    render_table(table, judge(table, NARROW), console)
    for text in (stream.getvalue(), repr(table), repr(table.fit("float16")), repr(table[name]), table._repr_html_()):
        assert all(c.isprintable() or c == "\n" for c in text), repr(text)
        assert printable(name) in text
    assert table[name].size == 2


def test_colours_change_no_text():
    from rich.console import Console

    table, printed = hurt_table(), []
    for colours in ("truecolor", None):
        stream = io.StringIO()
        console = Console(file=stream, width=72, force_terminal=True, color_system=colours, highlight=False)
        render_table(table, judge(table, NARROW), console)
        printed.append(stream.getvalue())
    assert "\x1b[1;31m" in printed[0] and "\x1b" not in printed[1]
    lines = [[line.rstrip() for line in re.sub(r"\x1b\[[\d;]*m", "", text).splitlines()] for text in printed]
    assert lines[0] == lines[1]


def test_escapes_in_what_was_skipped_and_not_found():
    table = gk.measure_many({"w\x1b[2J": np.ones(1), "s": "text"})
    with pytest.raises(KeyError) as caught:
        table["w\x1b[2K"]
    assert "\x1b" not in caught.value.args[0]
    table = gk.StatsTable(dict(table), {"x": "why\x1b[31m"})
    assert "\x1b" not in repr(table) and "why\\x1b[31m" in repr(table)


def test_printable():
    assert printable("plain name[0] $x$") == "plain name[0] $x$"
    assert printable("\x00\x1b\x7f\x9b\n\u2028\ud800") == r"\x00\x1b\x7f\x9b\n\u2028\ud800"
    for name in HOSTILE:
        assert printable(name).isprintable() and printable(printable(name)) == printable(name)


def test_widths():
    wide = "\u65e5\u672c\u8a9e" * 4
    assert (cell_width("abc"), cell_width(wide), cell_width("e\u0301")) == (3, 24, 1)
    for text in (wide, "abcdefghijklmnop", "e\u0301" * 20, ""):
        for width in range(1, 30):
            assert cell_width(elided(text, width)) <= width
            assert (
                cell_width(padded(elided(text, width), 30))
                == cell_width(padded(elided(text, width), 30, right=True))
                == 30
            )
    assert elided("abcdefghijkl", 9) == "ab...ijkl" and elided("abc", 3) == "abc"
    assert elided_names(["x.1.weight.long", "x.2.weight.long"], 10) == ["x.1....ong", "x.2....ong"]


WIDE = "\u65e5\u672c\u8a9e"


@pytest.mark.parametrize("text", [f"some words of {WIDE} and {WIDE}" * 3, WIDE * 13, "plain words " * 9, "x" * 90])
def test_wrapped(text):
    for width in (5, 11, 40):
        lines = wrapped(text, width, "  ")
        assert max(map(cell_width, lines)) <= width
        assert "".join("".join(lines).split()) == "".join(text.split()), "nothing is lost"
