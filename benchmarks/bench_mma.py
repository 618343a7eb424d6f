"""Matrix units beside the reference model MMA-Sim (mmasim) and the emulator mmaemu: the same bits first, then the speed.

``python benchmarks/bench_mma.py [OUTPUTS] [SECONDS]`` compares so many fresh random outputs (default 1,000,000) over all
units that mmasim covers, with patterns of every kind, and prints multiply-adds a second for one thread, packing included:
512^3 products of ours, one instruction's worth of mmasim's, 128^3 of mmaemu's.
``pytest benchmarks/bench_mma.py --benchmark-enable`` times ours alone.
"""

from __future__ import annotations

import sys

import numpy as np
import pytest
from timing import medians

import gradkern as gk
from gradkern import _units
from gradkern._arrays import as_bits_view
from gradkern.formats import finfo

ARCHITECTURES = {
    "volta": "Volta", "turing": "Turing", "ampere": "Ampere", "ada": "Ada Lovelace", "hopper": "Hopper", "hopper.wgmma": "Hopper",
    "blackwell": "Blackwell", "blackwell.tcgen05": "Blackwell", "rtx_blackwell": "RTX Blackwell",
}  # fmt: skip
SHORT = {
    "float16": "f16", "bfloat16": "bf16", "tfloat32": "tf32", "float32": "f32", "float8_e4m3fn": "e4m3", "float8_e5m2": "e5m2",
}  # fmt: skip
SIZE = 512
ALL = [
    (i, operand, fmt) for i in _units.instructions() for fmt in i.accumulators
    for operand in (_units.FLOAT8 if i.operands == "float8" else (i.operands,))
]  # fmt: skip


def dtype_of(fmt: str):
    return np.dtype(np.float32) if fmt == "tfloat32" else finfo(fmt).dtype


def drawn(rng, shape, fmt: str):
    """Random patterns: normal values of many exponents, near cancellation, and one in ten of any bits at all."""
    dtype = dtype_of(fmt)
    bits = rng.integers(0, 2 ** (8 * dtype.itemsize), shape, np.uint64)
    values = rng.standard_normal(shape) * 2.0 ** rng.integers(-8, 8, shape)
    near = as_bits_view(values.astype(np.float32).astype(dtype))
    wild = rng.random((shape[0], 1)) < 0.5  # whole rows without NaN, so that most sums are finite
    return np.where(wild & (rng.random(shape) < 0.1), bits, near).astype(near.dtype).view(dtype)


def reference(i: _units.Instruction, operand: str, fmt: str):
    """mmasim's operation, or None where it has none."""
    from mmasim import nv_ptx

    t, d = SHORT[operand], SHORT[fmt]
    if i.unit == "hopper.wgmma":
        return nv_ptx.WGMMA("Hopper", f"m64n8k{i.k}.{d}.{t}.{t}")
    if i.unit == "blackwell.tcgen05":
        kind = {"tf32": "tf32", "f16": "f16", "bf16": "f16"}.get(t, "f8f6f4")
        return nv_ptx.TCGen05MMA("Blackwell", f"m64n8k{i.k}.kind::{kind}.{d}.{t}.{t}")
    shape = "m8n8k4" if i.k == 4 and operand == "float16" else f"m16n8k{i.k}"
    kind = "kind::f8f6f4." if i.unit == "rtx_blackwell" and i.operands == "float8" else ""
    try:
        return nv_ptx.MMA(ARCHITECTURES[i.unit], f"{shape}.{kind}{d}.{t}.{t}.{d}")
    except AssertionError:
        return None


def as_torch(x, operand: str):
    import torch

    kinds = {"bfloat16": torch.bfloat16, "float8_e4m3fn": torch.float8_e4m3fn, "float8_e5m2": torch.float8_e5m2}
    if operand not in kinds:
        return torch.from_numpy(np.ascontiguousarray(x))
    words = np.int16 if operand == "bfloat16" else np.uint8
    return torch.from_numpy(np.ascontiguousarray(x).view(words)).view(kinds[operand])


def unit_name(i: _units.Instruction, fmt: str) -> str:
    return _units.Accumulator(fmt, i.unit).name


