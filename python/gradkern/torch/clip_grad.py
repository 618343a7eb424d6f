"""`torch.nn.utils.clip_grad_norm_` and its family, without their holes."""

from __future__ import annotations

import math
import types
import warnings
from collections.abc import Iterable
from itertools import islice
from typing import Any

import numpy as np
import torch

from gradkern._arguments import number
from gradkern._arrays import on_host
from gradkern._clip_survey import coefficients_of, survey
from gradkern._clipping import everywhere, settle
from gradkern._names import Numerous
from gradkern.clip import clip_by_global_norm
from gradkern.clip_value import clip_by_value
from gradkern.errors import NonFiniteNormError
from gradkern.gradient_group import GradientGroup
from gradkern.step_record import where_nonfinite
from gradkern.torch._as_torch import clip_as_torch

Tensors = torch.Tensor | Iterable[torch.Tensor]


def _listed(tensors: Tensors, function: str, name: str) -> list[torch.Tensor]:
    """Return the tensors of an iterable, which may be a generator, or the one tensor."""
    if isinstance(tensors, torch.Tensor):
        return [tensors]
    if not isinstance(tensors, Iterable):
        instead = f"; give its {name}()" if name == "parameters" and isinstance(tensors, torch.nn.Module) else ""
        raise TypeError(
            f"{function}: {name} must be a tensor or an iterable of tensors, got {type(tensors).__name__}{instead}"
        )
    found = list(tensors)
    if not found and isinstance(tensors, types.GeneratorType):
        warnings.warn(f"`{name}` is an empty generator, no gradient clipping will occur.", stacklevel=3)
    return found


def _gradients(parameters: list[torch.Tensor], function: str) -> Numerous:
    """Gradients by name; parameters without one are left out."""
    try:
        return Numerous.of([p.grad for p in parameters], "parameters[{}].grad")
    except AttributeError:
        i, wrong = next((i, p) for i, p in enumerate(parameters) if not hasattr(p, "grad"))
        kind = "a pair; give parameters(), not named_parameters()" if isinstance(wrong, tuple) else type(wrong).__name__
        raise TypeError(f"{function}: parameters[{i}] must be a torch.Tensor, got {kind}") from None


def _order(norm_type: Any, function: str) -> float:
    """Return p of a norm; torch takes it as text, too."""
    p = float(norm_type) if norm_type == "inf" else number(norm_type, function, "norm_type")
    if not p > 0:
        raise ValueError(f"{function}: norm_type must be positive, got {norm_type}")
    return p


def _bound(value: Any, function: str, name: str) -> float:
    """Return a bound that is a number and not negative; infinite ones only measure."""
    bound = number(value, function, name)
    if not bound >= 0:
        raise ValueError(f"{function}: {name} must not be negative or NaN, got {value}")
    return bound


def _result(norm: float, group: GradientGroup) -> torch.Tensor:
    """Give a norm as torch does, but in float32 at least, and in float64 where float32 cannot hold it."""
    found = torch.tensor(norm, dtype=torch.float64)
    limits = torch.finfo(torch.float32)
    held = norm == 0 or not math.isfinite(norm) or limits.tiny <= norm <= limits.max
    return found.float() if held and not group._is_float64.any() else found


def _clip_other(group: GradientGroup, max_norm: float, p: float, function: str) -> float:
    """Clip finite entries by a norm that the kernels do not have, summed in float64; return it."""
    found = survey(group, math.inf, 1.0, function)
    amax, units, norm = float(found.total["amax"][0]), group._units, 0.0
    if amax > 0:
        sources = map(on_host, islice(units.sources, units.counted))
        norm = amax * math.fsum(float(((np.abs(s.astype(np.float64)) / amax) ** p).sum()) for s in sources) ** (1 / p)
    coefficient = coefficients_of(max_norm, norm, 0, 0.0)
    settle(found, everywhere(found, coefficient), norm, "skip", function)
    return norm


def _clip(tensors: Numerous, max_norm: float, norm_type: Any, error_if_nonfinite: bool, function: str) -> torch.Tensor:
    """Measure the norm and clip by it; an infinite max_norm only measures."""
    p = _order(norm_type, function)
    if not tensors.values:
        return torch.tensor(0.0)
    group = GradientGroup._of(tensors, function)
    ours = p in (1, 2, math.inf)
    bound = max_norm if ours and max_norm < math.inf else None
    found = clip_by_global_norm(group, bound, p=p if ours else math.inf, nonfinite="skip")
    if found.nonfinite and error_if_nonfinite:
        counts = {name: entries.count for name, entries in found.nonfinite.items()}
        first = next(iter(counts))
        raise NonFiniteNormError(
            f"The total norm of order {p:g} is non-finite, so it cannot be clipped; nothing was modified: "
            f"{where_nonfinite(first, found.nonfinite[first].first, counts)}"
        )
    if ours or found.nonfinite:
        return _result(found.norm, group)
    return _result(_clip_other(group, max_norm, p, function), group)


