"""Trajectories as text, rich tables and HTML: words and columns, no arithmetic."""

from __future__ import annotations

import html
import math
import textwrap
from typing import TYPE_CHECKING

from gradkern._text import arrowed
from gradkern.render import Table, _finding_lines, log2_norm, number, percent, power

if TYPE_CHECKING:
    from rich.console import Console

    from gradkern.descent_step import DescentStep
    from gradkern.trajectory import Trajectory

_SHOWN, _WIDTH = 12, 100
_COLOURS = {"converged": "bold green", "descends": "bold green", "slow": "cyan", "overflowed": "bold red"}
_HEADER = [
    "step",
    "loss",
    "log2 |w|",
    "log2 |g|",
    "wanted",
    "lost %",
    "overflow",
    "flushed",
    "NaN/inf",
    "scale",
    "clip",
]


def headline(run: Trajectory) -> str:
    """Network, arithmetic and remedies in one line."""
    shape = arrowed(run.widths)
    layers = f"{run.depth} layer{'s' if run.depth > 1 else ''}"
    names = ", ".join(dict.fromkeys(run.activations))
    text = f"{layers} {shape} ({names}), batch {run.batch}, in {run.arithmetic}, lr {run.lr:g}"
    if run.weight_format != run.arithmetic.storage:
        text += f", master weights {run.weight_format}"
    text += f", clipped: {run.clip}" if run.clip else ""
    return text + (", with a loss scaler" if run.scaled else "")


def conclusion(run: Trajectory) -> str:
    """Verdict, and from which loss to which."""
    losses = run.losses
    first = f"{run.verdict}: loss ({run.loss_name}) {number(float(losses[0]))} to {number(float(losses[-1]))}"
    ended = f", ended by {textwrap.shorten(run.stopped, 60, placeholder='...')}" if run.stopped else ""
    return f"{first} in {len(losses)} step{'s' if len(losses) > 1 else ''}{ended}"


def _shown(run: Trajectory) -> list[DescentStep]:
    last = len(run.steps) - 1
    if last < _SHOWN + 2:
        return run.steps
    chosen = {round(i * last / (_SHOWN - 1)) for i in range(_SHOWN)}
    if run.first_nonfinite is not None:
        at = run.first_nonfinite.step - run.start
        chosen |= {i for i in (at - 1, at, at + 1) if 0 <= i <= last}
    return [run.steps[i] for i in sorted(chosen)]


def _cells(s: DescentStep) -> list[str]:
    update = s.update
    lost = "skip" if s.skipped else percent(update.lost, update.wanted) if update.wanted else "-"
    counts = [f"{n:,}" if n else "." for n in (sum(s.events[kind]) for kind in ("overflow", "flushed", "nonfinite"))]
    clip = "." if s.coefficient == 1 else number(s.coefficient)
    norms = [log2_norm(s.log2_weight_norm), log2_norm(s.log2_gradient_norm)]
    wanted = "-" if s.skipped or not math.isfinite(update.log2_wanted) else f"{update.log2_wanted:.1f}"
    return [str(s.step), f"{s.loss:.4g}", *norms, wanted, lost, *counts, power(s.scale), clip]


def step_table(run: Trajectory) -> Table:
    """Header and rows of about a dozen steps, those around the first NaN or infinity among them."""
    return list(_HEADER), [_cells(s) for s in _shown(run)]


TITLE = "log2 of the norms of weights, true gradients and the update wanted; updates lost to rounding; entries with an event"


def summary_text(run: Trajectory) -> str:
    """Write a trajectory as plain text."""
    lines = textwrap.wrap(headline(run), _WIDTH, subsequent_indent="  ")
    lines += textwrap.wrap(conclusion(run), _WIDTH, subsequent_indent="  ")
    header, rows = step_table(run)
    widths = [max(map(len, column)) for column in zip(header, *rows, strict=True)]
    lines += ["", *textwrap.wrap(TITLE, _WIDTH, initial_indent="  ", subsequent_indent="    ")]
    for cells in [header, *rows]:
        lines.append("  " + "  ".join(cell.rjust(width) for cell, width in zip(cells, widths, strict=True)))
    lines += [""] if run.findings else []
    for finding in run.findings:
        lines += _finding_lines(finding, _WIDTH)
    return "\n".join(lines)


def trajectory_html(run: Trajectory) -> str:
    """Write a trajectory as HTML for a notebook."""

    def cells(tag: str, values: list[str]) -> str:
        return "<tr>" + "".join(f"<{tag}>{html.escape(value)}</{tag}>" for value in values) + "</tr>"

    header, rows = step_table(run)
    findings = "".join(f"<li>{html.escape(str(finding))}</li>" for finding in run.findings)
    return (
        f"<div class='gradkern-report'><p><strong>{html.escape(headline(run))}</strong></p>"
        f"<p>{html.escape(conclusion(run))}</p><ul>{findings}</ul>"
        f"<table><caption>{html.escape(TITLE)}</caption><thead>{cells('th', header)}</thead>"
        f"<tbody>{''.join(cells('td', row) for row in rows)}</tbody></table></div>"
    )


def render_trajectory(run: Trajectory, console: Console) -> None:
    """Print a trajectory with colour: the verdict and the findings, then about a dozen steps."""
    from rich.table import Table as RichTable
    from rich.text import Text

    console.print(Text(headline(run), style="bold"))
    console.print(Text(conclusion(run), style=_COLOURS.get(run.verdict, "bold yellow")))
    for finding in run.findings:
        where, *rest = _finding_lines(finding, max(40, console.width))
        console.print(Text(where, style="bold red" if finding.severity == "critical" else "bold yellow"))
        console.print(Text("\n".join(rest)))
    header, rows = step_table(run)
    table = RichTable(title=TITLE, title_justify="left", title_style="dim", box=None, padding=(0, 1, 0, 0))
    for name in header:
        table.add_column(name, justify="right", no_wrap=True)
    for row in rows:
        table.add_row(*(Text(cell, style="red" if cell in ("NaN/inf", "nan", "inf") else "") for cell in row))
    console.print()
    console.print(table)
