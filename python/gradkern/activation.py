"""Activations and their derivatives, under a chosen arithmetic."""

from __future__ import annotations

from typing import Any

import numpy as np

from gradkern import _core
from gradkern._arrays import Bits, as_bits_view, check_one_place, read_in_place, same_kind
from gradkern._backend import takes_device
from gradkern._output import output_view
from gradkern.arithmetic import Arithmetic, ArithmeticLike, arithmetic
from gradkern.cast import round_to
from gradkern.formats import format_ids

_IDS = {name: index for index, name in enumerate(_core.activation_names)}
_DEFAULT_ALPHA = {"leaky_relu": 0.01, "elu": 1.0}


def activations() -> list[str]:
    """Names of all activations."""
    return list(_IDS)


def activation_code(name: str, function: str) -> tuple[int, float]:
    """Return (number, alpha) of an activation; ``"leaky_relu(0.2)"`` and ``"elu(0.5)"`` set the parameter.

    Raises
    ------
    TypeError
        If the name is no string.
    ValueError
        If there is no such activation or parameter.
    """
    if not isinstance(name, str):
        raise TypeError(f"{function}: activation must be a name, got {name!r}")
    base, bracket, argument = name.partition("(")
    if base not in _IDS:
        raise ValueError(f"{function}: activation must be one of {', '.join(_IDS)}, got {name!r}")
    if not bracket:
        return _IDS[base], _DEFAULT_ALPHA.get(base, 0.0)
    if base not in _DEFAULT_ALPHA or not argument.endswith(")"):
        raise ValueError(f"{function}: only leaky_relu(slope) and elu(alpha) take a parameter, got {name!r}")
    try:
        alpha = float(argument[:-1])
    except ValueError:
        raise ValueError(f"{function}: the parameter of {base} must be a number, got {name!r}") from None
    if not np.isfinite(alpha):
        raise ValueError(f"{function}: the parameter of {base} must be finite, got {name!r}")
    if alpha < 0:
        raise ValueError(f"{function}: the parameter of {base} must not be negative, got {name!r}")
    return _IDS[base], alpha


def wide_bits(wide: Any) -> Bits:
    """Wrap a kernel's wide result, in float32 or float64, for rounding."""
    return Bits(as_bits_view(wide), wide.dtype.name, same_kind)


def to_storage(source: Bits, a: Arithmetic, stream: int = 0) -> Bits:
    """Round an argument to the storage format unless it is there already."""
    if source.format == a.storage and a.subnormals == "keep":
        return source
    stored, _ = round_to(source, a.storage, a.mode, seed=a.seed, stream=stream)
    return Bits(as_bits_view(stored), a.storage, source.restore)


def _finish(wide: Any, like: Bits, a: Arithmetic, out: Any, function: str) -> Any:
    stored, _ = round_to(wide_bits(wide), a.storage, a.mode, seed=a.seed, stream=16)
    stored = stored.reshape(like.shape)
    if out is None:
        return like.restore(stored)
    output_view(out, like.place, stored.shape, stored.dtype, function)[...] = stored
    return out


@takes_device
def activation_forward(
    pre_activation: Any,
    name: str,
    *,
    arithmetic: ArithmeticLike = "float32",
    out: Any = None,
    device: str | None = None,
) -> Any:
    """Compute fl(phi(z)): phi in float32 (float64 for float64 storage) from the stored z, one rounding to storage.

    Parameters
    ----------
    pre_activation : array
        z, any shape; rounded to storage first if it is in another format.
    name : str
        See `activations`; ``"leaky_relu(0.2)"`` and ``"elu(0.5)"`` set the parameter.
    arithmetic : str or Arithmetic
        Storage format and rounding.
    out : array, optional
        Where to write: a NumPy array, or one on z's device; z's shape, the storage dtype.
    device : {None, "cpu", "cuda", "simt"}
        Where to compute. None: where the arrays lie.

    Returns
    -------
    array
        Of z's kind and shape, in the storage format.

    Raises
    ------
    TypeError, ValueError
        For an argument of a wrong kind, dtype, shape or name.
    """
    function = "activation_forward"
    a = _arithmetic(arithmetic)
    code, alpha = activation_code(name, function)
    z = to_storage(read_in_place(pre_activation, f"{function}: pre_activation"), a)
    return _finish(_core.activation_forward(z.bits, z.format_id, code, alpha), z, a, out, function)


@takes_device
def activation_backward(
    grad_output: Any,
    pre_activation: Any,
    name: str,
    *,
    arithmetic: ArithmeticLike = "float32",
    out: Any = None,
    device: str | None = None,
) -> Any:
    """Compute fl(grad_output * phi'(z)), product and phi' in float32 (float64 for float64 storage), one rounding.

    At a kink phi' is the left derivative: relu'(0) = 0, as in PyTorch and JAX.

    Parameters
    ----------
    grad_output : array
        dL/dh, z's shape; rounded to storage first.
    pre_activation : array
        z; rounded to storage first.
    name : str
        See `activations`.
    arithmetic : str or Arithmetic
        ``derivative="stored_output"`` forms phi' from fl(phi(z)), as frameworks do.
    out : array, optional
        Where to write: a NumPy array, or one on z's device; z's shape, the storage dtype.
    device : {None, "cpu", "cuda", "simt"}
        Where to compute. None: where the arrays lie.

    Returns
    -------
    array
        dL/dz, of grad_output's kind.

    Raises
    ------
    TypeError, ValueError
        For an argument of a wrong kind, dtype, shape or name.
    """
    function = "activation_backward"
    a = _arithmetic(arithmetic)
    code, alpha = activation_code(name, function)
    z = to_storage(read_in_place(pre_activation, f"{function}: pre_activation"), a)
    dh = to_storage(read_in_place(grad_output, f"{function}: grad_output"), a, stream=1)
    check_one_place(function, grad_output=dh, pre_activation=z)
    if dh.shape != z.shape:
        raise ValueError(f"{function}: grad_output has shape {dh.shape}, pre_activation {z.shape}")
    output = None
    if a.derivative == "stored_output":
        wide = _core.activation_forward(z.bits, z.format_id, code, alpha)
        output = as_bits_view(round_to(wide_bits(wide), a.storage, a.mode, seed=a.seed, stream=16)[0])
    wide = _core.activation_backward(dh.bits, z.bits, output, format_ids()[a.storage], code, alpha)
    return _finish(wide, dh, a, out, function)


_arithmetic = arithmetic
