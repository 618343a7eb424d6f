"""The command ``gradkern sweep``: random networks over a grid of depths, initialisations and formats."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from decimal import Decimal, InvalidOperation
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from gradkern import _cli_output
from gradkern._cli_output import FOUND, HEALTHY

if TYPE_CHECKING:
    from concurrent.futures import Executor

    from gradkern.sweep_result import SweepResult

EXAMPLES = """[bold]Examples[/bold]

[cyan]gradkern sweep[/cyan]   how deep may a sigmoid network be, in four formats?

[cyan]gradkern sweep --activation relu --init he_normal,xavier_normal --depth 10:90:10[/cyan]   lists and ranges

[cyan]gradkern sweep --activation tanh --init lecun_normal --gain 0.5:3:0.25 --bias-std 0:1.5:0.25 --plot phases.png --depth 30
--arithmetic float32[/cyan]   a phase diagram

[cyan]gradkern sweep --depth 10:200:10 --seeds 50 --workers 4 --out rows.jsonl[/cyan]   given again, it goes on where it stopped

[cyan]gradkern sweep --seeds 1000 --dask tcp://scheduler:8786 --out rows.parquet[/cyan]   on a cluster
"""

CODES = """[bold]Exit codes[/bold]

0 every point was computed; 1 points failed, their rows say why; 2 wrong usage, or a file that cannot be read or written;
130 interrupted, what is done is in --out; 141 the reader of the output went away"""

_SHOWN = 40  # groups of draws that are printed


def _items(text: str) -> list[str]:
    """Split at commas that are in no brackets."""
    return [item.strip() for item in re.split(r",(?![^\[(]*[\])])", text)]


def read_numbers(text: str, option: str, whole: bool) -> list[Any]:
    """Read numbers and ranges: ``10,20``, ``10:50:10`` (the end included), ``0.5:2:0.25``.

    Raises
    ------
    ValueError
        If one is no number, or a range has no step or goes the wrong way.
    """
    numbers: list[Decimal] = []
    try:
        for item in _items(text):
            parts = [Decimal(part) for part in item.split(":")]
            if len(parts) == 1:
                numbers += parts
                continue
            start, stop, step = [*parts, Decimal(1)] if len(parts) == 2 else parts
            if not step > 0 or stop < start:
                raise ValueError
            numbers += [start + k * step for k in range(int((stop - start) / step) + 1)]
        if whole and any(n != int(n) for n in numbers):
            raise ValueError
    except (ValueError, InvalidOperation, OverflowError):
        kind = "whole numbers" if whole else "numbers"
        raise ValueError(f"{option}: must be {kind} such as 10,20 or a range 10:50:10, got {text!r}") from None
    return [int(n) if whole else float(n) for n in numbers]


def _option(flag: str, text: str, metavar: str) -> Any:
    return typer.Option(flag, metavar=metavar, help=text)


def sweep(
    depth: Annotated[str, _option("--depth", "Layers.", "LIST")] = "10:60:10",
    width: Annotated[str, _option("--width", "Units of every layer.", "LIST")] = "32",
    activation: Annotated[str, _option("--activation", "Such as tanh, relu or leaky_relu(0.2).", "LIST")] = "sigmoid",
    init: Annotated[str, _option("--init", "Such as he_normal, lecun_normal or orthogonal.", "LIST")] = "xavier_normal",
    gain: Annotated[str, _option("--gain", "Multiplies the weights; sigma_w with lecun_normal.", "LIST")] = "1",
    bias_std: Annotated[str, _option("--bias-std", "Standard deviation of the biases; sigma_b.", "LIST")] = "0",
    arithmetic: Annotated[
        str, _option("--arithmetic", "Presets, or one with changed: float16\\[overflow=saturate].", "LIST")
    ] = "float32,bfloat16,float16,float8_e5m2",
    scale: Annotated[str, _option("--scale", "Loss scales, powers of two: 1024 or 2^10.", "LIST")] = "1",
    batch: Annotated[str, _option("--batch", "Rows of the random input.", "LIST")] = "16",
    seeds: Annotated[int, typer.Option(metavar="N", min=1, help="Draws of every network: seeds 0 to N - 1.")] = 5,
    out: Annotated[
        Path | None,
        typer.Option(
            help="Append the rows here as they come, .jsonl or .parquet; what is in it is not computed again."
        ),
    ] = None,
    workers: Annotated[int, typer.Option(metavar="N", min=1, help="Processes.")] = 1,
    dask: Annotated[
        str | None, typer.Option(metavar="ADDRESS", help="A scheduler of dask.distributed, instead of processes here.")
    ] = None,
    plot: Annotated[
        Path | None, typer.Option(help="Write the picture here: .png, .svg or .pdf. Needs matplotlib.")
    ] = None,
    value: Annotated[
        str | None, typer.Option(metavar="NAME", help="What to draw, such as gradient_rate or trainable_depth.")
    ] = None,
    x: Annotated[str | None, typer.Option("--x", metavar="NAME", help="What to draw along, such as depth.")] = None,
    y: Annotated[str | None, typer.Option("--y", metavar="NAME", help="The other side of a phase diagram.")] = None,
    everything: Annotated[bool, typer.Option("--all", help="Print every line of the table.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print medians and rows as JSON and nothing else.")] = False,
) -> int:
    """Probe random networks over a grid, and say how fast gradients vanish and how many layers get one.

    Options that take a LIST take commas and ranges, and the sweep is over the
    product of them all. Every point is one probe of a random network on random
    input. The table has medians over the seeds: bits per layer that gradients of
    activations and of weights lose, layers from the loss that get a gradient of
    either, and log2 of the loss scale to take.
    """
    import gradkern
    from gradkern import _cli_input

    _cli_output.check_outputs(plot, None)
    grid: dict[str, Any] = {
        "depth": read_numbers(depth, "--depth", True), "width": read_numbers(width, "--width", True),
        "activation": _items(activation), "init": _items(init), "gain": read_numbers(gain, "--gain", False),
        "bias_std": read_numbers(bias_std, "--bias-std", False), "arithmetic": _items(arithmetic),
        "scale": [_cli_input.read_scale(item) for item in _items(scale)],
        "batch": read_numbers(batch, "--batch", True), "seed": range(seeds),
    }  # fmt: skip
    with _executor(workers, dask) as executor:
        result = gradkern.sweep(grid, executor, path=out)
    options = {"value": value, "x": x, "y": y}
    with _cli_output.then_files(plot, None, result, **options):
        if as_json:
            payload = result.to_dict()
            _cli_output.print_json({**payload, "quenched": result.quenched().to_dict()["rows"]})
        else:
            _show(result, everything)
    return FOUND if result.failed else HEALTHY


@contextmanager
def _executor(workers: int, dask: str | None) -> Iterator[Executor | None]:
    if dask is not None:
        try:
            import distributed
        except ImportError:
            raise ValueError("--dask: needs dask.distributed: pip install 'gradkern[sweep]'") from None
        connect: Any = distributed.Client
        with connect(dask) as client:
            yield client.get_executor()
    elif workers == 1:
        yield None
    else:
        import multiprocessing
        from concurrent.futures import ProcessPoolExecutor

        pool = ProcessPoolExecutor(workers, multiprocessing.get_context("spawn"))
        try:
            yield pool
        finally:
            pool.shutdown(cancel_futures=True)


def _show(result: SweepResult, everything: bool) -> None:
    """Print the headline and the medians."""
    from rich.table import Table
    from rich.text import Text

    screen, typical = _cli_output.console(), result.quenched()
    screen.print(Text(result.headline(), style="bold"))
    header, rows = typical.table(None if everything else _SHOWN)
    table = Table(
        title="medians over the seeds", title_justify="left", title_style="dim", box=None, padding=(0, 2, 0, 0)
    )
    for name in header:
        table.add_column(name, justify="right", overflow="fold")
    for cells in rows:
        table.add_row(*map(Text, cells))
    screen.print(table)
    if len(rows) < len(typical):
        screen.print(Text(f"... and {len(typical) - len(rows):,} more; --all prints them", style="dim"))
    for error, count in Counter(row["error"] for row in result.failed).most_common(5):
        screen.print(Text(f"{count:,} failed: {error}", "red"))
