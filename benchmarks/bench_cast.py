"""cast with its report, beside casts that report nothing: torch's `.to` and `copy_`, NumPy's `astype`.

Bytes: the source read once and the result written once. ``pytest benchmarks/bench_cast.py --benchmark-enable`` times
arrays that fit no cache; ``python benchmarks/bench_cast.py`` prints a table at two sizes, 2 threads, median of samples
taken in turn, with ratios: time of the rival over time of gradkern, above 1 where gradkern is the faster.
"""

from __future__ import annotations

import numpy as np
import pytest
from timing import medians

import gradkern as gk

PAIRS = [
    ("float32", "float16"),
    ("float32", "bfloat16"),
    ("float32", "float8_e4m3fn"),
    ("float32", "float8_e5m2"),
    ("float64", "float16"),
    ("float16", "float32"),
]
SIZE, THREADS = 2**22, 2


def data(source: str, size: int):
    """Gradients as float16 sees them: most of them subnormal, some flushed, none beyond any range."""
    piece = np.random.default_rng(0).standard_normal(min(size, 2**20)) * 1e-5
    return np.resize(piece.astype(source), size)


def validate(x, fmt: str) -> None:
    """Values against NumPy's cast, counts against plain counting."""
    dtype = gk.finfo(fmt).dtype
    x = x[: 2**20]
    result = gk.cast(x, fmt)
    with np.errstate(all="ignore"):
        np.testing.assert_array_equal(result.values, x.astype(dtype))
    wide, stored = x.astype(np.float64), result.values.astype(np.float64)
    normal = np.abs(stored) >= gk.finfo(fmt).smallest_normal
    assert result.report.flushed == np.count_nonzero((stored == 0) & (wide != 0))
    assert result.report.subnormal == np.count_nonzero((stored != 0) & ~normal)
    assert result.report.inexact == np.count_nonzero((stored != wide) & normal)
    sqnr = 10 * np.log10(np.sum(wide**2) / np.sum((stored - wide) ** 2)) if np.any(stored != wide) else np.inf
    np.testing.assert_allclose(result.report.sqnr_db, sqnr, atol=1e-6)


@pytest.mark.parametrize("source, fmt", PAIRS)
def test_gradkern(benchmark, source, fmt):
    benchmark.group = f"cast {source} -> {fmt}, {SIZE} elements"
    x = data(source, SIZE)
    validate(x, fmt)
    benchmark(lambda: gk.cast(x, fmt))


@pytest.mark.parametrize("source, fmt", PAIRS)
def test_numpy_without_report(benchmark, source, fmt):
    benchmark.group = f"cast {source} -> {fmt}, {SIZE} elements"
    x, dtype = data(source, SIZE), gk.finfo(fmt).dtype
    with np.errstate(all="ignore"):
        benchmark(lambda: x.astype(dtype))


@pytest.mark.parametrize("source, fmt", PAIRS)
def test_torch_without_report(benchmark, source, fmt):
    torch = pytest.importorskip("torch")
    benchmark.group = f"cast {source} -> {fmt}, {SIZE} elements"
    x, dtype = torch.from_numpy(data(source, SIZE)), getattr(torch, fmt)
    benchmark(lambda: x.to(dtype))


def rivals(x, fmt: str) -> dict:
    """What to time: into fresh memory, and into memory that is there already."""
    dtype = gk.finfo(fmt).dtype
    out = np.zeros(x.shape, dtype)
    functions = {
        "gradkern": lambda: gk.cast(x, fmt),
        "gradkern out": lambda: gk.cast(x, fmt, out=out),
    }
    try:
        import torch
    except ImportError:
        pass
    else:
        torch.set_num_threads(THREADS)
        tensor, there = torch.from_numpy(x), torch.zeros(x.shape, dtype=getattr(torch, fmt))
        functions["torch to"] = lambda: tensor.to(there.dtype)
        functions["torch copy_"] = lambda: there.copy_(tensor)
    if x.size <= SIZE:
        functions["numpy astype"] = lambda: x.astype(dtype)
    return functions


def main() -> None:
    """Print milliseconds and ratios."""
    gk.set_num_threads(THREADS)
    print(f"{'cast':26} {'Mi':>3} {'ms':>8} {'out= ms':>8} {'GB/s':>6}  rival: ms, ratio")
    for source, fmt in PAIRS:
        for size in (SIZE, 16 * SIZE):
            x = data(source, size)
            validate(x, fmt)
            with np.errstate(all="ignore"):
                t = medians(rivals(x, fmt), 2.0)
            ours, there = t.pop("gradkern"), t.pop("gradkern out")
            traffic = size * (x.itemsize + gk.finfo(fmt).dtype.itemsize) / there / 1e9
            against = {"torch to": ours, "torch copy_": there, "numpy astype": ours}
            rows = ", ".join(f"{name}: {s * 1e3:.2f}, {s / against[name]:.2f}" for name, s in t.items())
            print(
                f"{source + ' -> ' + fmt:26} {size >> 20:3} {ours * 1e3:8.2f} {there * 1e3:8.2f} {traffic:6.1f}  {rows}"
            )


if __name__ == "__main__":
    main()
