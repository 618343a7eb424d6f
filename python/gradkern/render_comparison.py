"""Comparisons as text, rich tables and HTML: words and columns, no arithmetic."""

from __future__ import annotations

import html
import math
import textwrap
from collections.abc import Sequence
from typing import TYPE_CHECKING

from gradkern.comparison_findings import name_of, surely_biased
from gradkern.findings import SEVERITIES, Finding
from gradkern.render import _COLOURS, _WIDTH, Table, _finding_lines, number, percent, power

if TYPE_CHECKING:
    from rich.console import Console

    from gradkern.compared_pair import ComparedPair
    from gradkern.compared_tensor import ComparedTensor
    from gradkern.comparison import Comparison

_SHOWN = 6  # tensors of a pair, the worst first
_RUNS = ["run", "loss", "equal %", "max ulp", "difference", "error"]
_TENSORS = ["tensor", "equal %", "median", "99 %", "max", "differ", "error", "bias %", "lean %", "0", "NaN/inf"]
_ONE_SIDED = ("0", "NaN/inf")


def headline(found: Comparison) -> str:
    """Network, loss scale and reference run in one line."""
    return (
        f"{found.network}, batch {found.batch}, loss {found.loss_name}, loss scale {power(found.scale)}; "
        f"reference run: {found.reference}"
    )


def worst_first(pairs: Sequence[ComparedPair]) -> list[ComparedPair]:
    """Order pairs by their most severe finding; those without one come last."""
    return sorted(pairs, key=lambda p: SEVERITIES.index(p.findings[0].severity) if p.findings else len(SEVERITIES))


def trouble_first(pair: ComparedPair) -> list[ComparedTensor]:
    """Order tensors: NaN or infinite on one side, then biased, then by the size of the difference; equal ones are left out."""

    def key(t: ComparedTensor) -> tuple[float, bool, float]:
        biased = surely_biased(pair, t, 1) != surely_biased(pair, t, 0)
        return -sum(t.nonfinite_only) / t.size, not biased, -t.difference if t.compared else 0.0

    return sorted((t for t in pair.tensors if not t.identical), key=key)


def first_words(pair: ComparedPair) -> str:
    """Say where two runs part."""
    at = pair.first
    if at is None:
        return "never apart" + ("" if pair.identical else " by more than half an ulp")
    where = f"{pair.unit} {at.layer} {at.role}, flat index {at.index} ({at.place})"
    return f"first apart in {where}: {at.reference_value:.9g} and {at.value:.9g}"


def _distance(value: float) -> str:
    return "-" if math.isnan(value) else f"{value:.3g}"


def _error(value: float) -> str:
    return "-" if math.isnan(value) else "." if value == 0 else f"{value:.1e}"


def _largest(values: Sequence[float]) -> float:
    return max((v for v in values if not math.isnan(v)), default=math.nan)


def run_table(found: Comparison) -> Table:
    """Header and rows: each run beside the reference run, the largest value of all its tensors."""
    mine = [t.reference_error for t in found.pairs[0].tensors]
    rows = [[str(found.reference), number(found.reference.loss), "", "", "", _error(_largest(mine))]]
    for pair in found.pairs:
        tensors = pair.tensors
        ulps, gaps = _largest([t.max_ulp for t in tensors]), _largest([t.difference for t in tensors])
        error = _error(_largest([t.relative_error for t in tensors]))
        rows.append(
            [
                str(pair.other),
                number(pair.other.loss),
                percent(pair.equal, pair.size),
                _distance(ulps),
                _error(gaps),
                error,
            ]
        )
    return list(_RUNS), rows


def tensor_table(pair: ComparedPair, *, every: bool = False) -> Table:
    """Header and rows of the tensors that differ most, or of all, in the order in which a run makes them."""
    shown = pair.tensors if every else trouble_first(pair)[:_SHOWN]
    rows = []
    for t in shown:
        zeros, bad = (f"{sum(counts):,}" if sum(counts) else "." for counts in (t.zero_only, t.nonfinite_only))
        ulps = [_distance(value) for value in (t.median_ulp, t.p99_ulp, t.max_ulp)]
        sides = [f"{100 * share:+.0f}" if share == share and share else "." for share in (t.bias, t.own_lean(1))]
        rows.append([name_of(pair, t), percent(t.equal, t.size), *ulps, _error(t.difference), _error(t.relative_error),
                     *sides, zeros, bad])  # fmt: skip
    return list(_TENSORS), rows


RUNS_TITLE = "values equal; largest distance in ulps, difference and error against the true chain, of a tensor"


def tensors_title(pair: ComparedPair) -> str:
    """Say what the table of tensors holds."""
    return (
        f"{pair.other} beside {pair.reference}: median, 99 % and max in {pair.ulp}; norm of the difference; error against the "
        "true chain; bias: entries larger less smaller; lean: its products stored larger than exact less smaller; entries "
        "zero, NaN or infinite in one run only"
    )


def _aligned(table: Table) -> list[str]:
    header, rows = table
    widths = [max(map(len, column)) for column in zip(header, *rows, strict=True)]

    def line(cells: list[str]) -> str:
        padded = [cells[0].ljust(widths[0])] + [c.rjust(w) for c, w in zip(cells[1:], widths[1:], strict=True)]
        return ("  " + "  ".join(padded)).rstrip()

    return [line(cells) for cells in (header, *rows)]


