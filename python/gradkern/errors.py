"""The exceptions that are gradkern's own; everything else is a built-in exception."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from gradkern.step_record import StepRecord


class GradkernError(Exception):
    """Base of every exception defined by gradkern."""


class NonFiniteError(GradkernError, FloatingPointError):
    """A non-finite value was met where the caller asked for an exception.

    Attributes
    ----------
    tensor, index, count : str, int, int, or None
        The first tensor with NaN or infinity, where in it the first is, and how many there are in all.
    """

    tensor: str | None = None
    index: int | None = None
    count: int | None = None


class NonFiniteNormError(NonFiniteError, RuntimeError):
    """A total norm is not finite; a RuntimeError, too, as code written for PyTorch expects."""


class LossScaleFloorError(NonFiniteError):
    """Gradients overflowed although the loss scale is at its floor; the message names the tensors.

    Attributes
    ----------
    record : StepRecord or None
        The step, for a program.
    """

    def __init__(self, message: str, record: StepRecord | None = None) -> None:
        super().__init__(message)
        self.record = record


class CudaError(GradkernError, RuntimeError):
    """A device cannot be used: a CUDA call failed, or its library (that of ``"simt"`` too) is missing or cannot be loaded."""


class UnsupportedIsaError(GradkernError, ValueError):
    """An instruction set, named by ``GRADKERN_ISA`` or by a call, is unknown or absent on this processor."""


class ModelFileError(GradkernError, ValueError):
    """A file is not a model that gradkern can read; the message names the file and the tensor."""


class TensorFileError(GradkernError, ValueError):
    """A file does not hold tensors that gradkern can read; the message names the file and the tensor.

    Attributes
    ----------
    path, tensor : str or None
        The same, for a program.
    """

    def __init__(self, message: str, path: object = None, tensor: str | None = None) -> None:
        super().__init__(message)
        self.path = None if path is None else str(path)
        self.tensor = tensor
