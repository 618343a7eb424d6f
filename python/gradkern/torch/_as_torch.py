"""What torch computes when it clips, by its own operations: the numbers to compare with while a program changes over."""

from __future__ import annotations

from typing import Any

import torch

from gradkern.errors import NonFiniteNormError


def norm_as_torch(tensors: list[torch.Tensor], norm_type: Any) -> torch.Tensor:
    """Return the norm of the tensors' norms, each in the format of its tensor, squares that overflow included."""
    p = float(norm_type)
    if not tensors:
        return torch.tensor(0.0)
    norms = [torch.linalg.vector_norm(tensor, p).to(tensors[0].device) for tensor in tensors]
    total: torch.Tensor = torch.linalg.vector_norm(torch.stack(norms), p)
    return total


def clip_as_torch(grads: list[torch.Tensor], max_norm: float, norm_type: Any, error_if_nonfinite: bool) -> torch.Tensor:
    """Multiply gradients by ``max_norm / (norm + 1e-6)``, or by 1, in place; return the norm."""
    norm = norm_as_torch(grads, norm_type)
    if error_if_nonfinite and not bool(norm.isfinite()):
        raise NonFiniteNormError(
            f"The total norm of order {float(norm_type)} for gradients from `parameters` is non-finite, so it cannot be "
            "clipped; nothing was modified"
        )
    coefficient = torch.clamp(float(max_norm) / (norm + 1e-6), max=1.0)
    for grad in grads:
        grad.mul_(coefficient.to(grad.device))
    return norm
