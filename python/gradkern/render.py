"""Reports as text, rich tables and HTML: words and columns, no arithmetic."""

from __future__ import annotations

import html
import math
import textwrap
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import Console

    from gradkern.findings import Finding
    from gradkern.fit import ScaleWindow
    from gradkern.report import ChainReport, LayerRow
    from gradkern.system import Info, SelfTest

_SHOWN = 12  # layers of a summary
_WIDTH = 100
_COLOURS = {"critical": "bold red", "major": "bold yellow", "minor": "cyan"}
_ATTRIBUTED = ("kept", "subnormal", "flushed", "cancelled", "inherited", "structural")
_SHORT = {"subnormal": "subnorm", "cancelled": "cancel", "inherited": "inherit", "structural": "struct"}
_HARMFUL = ("flushed", "cancel", "inherit", "overflow", "ovf+inv", "NaN/inf")
_COUNTED = ("subnormal", "flushed", "overflow")

Table = tuple[list[str], list[list[str]]]


def number(value: float | None) -> str:
    """Write a number in at most six digits; ``-`` where there is none."""
    return "-" if value is None else f"{value:.6g}"


def power(value: float) -> str:
    """Write a power of two as ``2^k``."""
    return f"2^{math.frexp(value)[1] - 1}" if 0 < value < math.inf else "0" if value == 0 else "beyond 2^1023"


def scales(window: ScaleWindow, between: str = "..") -> str:
    """Write the scales of a window: ``2^-3..2^9``; ``any`` stands for an end without a bound."""
    if not window.exists:
        return "none"
    ends = ["any" if end is None else f"2^{end}" for end in (window.log2_low, window.log2_high)]
    return "any" if ends == ["any", "any"] else between.join(ends)


def log2_norm(value: float) -> str:
    """Write log2 of a norm; ``zero`` and ``NaN/inf`` in words."""
    if math.isnan(value):
        return "NaN/inf"
    return f"{value:.1f}" if math.isfinite(value) else "zero" if value < 0 else "inf"


def percent(count: int, size: int) -> str:
    """Write a share in per cent: ``.`` for none at all, and never 0 or 100 where that is only nearly so."""
    if count == 0:
        return "."
    if count == size:
        return "100"
    return "<0.1" if count < size * 5e-4 else ">99.9" if count > size * 0.9995 else f"{100 * count / size:.1f}"


def headline(report: ChainReport) -> str:
    """Network, arithmetic and loss scale in one line."""
    return f"{report.describe()}, batch {report.batch}, in {report.arithmetic}, loss scale {power(report.scale)}"


def facts(report: ChainReport) -> list[tuple[str, str]]:
    """Say what is known of the whole chain, as names and values."""
    lines = []
    if report.loss is not None:
        truth = f", true {number(report.reference_loss)}" if report.has_reference else ""
        lines.append((f"loss ({report.loss_name})", f"{number(report.loss)}{truth}"))
    source = "true gradients" if report.has_reference else "stored gradients"
    rate = report.decay_rate()
    decay = (
        str(rate)
        if math.isfinite(rate.bits_per_layer)
        else f"unknown: fewer than two {report.unit}s with a finite norm"
    )
    lines.append(("decay rate", f"{decay}, {source} from the loss backwards"))
    weights = report.weight_rate()
    if math.isfinite(weights.bits_per_layer):
        lines.append((f"of {report.weight_words}", str(weights)))
    if not report.has_reference:
        return [*lines, ("reference", "not run: losses are counted, not attributed")]
    reach = "effective depth" if report.unit == "layer" else "effective horizon"
    lines.append((reach, f"{report.effective_depth()} of {report.depth} {report.unit}s (stored chain)"))
    window = report.loss_scale_window()
    text = scales(window, " to ")
    if text not in ("any", "none") and window.best is not None:
        text += f", best {power(window.best)}"
    text += f" (round once): {window.why}"
    return [*lines, ("loss scale window", text)]


def _representative(report: ChainReport, rows: list[LayerRow]) -> list[LayerRow]:
    if len(rows) <= _SHOWN + 2:
        return rows
    last = len(rows) - 1
    shown = {round(i * last / (_SHOWN - 1)) for i in range(_SHOWN)}
    if report.has_reference:
        shown |= {max(last - report.effective_depth(), 0)}  # where the gradient dies
    return [rows[i] for i in sorted(shown)]


def _cells(row: LayerRow, attributed: bool) -> list[str]:
    stored = log2_norm(row.log2_norm)
    if not attributed:
        counts = [getattr(row.rounding, name) for name in _COUNTED]
        return [str(row.layer), stored, *(percent(n, row.size) for n in [*counts, row.nonfinite])]
    error = "-" if math.isnan(row.relative_error) else f"{row.relative_error:.1e}"
    fates = [row.fates[name] for name in _ATTRIBUTED] + [row.fates["overflow"] + row.fates["invalid"]]
    return [str(row.layer), log2_norm(row.reference_log2_norm), stored, error, *(percent(n, row.size) for n in fates)]


def gradient_table(report: ChainReport, *, all_layers: bool = False) -> Table:
    """Header and rows of the gradients of the pre-activations, from the loss backwards."""
    rows = report.rows("grad_pre_activation")
    shown = rows if all_layers else _representative(report, rows)
    if report.has_reference:
        header = [report.unit, "true", "stored", "error", *(_SHORT.get(name, name) for name in _ATTRIBUTED), "ovf+inv"]
    else:
        header = [report.unit, "stored", *_COUNTED, "NaN/inf"]
    return header, [_cells(row, report.has_reference) for row in reversed(shown)]


