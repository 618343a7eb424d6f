"""The command line ``gradkern``: ``probe`` and the commands of the other cli modules."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from enum import Enum
from pathlib import Path
from typing import Annotated

import typer

from gradkern import _cli_output, cli_compare, cli_descend, cli_explain, cli_lecture, cli_measure, cli_sweep
from gradkern._cli_output import CLOSED_PIPE, FOUND, HEALTHY, INTERRUPTED, USAGE, FailOn
from gradkern._text import printable
from gradkern.errors import GradkernError

_EXAMPLES = """[bold]Examples[/bold]

[cyan]gradkern probe[/cyan]   the embedded digits network, in float16

[cyan]gradkern probe --scale 2^12 --plot chain.png[/cyan]   with a loss scale, and a picture

[cyan]gradkern probe mlp.safetensors --activation relu --input x.npy --target labels.npy[/cyan]   your own network

[cyan]gradkern probe mlp.npz --arithmetic bfloat16 --all[/cyan]   every layer of a saved gradkern model

[cyan]gradkern probe mlp.npz --fail-on major --json > report.json[/cyan]   in a CI job
"""
_MEASURE = """
[cyan]gradkern measure model.safetensors[/cyan]   which tensors of a checkpoint each format would hurt

[cyan]gradkern compare --arithmetic float32,float16,bfloat16[/cyan]   how far runs lie apart, layer by layer, and why
[cyan]gradkern sweep --activation relu,tanh --depth 10:90:10[/cyan]   which random networks train, how deep, in which format
[cyan]gradkern descend --lr 8[/cyan]   what a rate that is too large does to training, step by step
"""

app = typer.Typer(name="gradkern", add_completion=False, rich_markup_mode="rich", pretty_exceptions_enable=False)


class Loss(str, Enum):
    """Losses that the command line offers."""

    cross_entropy = "cross_entropy"
    mse = "mse"
    sum = "sum"


def _show_version(wanted: bool) -> None:
    if wanted:
        from importlib.metadata import version

        print(f"gradkern {version('gradkern')}")
        raise typer.Exit


@app.callback(invoke_without_command=True, epilog=_EXAMPLES + _MEASURE)
def _gradkern(
    context: typer.Context,
    version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    """Measure what low precision does to gradients, layer by layer.

    [bold]probe[/bold] runs a network forward and backward in a low-precision
    arithmetic, beside a reference chain that neither overflows nor flushes,
    and says of every entry of every gradient whether it was kept, lost digits,
    flushed to zero, cancelled, overflowed, or merely inherited the fate of an
    earlier one. [bold]measure[/bold] says which tensors of a file would overflow,
    flush or lose digits in a format, and which scale serves all of them.
    """
    if context.invoked_subcommand is None:
        typer.echo(context.get_help(), nl=False)


@app.command(epilog=_EXAMPLES + "\n" + _cli_output.CODES)
def probe(
    model: Annotated[
        Path | None,
        typer.Argument(help="A .safetensors or .npz file of dense layers. Default: an embedded network for digits."),
    ] = None,
    activation: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help="Of every layer but the last, in place of the file's; needed where it names none.",
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
        Loss | None,
        typer.Option(
            metavar="NAME",
            help="cross_entropy, mse or sum. Default: cross_entropy for class numbers, mse for values, sum without a target.",
        ),
    ] = None,
    arithmetic: Annotated[
        str,
        typer.Option(
            metavar="NAME",
            help="A preset: float16, bfloat16, float8_e4m3fn, ..., or one with changed: float16\\[overflow=saturate].",
        ),
    ] = "float16",
    scale: Annotated[str, typer.Option(help="Loss scale, a power of two: 1024 or 2^10.")] = "1",
    all_layers: Annotated[bool, typer.Option("--all/--layers", help="Show every layer, or about a dozen.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the whole report as JSON and nothing else.")] = False,
    plot: Annotated[
        Path | None, typer.Option(help="Write the picture here: .png, .svg or .pdf. Needs matplotlib.")
    ] = None,
    save: Annotated[
        Path | None, typer.Option(help="Write the report here, .json or .json.gz, for ChainReport.load.")
    ] = None,
    fail_on: Annotated[
        FailOn, typer.Option(metavar="LEVEL", help="critical, major, minor or none: what makes the exit code 1.")
    ] = FailOn.none,
    threads: Annotated[int | None, typer.Option(help="Threads; the result does not depend on them.")] = None,
    reference: Annotated[
        bool, typer.Option("--reference/--no-reference", help="Run the reference chain, which the attribution needs.")
    ] = True,
) -> int:
    """Run a network forward and backward in an arithmetic and say what became of every gradient.

    Findings come first, each with its evidence and a remedy; then decay rate,
    effective depth and the window of loss scales; then the layers from the
    loss backwards.
    """
    import gradkern
    from gradkern import _cli_input

    _cli_output.check_outputs(plot, save)
    factor = _cli_input.read_scale(scale)
    if threads is not None:
        gradkern.set_num_threads(threads)
    rule = gradkern.arithmetic(arithmetic)
    net, x, y, source = _cli_input.problem(model, activation, output_activation, inputs, target)
    name = loss.value if loss else _cli_input.default_loss(y)
    if model is None and target is None and name == "sum":
        y = None  # the embedded labels are not asked for
    with _cli_output.progress() as progress:
        report = gradkern.probe(
            net, x, loss=name, target=y, arithmetic=rule, scale=factor, reference=reference, progress=progress
        )
    with _cli_output.then_files(plot, save, report):
        if as_json:
            _cli_output.print_json({"source": source, **report.to_dict()})
        else:
            from gradkern.render import render_report

            console = _cli_output.console()
            _cli_output.print_source(f"probing {source}", console)
            render_report(report, console, all_layers=all_layers)
    return _cli_output.exit_code((finding.severity for finding in report.findings), fail_on)


app.command(epilog=cli_measure.EXAMPLES + "\n" + _cli_output.CODES)(cli_measure.measure)
app.command(epilog=cli_compare.EXAMPLES + "\n" + _cli_output.CODES)(cli_compare.compare)
app.command(epilog=cli_sweep.EXAMPLES + "\n" + cli_sweep.CODES)(cli_sweep.sweep)
app.command(epilog=cli_lecture.EXAMPLES)(cli_lecture.lecture)
app.command(epilog=cli_explain.EXAMPLES)(cli_explain.explain)
app.command(epilog=cli_descend.EXAMPLES + "\n" + _cli_output.CODES)(cli_descend.descend)


@app.command()
def info(as_json: Annotated[bool, typer.Option("--json", help="Print JSON and nothing else.")] = False) -> int:
    """Say what this installation can do: instruction sets, threads, devices, and why one cannot be used."""
    import gradkern

    facts = gradkern.info()
    if as_json:
        _cli_output.print_json(facts.to_dict())
    else:
        from gradkern.render import render_info

        render_info(facts, _cli_output.console())
    return HEALTHY


@app.command(epilog="Exit code 0 if every check passed, else 1.")
def selftest(as_json: Annotated[bool, typer.Option("--json", help="Print JSON and nothing else.")] = False) -> int:
    """Check known answers on this machine, bit by bit, in seconds."""
    import gradkern

    result = gradkern.selftest()
    if as_json:
        _cli_output.print_json({"passed": result.passed, **result.to_dict()})
    else:
        from gradkern.render import render_selftest

        render_selftest(result, _cli_output.console())
    return HEALTHY if result.passed else FOUND


def _error(message: str) -> int:
    print(f"gradkern: error: {printable(' '.join(message.split()))}", file=sys.stderr)
    return USAGE


def _closed_pipe() -> int:
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # or what is still buffered would fail at the end of the process
    return CLOSED_PIPE


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit code; an error is one line on stderr, never a traceback.

    Parameters
    ----------
    arguments : sequence of str, optional
        Default those of the process.
    """
    streams = sys.stdout, sys.stderr
    for stream in streams:
        if hasattr(stream, "reconfigure"):  # a name that the terminal's encoding lacks is escaped, not an error
            stream.reconfigure(errors="backslashreplace")
    try:
        code = typer.main.get_command(app).main(arguments, prog_name="gradkern", standalone_mode=False)
        sys.stdout.flush()
        return int(code or HEALTHY)
    except (KeyboardInterrupt, typer.Abort):
        return INTERRUPTED
    except BrokenPipeError:  # the reader of our output went away, as head does
        return _closed_pipe()
    except SystemExit as error:  # what typer and rich make of that
        if not isinstance(error.__context__, BrokenPipeError):
            raise
        sys.stdout, sys.stderr = streams
        return _closed_pipe()
    except OSError as error:
        return _error(f"{error.filename}: {error.strerror}" if error.filename and error.strerror else str(error))
    except (ValueError, TypeError, ImportError, MemoryError, GradkernError) as error:
        return _error(str(error) or type(error).__name__)
    except Exception as error:
        if hasattr(error, "format_message"):  # click's usage errors, of whichever click typer brings
            return _error(f"{error.format_message().rstrip('.')}. See gradkern --help.")
        raise
