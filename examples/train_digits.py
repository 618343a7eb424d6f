"""Train the network that `gradkern probe` shows: a deep tanh MLP on handwritten digits, with gradkern's own kernels.

    pip install gradkern scikit-learn
    python examples/train_digits.py            # about a minute; prints the accuracy on held-out images
    python examples/train_digits.py --save python/gradkern/data

The data are the 1,797 images of the UCI "Optical Recognition of Handwritten Digits" test set (E. Alpaydin and C. Kaynak,
1998, https://doi.org/10.24432/C50P49, CC BY 4.0), as scikit-learn carries them: 8 x 8 pixels of 0..16.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
from sklearn.datasets import load_digits

import gradkern as gk

DEPTH, WIDTH, CLASSES = 40, 64, 10
HELD_OUT = 397
SHIPPED = 256
EPOCHS, BATCH, MOMENTUM, WEIGHT_DECAY = 60, 64, 0.9, 1e-4
PEAK_RATE = 0.02


def load() -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Return training images and labels, then held-out ones; pixels become k / 8 in -1 .. 1, exact in every format."""
    digits = load_digits()
    images = (digits.data / 8.0 - 1.0).astype(np.float32)
    order = np.random.default_rng(1998).permutation(len(images))
    images, labels = images[order], digits.target[order]
    return images[HELD_OUT:], labels[HELD_OUT:], images[:HELD_OUT], labels[:HELD_OUT]


class Trainer:
    """SGD with momentum in float32; every product and activation is gradkern's."""

    def __init__(self, net: gk.MLP) -> None:
        self.weights = [np.asarray(layer.weight, np.float32) for layer in net.layers]
        self.biases = [np.asarray(layer.bias, np.float32) for layer in net.layers]
        self.activations = net.activations
        self.velocity = [np.zeros_like(p) for p in self.weights + self.biases]

    def forward(self, x: np.ndarray) -> list[gk.DenseOutput]:
        """Return the outputs of every layer."""
        outputs = []
        for weight, bias, activation in zip(self.weights, self.biases, self.activations, strict=True):
            outputs.append(gk.dense_forward(x, weight, bias, activation=activation))
            x = outputs[-1].output
        return outputs

    def gradients(self, x: np.ndarray, labels: np.ndarray) -> list[np.ndarray]:
        """Return the gradients of the mean cross-entropy: weights, then biases."""
        outputs = self.forward(x)
        logits = outputs[-1].output.astype(np.float64)
        p = np.exp(logits - logits.max(axis=1, keepdims=True))
        p /= p.sum(axis=1, keepdims=True)
        p[np.arange(len(labels)), labels] -= 1
        grad = (p / len(labels)).astype(np.float32)
        weight_grads, bias_grads = [], []
        for index in reversed(range(len(self.weights))):
            below = outputs[index - 1].output if index else x
            layer = gk.dense_backward(
                grad, below, self.weights[index], outputs[index].pre_activation, activation=self.activations[index]
            )
            grad = layer.input
            weight_grads.insert(0, layer.weight)
            bias_grads.insert(0, layer.bias)
        return weight_grads + bias_grads

    def step(self, x: np.ndarray, labels: np.ndarray, rate: float) -> None:
        """Take one step; the global norm of the gradient is clipped to 1."""
        grads = self.gradients(x, labels)
        norm = np.sqrt(sum(float(np.sum(g.astype(np.float64) ** 2)) for g in grads))
        shrink = min(1.0, 1.0 / norm)
        for parameter, velocity, grad in zip(self.weights + self.biases, self.velocity, grads, strict=True):
            velocity *= MOMENTUM
            velocity += np.float32(shrink) * grad
            if parameter.ndim == 2:
                velocity += np.float32(WEIGHT_DECAY) * parameter
            parameter -= np.float32(rate) * velocity

    def accuracy(self, x: np.ndarray, labels: np.ndarray) -> float:
        """Fraction of the images whose largest logit is the label's."""
        return float(np.mean(self.forward(x)[-1].output.argmax(axis=1) == labels))

    def net(self) -> gk.MLP:
        """Return the trained network."""
        layers = zip(self.weights, self.biases, self.activations, strict=True)
        return gk.MLP([gk.Dense(w, b, phi, name=f"layers.{i}") for i, (w, b, phi) in enumerate(layers)])


def train(epochs: int = EPOCHS, progress: bool = True) -> tuple[Trainer, float]:
    """Train, and return the trainer and the accuracy on the held-out images."""
    x, labels, held_x, held_labels = load()
    widths = [x.shape[1], *[WIDTH] * (DEPTH - 1), CLASSES]
    trainer = Trainer(
        gk.MLP.random(
            widths=widths, activation="tanh", output_activation="identity", init="orthogonal", gain=1.05, seed=3
        )
    )
    rng = np.random.default_rng(0)
    steps = epochs * (len(x) // BATCH)
    step = 0
    for epoch in range(epochs):
        order = rng.permutation(len(x))
        for start in range(0, len(x) - BATCH + 1, BATCH):
            rate = PEAK_RATE * min(1.0, (step + 1) / 50) * 0.5 * (1 + np.cos(np.pi * step / steps))
            rows = order[start : start + BATCH]
            trainer.step(x[rows], labels[rows], rate)
            step += 1
        if progress and (epoch % 5 == 4 or epoch + 1 == epochs):
            here, held = trainer.accuracy(x, labels), trainer.accuracy(held_x, held_labels)
            print(f"epoch {epoch + 1:3d}  training {100 * here:6.2f} %  held out {100 * held:6.2f} %", flush=True)
    return trainer, trainer.accuracy(held_x, held_labels)


def main() -> None:
    """Train, report, and save on request."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--epochs", type=int, default=EPOCHS)
    parser.add_argument("--save", type=Path, help="folder for digits.safetensors and digits.npz")
    options = parser.parse_args()
    trainer, accuracy = train(options.epochs)
    print(f"held-out accuracy {100 * accuracy:.2f} % on {HELD_OUT} images")
    if options.save:
        trainer.net().save(options.save / "digits.safetensors")
        _, _, x, labels = load()
        pixels = np.rint((x[:SHIPPED] + 1) * 8).astype(np.uint8)
        np.savez_compressed(options.save / "digits.npz", pixels=pixels, labels=labels[:SHIPPED].astype(np.uint8))


if __name__ == "__main__":
    main()
