"""Clipping by global norm, beside torch's `clip_grad_norm_` (foreach), optax and NumPy.

``python benchmarks/bench_clip.py`` prints a table, 2 threads, median of samples taken in turn. Ratios: the rival's time over
gradkern's. Bytes: one read where nothing is clipped, two reads and one write where everything is. The gradients are the same
bits for everybody; torch's are tensors, gradkern's the same kind or NumPy arrays where it says so. A group is a
`GradientGroup`: looked up once.
"""

from __future__ import annotations

import sys

import numpy as np
import pytest
from timing import medians

import gradkern as gk
from gradkern import _core

THREADS = 2
NEVER = 1e9


def data(fmt: str, size: int):
    return (np.random.default_rng(0).standard_normal(size) * 0.02).astype(gk.finfo(fmt).dtype)


class Gradients:
    """So many equal arrays, and copies of them as torch parameters and for optax."""

    def __init__(self, fmt: str, count: int, size: int) -> None:
        import torch

        piece = data(fmt, size)
        self.arrays = [piece.copy() for _ in range(count)]
        self.group = gk.GradientGroup(self.arrays)
        self.bytes = sum(a.nbytes for a in self.arrays)
        self.norm = gk.global_norm(self.group)
        self.parameters = []
        for a in self.arrays:
            tensor = torch.from_numpy(a.copy())
            parameter = torch.nn.Parameter(torch.zeros_like(tensor))
            parameter.grad = tensor
            self.parameters.append(parameter)
        self.tensors = [p.grad for p in self.parameters]

    def torch(self, max_norm):
        import torch

        return torch.nn.utils.clip_grad_norm_(self.parameters, max_norm, foreach=True)

    def numpy(self, max_norm):
        norm = np.sqrt(sum(float(np.vdot(a, a)) for a in (x.astype(np.float32) for x in self.arrays)))
        if norm > max_norm:
            for a in self.arrays:
                a *= a.dtype.type(max_norm / norm)
        return norm

    def optax(self):
        """A function of max_norm, compiled; it makes new arrays."""
        import jax
        import optax

        grads = [jax.numpy.asarray(a) for a in self.arrays]

        @jax.jit
        def clip(grads, max_norm):
            transform = optax.clip_by_global_norm(max_norm)
            return transform.update(grads, transform.init(grads))[0]

        return lambda max_norm: jax.block_until_ready(clip(grads, max_norm))


class Clipping:
    """Clips a little at every call: to 0.9999 of the norm before."""

    def __init__(self, function, norm: float) -> None:
        self.function, self.norm = function, norm

    def __call__(self):
        self.norm *= 0.9999
        return self.function(self.norm)


def validate() -> None:
    """Torch's clipping in float64 and ours agree."""
    g = Gradients("float64", 5, 1000)
    result = gk.clip_by_global_norm(g.group, 0.5, eps=1e-6)
    norm = g.torch(0.5)
    np.testing.assert_allclose(result.norm, float(norm), rtol=1e-12)
    for a, t in zip(g.arrays, g.tensors, strict=True):
        np.testing.assert_allclose(a, t.numpy(), rtol=1e-12)


CASES = {"64 of 1 Mi": (64, 2**20), "2,000 of 1,000": (2000, 1000), "20,000 of 16": (20000, 16)}


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("clips", [False, True])
@pytest.mark.parametrize("who", ["group", "list", "torch", "numpy"])
def test_clip(benchmark, case, clips, who):
    pytest.importorskip("torch")
    benchmark.group = f"clip {case} float32, {'clipping' if clips else 'nothing to clip'}"
    g = Gradients("float32", *CASES[case])
    function = contenders(g)[who]
    benchmark(Clipping(function, g.norm) if clips else lambda: function(NEVER))


def contenders(g: Gradients):
    return {
        "group": lambda m: gk.clip_by_global_norm(g.group, m),
        "list": lambda m: gk.clip_by_global_norm(g.arrays, m),
        "tensors": lambda m: gk.clip_by_global_norm(g.tensors, m),
        "torch": g.torch,
        "numpy": g.numpy,
    }


def large(seconds: float) -> None:
    print("64 tensors of 1 Mi                 ms    GB/s   torch   optax   NumPy    of the read roof")
    for fmt in ("float32", "float16"):
        g = Gradients(fmt, 64, 2**20)
        words = np.concatenate([a.view(np.uint8) for a in g.arrays])
        who = {k: v for k, v in contenders(g).items() if k in ("group", "torch", "numpy")} | {"optax": g.optax()}
        for clips in (False, True):
            calls = {k: Clipping(v, g.norm) if clips else (lambda v=v: v(NEVER)) for k, v in who.items()}
            times = medians(calls | {"roof": lambda words=words: _core.read_words(words)}, seconds)
            own, passes = times["group"], 3 if clips else 1
            ratios = "".join(f"{times[k] / own:8.1f}" for k in ("torch", "optax", "numpy"))
            roof = "" if clips else f"{times['roof'] / own:12.2f}"
            label = f"{fmt}, {'clipping' if clips else 'nothing to clip'}"
            print(f"  {label:26} {own * 1e3:8.2f} {passes * g.bytes / own / 1e9:7.1f}{ratios}{roof}")


def small(seconds: float) -> None:
    print(
        "\nmany small float32          torch ms   NumPy ms  by group: ms  faster   by list: ms  faster    tensors: ms  faster"
    )
    for case in ("2,000 of 1,000", "20,000 of 16"):
        g = Gradients("float32", *CASES[case])
        for clips in (False, True):
            calls = {k: Clipping(v, g.norm) if clips else (lambda v=v: v(NEVER)) for k, v in contenders(g).items()}
            t = medians(calls, seconds)
            own = "".join(f"{t[k] * 1e3:11.2f} {t['torch'] / t[k]:8.1f}" for k in ("group", "list", "tensors"))
            label = f"{case}, {'clipping' if clips else 'nothing'}"
            print(f"  {label:24} {t['torch'] * 1e3:10.2f} {t['numpy'] * 1e3:10.2f}{own}")


def main(seconds: float = 8.0) -> None:
    import torch

    torch.set_num_threads(THREADS)
    gk.set_num_threads(THREADS)
    validate()
    print(f"{THREADS} threads, {gk.info().isa}\n")
    large(seconds)
    small(seconds)


if __name__ == "__main__":
    main(*map(float, sys.argv[1:]))
