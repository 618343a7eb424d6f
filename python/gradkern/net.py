"""Networks as data: `Dense` layers and the `MLP` made of them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from gradkern._arguments import finite, generator_of, path_of, positive_integer
from gradkern._arrays import Bits, read, same_kind
from gradkern._text import arrowed
from gradkern.activation import activation_code
from gradkern.init import INITIALISATIONS


def read_parameter(value: Any, name: str, dimensions: int) -> Bits:
    """Copy a weight or bias after checking it.

    Raises
    ------
    TypeError, ValueError
        If it is no array, has the wrong number of dimensions, is empty, or holds NaN or inf.
    """
    bits = read(value, name)
    if len(bits.shape) != dimensions:
        kind = "a matrix (n_out, n_in)" if dimensions == 2 else "a vector (n_out,)"
        raise ValueError(f"{name}: must be {kind}, got shape {bits.shape}")
    if 0 in bits.shape:
        raise ValueError(f"{name}: must not be empty, got shape {bits.shape}")
    bad = np.flatnonzero(~np.isfinite(bits.values.astype(np.float64)))
    if bad.size:
        where = tuple(int(i) for i in np.unravel_index(bad[0], bits.shape))
        raise ValueError(f"{name}: {bad.size} of {bits.values.size} entries are not finite, the first at {where}")
    return Bits(
        bits.bits.copy(), bits.format, same_kind
    )  # a later change of the caller's array is not a change of the net


@dataclass(frozen=True, eq=False)
class Dense:
    """One dense layer, h = phi(x W^T + b).

    Parameters
    ----------
    weight : array, (n_out, n_in)
        Any kind and format; finite.
    bias : array, (n_out,), optional
        Likewise.
    activation : str
        See `activations`.

    Raises
    ------
    TypeError, ValueError
        If an array has the wrong dtype or shape, is empty, or holds NaN or inf.
    """

    weight: Any
    bias: Any = None
    activation: str = "identity"
    name: str = "Dense"
    _weight: Bits = field(init=False, repr=False, compare=False)
    _bias: Bits | None = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        weight = read_parameter(self.weight, f"{self.name}.weight", 2)
        bias = None if self.bias is None else read_parameter(self.bias, f"{self.name}.bias", 1)
        if bias is not None and bias.shape != weight.shape[:1]:
            raise ValueError(f"{self.name}.bias: has shape {bias.shape}, but {self.name}.weight has {weight.shape}")
        activation_code(self.activation, self.name)
        object.__setattr__(self, "_weight", weight)
        object.__setattr__(self, "_bias", bias)

    @property
    def n_in(self) -> int:
        """Inputs."""
        return self._weight.shape[1]

    @property
    def n_out(self) -> int:
        """Outputs."""
        return self._weight.shape[0]

    @property
    def parameters(self) -> tuple[Bits, Bits | None]:
        """Weight and bias as the kernels see them."""
        return self._weight, self._bias

    def __repr__(self) -> str:
        bias = "" if self._bias is not None else ", no bias"
        return f"Dense({self.n_in} -> {self.n_out}, {self.activation}{bias}, {self._weight.format})"


class MLP:
    """A chain of dense layers.

    Parameters
    ----------
    layers : sequence of Dense
        At least one; each layer's n_in is the n_out of the one before.

    Raises
    ------
    TypeError
        If the layers are no sequence, or one of them is no `Dense`.
    ValueError
        If there is no layer, or two do not chain; the message names both shapes.
    """

    def __init__(self, layers: Sequence[Dense]) -> None:
        if not isinstance(layers, Iterable):
            raise TypeError(f"MLP: layers must be a sequence of Dense, got {type(layers).__name__}")
        self.layers = list(layers)
        for index, layer in enumerate(self.layers):
            if not isinstance(layer, Dense):
                raise TypeError(f"MLP: layer {index} must be a Dense, got {type(layer).__name__}")
        if not self.layers:
            raise ValueError("MLP: needs at least one layer, got none")
        for index, (before, after) in enumerate(pairwise(self.layers)):
            if before.n_out != after.n_in:
                raise ValueError(
                    f"MLP: layers do not chain: {before.name}.weight of layer {index} has shape "
                    f"{(before.n_out, before.n_in)}, {after.name}.weight of layer {index + 1} {(after.n_out, after.n_in)}: "
                    f"{before.n_out} outputs into {after.n_in} inputs"
                )

    @classmethod
    def random(
        cls,
        *,
        depth: int = 20,
        width: int = 64,
        widths: Sequence[int] | None = None,
        activation: str = "relu",
        output_activation: str | None = None,
        init: str = "he_normal",
        gain: float = 1.0,
        bias_std: float = 0.0,
        seed: int = 0,
    ) -> MLP:
        """Draw a network.

        Parameters
        ----------
        depth, width : int
            Layers and units of each, used where `widths` is not given.
        widths : sequence of int, optional
            ``depth + 1`` sizes, the input's first.
        activation : str
            Of every layer.
        output_activation : str, optional
            Of the last layer, if it differs.
        init : str
            A name from `gradkern.init`.
        gain : float
            Multiplies the weights.
        bias_std : float
            Standard deviation of normal biases; 0 gives zero biases.
        seed : int
            Seed of NumPy's PCG64.

        Returns
        -------
        MLP

        Raises
        ------
        TypeError
            If a size or the seed is no integer, or gain or bias_std no number.
        ValueError
            If a size is below 1, there are fewer than two widths, gain is not finite, bias_std is negative or not finite, the
            seed is negative, or a name is unknown.
        """
        if widths is None:
            depth, width = (positive_integer(n, "MLP.random", name) for n, name in ((depth, "depth"), (width, "width")))
            sizes = [width] * (depth + 1)
        else:
            sizes = [positive_integer(n, "MLP.random", "each of widths") for n in widths]
        if len(sizes) < 2:
            raise ValueError(f"MLP.random: needs at least two widths, got {sizes}")
        if init not in INITIALISATIONS:
            raise ValueError(f"MLP.random: init must be one of {', '.join(INITIALISATIONS)}, got {init!r}")
        gain, bias_std = finite(gain, "MLP.random", "gain"), finite(bias_std, "MLP.random", "bias_std", negative=False)
        generator = generator_of(seed, "MLP.random")
        layers = []
        for index, (n_in, n_out) in enumerate(pairwise(sizes)):
            weight = INITIALISATIONS[init](n_out, n_in, gain=gain, seed=generator)
            bias = bias_std * generator.standard_normal(n_out) if bias_std else np.zeros(n_out)
            last = index == len(sizes) - 2
            phi = output_activation if last and output_activation is not None else activation
            layers.append(Dense(weight, bias, phi, name=f"layers.{index}"))
        return cls(layers)

    @classmethod
    def load(cls, path: str | Path, activation: str | None = None, output_activation: str = "identity") -> MLP:
        """Read a .safetensors or .npz file; see `gradkern.model_file` for what it may hold.

        Parameters
        ----------
        path : path
            A file saved by `save`, or a state dict of dense layers in order (``0.weight``, ``0.bias``, ``2.weight``, ...).
        activation : str, optional
            Of every layer but the last, in place of what the file says; needed where it names none.
        output_activation : str
            Of the last layer, where `activation` is given: a file's own activations are taken all or none.

        Raises
        ------
        ModelFileError
            If the file is missing, truncated or not a model, or its layers do not chain; names the tensor.
        TypeError
            If path is none, but a state dict itself, say.
        """
        from gradkern.model_file import load_layers

        instead = "weights in memory go into MLP([Dense(weight, bias, activation), ...])"
        return cls(load_layers(path_of(path, "MLP.load", instead), activation, output_activation))

    def save(self, path: str | Path) -> None:
        """Write a .safetensors or .npz file, by its ending, with the activations beside the weights."""
        from gradkern.model_file import save_layers

        save_layers(self.layers, Path(path))

    @property
    def depth(self) -> int:
        """Layers."""
        return len(self.layers)

    @property
    def widths(self) -> list[int]:
        """Sizes, the input's first."""
        return [self.layers[0].n_in, *(layer.n_out for layer in self.layers)]

    @property
    def parameter_count(self) -> int:
        """Weights and biases."""
        return sum(layer.n_in * layer.n_out + (layer.n_out if layer.bias is not None else 0) for layer in self.layers)

    @property
    def activations(self) -> list[str]:
        """Activation of each layer."""
        return [layer.activation for layer in self.layers]

    def __repr__(self) -> str:
        names = list(dict.fromkeys(self.activations))
        text = arrowed(self.widths)
        return f"MLP({self.depth} layers, {text}, {', '.join(names)}, {self.parameter_count:,} parameters)"
