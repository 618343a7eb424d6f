"""Clipping by global norm, by row and by block, beside torch's `clip_grad_norm_` (foreach), optax and NumPy.

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
        self.for_numpy = [a.copy() for a in self.arrays]
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
        norm = np.sqrt(sum(float(np.vdot(a, a)) for a in (x.astype(np.float32) for x in self.for_numpy)))
        if norm > max_norm:
            for a in self.for_numpy:
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
    """Each has gradients of its own: what one has clipped, another would find nothing to clip in."""
    arrays, tensors = [a.copy() for a in g.arrays], [t.clone() for t in g.tensors]
    return {
        "group": lambda m: gk.clip_by_global_norm(g.group, m),
        "list": lambda m: gk.clip_by_global_norm(arrays, m),
        "tensors": lambda m: gk.clip_by_global_norm(tensors, m),
        "torch": g.torch,
        "numpy": g.numpy,
    }


def calls(g: Gradients, who, clips: bool):
    """What is timed: each contender clipping a little at every call, or finding nothing to clip."""
    every = contenders(g)
    return {k: Clipping(every[k], g.norm) if clips else (lambda v=every[k]: v(NEVER)) for k in who}


def large(seconds: float) -> None:
    print("64 tensors of 1 Mi                 ms    GB/s   torch   optax   NumPy    of the read roof")
    for fmt in ("float32", "float16"):
        g = Gradients(fmt, 64, 2**20)
        words = np.concatenate([a.view(np.uint8) for a in g.arrays])
        who = {k: v for k, v in contenders(g).items() if k in ("group", "torch", "numpy")} | {"optax": g.optax()}
        for clips in (False, True):
            timed = {k: Clipping(v, g.norm) if clips else (lambda v=v: v(NEVER)) for k, v in who.items()}
            times = medians(timed | {"roof": lambda words=words: _core.read_words(words)}, seconds)
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
            t = medians(calls(g, contenders(g), clips), seconds)
            own = "".join(f"{t[k] * 1e3:11.2f} {t['torch'] / t[k]:8.1f}" for k in ("group", "list", "tensors"))
            label = f"{case}, {'clipping' if clips else 'nothing'}"
            print(f"  {label:24} {t['torch'] * 1e3:10.2f} {t['numpy'] * 1e3:10.2f}{own}")


LIMITS = {
    "adaptive": 0.01,
    "block rms": 0.01,
}  # gradients are 0.02 and weights 1: nearly every row, and every block, is clipped


def kinds(kind: str, arrays: list, weights: list):
    """Functions of the limit that clip copies of the gradients: in place, but for optax and NumPy, which make new ones."""
    import jax
    import optax
    import torch

    tensors, torch_weights = ([torch.from_numpy(a.copy()) for a in x] for x in (arrays, weights))
    group = gk.GradientGroup([a.copy() for a in arrays])
    grads, params = ([jax.numpy.asarray(a) for a in x] for x in (arrays, weights))
    out = [np.empty_like(a) for a in arrays]
    adaptive = kind == "adaptive"

    @jax.jit
    def by_optax(limit, grads, params):  # arguments: of constants it would compute the norms once for all
        transform = optax.adaptive_grad_clip(limit, 1e-3) if adaptive else optax.clip_by_block_rms(limit)
        return transform.update(grads, transform.init(params), params)[0]

    def by_numpy(limit):
        for a, w, o in zip(arrays, weights, out, strict=True):
            if adaptive:
                norm, most = (np.linalg.norm(x, axis=1, keepdims=True) for x in (a, w))
                np.multiply(a, np.minimum(limit * np.maximum(most, 1e-3) / np.maximum(norm, 1e-6), 1), out=o)
            else:
                np.divide(a, max(np.sqrt(np.mean(a * a)) / limit, 1), out=o)
        return out

    def by_torch(limit):
        for a, w in zip(tensors, torch_weights, strict=True):
            if adaptive:
                norm, most = (torch.linalg.vector_norm(x, dim=1, keepdim=True) for x in (a, w))
                a.mul_((limit * most.clamp(min=1e-3) / norm.clamp(min=1e-6)).clamp(max=1))
            else:
                a.div_((a.square().mean().sqrt() / limit).clamp(min=1))
        return tensors

    def gradkern(limit):
        result = gk.clip_adaptive(group, weights, limit) if adaptive else gk.clip_by_block_rms(group, limit)
        return result.arrays

    return {
        "gradkern": gradkern, "torch": by_torch, "numpy": by_numpy,
        "optax": lambda m: jax.block_until_ready(by_optax(m, grads, params)),
    }  # fmt: skip


def other_kinds(seconds: float, count: int = 32, rows: int = 512) -> None:
    """Matrices clipped by row or by block: once to agree, then timed."""
    print(f"\n{count} of {rows} x {rows} float32          ms   torch   optax   NumPy")
    rng = np.random.default_rng(0)
    arrays = [data("float32", rows * rows).reshape(rows, rows) for _ in range(count)]
    weights = [rng.standard_normal((rows, rows)).astype(np.float32) for _ in range(count)]
    for kind, limit in LIMITS.items():
        timed = {who: Clipping(f, limit) for who, f in kinds(kind, arrays, weights).items()}
        first, *rest = (np.asarray(f()[0]) for f in timed.values())
        for other in rest:
            np.testing.assert_allclose(first, other, rtol=1e-5)
        times = medians(timed, seconds)
        ratios = "".join(f"{times[k] / times['gradkern']:8.1f}" for k in ("torch", "optax", "numpy"))
        print(f"  {kind:24} {times['gradkern'] * 1e3:8.2f}{ratios}")


def main(seconds: float = 8.0) -> None:
    import torch

    torch.set_num_threads(THREADS)
    gk.set_num_threads(THREADS)
    validate()
    print(f"{THREADS} threads, {gk.info().isa}\n")
    large(seconds)
    small(seconds)
    other_kinds(seconds)


if __name__ == "__main__":
    main(*map(float, sys.argv[1:]))