def compare(outputs: int) -> None:
    """Equal bits, NaN and zeros included, or an AssertionError."""
    rng = np.random.default_rng()
    covered = [(c, operation) for c in ALL if (operation := reference(*c)) is not None]
    each = -(-outputs // len(covered))
    total = 0
    for (i, operand, fmt), operation in covered:
        done = 0
        while done < each:
            m, n, k = operation.m, operation.n, operation.k
            a, b, c = drawn(rng, (m, k), operand), drawn(rng, (k, n), operand), drawn(rng, (m, n), fmt)
            theirs = operation(as_torch(a, operand), as_torch(b, operand), as_torch(c, fmt)).numpy()
            ours = gk.mma(a, b, c, unit=unit_name(i, fmt), instruction_k=i.k)
            assert np.array_equal(as_bits_view(ours), as_bits_view(theirs)), (i.unit, operand, fmt, i.k)
            done += m * n
        total += done
    print(f"{total:,} outputs of {len(covered)} instructions: every bit equals mmasim's")
    skipped = {f"{i.unit} {o} k{i.k}" for i, o, f in ALL} - {f"{i.unit} {o} k{i.k}" for (i, o, _), _ in covered}
    print("not in mmasim:", ", ".join(sorted(skipped)) or "none")


def product_of(operand: str, fmt: str, unit: str, size: int):
    rng = np.random.default_rng(0)
    a, b = (rng.standard_normal((size, size)).astype(dtype_of(operand)) for _ in range(2))
    return lambda: gk.mma(a, b, unit=unit)


def emulator(operand: str, unit: str, size: int):
    """mmaemu's float8 accumulation, or None where it has no such profile."""
    import mmaemu

    profile = {"ada": "ada", "hopper.wgmma": "hopper"}.get(unit)
    if profile is None or operand not in _units.FLOAT8:
        return None
    rng = np.random.default_rng(0)
    a, b = (as_torch(rng.standard_normal((size, size)).astype(dtype_of(operand)), operand) for _ in range(2))
    return lambda: mmaemu.accumulate(a, b, use_fast_accum=True, profile=profile, splitk=1)


def speeds(seconds: float) -> None:
    print(f"\n{'unit':<26}{'operands':<16}{'gradkern':>10}{'mmasim':>10}{'mmaemu':>10}   10^9 multiply-adds a second")
    seen = set()
    for i, operand, fmt in ALL:
        name = unit_name(i, fmt)
        if (name, operand) in seen:
            continue
        seen.add((name, operand))
        rivals, work = {"gradkern": product_of(operand, fmt, name, SIZE)}, {"gradkern": SIZE**3}
        operation = reference(i, operand, fmt)
        if operation is not None:
            rng = np.random.default_rng(0)
            m, n, k = operation.m, operation.n, operation.k
            a, b, c = (
                as_torch(rng.standard_normal(shape).astype(dtype_of(f)), f)
                for shape, f in (((m, k), operand), ((k, n), operand), ((m, n), fmt))
            )
            rivals["mmasim"], work["mmasim"] = lambda o=operation, x=a, y=b, z=c: o(x, y, z), m * n * k
        if fmt == "float32" and (emulated := emulator(operand, i.unit, 128)) is not None:
            rivals["mmaemu"], work["mmaemu"] = emulated, 128**3
        times = medians(rivals, seconds)
        cells = [
            f"{work[r] / times[r] * 1e-9:10.4f}" if r in times else f"{'-':>10}"
            for r in ("gradkern", "mmasim", "mmaemu")
        ]
        print(f"{name:<26}{operand:<16}{''.join(cells)}")


@pytest.mark.parametrize("unit", ["volta", "ampere", "hopper", "volta/float16", "hopper/float16"])
def test_gradkern(benchmark, unit):
    benchmark.group = f"mma float16, n {SIZE}"
    benchmark(product_of("float16", "float32", unit, SIZE))


if __name__ == "__main__":
    import torch

    torch.set_num_threads(1)
    gk.set_num_threads(1)
    compare(int(sys.argv[1]) if len(sys.argv) > 1 else 1_000_000)
    speeds(float(sys.argv[2]) if len(sys.argv) > 2 else 0.5)