def _verdict_lines(pair: ComparedPair, width: int) -> list[str]:
    lines = textwrap.wrap(f"{pair.other}: {pair.verdict}", width, subsequent_indent="  ")
    if not pair.identical:
        lines += textwrap.wrap(first_words(pair), width, initial_indent="  ", subsequent_indent="    ")
    return lines


def _tensor_lines(pair: ComparedPair) -> list[str]:
    if pair.identical:
        return []
    title = textwrap.wrap(tensors_title(pair), _WIDTH, initial_indent="  ", subsequent_indent="    ")
    return ["", *title, *_aligned(tensor_table(pair))]


def pair_text(pair: ComparedPair) -> str:
    """Write a pair as plain text: the verdict, what it rests on, the worst tensors."""
    lines = _verdict_lines(pair, _WIDTH)
    for finding in pair.findings:
        lines += _finding_lines(finding, _WIDTH)
    return "\n".join(lines + _tensor_lines(pair))


def summary_text(found: Comparison) -> str:
    """Write a comparison as plain text: verdicts and findings, the runs, the worst tensors of each."""
    lines = textwrap.wrap(headline(found), _WIDTH, subsequent_indent="  ")
    pairs = worst_first(found.pairs)
    for pair in pairs:
        lines += _verdict_lines(pair, _WIDTH)
        for finding in pair.findings:
            lines += _finding_lines(finding, _WIDTH)
    lines += ["", *textwrap.wrap(RUNS_TITLE, _WIDTH, initial_indent="  ", subsequent_indent="    ")]
    lines += _aligned(run_table(found))
    for pair in pairs:
        lines += _tensor_lines(pair)
    return "\n".join(lines)


def _html_table(caption: str, table: Table) -> str:
    def cells(tag: str, values: list[str]) -> str:
        return "<tr>" + "".join(f"<{tag}>{html.escape(value)}</{tag}>" for value in values) + "</tr>"

    header, rows = table
    return (
        f"<table><caption>{html.escape(caption)}</caption><thead>{cells('th', header)}</thead>"
        f"<tbody>{''.join(cells('td', row) for row in rows)}</tbody></table>"
    )


def pair_html(pair: ComparedPair) -> str:
    """Write a pair as HTML for a notebook."""
    findings = "".join(f"<li>{html.escape(str(finding))}</li>" for finding in pair.findings)
    words = f"<p><strong>{html.escape(str(pair.other))}</strong>: {html.escape(pair.verdict)}</p><ul>{findings}</ul>"
    if pair.identical:
        return f"<div class='gradkern-report'>{words}</div>"
    table = _html_table(tensors_title(pair), tensor_table(pair))
    return f"<div class='gradkern-report'>{words}<p>{html.escape(first_words(pair))}</p>{table}</div>"


def comparison_html(found: Comparison) -> str:
    """Write a comparison as HTML for a notebook."""
    pairs = "".join(map(pair_html, worst_first(found.pairs)))
    runs = _html_table(RUNS_TITLE, run_table(found))
    return f"<div class='gradkern-report'><p><strong>{html.escape(headline(found))}</strong></p>{runs}{pairs}</div>"


def _colour(findings: list[Finding]) -> str:
    return _COLOURS[findings[0].severity] if findings else "bold green"


def _print_table(title: str, table: Table, console: Console) -> None:
    from rich.table import Table as RichTable
    from rich.text import Text

    caption = Text(title, style="dim")  # brackets of an arithmetic are no markup
    shown = RichTable(title=caption, title_justify="left", box=None, padding=(0, 1, 0, 0))
    header, rows = table
    for i, name in enumerate(header):
        shown.add_column(name, justify="left" if i == 0 else "right", no_wrap=i != 0, overflow="fold")
    for cells in rows:
        hurt = [name in _ONE_SIDED and cell != "." for name, cell in zip(header, cells, strict=True)]
        shown.add_row(*(Text(cell, style="red" if bad else "") for cell, bad in zip(cells, hurt, strict=True)))
    console.print()
    console.print(shown)


def render_comparison(found: Comparison, console: Console, *, every: bool = False) -> None:
    """Print a comparison with colour: verdicts and findings first, then the runs, then the worst tensors of each.

    Parameters
    ----------
    found : Comparison
    console : rich.console.Console
        Where to print.
    every : bool
        Print every tensor instead of the worst.
    """
    from rich.text import Text

    width = max(40, console.width)
    console.print(Text(headline(found), style="bold"))
    pairs = worst_first(found.pairs)
    for pair in pairs:
        verdict, *apart = _verdict_lines(pair, width)
        console.print(Text(verdict, style=_colour(pair.findings)))
        rest = [line for finding in pair.findings for line in _finding_lines(finding, width)]
        if apart or rest:
            console.print(Text("\n".join([*apart, *rest])))
    _print_table(RUNS_TITLE, run_table(found), console)
    for pair in pairs:
        if every or not pair.identical:
            _print_table(tensors_title(pair), tensor_table(pair, every=every), console)
