"""Where the numbers of .npy files lie, from their headers; nothing pickled is ever loaded."""

from __future__ import annotations

import math
import struct
import zipfile
import zlib
from pathlib import Path
from typing import IO, Any

import numpy as np

from gradkern.errors import TensorFileError

BROKEN = (zipfile.BadZipFile, zlib.error, EOFError, KeyError, ValueError, RuntimeError, OSError, struct.error)
_HEADER_LIMIT = 100_000

# dtype, shape, whether in Fortran's order, bytes of the header
Header = tuple[np.dtype[Any], tuple[int, ...], bool, int]


def read_header(file: IO[bytes]) -> Header:
    """Read the header of one array.

    Raises
    ------
    ValueError
        If it is none.
    """
    version = np.lib.format.read_magic(file)
    readers = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
    if version not in readers:
        raise ValueError(f"version {version} of the .npy format")
    try:
        shape, fortran, dtype = readers[version](file, max_header_size=_HEADER_LIMIT)
    except Exception as error:  # NumPy reads it by Python's tokenizer, which raises whatever it likes
        raise ValueError(f"its header cannot be read: {' '.join(str(error).split())[:80]}") from None
    if min(shape, default=0) < 0:
        raise ValueError(f"shape {shape}")
    return dtype, tuple(map(int, shape)), fortran, file.tell()


def problem_of(dtype: np.dtype[Any]) -> str | None:
    """Say why arrays of a dtype cannot be read as numbers, or None."""
    if dtype.hasobject:
        return "pickled Python objects, which are never loaded"
    if dtype.kind == "V":
        return f"dtype {dtype.str}: NumPy's files do not keep the names of bfloat16 and float8; save as .safetensors"
    return None


def size_of(dtype: np.dtype[Any], shape: tuple[int, ...]) -> int:
    """Bytes of an array."""
    return math.prod(shape) * dtype.itemsize


def npy_header(path: Path) -> Header:
    """Read the header of a .npy file and check it against the size of the file.

    Raises
    ------
    TensorFileError
        If the file is not a complete one.
    """
    try:
        with path.open("rb") as file:
            dtype, shape, fortran, start = read_header(file)
    except BROKEN as error:
        raise TensorFileError(f"{path}: not a complete .npy file ({error})", path) from None
    need, there = size_of(dtype, shape), path.stat().st_size - start
    if need != there and not dtype.hasobject:
        message = f"{path}: not a complete .npy file ({dtype} {shape} takes {need:,} bytes, {there:,} there)"
        raise TensorFileError(message, path)
    return dtype, shape, fortran, start
