"""Drop-in replacements for what PyTorch offers against exploding and vanishing gradients. Importing this imports torch.

Signatures and kinds of results are those of `torch.nn.utils` and `torch.amp`; tensors, on the CPU or all on one CUDA device,
are worked on where they lie.
What differs is what goes wrong there, and `docs/remedies.md` has both side by side.

>>> from gradkern.torch import GradScaler, clip_grad_norm_
"""

from __future__ import annotations

from gradkern.torch.clip_grad import clip_grad_norm_, clip_grad_value_, get_total_norm
from gradkern.torch.grad_scaler import GradScaler

__all__ = ["GradScaler", "clip_grad_norm_", "clip_grad_value_", "get_total_norm"]
