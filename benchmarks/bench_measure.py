"""Statistics of a tensor, beside what others compute of it: torch, NumPy, and the roof of merely reading the bytes.

``python benchmarks/bench_measure.py`` prints a table, 2 threads, median of samples taken in turn. Ratios: the rival's
time over gradkern's, above 1 where gradkern is the faster; against the roof, gradkern's bytes a second over those of
`read_words`. The rivals:

- composed record: torch operations that give the fields of `TensorStats`, the binades included
- light monitor: isfinite, amax, norm, zeros, and entries that float16 would flush
- NumPy: the light monitor's fields
"""

from __future__ import annotations

import sys

import numpy as np
import pytest
from timing import let_blas_sleep, medians

import gradkern as gk
from gradkern import _core

THREADS = 2


def data(fmt: str, size: int):
    piece = np.random.default_rng(0).standard_normal(min(size, 2**20)) * 0.02
    return np.resize(piece.astype(gk.finfo(fmt).dtype), size)


def composed_record(x):
    """Every field of TensorStats by torch operations."""
    import torch

    finite = torch.isfinite(x)
    v = torch.where(finite, x, 0.0).double()
    a = v.abs()
    nonzero = a > 0
    first = torch.nonzero(~finite.ravel())[:1]
    exponents = torch.frexp(a[nonzero].float()).exponent
    powers = torch.frexp(a[nonzero].float()).mantissa == 0.5
    return {
        "nan": torch.isnan(x).sum(), "pos_inf": torch.isposinf(x).sum(), "neg_inf": torch.isneginf(x).sum(),
        "zero": (x == 0).sum(), "negative": ((x < 0) & finite).sum(),
        "subnormal": (nonzero & (a < torch.finfo(x.dtype).tiny)).sum(), "amax": a.max(),
        "amin": torch.where(nonzero, a, torch.inf).min(), "mean": v.mean(), "std": v.std(correction=0), "l1": a.sum(),
        "l2": torch.linalg.vector_norm(v), "first_nonfinite": first,
        "binades": torch.bincount(exponents + 200, minlength=400),
        "powers": torch.bincount(exponents[powers] + 200, minlength=400),
    }  # fmt: skip


def light_monitor(x):
    import torch

    a = x.abs()
    return torch.isfinite(x).all(), a.amax(), torch.linalg.vector_norm(x), (x == 0).sum(), (a < 2.0**-25).sum()


def numpy_monitor(x):
    a = np.abs(x)
    return np.isfinite(x).all(), a.max(), np.linalg.norm(x), (x == 0).sum(), (a < 2.0**-25).sum()


def validate(x) -> None:
    """The record of torch and ours agree."""
    import torch

    stats, record = gk.measure(x), composed_record(torch.from_numpy(x))
    for name in ("nan", "pos_inf", "neg_inf", "zero", "negative", "subnormal", "amax", "amin"):
        assert getattr(stats, name) == float(record[name]), name
    for name in ("mean", "std", "l1", "l2"):
        np.testing.assert_allclose(getattr(stats, name), float(record[name]), rtol=1e-9, atol=1e-12)
    exponents, counts = stats.binades
    np.testing.assert_array_equal(record["binades"].numpy()[exponents + 201], counts)


@pytest.mark.parametrize("fmt", ["float32", "float16", "bfloat16", "float64"])
def test_gradkern(benchmark, fmt):
    benchmark.group = "measure 2^22 elements"
    x = data(fmt, 2**22)
    benchmark(lambda: gk.measure(x))


@pytest.mark.parametrize("monitor", [composed_record, light_monitor])
def test_torch(benchmark, monitor):
    torch = pytest.importorskip("torch")
    benchmark.group = "measure 2^22 elements"
    x = data("float32", 2**22)
    validate(x)
    tensor = torch.from_numpy(x)
    benchmark(lambda: monitor(tensor))


def test_numpy(benchmark):
    benchmark.group = "measure 2^22 elements"
    x = data("float32", 2**22)
    benchmark(lambda: numpy_monitor(x))


