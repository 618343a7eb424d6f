"""The header of a .safetensors file, read and checked: nothing that it says is believed before the file bears it out.

Layout: 8 bytes, little-endian, the length N of the header; N bytes of JSON, ``{name: {dtype, shape, data_offsets}}`` and
perhaps ``__metadata__``; then the data, to which the offsets refer.
"""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np

from gradkern.errors import TensorFileError

DTYPES: dict[str, np.dtype[Any]] = {
    name: np.dtype(kind)
    for name, kind in {
        "F64": np.float64, "F32": np.float32, "F16": np.float16, "BF16": ml_dtypes.bfloat16,
        "F8_E4M3": ml_dtypes.float8_e4m3fn, "F8_E5M2": ml_dtypes.float8_e5m2, "BOOL": np.bool_,
        "I64": np.int64, "I32": np.int32, "I16": np.int16, "I8": np.int8, "C64": np.complex64,
        "U64": np.uint64, "U32": np.uint32, "U16": np.uint16, "U8": np.uint8,
    }.items()
}  # fmt: skip
_HEADER_LIMIT = 100_000_000  # the format's own

Entry = tuple[str, str, tuple[int, ...], int, int]  # name, dtype, shape, first byte in the file, bytes


def _refuse(path: Path, message: str, tensor: str | None = None) -> TensorFileError:
    return TensorFileError(f"{path}: not a complete .safetensors file ({message})", path, tensor)


def _no_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, value in pairs:
        if name in found:
            raise ValueError(f"the name {name!r} occurs twice")
        found[name] = value
    return found


def _header(path: Path) -> tuple[dict[str, Any], int]:
    """Return the parsed header and the position of the data."""
    there = path.stat().st_size
    with path.open("rb") as file:
        start = file.read(8)
        if len(start) < 8:
            raise _refuse(path, f"{there} bytes, and the length of the header takes 8")
        length = int.from_bytes(start, "little")
        if length > there - 8:
            raise _refuse(path, f"a header of {length:,} bytes, {there - 8:,} there")
        if length > _HEADER_LIMIT:
            raise _refuse(path, f"a header of {length:,} bytes, at most {_HEADER_LIMIT:,} allowed")
        text = file.read(length)
    try:
        header = json.loads(text, object_pairs_hook=_no_duplicates)
    except (ValueError, RecursionError) as error:
        raise _refuse(path, f"the header is not JSON: {error}") from None
    if not isinstance(header, dict):
        raise _refuse(path, f"the header is a JSON {type(header).__name__}, not an object")
    return header, 8 + length


def _natural(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


def _entry(path: Path, name: str, entry: Any, start: int, there: int) -> Entry:
    """Check one tensor against the file."""
    fields = entry if isinstance(entry, dict) else {}
    dtype, shape, offsets = (fields.get(key) for key in ("dtype", "shape", "data_offsets"))
    if not (
        isinstance(dtype, str)
        and isinstance(shape, list)
        and all(map(_natural, shape))
        and isinstance(offsets, list)
        and len(offsets) == 2
        and all(map(_natural, offsets))
    ):
        raise _refuse(path, f"tensor {name!r}: needs dtype, shape and data_offsets, got {str(entry)[:80]}", name)
    first, end = offsets
    if not first <= end <= there - start:
        raise _refuse(path, f"tensor {name!r}: bytes {first:,} to {end:,} of the data, {there - start:,} there", name)
    known = DTYPES.get(dtype)
    if known is not None and math.prod(shape) * known.itemsize != end - first:
        need = math.prod(shape) * known.itemsize
        raise _refuse(path, f"tensor {name!r}: {dtype} {tuple(shape)} takes {need:,} bytes, has {end - first:,}", name)
    return name, dtype, tuple(shape), start + first, end - first


def read_header(path: Path) -> tuple[list[Entry], dict[str, str]]:
    """Return the tensors in the order of the file's data, and the metadata.

    Raises
    ------
    TensorFileError
        If the header is not one, or does not agree with the file.
    """
    header, start = _header(path)
    there = path.stat().st_size
    metadata = header.pop("__metadata__", None) or {}
    if not isinstance(metadata, dict):
        raise _refuse(path, "__metadata__ is not an object")
    entries = sorted((_entry(path, *item, start, there) for item in header.items()), key=lambda entry: entry[3:])
    end, before = start, ""
    for name, _, _, first, size in entries:
        if size and first < end:
            raise _refuse(path, f"tensors {before!r} and {name!r} overlap", name)
        if size:
            end, before = first + size, name
    if end != there:
        raise _refuse(path, f"{end:,} bytes described, {there:,} there")
    return entries, {str(key): str(value) for key, value in metadata.items()}
