"""The command ``gradkern measure``: which tensors of a file would overflow, flush or lose digits, and at which scale none."""

from __future__ import annotations

from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from gradkern import _cli_output
from gradkern._cli_output import FailOn

if TYPE_CHECKING:
    from gradkern.table import StatsTable

EXAMPLES = """[bold]Examples[/bold]

[cyan]gradkern measure model.safetensors[/cyan]   a checkpoint in float16, bfloat16 and both FP8 formats

[cyan]gradkern measure gradients.npz --format float16 --scale 2^10[/cyan]   would this loss scale serve?

[cyan]gradkern measure checkpoint/ --format e4m3 --sort flushed --top 50 --plot binades.png[/cyan]   a folder of shards

[cyan]gradkern measure model.safetensors --save stats.json.gz[/cyan]   read once, and then, without the model:

[cyan]gradkern measure stats.json.gz --format float16 --fail-on critical[/cyan]   any format at any scale
"""


class Sort(str, Enum):
    """Orders of the tensors."""

    trouble = "trouble"
    name = "name"
    size = "size"
    amax = "amax"
    overflow = "overflow"
    flushed = "flushed"
    subnormal = "subnormal"
    nonfinite = "nonfinite"


def measure(
    file: Annotated[
        Path | None,
        typer.Argument(
            help="A .safetensors, .npz or .npy file, a folder of .safetensors shards or its index, or what --save wrote. "
            "Default: the gradients of an embedded network for digits."
        ),
    ] = None,
    formats: Annotated[
        list[str] | None,
        typer.Option(
            "--format",
            metavar="NAME",
            help="A format the tensors may be cast to; may be given several times. "
            "Default: float16, bfloat16, float8_e4m3fn and float8_e5m2.",
        ),
    ] = None,
    scale: Annotated[
        str, typer.Option(help="What the tensors are multiplied by before the cast, a power of two: 1024 or 2^10.")
    ] = "1",
    lose: Annotated[
        float, typer.Option(metavar="SHARE", help="Share of a tensor's non-zero entries that may flush or lose digits.")
    ] = 1e-3,
    sort: Annotated[
        Sort,
        typer.Option(
            metavar="ORDER", help="trouble, name, size, amax, overflow, flushed, subnormal or nonfinite; worst first."
        ),
    ] = Sort.trouble,
    top: Annotated[
        int | None, typer.Option(metavar="N", min=0, help="How many tensors in trouble to show. Default: 20.")
    ] = None,
    everything: Annotated[bool, typer.Option("--all", help="Show every tensor, healthy ones too.")] = False,
    as_json: Annotated[
        bool,
        typer.Option(
            "--json",
            help="Print everything as JSON and nothing else; NaN and infinity are the strings nan, inf and -inf.",
        ),
    ] = False,
    plot: Annotated[
        Path | None, typer.Option(help="Write the picture here: .png, .svg or .pdf. Needs matplotlib.")
    ] = None,
    save: Annotated[
        Path | None,
        typer.Option(
            help="Write the statistics here, .json, .json.gz or .npz: a FILE for later, or for StatsTable.load."
        ),
    ] = None,
    fail_on: Annotated[
        FailOn,
        typer.Option(
            metavar="LEVEL",
            help="What makes the exit code 1: critical (NaN, inf, overflow), major (flushing), minor (lost digits) or none.",
        ),
    ] = FailOn.none,
    threads: Annotated[int | None, typer.Option(help="Threads; the result does not depend on them.")] = None,
) -> int:
    """Say which tensors would overflow, flush or lose digits in a format, and which scale serves all.

    Every tensor is read once, memory-mapped. The formats come first, each with
    the number of tensors in trouble and the scales at which none overflows or
    flushes; then the tensors, the worst first: NaN, overflow, flushing, lost
    digits, and among equals by the share of entries, summed over the formats.
    A count that the binades leave open is a range, and judged by its low end.
    """
    import gradkern
    from gradkern import _cli_input
    from gradkern.table import FORMATS
    from gradkern.trouble import judge

    _cli_output.check_outputs(plot, save, (".json", ".json.gz", ".npz"))
    factor = _cli_input.read_scale(scale)
    names = list(dict.fromkeys(_cli_input.read_format(name) for name in formats or FORMATS))
    if not 0 <= lose <= 1:
        raise ValueError(f"--lose: must be between 0 and 1, got {lose}")
    if threads is not None:
        gradkern.set_num_threads(threads)
    table, source = _table(file)
    judged = judge(table, names, factor, lose, sort.value)
    with _cli_output.then_files(plot, save, table, formats=names, scale=factor):
        if as_json:
            _cli_output.print_json({"source": source, **judged.to_dict(), "skipped": table.skipped})
        else:
            from gradkern.render_table import render_table

            console = _cli_output.console()
            _cli_output.print_source(f"measuring {source}", console)
            render_table(table, judged, console, top=top, everything=everything)
    return _cli_output.exit_code([judged.severity], fail_on)


def _table(file: Path | None) -> tuple[StatsTable, str]:
    """Return the statistics and a sentence on where they come from."""
    import gradkern
    from gradkern import _cli_input

    if file is None:
        from gradkern.data import digits

        images, labels = digits.images()
        report = gradkern.probe(digits.model(), images, loss="cross_entropy", target=labels)
        source = (
            f"the true gradients of the embedded digits network on {len(images)} embedded images, as no FILE was given"
        )
        return gradkern.measure_many(report), source
    if _cli_input.is_table(file):
        if not file.exists():
            raise ValueError(f"{file}: no such file")
        return gradkern.StatsTable.load(file), f"{file}, saved statistics"
    return gradkern.measure_many(file), str(file)