@torch.no_grad()
def clip_grad_norm_(
    parameters: Tensors,
    max_norm: float,
    norm_type: float = 2.0,
    error_if_nonfinite: bool = False,
    foreach: bool | None = None,
    *,
    strict_torch: bool = False,
) -> torch.Tensor:
    """Clip the gradients of parameters, in place, by their global norm.

    Parameters
    ----------
    parameters : iterable of torch.Tensor, or torch.Tensor
        Those whose ``.grad`` is clipped; None is passed over. Any mixture of floating-point formats, on the CPU or all on one
        CUDA device, where nothing is copied to the host but for a `norm_type` that the kernels do not have.
    max_norm : float
        Not negative. The coefficient is ``max_norm / norm``; if the norm is no larger, nothing is written.
    norm_type : float or "inf"
        p of the norm, any positive one; the kernels have 1, 2 and inf.
    error_if_nonfinite : bool
        Raise if a gradient holds NaN or inf. If not, no gradient is modified then, either, and the norm says so.
    foreach : bool, optional
        Accepted for torch's sake.
    strict_torch : bool
        Compute what torch does, by its own operations: the coefficient ``max_norm / (norm + 1e-6)``, in the gradients'
        formats; gradients rewritten always, and lost if one is not finite.

    Returns
    -------
    torch.Tensor
        The norm before clipping, 0-d, on the CPU (torch's own number where the gradients lie); at least float32, so that a norm
        of float16 gradients beyond 65504 is one.

    Raises
    ------
    NonFiniteNormError
        If asked for, and a gradient holds NaN or inf; a RuntimeError, as torch's. Names the parameter,
        unless torch's numbers are asked for.
    ValueError
        If max_norm is negative or NaN, or norm_type is not positive.
    TypeError
        If one is no parameter, a gradient is no dense floating-point tensor, or they do not lie in one place: the CPU or one
        device, there C-contiguous.
    """
    grads = _gradients(_listed(parameters, "clip_grad_norm_", "parameters"), "clip_grad_norm_")
    if strict_torch:
        return clip_as_torch(grads.values, max_norm, norm_type, error_if_nonfinite)
    bound = _bound(max_norm, "clip_grad_norm_", "max_norm")
    return _clip(grads, bound, norm_type, error_if_nonfinite, "clip_grad_norm_")


@torch.no_grad()
def clip_grad_value_(parameters: Tensors, clip_value: float, foreach: bool | None = None) -> None:
    """Clip every entry of the gradients of parameters to ``[-clip_value, clip_value]``, in place; NaN stays.

    Parameters
    ----------
    parameters : iterable of torch.Tensor, or torch.Tensor
        As for `clip_grad_norm_`.
    clip_value : float
        Not negative.
    foreach : bool, optional
        Accepted for torch's sake.

    Raises
    ------
    ValueError
        If clip_value is negative or NaN.
    TypeError
        If one is no parameter, a gradient is no dense floating-point tensor, or they do not lie in one place: the CPU or one
        device, there C-contiguous.
    """
    bound = _bound(clip_value, "clip_grad_value_", "clip_value")
    grads = _gradients(_listed(parameters, "clip_grad_value_", "parameters"), "clip_grad_value_")
    if grads.values and bound < math.inf:
        clip_by_value(grads, -bound, bound, nonfinite="propagate")


@torch.no_grad()
def get_total_norm(
    tensors: Tensors, norm_type: float = 2.0, error_if_nonfinite: bool = False, foreach: bool | None = None
) -> torch.Tensor:
    """Return the norm of tensors as if they were one, as `clip_grad_norm_` finds it.

    Parameters
    ----------
    tensors : iterable of torch.Tensor, or torch.Tensor
        Gradients themselves.
    norm_type : float or "inf"
        p of the norm, any positive one.
    error_if_nonfinite : bool
        Raise if one holds NaN or inf.
    foreach : bool, optional
        Accepted for torch's sake.

    Returns
    -------
    torch.Tensor
        0-d, on the CPU; at least float32.

    Raises
    ------
    NonFiniteNormError
        If asked for, and an entry is NaN or infinite; a RuntimeError, as torch's. Names the tensor.
    ValueError
        If norm_type is not positive.
    TypeError
        If a tensor is no dense floating-point tensor, or they do not lie in one place: the CPU or one device, there
        C-contiguous.
    """
    named = Numerous.of(_listed(tensors, "get_total_norm", "tensors"), "tensors[{}]")
    return _clip(named, math.inf, norm_type, error_if_nonfinite, "get_total_norm")
