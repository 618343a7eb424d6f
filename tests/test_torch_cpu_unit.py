"""The unit torch_cpu against torch itself, on one thread, in a process of its own."""

from __future__ import annotations

import subprocess
import sys

import pytest

pytest.importorskip("torch")

# Prints a line for each product that differs; torch.set_num_threads is for a whole process. Half of the sums cancel, but for
# their roundings: those tell one order from another.
PROGRAM = """
import random, torch, gradkern as gk
torch.set_num_threads(1)
generator = torch.Generator().manual_seed(0)
random.seed(0)

def operands(m, k, n, dtype, cancel):
    a, b = torch.randn(m, k, generator=generator).to(dtype), torch.randn(k, n, generator=generator).to(dtype)
    if cancel:
        half = k // 2
        a[:, half:2 * half], b[half:2 * half] = a[:, :half], -b[:half]
        order = torch.randperm(k, generator=generator)
        a, b = a[:, order].contiguous(), b[order].contiguous()
    return a, b

def compare(m, k, n, dtype, name, cancel):
    arithmetic = f"{name}@torch_cpu"
    a, b = operands(m, k, n, dtype, cancel)
    weight, dz = b.T.contiguous(), a.T.contiguous()
    zeros = torch.zeros(m, n, dtype=dtype)
    ours = {
        "a @ b": lambda: gk.cast(gk.mma(a, b, unit="torch_cpu"), name).values,
        "a @ weight.T": lambda: gk.dense_forward(a, weight, arithmetic=arithmetic).pre_activation,
        "linear": lambda: gk.dense_forward(a, weight, b[0], arithmetic=arithmetic).pre_activation,
        "dz.T @ x": lambda: gk.dense_backward(dz, b, zeros, arithmetic=arithmetic).weight,
    }
    torchs = [a @ b, a @ weight.T, torch.nn.functional.linear(a, weight, b[0]), dz.T @ b]
    compared = 0
    for (what, call), theirs in zip(ours.items(), torchs):
        try:
            mine = call()
        except ValueError as refused:
            assert "is not known" in str(refused)
            continue
        compared += 1
        if not torch.equal(mine.float(), theirs.float()):
            print(what, name, (m, k, n), cancel, int((mine.float() != theirs.float()).sum()))
    return compared

total = 0
for dtype, name in ((torch.float16, "float16"), (torch.bfloat16, "bfloat16")):
    for _ in range(TRIALS):
        m, n, k = SIZES
        total += compare(m, k, n, dtype, name, random.random() < 0.5)
print("compared", total > 5 * TRIALS)
"""
SMALL = "random.randint(2, 8), random.randint(2, 8), random.randint(1, 90)"
LARGE = (
    "random.choice([2, 5, 17, 40, 64]), random.choice([8, 17, 33, 96]), "
    "random.choice([random.randint(130, 512), random.randint(31, 130)])"
)


@pytest.mark.parametrize("sizes", [SMALL, LARGE], ids=["ATen", "oneDNN"])
def test_products_are_torchs(sizes):
    import torch

    if not (torch.__version__.startswith("2.13") and torch.cpu._is_amx_tile_supported()):
        pytest.skip(
            "another torch or processor may multiply in another order; compared with torch 2.13 on one with AMX"
        )
    program = PROGRAM.replace("SIZES", sizes).replace("TRIALS", "100")
    run = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=300)
    assert run.returncode == 0, run.stderr
    assert run.stdout == "compared True\n"
