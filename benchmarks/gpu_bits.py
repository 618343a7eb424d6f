"""The bits of a device beside the CPU's, and of its matrix units beside their model."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

import gradkern as gk

STORED = ["float64", "float32", "float16", "bfloat16", "float8_e4m3fn", "float8_e5m2"]
CHAINS = ["float64", "float32", "float16", "float16_pure", "bfloat16", "tf32", "float8_e4m3fn", "float8_e5m2"]


@dataclass
class Row:
    """One line of the report, made when it is called."""

    what: str
    make: Callable[[], dict[str, Any]]

    def __call__(self) -> dict[str, Any]:
        return {"what": self.what, **self.make()}


def wide_spread(size: int | tuple[int, ...], fmt: str, seed: int, special: bool = True) -> np.ndarray:
    """Values over all binades of a format with its specials among them."""
    rng = np.random.default_rng(seed)
    info = gk.finfo(fmt)
    low, high = np.log2(info.smallest_subnormal), np.log2(info.max)
    with np.errstate(all="ignore"):
        x = rng.standard_normal(size) * 2.0 ** rng.uniform(max(low - 2, -1070), min(high + 1, 1000), size)
        if special:
            x.flat[::97] = rng.choice([0.0, -0.0, np.inf, -np.inf, np.nan, info.max], x.flat[::97].shape)
        return x.astype(info.dtype)


def gradients(size: int | tuple[int, ...], fmt: str, seed: int) -> np.ndarray:
    """Ordinary values."""
    rng = np.random.default_rng(seed)
    return rng.standard_normal(size).astype(gk.finfo(fmt).dtype)


def raw(x: Any) -> np.ndarray:
    x = np.ascontiguousarray(x)
    return x.view(f"u{x.dtype.itemsize}")


def differing(pairs: Iterator[tuple[Any, Any]]) -> dict[str, Any]:
    """Count values whose bits differ; a NaN equals any NaN of its sign only where both are the same bits."""
    values = differ = 0
    for cpu, device in pairs:
        a, b = raw(cpu), raw(device)
        values += a.size
        differ += int(np.count_nonzero(a != b)) if a.shape == b.shape else a.size
    return {"values": values, "differ": differ}


def reports_differing(cpu: Any, device: Any) -> int:
    return int(repr(cpu.to_dict()) != repr(device.to_dict()))


def casts(device: str) -> dict[str, Any]:
    def pairs() -> Iterator[tuple[Any, Any]]:
        for source in ("float64", "float32", "float16", "bfloat16"):
            for fmt in STORED:
                for mode in ({}, {"rounding": "toward_zero"}, {"rounding": "stochastic", "seed": 5},
                             {"overflow": "saturate", "subnormals": "flush"}):  # fmt: skip
                    x = wide_spread(100_003, source, 1)
                    a, b = gk.cast(x, fmt, **mode), gk.cast(x, fmt, device=device, **mode)
                    yield a.values, b.values
                    yield np.array([0], np.uint8), np.array([reports_differing(a.report, b.report)], np.uint8)

    return differing(pairs())


def activations(device: str) -> dict[str, Any]:
    def pairs() -> Iterator[tuple[Any, Any]]:
        for name in gk.activations():
            for arithmetic in ("float64", "float32", "float16", "bfloat16"):
                fmt = gk.arithmetic(arithmetic).storage
                z, g = wide_spread(50_001, fmt, 2), gradients(50_001, fmt, 3)
                options = {"arithmetic": arithmetic}
                yield (
                    gk.activation_forward(z, name, **options),
                    gk.activation_forward(z, name, device=device, **options),
                )
                yield (gk.activation_backward(g, z, name, **options),
                       gk.activation_backward(g, z, name, device=device, **options))  # fmt: skip

    return differing(pairs())


def products(device: str, m: int, n: int, k: int) -> dict[str, Any]:
    def pairs() -> Iterator[tuple[Any, Any]]:
        for arithmetic in CHAINS:
            fmt = gk.arithmetic(arithmetic).storage
            x, w, b = gradients((m, k), fmt, 4), gradients((n, k), fmt, 5), gradients(n, fmt, 6)
            g = gradients((m, n), fmt, 7)
            for options in ({"arithmetic": arithmetic},):
                a, d = (gk.dense_forward(x, w, b, device=where, **options) for where in (None, device))
                yield a.output, d.output
                a, d = (
                    gk.dense_backward(g, x, w, a.pre_activation, device=where, **options) for where in (None, device)
                )
                for part in ("input", "weight", "bias"):
                    yield getattr(a, part), getattr(d, part)

    return differing(pairs())


def statistics(device: str) -> dict[str, Any]:
    values = differ = 0
    for fmt in STORED:
        for size in (1, 2049, 100_001, 3_000_001):
            for x in (wide_spread(size, fmt, 8), wide_spread(size, fmt, 9, special=False), gradients(size, fmt, 10)):
                values += 1
                differ += reports_differing(gk.measure(x), gk.measure(x, device=device))
    return {"values": values, "differ": differ, "note": " (records)"}


def clips(device: str) -> dict[str, Any]:
    def pairs() -> Iterator[tuple[Any, Any]]:
        for p in (1, 2, np.inf):
            for fmt in STORED:
                arrays = [gradients(size, fmt, size) for size in (1, 16, 1000, 16_385, 100_003)]
                there = [a.copy() for a in arrays]
                a, b = gk.clip_by_global_norm(arrays, 0.5, p=p), gk.clip_by_global_norm(there, 0.5, p=p, device=device)
                yield np.float64(a.norm), np.float64(b.norm)
                yield from zip(arrays, there, strict=True)
                gk.clip_by_value(arrays, -1e-3, 1e-3)
                gk.clip_by_value(there, -1e-3, 1e-3, device=device)
                yield from zip(arrays, there, strict=True)

    return differing(pairs())


def chains(device: str) -> dict[str, Any]:
    values = differ = 0
    for arithmetic in CHAINS:
        net = gk.MLP.random(depth=12, width=96, activation="gelu", seed=1)
        x = np.random.default_rng(11).standard_normal((33, 96))
        options = {"arithmetic": arithmetic, "scale": 1024.0, "reference": False, "progress": False}
        a, b = gk.probe(net, x, **options), gk.probe(net, x, device=device, **options)
        values += len(a.to_dict()["rows"]) if "rows" in a.to_dict() else 1
        differ += reports_differing(a, b)
    return {"values": values, "differ": differ, "note": " (chains)"}


def bits(device: str) -> list[Row]:
    """Lines under the fma contract: none may differ."""
    return [
        Row("casts, 96 pairs of formats and modes", lambda: casts(device)),
        Row("activations, forward and backward", lambda: activations(device)),
        Row("dense, 8 arithmetics, 130 x 70 x 257", lambda: products(device, 130, 70, 257)),
        Row("dense, 8 arithmetics, 256 x 256 x 512", lambda: products(device, 256, 256, 512)),
        Row("statistics", lambda: statistics(device)),
        Row("clipping", lambda: clips(device)),
        Row("chains of 12 layers, forward and backward", lambda: chains(device)),
    ]


# What a matrix unit meets: ordinary values, wide spreads, cancellation, subnormals, specials.
def classes(fmt: str, shape: tuple[int, int], seed: int) -> Iterator[tuple[str, np.ndarray]]:
    rng = np.random.default_rng(seed)
    info = gk.finfo(fmt)
    yield "normal", gradients(shape, fmt, seed)
    yield "wide", wide_spread(shape, fmt, seed + 1, special=False)
    yield "specials", wide_spread(shape, fmt, seed + 2)
    cancel = rng.standard_normal(shape)
    cancel[:, 1::2] = -cancel[:, ::2][:, : cancel[:, 1::2].shape[1]] * (
        1 + 2.0**-9 * rng.integers(-2, 3, cancel[:, 1::2].shape)
    )
    yield "cancel", cancel.astype(info.dtype)
    tiny = rng.integers(-8, 9, shape) * info.smallest_subnormal
    yield "subnormal", tiny.astype(info.dtype)
    yield "powers of two", (rng.choice([-1.0, 1.0], shape) * 2.0 ** rng.integers(-6, 7, shape)).astype(info.dtype)


def unit_row(device: str, unit: str, fmt: str, k: int, instruction_k: int | None) -> dict[str, Any]:
    m, n, worst = 128, 96, []

    def pairs() -> Iterator[tuple[Any, Any]]:
        right = dict(classes(fmt, (n, k), 50))
        for name, a in classes(fmt, (m, k), 20):
            for partner in {name, "normal"}:
                b = np.ascontiguousarray(right[partner].T)
                half = unit.endswith("/float16")
                c = gradients((m, n), "float16" if half else "float32", 3)
                for start in (None, c):
                    options = {"unit": unit, "instruction_k": instruction_k}
                    model, real = gk.mma(a, b, start, **options), gk.mma(a, b, start, device=device, **options)
                    if not np.array_equal(raw(model), raw(real)):
                        worst.append(f"{name} x {partner}{', c' if start is not None else ''}")
                    yield model, real

    row = differing(pairs())
    return {**row, "note": f" ({'; '.join(dict.fromkeys(worst))})"} if worst else row


def units(device: str) -> list[Row]:
    """The device's mma instructions beside the model of its architecture."""
    unit = "hopper"
    if device == "cuda":
        import cupy

        major, minor = divmod(int(cupy.cuda.Device().compute_capability), 10)
        unit = {(8, 0): "ampere", (8, 6): "ampere", (8, 9): "ada", (9, 0): "hopper", (10, 0): "blackwell"}.get(
            (major, minor), "rtx_blackwell")  # fmt: skip
    cases = [("float16", unit, None), ("float16", unit, 8), ("float16", f"{unit}/float16", None), ("bfloat16", unit, None),
             ("bfloat16", unit, 8), ("float32", unit, None), ("float32", unit, 4)]  # fmt: skip
    if unit != "ampere":
        cases += [(f, u, None) for f in ("float8_e4m3fn", "float8_e5m2") for u in (unit, f"{unit}/float16")]
    rows = []
    for fmt, name, instruction_k in cases:
        for k in (32, 416):
            what = f"{'tfloat32' if fmt == 'float32' else fmt}@{name}, K = {k}"
            what += f", instruction k {instruction_k}" if instruction_k else ""
            rows.append(Row(what, lambda f=fmt, u=name, k=k, i=instruction_k: unit_row(device, u, f, k, i)))
    return rows
