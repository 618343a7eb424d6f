"""Where the time of a call on a GPU goes: the wall clock of the call, the work of the device, and what was asked of it.

``python benchmarks/gpu_profile.py --out FOLDER`` writes gpu_profile.md; ``gpu_check.sh`` runs it. Kernels, copies and calls of
CUDA's runtime are those that torch's profiler traces; the wall clock is of calls that nobody traces, medians of 15.
"""

from __future__ import annotations

import argparse
import re
import statistics
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

import gradkern as gk

MI = 2**20
Call = Callable[[], object]


@dataclass(frozen=True)
class Traced:
    """One event of a trace: of the device, or a call of the runtime on the host."""

    name: str
    on_device: bool
    microseconds: float


@dataclass
class Profile:
    """What one call took."""

    what: str
    wall: float  # microseconds
    launches: int = 0
    launching: float = 0.0  # microseconds of the host's, traced
    kernels: dict[str, tuple[int, float]] = field(default_factory=dict)  # runs and microseconds of each

    @property
    def busy(self) -> float:
        """Microseconds that the device works."""
        return sum(time for _, time in self.kernels.values())


def short(name: str) -> str:
    """A kernel by its own name; copies and clears as they are."""
    found = re.search(r"(\w+)<|(\w+)\(", re.sub(r"\(anonymous namespace\)::|\w+::", "", name))
    return next(group for group in found.groups() if group) if found and "Mem" not in name else name


def profile_of(what: str, wall: float, events: Iterable[Traced]) -> Profile:
    """The events of one call, summed by name."""
    profile = Profile(what, wall)
    for e in events:
        if e.on_device:
            runs, total = profile.kernels.get(short(e.name), (0, 0.0))
            profile.kernels[short(e.name)] = runs + 1, total + e.microseconds
        elif e.name.startswith("cudaLaunch"):
            profile.launches += 1
            profile.launching += e.microseconds
    return profile


def table_of(profiles: list[Profile], device: str) -> str:
    """As Markdown."""
    lines = [
        f"Device: {device}; gradkern {gk.__version__}", "",
        "| call | wall clock | device works | launches | a launch, traced | of the device's work |", "|---|---|---|---|---|---|",
    ]  # fmt: skip
    for p in profiles:
        most = sorted(p.kernels.items(), key=lambda item: -item[1][1])[:4]
        parts = ", ".join(f"{name} {count} x {time / count:.1f} us" for name, (count, time) in most)
        each = f"{p.launching / p.launches:.1f} us" if p.launches else ""
        lines.append(f"| {p.what} | {p.wall:,.0f} us | {p.busy:,.0f} us | {p.launches} | {each} | {parts} |")
    return "\n".join(lines) + "\n"


def traced(call: Call) -> list[Traced]:
    """What torch's profiler saw of one call."""
    import torch
    from torch.profiler import ProfilerActivity, profile

    with profile(activities=[ProfilerActivity.CPU, ProfilerActivity.CUDA]) as trace:
        call()
        torch.cuda.synchronize()
    results = trace.profiler.kineto_results.events()
    return [Traced(e.name(), str(e.device_type()).endswith("CUDA"), e.duration_ns() / 1e3) for e in results]


def wall_of(call: Call) -> float:
    """Median microseconds of a call, its result included."""
    import torch

    times = []
    for _ in range(17):
        torch.cuda.synchronize()
        start = time.perf_counter()
        call()
        torch.cuda.synchronize()
        times.append(time.perf_counter() - start)
    return 1e6 * statistics.median(times[2:])


def clip(count: int, size: int, clipping: bool) -> Call:
    """Clipping of a group; a little more each time."""
    from gpu_speed import tensor

    group = gk.GradientGroup([tensor(size, "float32", seed) for seed in range(count)])
    norm = gk.global_norm(group)
    bounds = (norm * 0.999**k if clipping else 1e30 for k in range(1, 10**6))
    return lambda: gk.clip_by_global_norm(group, next(bounds))


def chain(width: int, batch: int, arithmetic: str) -> Call:
    """A measured probe of a hundred layers."""
    net = gk.MLP.random(depth=100, width=width, activation="relu", seed=0)
    x = np.random.default_rng(0).standard_normal((batch, width)).astype(np.float32)
    return lambda: gk.probe(net, x, arithmetic=arithmetic, reference=False, device="cuda")


def cases() -> Iterable[tuple[str, Call]]:
    """Calls by what they are, made when they are asked for."""
    from gpu_speed import tensor

    x, half = tensor(64 * MI, "float32"), tensor(64 * MI, "float16")
    few = tensor(1000, "float32")
    yield "measure, 64 Mi float32", lambda: gk.measure(x)
    yield "measure, 1,000 float32", lambda: gk.measure(few)
    yield "cast with report, 64 Mi float32 to float16", lambda: gk.cast(x, "float16")
    yield "relu forward, 64 Mi float16", lambda: gk.activation_forward(half, "relu", arithmetic="float16")
    yield "clip_by_global_norm, 64 x 1 Mi float32, nothing to clip", clip(64, MI, False)
    yield "clip_by_global_norm, 64 x 1 Mi float32, clipping", clip(64, MI, True)
    yield "clip_by_global_norm, 20,000 x 16 float32, clipping", clip(20000, 16, True)
    for width, batch in ((64, 64), (256, 64), (512, 128)):
        for arithmetic in ("float32", "float16"):
            yield f"measured chain {arithmetic}, 100 x {width}, batch {batch}", chain(width, batch, arithmetic)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()
    profiles = []
    for what, call in cases():
        wall = wall_of(call)
        profiles.append(profile_of(what, wall, traced(call)))
        if not profiles[-1].kernels:
            raise SystemExit(f"{what}: the profiler saw nothing of the device")
    table = table_of(profiles, gk.info().devices["cuda"].removeprefix("usable: "))
    options.out.mkdir(parents=True, exist_ok=True)
    (options.out / "gpu_profile.md").write_text(table)
    print(table)


if __name__ == "__main__":
    main()
