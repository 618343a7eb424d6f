"""A measured probe of a deep net (every statistic and event, reference off), beside PyTorch's unmeasured step.

Also beside torch's light monitor: of every activation and gradient isfinite, amax, norm, zeros and entries that float16
would flush. ``python benchmarks/bench_chain.py [SECONDS]`` prints a table, 1 and 2 threads, medians; ratios: time of
torch over time of gradkern, above 1 where gradkern is the faster.
"""

from __future__ import annotations

import sys

import numpy as np
import pytest
from timing import let_blas_sleep, medians

import gradkern as gk
from gradkern import _core
from gradkern.activation import activation_code

CASES = [(100, 64, 64), (100, 256, 64), (100, 512, 128)]  # depth, width, batch


def net_of(depth: int, width: int, fmt: str) -> gk.MLP:
    """A ReLU net with weights in the format."""
    net = gk.MLP.random(depth=depth, width=width, activation="relu", init="he_normal")
    dtype = gk.finfo(fmt).dtype
    return gk.MLP([gk.Dense(np.asarray(layer.weight).astype(dtype), activation="relu") for layer in net.layers])


def steady_net(depth: int) -> gk.MLP:
    """A net that neither grows nor shrinks what passes, so that no number becomes subnormal at any depth."""
    net = gk.MLP.random(depth=depth, width=64, activation="identity", init="orthogonal")
    return gk.MLP([gk.Dense(np.asarray(layer.weight).astype("f4"), activation="identity") for layer in net.layers])


def kernels(case: tuple[int, int, int], *, measured: bool):
    """The kernels of a probe alone, float32, with or without measuring."""
    depth, width, batch = case
    net, x = net_of(depth, width, "float32"), input_of(width, batch, "float32")
    a, size = gk.arithmetic("float32"), (batch, width)
    layers = [(layer.parameters[0].pair, None, *activation_code(layer.activation, "probe")) for layer in net.layers]

    def run():
        chain = _core.ChainRun(
            layers, (x, a.format_ids[0]), batch, *a.format_ids, *a.mode, 0, False, 1.0, False, False, measured
        )
        chain.forward(None)
        chain.backward(np.ones(size).ravel(), None, 0, None)

    return run


def input_of(width: int, batch: int, fmt: str):
    return np.random.default_rng(0).standard_normal((batch, width)).astype(gk.finfo(fmt).dtype)


def torch_net(net: gk.MLP, fmt: str):
    import torch

    layers = []
    for layer in net.layers:
        linear = torch.nn.Linear(layer.n_in, layer.n_out, bias=False, dtype=getattr(torch, fmt))
        linear.weight.data = torch.from_numpy(np.asarray(layer.weight))
        layers += [linear, torch.nn.ReLU()]
    return torch.nn.Sequential(*layers)


def torch_step(net, x):
    def step():
        net.zero_grad(set_to_none=True)
        net(x).sum().backward()

    return step


def light_monitor(x):
    import torch

    a = x.abs()
    return torch.isfinite(x).all(), a.amax(), torch.linalg.vector_norm(x), (x == 0).sum(), (a < 2.0**-25).sum()


def torch_monitored(net, x):
    """The step with a light monitor on every activation, its gradient and every weight gradient."""

    def watch(gradient):
        light_monitor(gradient)  # a hook that returns something replaces the gradient

    def step():
        net.zero_grad(set_to_none=True)
        h = x
        for module in net:
            h = module(h)
            light_monitor(h.detach())
            h.register_hook(watch)
        h.sum().backward()
        for parameter in net.parameters():
            light_monitor(parameter.grad)

    return step


