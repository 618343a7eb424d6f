"""Kernels on a device beside cuBLAS, torch and CuPy: medians of samples taken in turn, timed by the device's events.

A share of the roof is of the bytes that must move at the speed of the device's own copy, or of the operations at the
speed of torch's best product, both measured in the same run.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from typing import Any

import numpy as np
from gpu_bits import Row

import gradkern as gk

MI = 2**20


def seconds(functions: dict[str, Callable[[], object]], budget: float = 0.4, wall: bool = False) -> dict[str, float]:
    """Median seconds of each, one sample of each in turn; wall: by the host's clock, from call to result."""
    import torch

    samples: dict[str, list[float]] = {name: [] for name in functions}
    for function in functions.values():
        function()
        function()
    torch.cuda.synchronize()
    end = time.perf_counter() + budget
    while time.perf_counter() < end or len(samples[next(iter(samples))]) < 5:
        for name, function in functions.items():
            if wall:
                start = time.perf_counter()
                function()
                torch.cuda.synchronize()
                samples[name].append(time.perf_counter() - start)
                continue
            begin, stop = (torch.cuda.Event(enable_timing=True) for _ in range(2))
            begin.record()
            function()
            stop.record()
            stop.synchronize()
            samples[name].append(begin.elapsed_time(stop) / 1e3)
    return {name: statistics.median(times) for name, times in samples.items()}


class Roof:
    """What the device does at best, measured when first asked for."""

    def __init__(self) -> None:
        self._bytes = 0.0

    def bytes_per_second(self) -> float:
        import torch

        if not self._bytes:
            x = torch.empty(256 * MI, dtype=torch.float32, device="cuda")
            y = torch.empty_like(x)
            self._bytes = 2 * x.nbytes / seconds({"copy": lambda: y.copy_(x)})["copy"]
        return self._bytes


ROOF = Roof()


def moved(
    bytes_moved: float, ours: str, rival: str, functions: dict[str, Callable[[], object]], wall: bool = False
) -> dict[str, Any]:
    """A row of a kernel that moves so many bytes."""
    t = seconds(functions, wall=wall)
    rate = bytes_moved / t[ours]
    ratio = t[rival] / t[ours] if rival else None
    return {"ms": 1e3 * t[ours], "rate": f"{rate / 1e9:.0f} GB/s", "rival": rival, "ratio": ratio,
            "share": rate / ROOF.bytes_per_second(), "all_ms": {k: 1e3 * v for k, v in t.items()}}  # fmt: skip


def tensor(size: int | tuple[int, ...], dtype: str, seed: int = 0) -> Any:
    import torch

    generator = torch.Generator("cuda").manual_seed(seed)
    x = torch.randn(size, device="cuda", generator=generator)
    return x.to(getattr(torch, dtype))


def copy() -> dict[str, Any]:
    rate = ROOF.bytes_per_second()
    return {"ms": 1e3 * 2048 * MI / rate, "rate": f"{rate / 1e9:.0f} GB/s", "rival": "", "ratio": None, "share": 1.0}


def cast(source: str, fmt: str) -> dict[str, Any]:
    import torch

    x = tensor(64 * MI, source)
    width = gk.finfo(fmt).bits // 8
    return moved(x.nbytes + 64 * MI * width, "cast with report", "torch.to", {
        "cast with report": lambda: gk.cast(x, fmt), "torch.to": lambda: x.to(getattr(torch, fmt)),
    })  # fmt: skip


def light_monitor(x: Any) -> Any:
    import torch

    tiny = torch.finfo(torch.float16).tiny
    magnitude = x.abs()
    return [torch.isfinite(x).all(), magnitude.amax(), torch.linalg.vector_norm(x), (x == 0).sum(),
            (magnitude < tiny).sum()]  # fmt: skip


