"""A descent step with its census, beside steps that count nothing: torch's `SGD` and NumPy's ``w -= lr * g``.

``python benchmarks/bench_update.py`` prints a table, 2 threads, median of samples taken in turn, with ratios: time of the rival
over time of gradkern, above 1 where gradkern is the faster. Bytes: weight and gradient read once, the weight written
once. In place for everybody; NumPy holds a temporary. float16 and bfloat16 weights take gradients of their own format.
"""

from __future__ import annotations

import sys

import numpy as np
import pytest
from timing import medians

import gradkern as gk
from gradkern._arrays import read
from gradkern.update import update_into

FORMATS = ["float64", "float32", "float16", "bfloat16"]
SIZES = {"64 Ki": 2**16, "16 Mi": 2**24}
RATE, THREADS, NEAREST = 1e-3, 2, (0, 0, 0)


class Step:
    """The same weight and gradient for every contender."""

    def __init__(self, fmt: str, size: int) -> None:
        rng = np.random.default_rng(0)
        dtype = gk.finfo(fmt).dtype
        self.weight = np.resize(rng.standard_normal(min(size, 2**20)).astype(dtype), size)
        self.gradient = np.resize((rng.standard_normal(min(size, 2**20)) * 0.01).astype(dtype), size)
        self.bytes = 3 * self.weight.nbytes

    def gradkern(self):
        w = self.weight.copy()
        bits, g = read(w, "weight"), read(self.gradient, "gradient")
        return lambda: update_into(bits, g, bits.bits, RATE, NEAREST, 0, 0)

    def torch(self):
        import torch

        tensors = [torch.from_numpy(a.view(np.int16)).view(torch.bfloat16) if a.dtype.kind == "V" else torch.from_numpy(a)
                   for a in (self.weight.copy(), self.gradient)]  # fmt: skip
        parameter = torch.nn.Parameter(tensors[0])
        parameter.grad = tensors[1]
        return torch.optim.SGD([parameter], lr=RATE).step

    def numpy(self):
        w, g, rate = self.weight.copy(), self.gradient, self.weight.dtype.type(RATE)

        def step():
            np.subtract(w, rate * g, out=w)

        return step


def validate() -> None:
    """In float64, all agree to the last bits."""
    step = Step("float64", 10000)
    result = gk.sgd_update(step.weight, step.gradient, RATE)
    np.testing.assert_allclose(result.weight, step.weight - RATE * step.gradient, rtol=0, atol=1e-15)
    assert result.report.applied + result.report.lost == 10000


@pytest.mark.parametrize("fmt", FORMATS)
@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("who", ["gradkern", "torch", "numpy"])
def test_update(benchmark, fmt, size, who):
    pytest.importorskip("torch")
    benchmark.group = f"descent step {size} {fmt}"
    benchmark(getattr(Step(fmt, SIZES[size]), who)())


def main(seconds: float = 4.0) -> None:
    import torch

    torch.set_num_threads(THREADS)
    gk.set_num_threads(THREADS)
    validate()
    print(f"{THREADS} threads, {gk.info().isa}\ndescent step              ms    GB/s   torch   NumPy")
    for size, count in SIZES.items():
        for fmt in FORMATS:
            step = Step(fmt, count)
            times = medians({who: getattr(step, who)() for who in ("gradkern", "torch", "numpy")}, seconds)
            own = times["gradkern"]
            ratios = "".join(f"{times[who] / own:8.2f}" for who in ("torch", "numpy"))
            print(f"  {size:6} {fmt:10} {own * 1e3:8.3f} {step.bytes / own / 1e9:7.1f}{ratios}")


if __name__ == "__main__":
    main(*map(float, sys.argv[1:]))
