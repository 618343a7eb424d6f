"""Units of CPUs and libraries: the same bits first, then multiply-adds a second beside torch's and NumPy's own products.

``python benchmarks/bench_cpu_units.py [SIZE] [SECONDS]`` prints SIZE^3 products (default 1024; 256 of torch_cpu) on one
thread and on two: the unit by the processor's own instruction where it has it, by software, and torch's product.
NumPy's float16 product is slow: it is timed at SIZE / 8.
``pytest benchmarks/bench_cpu_units.py --benchmark-enable`` times one thread.
"""

from __future__ import annotations

import os
import sys

import ml_dtypes
import numpy as np
import pytest
from timing import medians

import gradkern as gk
from gradkern import _core

UNITS = {
    "x86.amx": "bfloat16", "x86.avx512_bf16": "bfloat16", "x86.avx512_fp16": "float16", "cuda.hfma": "float16",
    "cuda.hmul_hadd": "float16", "numpy": "float16", "torch_cpu": "float16",
}  # fmt: skip
SIZE = 512


def drawn(size: int, fmt: str):
    rng = np.random.default_rng(0)
    dtype = np.float16 if fmt == "float16" else np.dtype(ml_dtypes.bfloat16)
    return tuple(rng.standard_normal((size, size)).astype(np.float32).astype(dtype) for _ in range(2))


def ways(unit: str) -> tuple[str, ...]:
    instruction = "x86.avx512_fp16" if unit == "cuda.hfma" else unit  # which multiplies so
    return ("processor", "software") if instruction in _core.own_instructions() else ("software",)


def product(unit: str, way: str, a, b):
    os.environ["GRADKERN_UNITS"] = way
    return gk.mma(a, b, unit=unit)


def check(unit: str) -> None:
    """The processor's instruction and the software model give the same bits, and NumPy's unit what NumPy gives."""
    a, b = drawn(160, UNITS[unit])
    first = product(unit, "software", a, b)
    for way in ways(unit):
        assert np.array_equal(first.view(np.uint8), product(unit, way, a, b).view(np.uint8))
    if unit == "numpy":
        assert np.array_equal(first, a @ b)


def by_torch(fmt: str, a, b, threads: int):
    import torch

    torch.set_num_threads(threads)
    dtype = torch.float16 if fmt == "float16" else torch.bfloat16
    x, y = (torch.from_numpy(v.view(np.int16)).view(dtype) for v in (a, b))
    return lambda: torch.mm(x, y)


@pytest.mark.parametrize("unit", UNITS)
def test_product(benchmark, unit):
    check(unit)
    gk.set_num_threads(1)
    size = 256 if unit == "torch_cpu" else SIZE
    a, b = drawn(size, UNITS[unit])
    benchmark.group = f"{UNITS[unit]} products, {size}^3"
    benchmark(product, unit, ways(unit)[0], a, b)


def main(size: int = 1024, seconds: float = 1.0) -> None:
    for unit in UNITS:
        check(unit)
    print(f"{'unit':<18}{'format':<10}{'by':<11}{'threads':>7}{'GMAC/s':>10}{'of torch':>10}")
    for threads in (1, 2):
        gk.set_num_threads(threads)
        for unit, fmt in UNITS.items():
            n = min(size, 256) if unit == "torch_cpu" else size
            a, b = drawn(n, fmt)
            calls = {way: lambda way=way, a=a, b=b, unit=unit: product(unit, way, a, b) for way in ways(unit)}
            calls["torch"] = by_torch(fmt, a, b, threads)
            times = medians(calls, seconds)
            for way, time in times.items():
                ratio = times["torch"] / time
                print(f"{unit:<18}{fmt:<10}{way:<11}{threads:>7}{n**3 / time / 1e9:>10.1f}{ratio:>10.2f}")
    n = size // 8
    a, b = drawn(n, "float16")
    times = medians({"numpy": lambda: a @ b, "unit": lambda: product("numpy", "software", a, b)}, seconds)
    own, unit = (n**3 / times[name] / 1e9 for name in ("numpy", "unit"))
    print(f"float16 product of NumPy's own, {n}^3: {own:.2f} GMAC/s, as the unit numpy {unit:.2f}")


if __name__ == "__main__":
    main(*(t(x) for t, x in zip((int, float), sys.argv[1:], strict=False)))
