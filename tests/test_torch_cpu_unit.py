"""The unit torch_cpu against torch itself, on one thread, in a process of its own."""

from __future__ import annotations

import subprocess
import sys

import pytest

pytest.importorskip("torch")

# Prints a line for each case that differs; torch.set_num_threads is for a whole process.
PROGRAM = """
import numpy as np, torch, gradkern as gk
from gradkern.torch import *
torch.set_num_threads(1)
generator = torch.Generator().manual_seed(0)
def draw(dtype, *shape):
    return torch.randn(*shape, generator=generator).to(dtype)
def differ(name, ours, theirs):
    ours, theirs = (torch.as_tensor(x).float() for x in (ours, theirs))
    if not torch.equal(ours, theirs):
        print(name, int((ours != theirs).sum()), "of", ours.numel())
for dtype, name, shapes in [(torch.float16, "float16", SHAPES), (torch.bfloat16, "bfloat16", SHAPES)]:
    arithmetic = f"{name}@torch_cpu"
    for m, k, n in shapes:
        a, b = draw(dtype, m, k), draw(dtype, k, n)
        differ(f"{name} {m, k, n}", gk.cast(gk.mma(a, b, unit="torch_cpu"), name).values, a @ b)
        x, w = draw(dtype, m, k), draw(dtype, n, k)
        z = gk.dense_forward(x, w, arithmetic=arithmetic).pre_activation
        differ(f"{name} {m, k, n} x @ w.T", z, x @ w.T)
        differ(f"{name} {m, k, n} linear", z, torch.nn.functional.linear(x, w))
print("compared")
"""


@pytest.mark.parametrize(
    "shapes",
    ["[(3, 17, 5), (4, 64, 4), (2, 255, 3), (2, 1023, 2), (8, 32, 16), (5, 80, 10)]",
     "[(16, 64, 16), (33, 100, 17), (8, 300, 40), (64, 512, 64), (128, 200, 96)]"],
    ids=["ATen", "oneDNN"],
)  # fmt: skip
def test_products_are_torchs(shapes):
    import torch

    if "[8" in shapes or shapes.startswith("[(16"):
        capable = torch.cpu._is_amx_tile_supported() if hasattr(torch.cpu, "_is_amx_tile_supported") else False
        if not capable:
            pytest.skip("oneDNN multiplies bfloat16 in another way without AMX")
    program = PROGRAM.replace("SHAPES", shapes)
    run = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=300)
    assert run.returncode == 0, run.stderr
    assert run.stdout == "compared\n"
