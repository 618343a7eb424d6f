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
_INTEGERS: dict[str, Any] = {
    "I64": np.int64, "I32": np.int32, "I16": np.int16, "I8": np.int8,
    "U64": np.uint64, "U32": np.uint32, "U16": np.uint16, "U8": np.uint8,
}  # fmt: skip


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


def _only(path: Path, arrays: dict[str, NDArray[Any]]) -> NDArray[Any]:
    if len(arrays) != 1:
        names = ", ".join(sorted(arrays)[:5]) or "nothing"
        raise ValueError(f"{path}: must hold one array, holds {len(arrays)}: {names}")
    return next(iter(arrays.values()))


def _read_numpy(path: Path) -> NDArray[Any]:
    try:
        loaded = np.load(path, allow_pickle=False)
        if isinstance(loaded, np.ndarray):
            return loaded
        with loaded:
            return _only(path, {name: loaded[name] for name in loaded.files})
    except (zipfile.BadZipFile, EOFError, KeyError) as error:
        raise ValueError(f"{path}: not a complete {path.suffix} file ({error})") from None
    except ValueError as error:
        if str(error).startswith(str(path)):
            raise
        raise ValueError(f"{path}: not a complete {path.suffix} file ({error})") from None


def _read_safetensors(path: Path) -> NDArray[Any]:
    from safetensors import SafetensorError, deserialize

    from gradkern.model_file import _SAFETENSORS_DTYPES

    try:
        entries = deserialize(path.read_bytes())  # type: ignore[no-untyped-call]
    except (SafetensorError, ValueError) as error:
        raise ValueError(f"{path}: not a complete .safetensors file ({error})") from None
    arrays = {}
    for name, entry in entries:
        dtype = (_SAFETENSORS_DTYPES | _INTEGERS).get(entry["dtype"])
        if dtype is None:
            raise ValueError(f"{path}: tensor {name!r} has dtype {entry['dtype']}, which is no number format here")
        arrays[name] = np.frombuffer(bytes(entry["data"]), dtype=dtype).reshape(entry["shape"])
    return _only(path, arrays)


def read_array(path: Path) -> NDArray[Any]:
    """Read the one array of a .npy, .npz or .safetensors file.

    Raises
    ------
    ValueError
        If the file is missing, incomplete, of another kind, or holds another number of arrays.
    """
    if not path.is_file():
        raise ValueError(f"{path}: no such file")
    if path.suffix in (".npy", ".npz"):
        array = _read_numpy(path)
    elif path.suffix == ".safetensors":
        array = _read_safetensors(path)
    else:
        raise ValueError(f"{path}: must be a .npy, .npz or .safetensors file, got {path.suffix or 'no ending'!r}")
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
