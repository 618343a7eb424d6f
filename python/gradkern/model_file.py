"""Models in .safetensors and .npz files.

A model is a set of matrices named ``<prefix>weight`` with shape (n_out, n_in) and optional vectors ``<prefix>bias``, in the
natural order of their names (``layers.2`` before ``layers.10``), as torch.nn.Sequential numbers them. Files written here also
carry the activations: in the metadata of a .safetensors file, in the array ``activations`` of an .npz file.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gradkern.errors import ModelFileError, TensorFileError
from gradkern.net import Dense
from gradkern.recurrent import RNN
from gradkern.tensor_file import natural_key, open_tensors

_ACTIVATIONS = "activations"
_FLOATING = ("F64", "F32", "F16", "BF16", "F8_E4M3", "F8_E5M2")

Tensors = dict[str, NDArray[Any]]


def _stored_activations(text: str | None) -> list[str] | None:
    """Return the names that `save_layers` wrote; metadata of the same name from elsewhere is not ours."""
    try:
        names = json.loads(text or "null")
    except ValueError:
        return None
    return names if isinstance(names, list) and all(isinstance(name, str) for name in names) else None


def read_tensors(path: Path) -> tuple[Tensors, list[str] | None]:
    """Read all tensors of a file, and the activations where the file holds them.

    Raises
    ------
    ModelFileError
        If the file is missing, of another kind, or incomplete.
    """
    if path.exists() and not path.is_file():
        raise ModelFileError(f"{path}: not a file")
    if path.exists() and path.suffix not in (".safetensors", ".npz"):
        raise ModelFileError(f"{path}: a model must be a .safetensors or .npz file, got {path.suffix or 'no ending'!r}")
    try:
        with open_tensors(path) as opened:
            tensors = {tensor.name: tensor.load(verify=True) for tensor in opened}
    except TensorFileError as error:
        raise ModelFileError(str(error)) from None
    if path.suffix == ".safetensors":
        for tensor in opened:
            if tensor.dtype_name not in _FLOATING:
                message = (
                    f"tensor {tensor.name!r} has dtype {tensor.dtype_name}, which is no floating-point format here"
                )
                raise ModelFileError(f"{path}: {message}")
        return tensors, _stored_activations(opened.metadata.get(_ACTIVATIONS))
    stored = tensors.pop(_ACTIVATIONS, None)
    if stored is None or stored.ndim != 1 or stored.dtype.kind != "U":
        return tensors, None
    return tensors, [str(name) for name in stored]


def load_layers(path: Path, activation: str | None, output_activation: str) -> list[Dense]:
    """Read the layers of a model; see `MLP.load`."""
    tensors, stored = read_tensors(path)
    prefixes = sorted((n.removesuffix("weight") for n in tensors if n.endswith("weight")), key=natural_key)
    if not prefixes:
        found = ", ".join(sorted(tensors)[:5]) or "nothing"
        raise ModelFileError(f"{path}: no tensor named '...weight', so not a model of dense layers; it holds {found}")
    unknown = set(tensors) - {f"{p}weight" for p in prefixes} - {f"{p}bias" for p in prefixes}
    if unknown:
        name = min(unknown)
        raise ModelFileError(
            f"{path}: tensor {name!r} {tensors[name].shape} is neither a weight nor a bias of a dense layer"
        )
    for prefix in prefixes:
        weight = tensors[f"{prefix}weight"]
        if weight.ndim != 2:
            raise ModelFileError(f"{path}: tensor '{prefix}weight' must be a matrix (n_out, n_in), got {weight.shape}")
    if activation is not None:
        names = [activation] * (len(prefixes) - 1) + [output_activation]
    elif stored is not None:
        names = stored
    else:
        raise ModelFileError(f"{path}: the file names no activations; pass activation=, such as 'relu'")
    if len(names) != len(prefixes):
        raise ModelFileError(f"{path}: {len(names)} activations for {len(prefixes)} layers")
    layers: list[Dense] = []
    for prefix, name in zip(prefixes, names, strict=True):
        try:
            layer = Dense(tensors[f"{prefix}weight"], tensors.get(f"{prefix}bias"), name, name=prefix.removesuffix("."))
        except (TypeError, ValueError) as error:
            raise ModelFileError(f"{path}: {error}") from None
        if layers and layers[-1].n_out != layer.n_in:
            before = (layers[-1].n_out, layers[-1].n_in)
            raise ModelFileError(
                f"{path}: layers do not chain: '{layers[-1].name}.weight' has shape {before}, "
                f"'{layer.name}.weight' {(layer.n_out, layer.n_in)}: {before[0]} outputs into {layer.n_in} inputs"
            )
        layers.append(layer)
    return layers


def load_recurrent(path: Path, activation: str) -> RNN:
    """Read one recurrent layer; see `RNN.load`."""
    tensors, stored = read_tensors(path)
    prefixes = [name.removesuffix("weight_hh_l0") for name in tensors if name.endswith("weight_hh_l0")]
    if len(prefixes) != 1:
        found = ", ".join(sorted(tensors)[:5]) or "nothing"
        raise ModelFileError(
            f"{path}: {len(prefixes)} tensors are named '...weight_hh_l0', one must be; it holds {found}"
        )
    prefix = prefixes[0]
    known = {f"{prefix}{name}" for name in ("weight_hh_l0", "weight_ih_l0", "bias_ih_l0", "bias_hh_l0")}
    unknown = sorted(name for name in set(tensors) - known if name.startswith(prefix))
    if unknown or f"{prefix}weight_ih_l0" not in tensors:
        what = f"tensor {unknown[0]!r} is no part of" if unknown else f"there is no '{prefix}weight_ih_l0' of"
        raise ModelFileError(f"{path}: {what} one layer of torch.nn.RNN")
    biases = [tensors[name] for name in (f"{prefix}bias_ih_l0", f"{prefix}bias_hh_l0") if name in tensors]
    bias = biases[0] if len(biases) == 1 else sum(np.asarray(b, np.float64) for b in biases) if biases else None
    names = stored if stored is not None and len(stored) == 1 else [activation]
    try:
        return RNN(tensors[f"{prefix}weight_hh_l0"], tensors[f"{prefix}weight_ih_l0"], bias, names[0])
    except (TypeError, ValueError) as error:
        raise ModelFileError(f"{path}: {error}") from None


def save_layers(layers: Sequence[Dense], path: Path) -> None:
    """Write layers to a .safetensors or .npz file; see `MLP.save` and `save_tensors`."""
    tensors: Tensors = {}
    for index, layer in enumerate(layers):
        weight, bias = layer.parameters
        tensors[f"layers.{index}.weight"] = weight.values
        if bias is not None:
            tensors[f"layers.{index}.bias"] = bias.values
    save_tensors(tensors, [layer.activation for layer in layers], path)


def save_tensors(tensors: Tensors, activations: list[str], path: Path) -> None:
    """Write the tensors of a model with its activations.

    Raises
    ------
    ValueError
        If the ending is another one, or an .npz file would have to hold an ml_dtypes format.
    """
    if path.suffix == ".npz":
        for name, value in tensors.items():
            if value.dtype.kind == "V" or value.dtype.name.startswith(("bfloat", "float8")):
                raise ValueError(f"save: .npz cannot hold {name} in {value.dtype.name}; save as .safetensors")
        np.savez(path, **{_ACTIVATIONS: np.array(activations)}, **tensors)  # type: ignore[arg-type]
    elif path.suffix == ".safetensors":
        from safetensors.numpy import save_file

        save_file(tensors, path, metadata={_ACTIVATIONS: json.dumps(activations)})
    else:
        raise ValueError(f"save: path must end in .safetensors or .npz, got {path.name!r}")