def table_title(report: ChainReport) -> str:
    """Say what the table holds."""
    norms = "log2 of true and stored norm, relative error" if report.has_reference else "log2 of stored norm"
    return f"gradient of the pre-activations, from the loss backwards: {norms}; fate of entries in %"


def verdict(report: ChainReport) -> str:
    """One line on the findings."""
    if report.findings:
        counts = [(s, sum(f.severity == s for f in report.findings)) for s in _COLOURS]
        return "findings: " + ", ".join(f"{n} {severity}" for severity, n in counts if n)
    return "healthy" if report.has_reference else "no overflow, no NaN; without the reference chain no more can be said"


def _finding_lines(finding: Finding, width: int) -> list[str]:
    first = f"[{finding.severity}] {finding.kind} in {finding.where}"
    lines = textwrap.wrap(first, width, initial_indent="  ", subsequent_indent="    ")
    for text in (finding.evidence, f"remedy: {finding.remedy}"):
        lines += textwrap.wrap(text, width, initial_indent="      ", subsequent_indent="        ")
    return lines


def summary_text(report: ChainReport) -> str:
    """Write a report as plain text: the chain, about a dozen layers, and the findings with their remedies.

    Parameters
    ----------
    report : ChainReport

    Returns
    -------
    str
    """
    lines = textwrap.wrap(headline(report), _WIDTH, subsequent_indent="  ")
    for name, value in facts(report):
        lines += textwrap.wrap(f"{name:<19} {value}", _WIDTH, initial_indent="  ", subsequent_indent=" " * 22)
    header, rows = gradient_table(report)
    widths = [max(map(len, column)) for column in zip(header, *rows, strict=True)]
    lines += ["", *textwrap.wrap(table_title(report), _WIDTH, initial_indent="  ", subsequent_indent="    ")]
    for cells in [header, *rows]:
        lines.append("  " + "  ".join(cell.rjust(width) for cell, width in zip(cells, widths, strict=True)))
    lines += ["", verdict(report)]
    for finding in report.findings:
        lines += _finding_lines(finding, _WIDTH)
    return "\n".join(lines)


def report_html(report: ChainReport) -> str:
    """Write a report as HTML for a notebook.

    Parameters
    ----------
    report : ChainReport

    Returns
    -------
    str
    """

    def cells(tag: str, values: list[str]) -> str:
        return "<tr>" + "".join(f"<{tag}>{html.escape(value)}</{tag}>" for value in values) + "</tr>"

    header, rows = gradient_table(report)
    known = "".join(f"<tr><th>{html.escape(k)}</th><td>{html.escape(v)}</td></tr>" for k, v in facts(report))
    findings = "".join(f"<li>{html.escape(str(finding))}</li>" for finding in report.findings)
    return (
        f"<div class='gradkern-report'><p><strong>{html.escape(headline(report))}</strong></p>"
        f"<p>{html.escape(verdict(report))}</p><ul>{findings}</ul><table>{known}</table>"
        f"<table><caption>{html.escape(table_title(report))}</caption><thead>{cells('th', header)}</thead>"
        f"<tbody>{''.join(cells('td', row) for row in rows)}</tbody></table></div>"
    )


def render_report(report: ChainReport, console: Console, *, all_layers: bool = False) -> None:
    """Print a report with colour: the findings first, then the chain, then its layers.

    Parameters
    ----------
    report : ChainReport
    console : rich.console.Console
        Where to print.
    all_layers : bool
        Print every layer instead of about a dozen.
    """
    from rich.table import Table as RichTable
    from rich.text import Text

    console.print(Text(headline(report), style="bold"))
    colour = _COLOURS[report.findings[0].severity] if report.findings else "bold green"
    console.print(Text(verdict(report), style=colour))
    for finding in report.findings:
        where, *rest = _finding_lines(finding, max(40, console.width))
        console.print(Text(where, style=_COLOURS[finding.severity]))
        console.print(Text("\n".join(rest)))
    known = RichTable(box=None, show_header=False, padding=(0, 2, 0, 0))
    for name, value in facts(report):
        known.add_row(Text(name, style="dim"), Text(value))
    header, rows = gradient_table(report, all_layers=all_layers)
    table = RichTable(
        title=table_title(report), title_justify="left", title_style="dim", box=None, padding=(0, 1, 0, 0)
    )
    for name in header:
        table.add_column(name, justify="right", no_wrap=True)
    for cells in rows:
        hurt = [name in _HARMFUL and cell != "." for name, cell in zip(header, cells, strict=True)]
        table.add_row(*(Text(cell, style="red" if bad else "") for cell, bad in zip(cells, hurt, strict=True)))
    console.print()
    console.print(known)
    console.print()
    console.print(table)


def render_info(info: Info, console: Console) -> None:
    """Print what this installation can do."""
    from rich.table import Table as RichTable
    from rich.text import Text

    table = RichTable(box=None, show_header=False, padding=(0, 2, 0, 0))
    for name, value in info.to_dict().items():
        for key, text in value.items() if isinstance(value, dict) else [("", str(value))]:
            label = f"{name.removesuffix('s')} {key}" if key else name
            table.add_row(Text(label, style="dim"), Text(text, style="green" if text == "usable" else ""))
    console.print(table)


def render_selftest(result: SelfTest, console: Console) -> None:
    """Print every check, passed or not and why."""
    from rich.text import Text

    for name, problem in result.checks.items():
        status = Text("FAILED  ", style="bold red") if problem else Text("passed  ", style="green")
        console.print(status + Text(f"{name}: {problem}" if problem else name))