@pytest.mark.parametrize("count, size", [(2000, 1000), (1, 1000)])
def test_small_tensors(benchmark, count, size):
    benchmark.group = f"{count} tensors of {size}"
    tensors = {f"layer.{i}": data("float32", size) for i in range(count)}
    benchmark((lambda: gk.measure_many(tensors)) if count > 1 else (lambda: gk.measure(tensors["layer.0"])))


def roof_rows(seconds: float) -> list[tuple[str, float, float]]:
    rows = []
    for fmt in ("float32", "float16", "bfloat16", "float64"):
        x = data(fmt, 2**28 // gk.finfo(fmt).dtype.itemsize)
        words = x.view(np.uint8)
        times = medians({"gk": lambda x=x: gk.measure(x), "roof": lambda words=words: _core.read_words(words)}, seconds)
        rows.append((fmt, x.nbytes / times["gk"] / 1e9, times["roof"] / times["gk"]))
    return rows


def unusual(size: int) -> dict[str, np.ndarray]:
    """What tensors hold when there is reason to measure them, in float64."""
    rng = np.random.default_rng(0)
    normal = rng.standard_normal(size)
    return {
        "normal": normal,
        "after ReLU": np.maximum(normal, 0),
        "an infinity in 10,000": np.where(rng.random(size) < 1e-4, np.inf, normal),
        "a NaN in 100": np.where(rng.random(size) < 1e-2, np.nan, normal),
        "NaN alone": np.full(size, np.nan),
        "normal x 1e-7": normal * 1e-7,
        "normal x 1e-39": normal * 1e-39,
        "40 binades": np.copysign(2.0 ** (-40 * rng.random(size)), normal),
        "multiples of 1/8": np.round(normal * 8) / 8,
        "a constant": np.full(size, 0.5),
    }


def unusual_rows(seconds: float, size: int = 2**22) -> list[tuple[str, list[float]]]:
    """Nanoseconds an entry, by format."""
    rows = []
    for name, values in unusual(size).items():
        times = []
        for fmt in ("float64", "float32", "float16", "bfloat16"):
            with np.errstate(all="ignore"):
                x = values.astype(gk.finfo(fmt).dtype)
            times.append(medians({"gk": lambda x=x: gk.measure(x)}, seconds / 10)["gk"] / size * 1e9)
        rows.append((name, times))
    return rows


def main(seconds: float = 8.0) -> None:
    import torch

    torch.set_num_threads(THREADS)
    gk.set_num_threads(THREADS)
    print(f"{THREADS} threads, {gk.info().isa}\n\n256 MiB in memory        GB/s   of the read roof")
    for fmt, speed, ratio in roof_rows(seconds):
        print(f"  {fmt:20} {speed:7.1f} {ratio:10.2f}")
    x = data("float32", 2**22)
    validate(x)
    tensor = torch.from_numpy(x)
    rivals = {
        "gradkern": lambda: gk.measure(x),
        "torch, composed record": lambda: composed_record(tensor),
        "torch, light monitor": lambda: light_monitor(tensor),
        "NumPy, light monitor": lambda: numpy_monitor(x),
    }
    times = medians(rivals, 3 * seconds)
    print("\n2^22 float32                  ms   gradkern is faster by")
    for name, time in times.items():
        print(f"  {name:24} {time * 1e3:7.2f} {time / times['gradkern']:10.1f}")
    tensors = {f"layer.{i}": data("float32", 1000) for i in range(2000)}
    many = medians({"many": lambda: gk.measure_many(tensors)}, seconds)["many"]
    one = medians({"one": lambda: [gk.measure(tensors["layer.0"]) for _ in range(100)]}, seconds)["one"] / 100
    print(f"\n2,000 tensors of 1,000: {many * 1e3:.2f} ms; one array of 1,000: {one * 1e6:.1f} us")
    print("\n2^22 entries, ns an entry float64  float32  float16 bfloat16")
    for name, row in unusual_rows(seconds):
        print(f"  {name:23}", *(f"{t:8.2f}" for t in row))


if __name__ == "__main__":
    let_blas_sleep()
    main(*map(float, sys.argv[1:]))
