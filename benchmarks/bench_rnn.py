"""A measured probe of an RNN (every statistic and event, reference off), beside PyTorch's unmeasured loop over the steps.

The loop is a tanh cell written with torch operations, forward and backward. Weights: as torch.nn.RNN draws them (gradients vanish
within some 150 steps), and orthogonal ones that keep gradients alive over all steps. ``python benchmarks/bench_rnn.py [SECONDS]``
prints medians, 1 and 2 threads; ratio: time of torch over time of gradkern.
"""

from __future__ import annotations

import sys

import numpy as np
import pytest
from timing import let_blas_sleep, medians

import gradkern as gk

STEPS, UNITS, BATCH = 1000, 256, 32
CASES = [(kind, inputs) for kind in ("torch_default", "orthogonal") for inputs in (32, 256)]


def cell(kind: str, inputs: int) -> gk.RNN:
    """An RNN in float32; orthogonal weights times a gain that balances tanh's mean slope."""
    small = kind == "orthogonal"
    drawn = gk.RNN.random(
        hidden=UNITS, inputs=inputs, init=kind, input_init="normal" if small else kind, gain=1.02 if small else 1.0,
        input_gain=0.01 if small else 1.0,
    )  # fmt: skip
    weights = (np.asarray(a).astype("f4") for a in (drawn.recurrent_weight, drawn.input_weight, drawn.bias))
    return gk.RNN(*weights, "tanh")


def sequence(inputs: int):
    return np.random.default_rng(0).standard_normal((STEPS, BATCH, inputs)).astype("f4")


def probe(net: gk.RNN, x, **options):
    return lambda: gk.probe(net, x, arithmetic="float32", reference=False, **options)


def torch_loop(net: gk.RNN, x):
    import torch

    w, v, b = (
        torch.tensor(np.asarray(a), requires_grad=True) for a in (net.recurrent_weight, net.input_weight, net.bias)
    )
    steps = torch.from_numpy(x)

    def loop():
        w.grad = v.grad = b.grad = None
        h = torch.zeros(BATCH, UNITS)
        for x_t in steps:
            h = torch.tanh(torch.addmm(b, x_t, v.t()) + h @ w.t())
        h.sum().backward()

    return loop


@pytest.mark.benchmark(group="rnn")
@pytest.mark.parametrize("kind, inputs", CASES)
def test_probe(benchmark, kind, inputs):
    net, x = cell(kind, inputs), sequence(inputs)
    assert gk.probe(net, x[:3], arithmetic="float32").rows("grad_weight")[0].relative_error < 1e-5
    benchmark(probe(net, x))


@pytest.mark.benchmark(group="rnn")
@pytest.mark.parametrize("kind, inputs", CASES)
def test_torch(benchmark, kind, inputs):
    pytest.importorskip("torch")
    benchmark(torch_loop(cell(kind, inputs), sequence(inputs)))


def main() -> None:
    """Print the table."""
    import torch

    seconds = float(sys.argv[1]) if len(sys.argv) > 1 else 5.0
    print(
        f"{STEPS} steps, {UNITS} units, batch {BATCH}, float32\nweights        inputs threads  gradkern ms  torch ms  ratio"
    )
    for kind, inputs in CASES:
        net, x = cell(kind, inputs), sequence(inputs)
        for threads in (1, 2):
            gk.set_num_threads(threads)
            torch.set_num_threads(threads)
            times = medians({"gradkern": probe(net, x), "torch": torch_loop(net, x)}, seconds)
            ours, theirs = times["gradkern"], times["torch"]
            print(
                f"{kind:14} {inputs:>6} {threads:>7} {1e3 * ours:>12.1f} {1e3 * theirs:>9.1f} {theirs / ours:>6.2f}",
                flush=True,
            )


if __name__ == "__main__":
    let_blas_sleep()
    main()
