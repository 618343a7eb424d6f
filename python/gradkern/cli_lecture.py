"""The command ``gradkern lecture``: a page of the gallery in a terminal, its numbers computed there and then."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from gradkern import _cli_output
from gradkern._cli_output import HEALTHY

EXAMPLES = """[bold]Examples[/bold]

[cyan]gradkern lecture[/cyan]   the topics

[cyan]gradkern lecture powers[/cyan]   how many factors of 1.5 each format holds

[cyan]gradkern lecture saturation --plot slopes.png[/cyan]   the page, and its figure
"""


def lecture(
    topic: Annotated[str | None, typer.Argument(help="What to read about. Default: list the topics.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON and nothing else.")] = False,
    plot: Annotated[
        Path | None, typer.Option(help="Write the figure here: .png, .svg or .pdf. Needs matplotlib.")
    ] = None,
) -> int:
    """Say what is right about vanishing and exploding gradients, and show it.

    Each page is a question, a few lines of code, what they print, and then
    claim by claim what lectures say, what is right, and the call that shows
    it. Every number is computed when it is printed.
    """
    from rich.markdown import Markdown

    from gradkern import lecture as gallery

    console = _cli_output.console()
    if topic is None:
        if plot is not None:
            raise ValueError("--plot: needs a TOPIC")
        if as_json:
            _cli_output.print_json({"topics": gallery.topics()})
        else:
            for name, title in gallery.topics().items():
                console.print(f"[cyan]{name:16}[/cyan]  {title}")
        return HEALTHY
    _cli_output.check_outputs(plot, None)
    page = gallery.lecture(topic)
    with _cli_output.then_files(plot, None, page):
        if as_json:
            _cli_output.print_json(page.to_dict())
        else:
            console.print(Markdown(page.without_picture, code_theme="ansi_light"))
    return HEALTHY
