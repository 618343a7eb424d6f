"""Units that round after each operation, in words: those of CPUs and CUDA cores, and products of libraries."""

from __future__ import annotations

# By form: how a dot product is summed, and how a step rounds.
RULES = {
    "amx": (
        "of every 32 products the even and the odd ones are two chains of fused multiply-adds from +0, e and o; then c + (e + o)",
        "float32, to nearest, after each operation; subnormals are read and written as zeros",
    ),
    "pairs": (
        "two products at a time: a[k+1] b[k+1] is added to c by a fused multiply-add, then a[k] b[k]",
        "float32, to nearest, after each operation; subnormals are read and written as zeros",
    ),
    "fused_half": (
        "one fused multiply-add a product, k ascending",
        "float16, to nearest, once a product; subnormals are kept",
    ),
    "separate_half": (
        "each product is rounded, then added and rounded again, k ascending",
        "float16, to nearest, twice a product; subnormals are kept",
    ),
    "rounded_float": (
        "one float32 sum, k ascending, which is rounded to float16 at its end; then the bias is added and rounded",
        "float32, to nearest, once a product; float16 once a sum",
    ),
    "torch": (
        "torch 2.13 on one thread. Up to m k n = 4096 ATen's loops in float32: a @ b in four interleaved sums, x @ weight.T in "
        "eight registers of eight, dz.T @ x in one chain. Above it oneDNN: float16 by one float32 chain, bfloat16 as x86.amx, in "
        "tiles of 32 or, where an even number cuts the sum into as few equal parts, in tiles of that. The bias is added to "
        "the float32 sum, and storage rounds once",
        "float32, to nearest, after each operation; bfloat16 above the threshold reads and writes subnormals as zeros",
    ),
}

LIMITS = {
    "cuda.hfma": "no GPU was compared with; bfloat16 is not modelled",
    "cuda.hmul_hadd": "no GPU was compared with; without _rn the compiler may fuse the two into an fma",
    "numpy": "compared with NumPy 2: matmul and dot",
    "torch_cpu": "compared with torch 2.13 on a processor with AMX and AVX512-FP16, on one thread; another torch, processor or "
    "thread count may sum in another order. Above the threshold sums of more than 512 float16 or 256 bfloat16 products are "
    "refused, and those of more than 128 that go into smaller tiles: how they are cut depends on the shape. A bias gradient "
    "is a product with ones here; torch adds in another order",
}
