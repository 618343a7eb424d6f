"""Measures what the README's table of speed says, and writes the table between its markers.

``python benchmarks/results.py`` (about five minutes on an otherwise idle machine; torch and threadpoolctl are needed).
"""

from __future__ import annotations

import statistics
import sys
from pathlib import Path

import bench_cast
import bench_chain
import bench_clip
import bench_dense
import bench_measure
import numpy as np
from timing import let_blas_sleep, medians

import gradkern as gk

README = Path(__file__).parents[1] / "README.md"
BEGIN, END = "<!-- speed: begin -->\n", "<!-- speed: end -->\n"
THREADS = 2

Row = tuple[str, str, str]


def measure_rows() -> list[Row]:
    rows = []
    for fmt, speed, share in bench_measure.roof_rows(4):
        rows.append((f"`measure`, 256 MiB of {fmt}", f"{speed:.1f} GB/s", f"{share:.2f} of merely reading the bytes"))
    import torch

    x = bench_measure.data("float32", 2**22)
    tensor = torch.from_numpy(x)
    t = medians({
        "gradkern": lambda: gk.measure(x),
        "record": lambda: bench_measure.composed_record(tensor),
        "light": lambda: bench_measure.light_monitor(tensor),
    }, 6)  # fmt: skip
    beside = f"{t['record'] / t['gradkern']:.0f} times as fast as the same record by torch operations, "
    beside += f"{t['light'] / t['gradkern']:.0f} times its light monitor (isfinite, amax, norm, zeros, flushes)"
    rows.append(("`measure`, 2^22 float32", f"{t['gradkern'] * 1e3:.1f} ms", beside))
    tensors = {f"layer.{i}": bench_measure.data("float32", 1000) for i in range(2000)}
    many = medians({"many": lambda: gk.measure_many(tensors)}, 2)["many"]
    one = medians({"one": lambda: [gk.measure(tensors["layer.0"]) for _ in range(100)]}, 2)["one"] / 100
    rows.append(("`measure_many`, 2,000 tensors of 1,000", f"{many * 1e3:.1f} ms", f"one alone: {one * 1e6:.0f} us"))
    return rows


def cast_rows() -> list[Row]:
    rows = []
    for source, fmt in (("float32", "float16"), ("float32", "bfloat16"), ("float32", "float8_e4m3fn")):
        x = bench_cast.data(source, 2**26)
        with np.errstate(all="ignore"):
            t = medians(bench_cast.rivals(x, fmt), 4)
        ratio = t["torch to"] / t["gradkern"]
        beside = f"{ratio:.2f} times the speed of `torch.Tensor.to`, which reports nothing"
        rows.append((f"`cast` with report, 2^26 {source} to {fmt}", f"{t['gradkern'] * 1e3:.0f} ms", beside))
    return rows


def dense_rows() -> list[Row]:
    rows = []
    for fmt, shapes in (
        ("float32", bench_dense.SQUARE + bench_dense.LAYERS),
        ("float64", bench_dense.SQUARE[:4] + bench_dense.LAYERS),
        ("float16", bench_dense.LAYERS[:6]),
    ):
        every = [pair for shape in shapes for pair in bench_dense.ratios(shape, fmt, 0.3).values()]
        ratios = [ratio for _, ratio in every]
        rival = "torch" if fmt == "float16" else "the faster of torch and NumPy"
        beside = f"geometric mean {statistics.geometric_mean(ratios):.2f}, least {min(ratios):.2f} times {rival}"
        rows.append((
            f"dense forward and both backward products, {fmt}, {len(shapes)} shapes of 32 to {max(map(max, shapes))}",
            f"up to {max(rate for rate, _ in every):.0f} GFLOP/s", beside,
        ))  # fmt: skip
    return rows


def chain_rows() -> list[Row]:
    rows = []
    for fmt, cases in (("float32", bench_chain.CASES), ("float16", bench_chain.CASES[:2])):
        for case in cases:
            t = bench_chain.chain_row(case, fmt, 4)
            beside = f"{t['torch'] / t['gradkern']:.1f} times as fast as torch's unmeasured step, "
            beside += f"{t['monitor'] / t['gradkern']:.1f} times torch with a light monitor"
            depth, width, batch = case
            rows.append((
                f"measured `probe`, {depth} layers of {width}, batch {batch}, {fmt}", f"{t['gradkern']:.1f} ms", beside,
            ))  # fmt: skip
    return rows


def clip_rows() -> list[Row]:
    rows = []
    for fmt, case in (
        ("float32", "64 of 1 Mi"),
        ("float16", "64 of 1 Mi"),
        ("float32", "2,000 of 1,000"),
        ("float32", "20,000 of 16"),
    ):
        gradients = bench_clip.Gradients(fmt, *bench_clip.CASES[case])
        for clips in (False, True):
            t = medians(bench_clip.calls(gradients, ("group", "tensors", "torch"), clips), 4)
            beside = f"{t['torch'] / t['group']:.1f} times as fast as torch's `clip_grad_norm_` (foreach), "
            beside += f"a plain list of tensors {t['torch'] / t['tensors']:.1f} times"
            name = f"`clip_by_global_norm`, {case} {fmt}, {'clipping' if clips else 'nothing to clip'}"
            rows.append((name, f"{t['group'] * 1e3:.2f} ms", beside))
    return rows


def main() -> None:
    import torch
    from threadpoolctl import threadpool_limits

    torch.set_num_threads(THREADS)
    gk.set_num_threads(THREADS)
    threadpool_limits(THREADS)
    rows = []
    for part in (measure_rows, cast_rows, clip_rows, dense_rows, chain_rows):
        for row in part():
            print(" | ".join(row), flush=True)
            rows.append(row)
    head = f"| {THREADS} threads, {gk.info().isa}, beside torch {torch.__version__.split('+')[0]} | time or speed | ratio |"
    table = "\n".join([head, "|---|---|---|", *(f"| {' | '.join(row)} |" for row in rows)])
    before, rest = README.read_text(encoding="utf-8").split(BEGIN)
    README.write_text(before + BEGIN + table + "\n" + END + rest.split(END)[1], encoding="utf-8")


if __name__ == "__main__":
    let_blas_sleep()
    sys.exit(main())
