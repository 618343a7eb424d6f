"""What the command line is given: models, arrays and numbers, read with errors of one precise line."""

from __future__ import annotations

import math
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from gradkern.net import MLP

_ROWS = 64


def read_scale(text: str) -> float:
    """Read a loss scale written as ``1024``, ``0x1p10`` or ``2^10``.

    Raises
    ------
    ValueError
        If it is not a power of two that float64 holds.
    """
    base, power, exponent = text.replace("**", "^").partition("^")
    try:
        if power:
            scale = math.ldexp(1.0, int(exponent)) if float(base) == 2 else math.nan
        else:
            scale = float.fromhex(text) if text.lower().startswith("0x") else float(text)
    except (ValueError, OverflowError):
        scale = math.nan
    if not (scale > 0 and math.isfinite(scale) and math.frexp(scale)[0] == 0.5):
        raise ValueError(f"--scale: must be a power of two such as 1024 or 2^10, got {text!r}")
    return scale


def read_format(text: str) -> str:
    """Read the name of a format.

    Raises
    ------
    ValueError
        If it is none; lists them.
    """
    from gradkern.formats import format_name

    try:
        return format_name(text)
    except ValueError as error:
        raise ValueError(f"--{error}") from None


def is_table(path: Path) -> bool:
    """Whether a file is named, or an .npz laid out, as a saved table: an index of shards is not, nor an .npz of arrays."""
    from gradkern.table import TABLE_KEY

    if path.name.endswith((".json", ".json.gz")):
        return not path.name.endswith(".safetensors.index.json") and not path.is_dir()
    if path.suffix != ".npz" or not path.is_file():
        return False
    try:
        with zipfile.ZipFile(path) as archive:
            return archive.namelist() == [f"{TABLE_KEY}.npy"]
    except (OSError, zipfile.BadZipFile):
        return False


def read_array(path: Path) -> NDArray[Any]:
    """Read the one array of a .npy, .npz or .safetensors file.

    Raises
    ------
    ValueError
        If the file is missing, incomplete, of another kind, or holds another number of arrays.
    """
    from gradkern.tensor_file import open_tensors

    if not path.is_file():
        raise ValueError(f"{path}: no such file")
    tensors = list(open_tensors(path))
    if len(tensors) != 1:
        names = ", ".join(sorted(tensor.name for tensor in tensors)[:5]) or "nothing"
        raise ValueError(f"{path}: must hold one array, holds {len(tensors)}: {names}")
    array = tensors[0].load(verify=True)
    if array.size == 0:
        raise ValueError(f"{path}: the array of shape {array.shape} is empty")
    return array


def read_model(path: Path, activation: str | None, output_activation: str) -> MLP:
    """Read a model; the error names the options of the command line.

    Raises
    ------
    ModelFileError
        If it is not a model.
    """
    from gradkern.errors import ModelFileError
    from gradkern.net import MLP

    try:
        return MLP.load(path, activation, output_activation)
    except ModelFileError as error:
        message = str(error).replace("pass activation=, such as 'relu'", "give one, such as --activation relu")
        raise ModelFileError(message) from None


def problem(
    model: Path | None, activation: str | None, output_activation: str, inputs: Path | None, target: Path | None
) -> tuple[MLP, NDArray[Any], NDArray[Any] | None, str]:
    """Return network, input, target and a sentence on where they come from."""
    y = None if target is None else read_array(target)
    if model is None:
        if activation is not None:
            raise ValueError("--activation: needs a MODEL; the embedded digits network has its own")
        from gradkern.data import digits

        net: MLP = digits.model()
        if inputs is not None:
            return net, read_array(inputs), y, f"the embedded digits network on {inputs}"
        images, labels = digits.images()
        return net, images, labels if y is None else y, f"the embedded digits network on {len(images)} embedded images"
    net = read_model(model, activation, output_activation)
    if inputs is not None:
        return net, read_array(inputs), y, f"{model} on {inputs}"
    x = np.random.default_rng(0).standard_normal((_ROWS, net.widths[0]))
    return net, x, y, f"{model} on {_ROWS} random normal rows (seed 0), as no --input was given"


def default_loss(target: NDArray[Any] | None) -> str:
    """Loss for a target: ``sum`` without, ``cross_entropy`` for a vector of integers, else ``mse``."""
    if target is None:
        return "sum"
    return "cross_entropy" if target.dtype.kind in "iu" and target.ndim == 1 else "mse"
