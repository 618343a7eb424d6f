"""The command ``gradkern descend``: what a learning rate and a format do to training, step by step and layer by layer."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from gradkern import _cli_output
from gradkern._cli_output import FailOn

if TYPE_CHECKING:
    from gradkern.net import MLP
    from gradkern.scale import LossScaler

EXAMPLES = """[bold]Examples[/bold]

[cyan]gradkern descend[/cyan]   a random network learns the embedded digits in float16

[cyan]gradkern descend --lr 8[/cyan]   too large: larger weights, larger gradients, infinity, NaN, and in which layer first

[cyan]gradkern descend --lr 1 --clip 0.5[/cyan]   a rate that learns nothing, until gradients are clipped

[cyan]gradkern descend --lr 2e-5 --arithmetic bfloat16[/cyan]   too small for the format: updates are lost, nothing is learnt

[cyan]gradkern descend --lr 2e-5 --arithmetic bfloat16 --master-weights float32[/cyan]   the same rate, no update lost

[cyan]gradkern descend --lr 2e-5 --arithmetic 'bfloat16\\[rounding=stochastic]'[/cyan]   the same on average

[cyan]gradkern descend mlp.npz --input x.npy --target y.npy --scaler --plot descent.png[/cyan]   your own network and data
"""


def descend(
    model: Annotated[
        Path | None,
        typer.Argument(help="A .safetensors or .npz file of dense layers to start from. Default: a random network."),
    ] = None,
    lr: Annotated[float, typer.Option(help="The learning rate.")] = 0.1,
    steps: Annotated[int, typer.Option(metavar="N", min=1, help="Steps of gradient descent.")] = 50,
    activation: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="Of every layer but the last. Default: what the file says; relu if random."),
    ] = None,
    output_activation: Annotated[
        str, typer.Option(metavar="NAME", help="Of the last layer, where --activation is given.")
    ] = "identity",
    depth: Annotated[int, typer.Option(metavar="N", min=1, help="Layers of the random network.")] = 8,
    width: Annotated[int, typer.Option(metavar="N", min=1, help="Units of each of its layers.")] = 32,
    init: Annotated[str, typer.Option(metavar="NAME", help="Its initialisation: he_normal, xavier_normal, ...")] = (
        "he_normal"
    ),
    seed: Annotated[int, typer.Option(help="Seed of the random network.")] = 0,
    inputs: Annotated[
        Path | None,
        typer.Option("--input", help="The data, .npy, .npz or .safetensors. Default: the embedded images of digits."),
    ] = None,
    target: Annotated[
        Path | None, typer.Option(help="Class numbers (rows,), or values (rows, outputs); files as for --input.")
    ] = None,
    loss: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="cross_entropy, mse or sum. Default: by the target, as for probe."),
    ] = None,
    arithmetic: Annotated[
        str, typer.Option(metavar="NAME", help="A preset, or one with changes: float16\\[rounding=stochastic].")
    ] = "float16",
    master_weights: Annotated[
        str | None,
        typer.Option(metavar="FORMAT", help="Keep and update the weights in this format, such as float32."),
    ] = None,
    clip: Annotated[float | None, typer.Option(metavar="NORM", help="Clip gradients to this global norm.")] = None,
    scaler: Annotated[
        bool, typer.Option("--scaler/--no-scaler", help="Scale the loss dynamically; skip steps with NaN or infinity.")
    ] = False,
    scale: Annotated[str, typer.Option(help="Fixed loss scale, or the scaler's first: 1024 or 2^10.")] = "1",
    batch: Annotated[
        int | None, typer.Option(metavar="N", min=1, help="Rows of a step, in order, round and round. Default: all.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the whole run as JSON and nothing else.")] = False,
    plot: Annotated[
        Path | None, typer.Option(help="Write the picture here: .png, .svg or .pdf. Needs matplotlib.")
    ] = None,
    save: Annotated[
        Path | None, typer.Option(help="Write the run here, .json or .json.gz, for Trajectory.load.")
    ] = None,
    fail_on: Annotated[
        FailOn, typer.Option(metavar="LEVEL", help="critical, major, minor or none: what makes the exit code 1.")
    ] = FailOn.none,
    threads: Annotated[int | None, typer.Option(help="Threads; the result does not depend on them.")] = None,
) -> int:
    """Train by plain gradient descent in an arithmetic, and say what became of it.

    A rate that is too large makes weights larger, gradients larger still, then
    infinity and NaN: the run says in which layer and step it began. One that is
    too small for the format moves nothing: w + u is rounded back to w. In between
    the run converges, descends, or oscillates. Clipping (--clip), loss scaling
    (--scaler, --scale), master weights (--master-weights) and stochastic rounding
    are the remedies: each changes one of these, and none of the others.
    """
    import gradkern
    from gradkern import _cli_input

    _cli_output.check_outputs(plot, save)
    factor = _cli_input.read_scale(scale)
    if threads is not None:
        gradkern.set_num_threads(threads)
    net, x, y, source = _problem(
        model,
        activation,
        output_activation,
        inputs,
        target,
        {"depth": depth, "width": width, "init": init, "seed": seed},
    )
    with _cli_output.progress() as progress:
        run = gradkern.descend(
            net, x, y, lr=lr, steps=steps, loss=loss or _cli_input.default_loss(y), arithmetic=arithmetic, clip=clip,
            scaler=_scaler(factor) if scaler else factor, master_weights=master_weights, batch=batch, progress=progress,
        )  # fmt: skip
    with _cli_output.then_files(plot, save, run):
        if as_json:
            _cli_output.print_json({"source": source, **run.to_dict()})
        else:
            from gradkern.render_descent import render_trajectory

            console = _cli_output.console()
            _cli_output.print_source(f"training {source}", console)
            render_trajectory(run, console)
    return _cli_output.exit_code((finding.severity for finding in run.findings), fail_on)


def _scaler(first: float) -> LossScaler:
    from gradkern.scale import LossScaler

    return LossScaler() if first == 1 else LossScaler(first, floor=min(1.0, first), ceiling=max(2.0**24, first))


def _problem(
    model: Path | None, activation: str | None, output_activation: str, inputs: Path | None, target: Path | None,
    random: dict[str, Any],
) -> tuple[MLP, Any, Any, str]:  # fmt: skip
    """Return network, input, target and a sentence on where they come from."""
    from gradkern import _cli_input
    from gradkern.data import digits
    from gradkern.net import MLP

    if inputs is None and target is not None:
        raise ValueError("--target: needs an --input; the embedded images have their own labels")
    x: Any
    y: Any
    if inputs is None:
        x, y = digits.images()
        data = f"{len(x)} embedded images of digits"
    else:
        x, y = _cli_input.read_array(inputs), None if target is None else _cli_input.read_array(target)
        data = str(inputs)
    if model is not None:
        return _cli_input.read_model(model, activation, output_activation), x, y, f"{model} on {data}"
    outputs = _outputs(y)
    widths = [math.prod(x.shape[1:]), *[random["width"]] * (random["depth"] - 1), outputs]
    net = MLP.random(
        widths=widths, activation=activation or "relu", output_activation=output_activation, init=random["init"],
        seed=random["seed"],
    )  # fmt: skip
    return net, x, y, f"a random network (seed {random['seed']}) on {data}"


def _outputs(target: Any) -> int:
    """Count the outputs that a target asks for."""
    if target is None:
        return 1
    if target.ndim == 1 and target.dtype.kind in "iu":
        return int(target.max()) + 1
    return int(math.prod(target.shape[1:]))
