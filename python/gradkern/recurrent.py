"""Recurrent networks as data: `RNN`, one tied layer stepped through time."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from gradkern._arguments import finite, generator_of, path_of, positive_integer
from gradkern._arrays import Bits
from gradkern.activation import activation_code
from gradkern.init import INITIALISATIONS
from gradkern.net import read_parameter


@dataclass(frozen=True, eq=False)
class RNN:
    """A recurrent layer, h_t = phi(V x_t + W h_{t-1} + b), its weights the same at every step (Elman 1990).

    Parameters
    ----------
    recurrent_weight : array, (hidden, hidden)
        W. Any kind and format; finite.
    input_weight : array, (hidden, inputs)
        V, likewise.
    bias : array, (hidden,), optional
        b, likewise.
    activation : str
        See `activations`.

    Raises
    ------
    TypeError, ValueError
        If an array has the wrong dtype or shape, is empty, or holds NaN or inf; the message names both shapes.
    """

    recurrent_weight: Any
    input_weight: Any
    bias: Any = None
    activation: str = "tanh"
    _recurrent: Bits = field(init=False, repr=False)
    _input: Bits = field(init=False, repr=False)
    _bias: Bits | None = field(init=False, repr=False)

    def __post_init__(self) -> None:
        recurrent = read_parameter(self.recurrent_weight, "RNN.recurrent_weight", 2)
        inputs = read_parameter(self.input_weight, "RNN.input_weight", 2)
        bias = None if self.bias is None else read_parameter(self.bias, "RNN.bias", 1)
        if recurrent.shape[0] != recurrent.shape[1]:
            raise ValueError(f"RNN.recurrent_weight: must be square (hidden, hidden), got shape {recurrent.shape}")
        if inputs.shape[0] != recurrent.shape[0]:
            raise ValueError(
                f"RNN.input_weight: has shape {inputs.shape}, but RNN.recurrent_weight has {recurrent.shape}: it must be "
                f"({recurrent.shape[0]}, inputs)"
            )
        if bias is not None and bias.shape != recurrent.shape[:1]:
            raise ValueError(f"RNN.bias: has shape {bias.shape}, but RNN.recurrent_weight has {recurrent.shape}")
        activation_code(self.activation, "RNN")
        for name, value in (("_recurrent", recurrent), ("_input", inputs), ("_bias", bias)):
            object.__setattr__(self, name, value)

    @classmethod
    def random(
        cls,
        *,
        hidden: int = 64,
        inputs: int = 16,
        activation: str = "tanh",
        init: str = "orthogonal",
        input_init: str = "xavier_normal",
        gain: float = 1.0,
        input_gain: float = 1.0,
        bias_std: float = 0.0,
        seed: int = 0,
    ) -> RNN:
        """Draw a recurrent network.

        Parameters
        ----------
        hidden, inputs : int
            Units, and numbers of x at each step.
        activation : str
            See `activations`.
        init, input_init : str
            Names from `gradkern.init`, of the recurrent and of the input weights.
        gain, input_gain : float
            Multiply them.
        bias_std : float
            Standard deviation of normal biases; 0 gives zero biases.
        seed : int
            Seed of NumPy's PCG64.

        Returns
        -------
        RNN

        Raises
        ------
        TypeError, ValueError
            If a size is no integer or below 1, a gain or bias_std no finite number, bias_std negative, the seed no integer or
            negative, or a name unknown.
        """
        for argument, name in (("init", init), ("input_init", input_init)):
            if name not in INITIALISATIONS:
                raise ValueError(f"RNN.random: {argument} must be one of {', '.join(INITIALISATIONS)}, got {name!r}")
        hidden, inputs = (
            positive_integer(hidden, "RNN.random", "hidden"),
            positive_integer(inputs, "RNN.random", "inputs"),
        )
        gain, input_gain = finite(gain, "RNN.random", "gain"), finite(input_gain, "RNN.random", "input_gain")
        bias_std = finite(bias_std, "RNN.random", "bias_std", negative=False)
        generator = generator_of(seed, "RNN.random")
        recurrent = INITIALISATIONS[init](hidden, hidden, gain=gain, seed=generator)
        from_input = INITIALISATIONS[input_init](hidden, inputs, gain=input_gain, seed=generator)
        bias = bias_std * generator.standard_normal(hidden) if bias_std else np.zeros(hidden)
        return cls(recurrent, from_input, bias, activation)

    @classmethod
    def load(cls, path: str | Path, activation: str = "tanh") -> RNN:
        """Read a .safetensors or .npz file with the tensors of one layer of torch.nn.RNN.

        Parameters
        ----------
        path : path
            Holds ``weight_hh_l0``, ``weight_ih_l0`` and, if there are biases, ``bias_ih_l0`` and ``bias_hh_l0``, which are
            added in float64; a prefix before the names is skipped. `save` writes such files.
        activation : str
            torch.nn.RNN's ``nonlinearity``.

        Raises
        ------
        ModelFileError
            If the file is missing, truncated, or holds no or more than one such layer.
        TypeError
            If path is none, but a state dict itself, say.
        """
        from gradkern.model_file import load_recurrent

        instead = "weights in memory go into RNN(recurrent_weight, input_weight, bias)"
        return load_recurrent(path_of(path, "RNN.load", instead), activation)

    def save(self, path: str | Path) -> None:
        """Write a .safetensors or .npz file, by its ending, with the names of torch.nn.RNN."""
        from gradkern.model_file import save_tensors

        tensors = {"weight_hh_l0": self._recurrent.values, "weight_ih_l0": self._input.values}
        if self._bias is not None:
            tensors["bias_ih_l0"] = self._bias.values
        save_tensors(tensors, [self.activation], Path(path))

    @property
    def hidden(self) -> int:
        """Units."""
        return self._recurrent.shape[0]

    @property
    def inputs(self) -> int:
        """Numbers of x at each step."""
        return self._input.shape[1]

    @property
    def parameters(self) -> tuple[Bits, Bits, Bits | None]:
        """Recurrent weight, input weight and bias as the kernels see them."""
        return self._recurrent, self._input, self._bias

    def __repr__(self) -> str:
        bias = "" if self._bias is not None else ", no bias"
        return f"RNN({self.inputs} inputs, {self.hidden} units, {self.activation}{bias}, {self._recurrent.format})"
