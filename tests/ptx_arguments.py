"""The arguments and results of the CUDA kernels, as csrc/executor and csrc/cuda lay them out; pointers are addresses."""

from __future__ import annotations

import ctypes
from ctypes import c_bool as flag
from ctypes import c_double as f64
from ctypes import c_int32 as i32
from ctypes import c_int64 as i64
from ctypes import c_uint64 as pointer
from typing import Any

import numpy as np

FORMATS = ["float64", "float32", "tfloat32", "float16", "bfloat16", "float8_e4m3fn", "float8_e5m2"]


def structure(name: str, **fields: Any) -> Any:
    """A C struct."""
    return type(name, (ctypes.Structure,), {"_fields_": list(fields.items())})


Mode = structure("Mode", rounding=i32, overflow=i32, subnormals=i32, seed=pointer)
UpdatePlan = structure("Plan", key=pointer, groups=flag, flush=flag)
Scale32 = structure("Scale<float>", factor=ctypes.c_float, inverse=ctypes.c_float)
Scale64 = structure("Scale<double>", factor=f64, inverse=f64)
TOGETHER = 4
ConvertOwn = structure("Own", size=i64, source=pointer, stored=pointer, key=pointer, counts=pointer)
ConvertWork = {
    scale: structure(
        "Work", source_format=i32, groups=flag, flush=flag, scaled=flag, scale=f64, mode=Mode, lane_scale=scale,
        tensors=ConvertOwn * TOGETHER)
    for scale in (Scale32, Scale64)
}  # fmt: skip
Update = structure(
    "UpdateArgs", size=i64, format=i32, weight=pointer, gradient_format=i32, gradient=pointer, updated=pointer, rate=f64,
    mode=Mode, stream=pointer, counts=pointer)  # fmt: skip
Activation = structure(
    "ActivationArgs", size=i64, activation=i32, alpha=f64, format=i32, pre_activation=pointer, grad_output=pointer,
    output=pointer, wide=pointer, slope=pointer)  # fmt: skip
Errors = structure("ErrorArgs", size=i64, format=i32, stored=pointer, truth=pointer, scale=f64, power=i32)
Factors = structure("Factors", each=f64, last=f64)
Matvec = structure(
    "MatvecArgs", rows=i64, columns=i64, vectors=i64, format=i32, matrix=pointer, transposed=flag, x=pointer,
    y=pointer)  # fmt: skip
Chunks = structure("TensorChunks", first_chunk=pointer, count=i64, chunks=i64)
Tensor = structure("StatisticsArgs", size=i64, format=i32, data=pointer, next=pointer)
Statistics = structure("StatisticsList", where=Chunks, format=i32, tensors=pointer, partials=pointer, cells=pointer)
Gradient = structure("ClipTensor", size=i64, format=i32, source=pointer, target=pointer)
Clip = structure("ClipList", where=Chunks, format=i32, tensors=pointer)
Factor = structure("ClipFactor", first=f64, second=f64, write=flag)
Epilogue = structure(
    "Epilogue", wide=pointer, bias=pointer, bias_format=i32, bias_row=i64, continued=flag, aligned=flag
)
TileSource = structure(
    "TileSource", data=pointer, outer_stride=i64, k_stride=i64, format=i32, bytes=i32, outer=i32, k=i32, along_outer=flag,
    vector=flag, to_tfloat32=flag)  # fmt: skip
Product = structure("ProductTask", a=TileSource, b=TileSource, m=i32, n=i32, k=i32, tiles_n=i32, out=Epilogue)
Products = structure("ProductTasks", task=Product * TOGETHER)
MmaSource = structure(
    "MmaSource", data=pointer, outer_stride=i64, k_stride=i64, outer=i32, k=i32, apart=i64, advance=i64)  # fmt: skip
Mma = structure("MmaTask", a=MmaSource, b=MmaSource, m=i32, n=i32, k=i32, out=Epilogue)
MmaPack = structure(
    "MmaPack", data=pointer, format=i32, outer_stride=i64, k_stride=i64, outer=i32, k=i32, tile=i32, is_a=flag,
    in_halves=flag, vector=flag, packed=pointer)  # fmt: skip

SQUARES = ("f8", (3,))  # big, medium, small
ROUNDING_COUNTS = np.dtype([
    ("events", "i8", (7,)), ("first_overflow", "i8"), ("first_flushed", "i8"), ("max_ulp", "f8"), ("signal", *SQUARES),
    ("noise", *SQUARES)])  # fmt: skip
EVENTS = ("exact", "inexact", "overflow", "subnormal", "flushed", "nan", "inf")
UPDATE_COUNTS = np.dtype([
    *((name, "i8") for name in ("unchanged", "applied", "lost", "overflow", "nonfinite", "flushed", "subnormal",
                                "first_overflow", "first_nonfinite")), ("wanted", *SQUARES), ("made", *SQUARES)])  # fmt: skip
STATISTICS_CHUNK = np.dtype([
    *((name, "i8") for name in ("nan", "pos_inf", "neg_inf", "zero", "negative", "first_nonfinite")),
    *((name, "f8") for name in ("amax", "amin", "finite", "mean", "mean_rest", "l1")), ("deviations", *SQUARES),
    ("squares", *SQUARES)])  # fmt: skip
SURVEY = np.dtype([
    ("nan", "i8"), ("inf", "i8"), ("first_nonfinite", "i8"), ("amax", "f8"), ("amin", "f8"), ("sums", "f8", (3, 2))])  # fmt: skip
CLIP_COUNTS = np.dtype([(name, "i8") for name in ("flushed", "subnormal", "overflow", "changed")])
ERROR_SUMS = np.dtype([("error", *SQUARES), ("truth", *SQUARES), ("nonfinite", "?"), ("infinite", "?"), ("", "V6")])
