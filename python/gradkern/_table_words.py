"""What a judged table says, in sentences and cells, without a place to print them."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence

from gradkern._grid import Column
from gradkern._judged import HURTS
from gradkern._text import printable
from gradkern.fit import Bracket
from gradkern.joint_window import listed, nonfinite_sentence
from gradkern.render import power, scales
from gradkern.table import StatsTable
from gradkern.trouble import FormatTrouble, TableTrouble, TensorTrouble

FORMATS_TITLE = "tensors that"
_SHOWN = 20
_SHORT = {"float8_e4m3fn": "e4m3fn", "float8_e5m2": "e5m2"}
_HEADS = {"overflow": "ovf", "flushed": "flush", "subnormal": "sub"}
_VERBS = {"overflow": "overflow", "flushed": "flush", "subnormal": "lose digits"}
_COLOURS = {"overflow": "bold red", "flushed": "red", "subnormal": "yellow"}

Sentence = tuple[str, str]  # text and style


def share(count: int, size: int) -> str:
    """Write a share in per cent in at most three characters; ``.`` is none at all, and 100 is all of them."""
    if count == 0:
        return "."
    if count == size:
        return "100"
    value = 100 * count / size
    return "<.1" if value < 0.05 else ">99" if value > 99.4 else f"{value:.1f}" if value < 9.95 else f"{value:.0f}"


def shares(count: Bracket, size: int) -> str:
    """Write the share of a count as `share` does, or as ``low-high`` where the two ends read differently."""
    low, high = share(count.low, size), share(count.high, size)
    return low if low == high else f"{'0' if count.low == 0 else low}-{high}"


def amount(value: int) -> str:
    """Write a number of entries in at most five characters."""
    for unit, letter in ((10**12, "T"), (10**9, "G"), (10**6, "M"), (10**3, "k")):
        if value >= unit:
            return f"{value / unit:.3g}{letter}" if value < 999.5 * unit else f"{value / unit:.0f}{letter}"
    return str(value)


def magnitudes(tensor: TensorTrouble) -> str:
    """Write log2 of the smallest and the largest non-zero magnitude, or why there is none."""
    stats = tensor.stats
    if not stats.size:
        return "empty"
    if not stats.nonzero:
        return "all zero" if stats.zero == stats.size else "no finite" if not stats.zero else "zero, NaN/inf"
    low = math.floor(math.log2(stats.amin) + stats.exponent) if stats.amin > 0 else -math.inf
    return f"{low:.0f}..{math.floor(stats.log2_amax):.0f}"


def best(fmt: FormatTrouble) -> str:
    """Write the best scale of a format."""
    return "any" if scales(fmt.window) == "any" else power(fmt.best)


def opening(table: StatsTable, judged: TableTrouble) -> str:
    """Say what was measured, in one line."""
    entries = sum(stats.size for stats in table.values())
    kinds = Counter(stats.dtype for stats in table.values())
    dtypes = next(iter(kinds)) if len(kinds) == 1 else ", ".join(f"{n} {dtype}" for dtype, n in kinds.most_common())
    tensors = f"{len(table):,} tensor{'s' * (len(table) != 1)}, {entries:,} entries, {dtypes}"
    return f"{tensors}; cast at scale {power(judged.scale)}"


def _blank_sentence(names: list[str], total: int) -> str:
    have = "has" if len(names) == 1 else "have"
    return f"{len(names):,} of {total:,} tensor{'s' * (total != 1)} {have} no finite non-zero entry: {listed(names)}"


def remarks(table: StatsTable, judged: TableTrouble) -> list[Sentence]:
    """Sentences beneath the formats: NaN, formats without a scale, tensors without numbers, what was skipped."""
    lines = []
    broken = nonfinite_sentence(judged.nonfinite, len(table)) if judged.nonfinite else ""
    if broken:
        lines.append((broken, "bold red"))
    for fmt in judged.formats:
        if not fmt.window.exists:
            lines.append((fmt.window.why.removesuffix(f"; {broken}"), "yellow"))  # said once for all formats
    if judged.blank:
        lines.append((_blank_sentence(judged.blank, len(table)), "dim"))
    if table.skipped:
        reasons = Counter(table.skipped.values()).most_common()
        words = [f"{n} {why}" if len(reasons) > 1 else why for why, n in reasons[:4]]
        lines.append((f"skipped {len(table.skipped)}: {'; '.join(words)}", "dim"))
    return [(printable(text), style) for text, style in lines]


def _tally(count: Bracket) -> str:
    return str(count) if count.high else "."


def format_columns(judged: TableTrouble) -> list[Column]:
    """Columns of the formats: tensors in trouble, and the scales that serve all."""
    columns = []
    for count in HURTS:
        found = [getattr(fmt, count) for fmt in judged.formats]
        styles = [_COLOURS[count] if bracket.low else "yellow" if bracket.high else "dim" for bracket in found]
        columns.append(Column("", _VERBS[count], [_tally(bracket) for bracket in found], styles))
    plain = [""] * len(judged.formats)
    windows = ["green" if fmt.window.exists else "yellow" for fmt in judged.formats]
    return [
        *columns,
        Column("", "scales for all", [scales(fmt.window) for fmt in judged.formats], windows),
        Column("", "best", [best(fmt) for fmt in judged.formats], ["bold"] * len(plain)),
        Column("", "serves", [f"{fmt.served:,}" for fmt in judged.formats], plain),
    ]


def format_sentences(fmt: FormatTrouble) -> list[Sentence]:
    """Say of one format what its row says, where there is no room for rows."""
    found = [(_VERBS[count], _COLOURS[count], getattr(fmt, count)) for count in HURTS]
    counts = [(f"{bracket} {verb}", colour) for verb, colour, bracket in found if bracket.high]
    text = ", ".join(count for count, _ in counts) or "no tensor in trouble"
    window = f"scales for all: {scales(fmt.window)}; best: {best(fmt)}, serves {fmt.served:,}"
    return [(text, counts[0][1] if counts else "green"), (window, "" if fmt.window.exists else "yellow")]


def tensor_columns(judged: TableTrouble, shown: Sequence[TensorTrouble], table: StatsTable) -> list[Column]:
    """Columns of the table of tensors; those in which nothing happens are left out."""
    plain = [""] * len(shown)
    columns = [Column("", "size", [amount(tensor.stats.size) for tensor in shown], plain, 1)]
    if len({stats.dtype for stats in table.values()}) > 1:
        columns.append(Column("", "dtype", [t.stats.dtype.removeprefix("float8_") for t in shown], plain, 0))
    columns.append(Column("", "log2|x|", [magnitudes(tensor) for tensor in shown], plain, 2))
    broken = [share(tensor.stats.nonfinite, tensor.stats.size) for tensor in shown]
    columns.append(Column("", "NaN/inf", broken, ["bold red" if cell != "." else "dim" for cell in broken]))
    for fmt in (fmt.format for fmt in judged.formats):
        for count, name in _HEADS.items():
            cells = [shares(getattr(t.fits[fmt], count), t.stats.nonzero) for t in shown]
            styles = [_COLOURS[count] if tensor.hurts(count, fmt) else "dim" for tensor in shown]
            columns.append(Column(_SHORT.get(fmt, fmt), name, cells, styles))
    return [column for column in columns if column.name in ("size", "dtype", "log2|x|") or set(column.cells) != {"."}]


def select(judged: TableTrouble, top: int | None, everything: bool) -> tuple[list[TensorTrouble], str]:
    """Tensors to show, and a sentence on those that are not."""
    if everything:
        return list(judged.tensors), ""
    troubled, healthy = judged.tensors.divided()
    shown = list(troubled[: _SHOWN if top is None else top])
    words = [f"{len(troubled) - len(shown):,} more in trouble"] if len(troubled) > len(shown) else []
    if healthy:
        words.append(f"{len(healthy):,} healthy tensor{'s' * (len(healthy) != 1)} ({amount(healthy.entries)} entries)")
    return shown, f"not shown: {' and '.join(words)}" if words else ""


def _ranges(judged: TableTrouble, shown: Sequence[TensorTrouble]) -> bool:
    fits = (fit for tensor in shown for fit in tensor.fits.values())
    return any(not getattr(fit, count).exact for fit in fits for count in HURTS)


def caption(judged: TableTrouble, shown: Sequence[TensorTrouble]) -> str:
    """Say what the columns of tensors hold."""
    text = (
        f"% of the non-zero entries that overflow, flush to zero or lose digits (subnormal) at scale "
        f"{power(judged.scale)}; trouble is any overflow, or more than {100 * judged.lose:g} % of the others"
    )
    return f"{text}; a-b: between a and b, judged by a" if _ranges(judged, shown) else text


def verdict(judged: TableTrouble, rest: str) -> list[Sentence]:
    """Say that all is well, where it is, and what is not shown."""
    lines = []
    if len(judged.blank) == len(judged.tensors) and judged.severity is None:
        lines.append(("nothing to cast: no finite non-zero entry", "yellow"))
    elif judged.tensors.suspicion is None:
        lines.append(("healthy: every format here holds every tensor", "bold green"))
    elif judged.severity is None:
        lines.append(("no tensor is in trouble for certain: the counts are ranges that begin below it", "yellow"))
    return [*lines, *([(rest, "dim")] if rest else [])]
