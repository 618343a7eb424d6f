"""``gradkern explain``: what an arithmetic models and how well that is known."""

from __future__ import annotations

from typing import Annotated

import typer

from gradkern import _cli_output
from gradkern._cli_output import HEALTHY

EXAMPLES = """[bold]Examples[/bold]

[cyan]gradkern explain float16@hopper[/cyan]   how an H100 adds float16 products

[cyan]gradkern explain volta/float16[/cyan]   a V100 with a float16 accumulator

[cyan]gradkern explain[/cyan]   all arithmetics there are
"""


def explain(
    name: Annotated[
        str | None,
        typer.Argument(help="An arithmetic such as float16 or float16@hopper, or a matrix unit. Default: list them."),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON and nothing else.")] = False,
) -> int:
    """Say what an arithmetic models, how a dot product rounds in it, with a worked example, and how well that is known."""
    import gradkern

    if name is None:
        listed = gradkern.arithmetics()
        if as_json:
            _cli_output.print_json({i.name: {"description": i.description, "evidence": i.evidence} for i in listed})
        else:
            width = max(len(i.name) for i in listed)
            for i in listed:
                print(f"{i.name:<{width}}  {i.description}")
        return HEALTHY
    explanation = gradkern.explain(name)
    if as_json:
        _cli_output.print_json(explanation.to_dict())
    else:
        print(explanation)
    return HEALTHY