def cupy_record(x: Any) -> Any:
    import cupy

    magnitude = cupy.abs(x)
    exponents = cupy.frexp(x)[1]
    return [cupy.isnan(x).sum(), cupy.isinf(x).sum(), (x == 0).sum(), (x < 0).sum(), magnitude.max(), magnitude.min(),
            x.mean(dtype=np.float64), x.std(dtype=np.float64), magnitude.sum(dtype=np.float64),
            cupy.linalg.norm(x), cupy.bincount((exponents + 200).ravel(), minlength=400)]  # fmt: skip


def measure(fmt: str) -> dict[str, Any]:
    import cupy

    x = tensor(64 * MI, fmt)
    functions: dict[str, Callable[[], object]] = {
        "measure": lambda: gk.measure(x), "torch's light monitor": lambda: light_monitor(x),
    }  # fmt: skip
    if fmt in ("float32", "float64"):
        y = cupy.from_dlpack(x)
        functions["the record by CuPy reductions"] = lambda: cupy_record(y)
    return moved(x.nbytes, "measure", list(functions)[-1], functions, wall=True)


def activation(name: str, fmt: str) -> dict[str, Any]:
    import torch

    x = tensor(64 * MI, fmt)
    rival = getattr(torch.nn.functional, name)
    ours = f"activation_forward {name}"
    return moved(2 * x.nbytes, ours, "torch", {
        ours: lambda: gk.activation_forward(x, name, arithmetic=fmt), "torch": lambda: rival(x),
    })  # fmt: skip


def clip(count: int, size: int, fmt: str, clipping: bool, group: bool) -> dict[str, Any]:
    import torch

    grads = [tensor(size, fmt, seed) for seed in range(count)]
    parameters = []
    for g in grads:
        parameter = torch.nn.Parameter(torch.zeros_like(g))
        parameter.grad = g.clone()
        parameters.append(parameter)
    ours = gk.GradientGroup(grads) if group else grads
    most = 1e30
    if clipping:  # a little less each time, so that there is something to clip every time
        norm = gk.global_norm(ours)
        steps = iter(norm * 0.999**k for k in range(1, 10**6))
        theirs = iter(norm * 0.999**k for k in range(1, 10**6))
        functions = {
            "clip_by_global_norm": lambda: gk.clip_by_global_norm(ours, next(steps)),
            "torch foreach": lambda: torch.nn.utils.clip_grad_norm_(parameters, next(theirs), foreach=True),
        }
    else:
        functions = {
            "clip_by_global_norm": lambda: gk.clip_by_global_norm(ours, most),
            "torch foreach": lambda: torch.nn.utils.clip_grad_norm_(parameters, most, foreach=True),
        }
    total = sum(g.nbytes for g in grads)
    return moved((3 if clipping else 1) * total, "clip_by_global_norm", "torch foreach", functions, wall=True)


def product(arithmetic: str, n: int) -> dict[str, Any]:
    """A dense layer without bias: the product, and the rounding of its result to storage."""
    import torch

    fmt = gk.arithmetic(arithmetic).storage
    x, w = tensor((n, n), fmt, 1), tensor((n, n), fmt, 2)
    torch.backends.cuda.matmul.allow_tf32 = arithmetic.startswith("tfloat32")
    one = torch.ones((), device="cuda")

    def rival() -> Any:
        if fmt.startswith("float8"):
            return torch._scaled_mm(x, w.t(), scale_a=one, scale_b=one, out_dtype=torch.bfloat16, use_fast_accum=True)
        return x @ w.t()

    t = seconds({"dense": lambda: gk.dense_forward(x, w, arithmetic=arithmetic), "torch": rival})
    torch.backends.cuda.matmul.allow_tf32 = False
    rate = 2 * n**3 / t["dense"]
    return {"ms": 1e3 * t["dense"], "rate": f"{rate / 1e12:.1f} TFLOP/s", "rival": "cuBLAS through torch",
            "ratio": t["torch"] / t["dense"], "share": None, "all_ms": {k: 1e3 * v for k, v in t.items()}}  # fmt: skip


