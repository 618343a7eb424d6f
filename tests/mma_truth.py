"""Outputs of matrix units that gradkern did not make: golden ones of a reference model, and recorded ones of GPUs."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

DATA = Path(__file__).parent / "data"
SILICON = Path(
    os.environ.get("GRADKERN_SILICON", Path(__file__).resolve().parents[2] / "shared" / "data" / "mma_silicon.npz")
)
FORMATS = {
    "f16": "float16", "bf16": "bfloat16", "f32": "float32", "tf32": "tfloat32", "e4m3": "float8_e4m3fn", "e5m2": "float8_e5m2",
}  # fmt: skip
_GOLDEN = {
    "V100": "volta", "T4": "turing", "A100": "ampere", "Ada": "ada", "H100": "hopper", "H100w": "hopper.wgmma",
    "B200": "blackwell.tcgen05", "RTX50": "rtx_blackwell",
}  # fmt: skip
_GPUS = {
    "V100": "volta", "A100": "ampere", "A2": "ampere", "Ada": "ada", "L40S": "ada", "H100": "hopper", "H200": "hopper",
    "B200": "blackwell",
}  # fmt: skip


@dataclass(frozen=True)
class Problem:
    """D = A B + C as raw patterns: A (m, k), B (k, n), C and D (m, n)."""

    name: str
    unit: str
    a_format: str
    b_format: str
    accumulate: str
    instruction_k: int | None
    A: np.ndarray
    B: np.ndarray
    C: np.ndarray
    D: np.ndarray


def _sets(path: Path) -> Iterator[tuple[dict, list[np.ndarray]]]:
    with np.load(path) as data:
        for entry in json.loads(bytes(data["manifest"]))["sets"]:
            yield entry, [data[f"{entry['key']}/{name}"] for name in "ABCD"]


def golden() -> Iterator[Problem]:
    """MMA-Sim's outputs, 56,320 in all."""
    for entry, arrays in _sets(DATA / "mma_open.npz"):
        unit = _GOLDEN[entry["key"].partition(".")[0]]
        for case, A, B, C, D in zip(entry["cases"], *arrays, strict=True):
            name = f"{entry['key']} {case}"
            yield Problem(
                name,
                unit,
                FORMATS[entry["ta"]],
                FORMATS[entry["tb"]],
                FORMATS[entry["td"]],
                entry["k_instr"],
                A,
                B,
                C,
                D,
            )


def recorded() -> Iterator[Problem]:
    """Outputs of GPUs, one dot product a row, as single rows of A times single columns of B."""
    for entry, (A, B, C, D) in _sets(SILICON):
        unit = "hopper.wgmma" if "wgmma" in entry["api"] else _GPUS[entry["gpu"]]
        operands, accumulate = FORMATS[entry["ab"]], FORMATS[entry["cd"]]
        k = entry["K"] if operands == "tfloat32" else None  # the API's instruction has four products
        yield Problem(entry["key"], unit, operands, operands, accumulate, k, A, B, C, D)
