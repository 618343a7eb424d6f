"""The exceptions that are gradkern's own; everything else is a built-in exception."""

from __future__ import annotations


class GradkernError(Exception):
    """Base of every exception defined by gradkern."""


class NonFiniteError(GradkernError, FloatingPointError):
    """A non-finite value was met where the caller asked for an exception."""


class CudaError(GradkernError, RuntimeError):
    """A CUDA call failed."""


class UnsupportedIsaError(GradkernError, ValueError):
    """``GRADKERN_ISA`` names an instruction set that is unknown or absent on this processor."""


class ModelFileError(GradkernError, ValueError):
    """A file is not a model that gradkern can read; the message names the file and the tensor."""