def chain(width: int, batch: int, arithmetic: str) -> dict[str, Any]:
    import torch

    depth, fmt = 100, gk.arithmetic(arithmetic).storage
    net = gk.MLP.random(depth=depth, width=width, activation="relu", seed=0)
    x = np.random.default_rng(0).standard_normal((batch, width)).astype(np.float32)
    layers = []
    for layer in net.layers:
        linear = torch.nn.Linear(width, width, device="cuda", dtype=getattr(torch, fmt))
        with torch.no_grad():
            linear.weight.copy_(torch.from_numpy(np.asarray(layer.weight)))
        layers += [linear, torch.nn.ReLU()]
    model, there = torch.nn.Sequential(*layers), tensor((batch, width), fmt)

    def rival() -> None:
        model.zero_grad()
        model(there).sum().backward()

    t = seconds({
        "probe": lambda: gk.probe(net, x, arithmetic=arithmetic, reference=False, device="cuda"),
        "torch": rival,
    }, wall=True, budget=1.0)  # fmt: skip
    return {"ms": 1e3 * t["probe"], "rate": f"{1e6 * t['probe'] / depth:.0f} us a layer", "rival": "torch, unmeasured",
            "ratio": t["torch"] / t["probe"], "share": None, "all_ms": {k: 1e3 * v for k, v in t.items()}}  # fmt: skip


def speed(device: str) -> list[Row]:
    """Lines of the table of speed; none where there is no GPU to time."""
    if device != "cuda":
        return []
    rows = [Row("device copy, 1 GiB", copy)]
    for source, fmt in (
        ("float32", "float16"),
        ("float32", "bfloat16"),
        ("float32", "float8_e4m3fn"),
        ("bfloat16", "float16"),
    ):
        rows.append(Row(f"cast with report, 64 Mi {source} to {fmt}", lambda s=source, f=fmt: cast(s, f)))
    for fmt in ("float32", "float16", "bfloat16", "float8_e4m3fn"):
        if fmt != "float8_e4m3fn":
            rows.append(Row(f"measure, 64 Mi {fmt}", lambda f=fmt: measure(f)))
    for name, fmt in (("relu", "float16"), ("gelu", "float16"), ("gelu", "float32"), ("sigmoid", "bfloat16")):
        rows.append(Row(f"{name} forward, 64 Mi {fmt}", lambda n=name, f=fmt: activation(n, f)))
    for fmt in ("float32", "float16"):
        for clipping in (False, True):
            what = f"clip_by_global_norm, 64 x 1 Mi {fmt}, {'clipping' if clipping else 'nothing to clip'}"
            rows.append(Row(what, lambda f=fmt, c=clipping: clip(64, MI, f, c, True)))
    rows.append(
        Row("clip_by_global_norm, 2,000 x 1,000 float32, clipping", lambda: clip(2000, 1000, "float32", True, True))
    )
    rows.append(
        Row("clip_by_global_norm, 20,000 x 16 float32, clipping", lambda: clip(20000, 16, "float32", True, True))
    )
    for arithmetic, n in (("float32", 2048), ("float64", 2048), ("float16_pure", 2048), ("float16@hopper", 4096),
                          ("bfloat16@hopper", 4096), ("float16@hopper/float16", 4096), ("tfloat32@hopper", 4096),
                          ("float8_e4m3fn@hopper", 4096), ("float16@hopper", 512)):  # fmt: skip
        rows.append(Row(f"dense_forward {arithmetic}, {n}^3", lambda a=arithmetic, n=n: product(a, n)))
    for width, batch in ((64, 64), (256, 64), (512, 128)):
        for arithmetic in ("float32", "float16"):
            rows.append(Row(f"measured chain {arithmetic}, 100 x {width}, batch {batch}",
                            lambda w=width, b=batch, a=arithmetic: chain(w, b, a)))  # fmt: skip
    return rows
