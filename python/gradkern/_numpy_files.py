"""Where the numbers of .npy and .npz files lie, from their headers; nothing pickled is ever loaded."""

from __future__ import annotations

import math
import struct
import zipfile
import zlib
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

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


def _data_start(path: Path, member: zipfile.ZipInfo) -> int:
    """Position of a stored member's bytes: the local header's name and extra field may differ from the directory's."""
    with path.open("rb") as file:
        file.seek(member.header_offset)
        local = file.read(30)
    if len(local) < 30 or local[:4] != b"PK\x03\x04":
        raise zipfile.BadZipFile(f"no local header of {member.filename}")
    name, extra = struct.unpack("<HH", local[26:30])
    return int(member.header_offset + 30 + name + extra)


Member = tuple[str, Header | None, int | None, str | None]


def _member(path: Path, archive: zipfile.ZipFile, member: zipfile.ZipInfo) -> Member:
    if not member.filename.endswith(".npy"):
        return member.filename, None, None, "not an array"
    name = member.filename.removesuffix(".npy")
    if member.flag_bits & 1:
        return name, None, None, "encrypted"
    with archive.open(member) as file:
        header = read_header(file)
    dtype, shape, _, begin = header
    problem = problem_of(dtype)
    if problem is None and size_of(dtype, shape) != member.file_size - begin:
        need, there = size_of(dtype, shape), member.file_size - begin
        raise ValueError(f"member {name!r}: {dtype} {shape} takes {need:,} bytes, has {there:,}")
    stored = member.compress_type == zipfile.ZIP_STORED
    return name, header, _data_start(path, member) + begin if stored else None, problem


def npz_members(path: Path) -> list[Member]:
    """Return name, header, position of the data if it is stored uncompressed, and what is wrong, for every member.

    Raises
    ------
    TensorFileError
        If the file is not a complete archive.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            members = [_member(path, archive, member) for member in archive.infolist() if not member.is_dir()]
    except BROKEN as error:
        raise TensorFileError(f"{path}: not a complete .npz file ({error})", path) from None
    names = [member[0] for member in members]
    for name in names:
        if names.count(name) > 1:
            raise TensorFileError(f"{path}: not a complete .npz file (the name {name!r} occurs twice)", path, name)
    return members


def npz_array(path: Path, name: str) -> NDArray[Any]:
    """Read one member into memory, with its checksum.

    Raises
    ------
    TensorFileError
        If it is damaged.
    """
    try:
        with zipfile.ZipFile(path) as archive, archive.open(f"{name}.npy") as file:
            array = np.lib.format.read_array(file, allow_pickle=False)
            file.read()  # the checksum is compared at the end
    except BROKEN as error:
        raise TensorFileError(f"{path}: not a complete .npz file (member {name!r}: {error})", path, name) from None
    return np.asarray(array)
