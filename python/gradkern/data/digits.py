"""A trained network and the images it has never seen: what ``gradkern probe`` shows when it is given nothing.

The network: a tanh MLP of 40 layers x 64 units, trained by ``examples/train_digits.py`` with gradkern's own kernels in
float32. The images: 256 of the held-out ones, from the UCI "Optical Recognition of Handwritten Digits" test set
(E. Alpaydin and C. Kaynak, 1998, https://doi.org/10.24432/C50P49), licensed CC BY 4.0 by its authors; 8 x 8 pixels
of 0..16, scaled here to -1..1, otherwise unchanged.
"""

from __future__ import annotations

from importlib.resources import as_file, files
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gradkern.net import MLP

SOURCE = "UCI Optical Recognition of Handwritten Digits (Alpaydin and Kaynak 1998), CC BY 4.0"


def model() -> MLP:
    """Return the trained network: 64 inputs, 39 hidden layers of 64 tanh units, 10 logits."""
    with as_file(files("gradkern.data") / "digits.safetensors") as path:
        return MLP.load(path)


def images() -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Return 256 held-out images, (256, 64) in -1..1, and their digits, (256,)."""
    with as_file(files("gradkern.data") / "digits.npz") as path, np.load(path) as archive:
        pixels: NDArray[Any] = archive["pixels"]
        labels: NDArray[Any] = archive["labels"]
    return (pixels.astype(np.float32) / np.float32(8) - np.float32(1)), labels.astype(np.int64)