def validate(fmt: str) -> None:
    """The same gradients, to what the format holds."""
    import torch

    net, x = net_of(5, 64, fmt), input_of(64, 64, fmt)
    reference = torch_net(net, fmt)
    torch_step(reference, torch.from_numpy(x))()
    report = gk.probe(net, x, arithmetic=fmt, reference=False, keep="tensors")
    got = np.asarray(report.row(1, "grad_weight").tensor, np.float64)
    truth = reference[0].weight.grad.numpy().astype(np.float64)
    assert np.abs(got - truth).max() <= 64 * gk.finfo(fmt).epsilon * np.abs(truth).max()


@pytest.mark.parametrize("reference", [False, True], ids=["stored chain", "with reference chain"])
@pytest.mark.parametrize("fmt", ["float32", "float16"])
def test_gradkern_measured(benchmark, fmt, reference):
    depth, width, batch = CASES[1]
    benchmark.group = f"{depth} layers x {width}, batch {batch}, forward and backward"
    net, x = net_of(depth, width, fmt), input_of(width, batch, fmt)
    report = benchmark(lambda: gk.probe(net, x, arithmetic=fmt, reference=reference))
    assert report.depth == depth


def test_torch_unmeasured(benchmark):
    torch = pytest.importorskip("torch")
    validate("float32")
    depth, width, batch = CASES[1]
    benchmark.group = f"{depth} layers x {width}, batch {batch}, forward and backward"
    x = torch.from_numpy(input_of(width, batch, "float32"))
    benchmark(torch_step(torch_net(net_of(depth, width, "float32"), "float32"), x))


def chain_row(case: tuple[int, int, int], fmt: str, seconds: float) -> dict[str, float]:
    """Milliseconds of gradkern and of torch, unmeasured and with its light monitor."""
    import torch

    depth, width, batch = case
    net, x = net_of(depth, width, fmt), input_of(width, batch, fmt)
    tensor, rival = torch.from_numpy(x), torch_net(net, fmt)
    return {name: 1e3 * t for name, t in medians({
        "gradkern": lambda: gk.probe(net, x, arithmetic=fmt, reference=False),
        "torch": torch_step(rival, tensor),
        "monitor": torch_monitored(rival, tensor),
    }, seconds).items()}  # fmt: skip


def main(seconds: float = 4.0) -> None:
    import torch

    validate("float32")
    for threads in (1, 2):
        torch.set_num_threads(threads)
        gk.set_num_threads(threads)
        print(
            f"\n{threads} threads, {gk.info().isa}: measured by gradkern; torch unmeasured, torch with a light monitor"
        )
        for fmt in ("float32", "float16"):
            for case in CASES if fmt == "float32" else CASES[:2]:
                t = chain_row(case, fmt, seconds)
                ratios = "  ".join(f"{t[n]:8.1f} ms {t[n] / t['gradkern']:5.2f}" for n in ("torch", "monitor"))
                print(f"  {fmt} {'{} x {}, batch {}'.format(*case):21} {t['gradkern']:7.2f} ms {ratios}", flush=True)
    for depth in (100, 1000, 10_000):
        net, x = steady_net(depth), input_of(64, 64, "float32")
        t = medians({"probe": lambda net=net, x=x: gk.probe(net, x, arithmetic="float32", reference=False)}, 1.0)
        print(f"  {depth} layers x 64, values of one size: {t['probe'] * 1e6 / depth:.1f} us a layer")
    for case in CASES[1:]:
        t = medians({"measured": kernels(case, measured=True), "bare": kernels(case, measured=False)}, seconds)
        print(f"  measuring {'{} x {}, batch {}'.format(*case)}: {t['measured'] / t['bare']:.2f} of the bare chain")
    net, x = net_of(100, 256, "float32"), input_of(256, 64, "float32")
    t = medians({
        "with": lambda: gk.probe(net, x, arithmetic="float32"),
        "without": lambda: gk.probe(net, x, arithmetic="float32", reference=False),
    }, seconds)  # fmt: skip
    print(f"  the reference chain beside it: {t['with'] / t['without']:.1f} times the float32 chain")


if __name__ == "__main__":
    let_blas_sleep()
    main(*map(float, sys.argv[1:]))
