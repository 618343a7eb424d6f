"""The command ``gradkern compare``: one pass in several arithmetics or on several devices, and how far they lie apart."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated

import typer

from gradkern import _cli_output
from gradkern._cli_output import FailOn

EXAMPLES = """[bold]Examples[/bold]

[cyan]gradkern compare[/cyan]   the embedded digits network in float32, float16 and bfloat16

[cyan]gradkern compare --arithmetic float64,float16,'float16\\[rounding=toward_zero]' --scale 2^14[/cyan]   a truncation
shows as a bias toward zero, a rounding does not

[cyan]gradkern compare --arithmetic float64,float16@ampere,float16@hopper,bfloat16@x86.amx[/cyan]   what an A100, an H100
and a CPU's AMX would have said

[cyan]gradkern compare mlp.safetensors --activation relu --input x.npy --target y.npy --plot apart.png[/cyan]   your own
network, with a picture

[cyan]gradkern compare --arithmetic float16 --device cpu,cuda --fail-on critical[/cyan]   does a device give the bits of
its model? In a CI job

[cyan]gradkern compare --arithmetic float16:cpu,float16:cuda,bfloat16:cuda[/cyan]   a device for each run
"""

_COMMA = re.compile(r",(?![^\[]*\])")  # not within the brackets of float16[overflow=saturate,seed=3]


def compare(
    model: Annotated[
        Path | None,
        typer.Argument(help="A .safetensors or .npz file of dense layers. Default: an embedded network for digits."),
    ] = None,
    arithmetic: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAMES",
            help="Arithmetics, with commas between or the option repeated; the first is what the others are compared with. "
            "NAME:DEVICE runs one on a device. Default: float32,float16,bfloat16.",
        ),
    ] = None,
    against: Annotated[
        str | None, typer.Option(metavar="NAME", help="Compare with this arithmetic instead of the first one.")
    ] = None,
    device: Annotated[
        str | None,
        typer.Option(metavar="NAMES", help="cpu, cuda or simt; several compare one arithmetic between them: cpu,cuda."),
    ] = None,
    activation: Annotated[
        str | None,
        typer.Option(
            metavar="NAME", help="Of every layer but the last, in place of the file's; needed where it names none."
        ),
    ] = None,
    output_activation: Annotated[
        str, typer.Option(metavar="NAME", help="Of the last layer, where --activation is given.")
    ] = "identity",
    inputs: Annotated[
        Path | None,
        typer.Option(
            "--input", help="The batch, .npy, .npz or .safetensors with one array. Default: 64 random normal rows."
        ),
    ] = None,
    target: Annotated[
        Path | None, typer.Option(help="Class numbers (batch,), or values (batch, outputs); files as for --input.")
    ] = None,
    loss: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="cross_entropy, mse or sum. Default: by the target, as for probe."),
    ] = None,
    scale: Annotated[str, typer.Option(help="Loss scale of all runs, a power of two: 1024 or 2^10.")] = "1",
    every: Annotated[bool, typer.Option("--all/--worst", help="Show every tensor, or the worst of each run.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print everything as JSON and nothing else.")] = False,
    plot: Annotated[
        Path | None, typer.Option(help="Write the picture here: .png, .svg or .pdf. Needs matplotlib.")
    ] = None,
    save: Annotated[
        Path | None, typer.Option(help="Write the comparison here, .json or .json.gz, for Comparison.load.")
    ] = None,
    fail_on: Annotated[
        FailOn,
        typer.Option(
            metavar="LEVEL", help="critical, major, minor or none: what makes the exit code 1; minor is any difference."
        ),
    ] = FailOn.none,
    threads: Annotated[int | None, typer.Option(help="Threads; the result does not depend on them.")] = None,
) -> int:
    """Run a network in several arithmetics, or on several devices, and say how far the results lie apart, and why.

    Every stored tensor of every run, forward and backward, is compared with that
    of the first run: distances in units in the last place, the share of equal
    values, events on one side only (overflow, flushing), the first entry that
    differs. A verdict for each run comes first, with its evidence: identical,
    rounding only, biased toward zero, or worse. Of the same arithmetic on two
    devices it is whether the model holds to the bit.
    """
    import gradkern
    from gradkern import _cli_input

    _cli_output.check_outputs(plot, save)
    factor = _cli_input.read_scale(scale)
    if threads is not None:
        gradkern.set_num_threads(threads)
    names = [name for text in arithmetic or ["float32,float16,bfloat16"] for name in _COMMA.split(text)]
    devices = device.split(",") if device else []
    net, x, y, source = _cli_input.problem(model, activation, output_activation, inputs, target)
    name = loss or _cli_input.default_loss(y)
    with _cli_output.progress() as progress:
        found = gradkern.compare(
            net, x, arithmetics=[_run(name) for name in names], against=None if against is None else _run(against),
            device=devices if len(devices) > 1 else device, loss=name,
            target=None if name == "sum" and target is None else y, scale=factor, progress=progress,
        )  # fmt: skip
    with _cli_output.then_files(plot, save, found):
        if as_json:
            _cli_output.print_json({"source": source, **found.to_dict()})
        else:
            from gradkern.render_comparison import render_comparison

            console = _cli_output.console()
            _cli_output.print_source(f"comparing {source}", console)
            render_comparison(found, console, every=every)
    return _cli_output.exit_code((finding.severity for finding in found.findings), fail_on)


def _run(text: str) -> str | tuple[str, str]:
    """Read NAME or NAME:DEVICE."""
    name, colon, device = text.strip().partition(":")
    return (name, device) if colon else name
