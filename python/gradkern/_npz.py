"""Archives of arrays, .npz: opened once, read member by member, closed."""

from __future__ import annotations

import struct
import zipfile
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gradkern._numpy_files import BROKEN, Header, problem_of, read_header, size_of
from gradkern.errors import TensorFileError

# name, header, position of the data if it is stored uncompressed, what is wrong
Member = tuple[str, Header | None, int | None, str | None]


class Archive:
    """An .npz file, its directory read once and the file open until it is closed: a member takes the time of its own bytes.

    Raises
    ------
    TensorFileError
        If the file is missing or is not a complete archive.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            self._archive = zipfile.ZipFile(path)
        except BROKEN as error:
            raise self._refuse(str(error)) from None

    def close(self) -> None:
        """Close the file; nothing can be read from then on."""
        self._archive.close()

    def __enter__(self) -> Archive:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def _refuse(self, why: str, name: str | None = None) -> TensorFileError:
        return TensorFileError(f"{self.path}: not a complete .npz file ({why})", self.path, name)

    def members(self) -> list[Member]:
        """Return name, header, position of the data if it is stored uncompressed, and what is wrong, for every member.

        Raises
        ------
        TensorFileError
            If a member is damaged, or two have one name.
        """
        try:
            found = [self._member(member) for member in self._archive.infolist() if not member.is_dir()]
        except BROKEN as error:
            raise self._refuse(str(error)) from None
        name, times = max(Counter(member[0] for member in found).items(), key=lambda item: item[1], default=("", 0))
        if times > 1:
            raise self._refuse(f"the name {name!r} occurs twice", name)
        return found

    def load(self, name: str) -> NDArray[Any]:
        """Read one member into memory, with its checksum.

        Raises
        ------
        TensorFileError
            If it is missing or damaged, or the archive is closed.
        """
        if self._archive.fp is None:
            raise TensorFileError(f"{self.path}: was closed before tensor {name!r} was read", self.path, name)
        try:
            member = self._archive.getinfo(f"{name}.npy")
            with self._archive.open(member) as file:
                self._check_size("its header", read_header(file), member)
            with self._archive.open(member) as file:
                array = np.lib.format.read_array(file, allow_pickle=False)
                file.read()  # the checksum is compared at the end
        except BROKEN as error:
            raise self._refuse(f"member {name!r}: {error}", name) from None
        return np.asarray(array)

    def _member(self, member: zipfile.ZipInfo) -> Member:
        if not member.filename.endswith(".npy"):
            return member.filename, None, None, "not an array"
        name = member.filename.removesuffix(".npy")
        if member.flag_bits & 1:
            return name, None, None, "encrypted"
        with self._archive.open(member) as file:
            header = read_header(file)
        problem = problem_of(header[0])
        if problem is None:
            self._check_size(f"member {name!r}", header, member)
        stored = member.compress_type == zipfile.ZIP_STORED
        return name, header, self._data_start(member) + header[3] if stored else None, problem

    def _check_size(self, what: str, header: Header, member: zipfile.ZipInfo) -> None:
        dtype, shape, _, begin = header
        need, there = size_of(dtype, shape), member.file_size - begin
        if need != there and not dtype.hasobject:
            raise ValueError(f"{what}: {dtype} {shape} takes {need:,} bytes, has {there:,}")

    def _data_start(self, member: zipfile.ZipInfo) -> int:
        """Position of a stored member's bytes: the local header's name and extra field may differ from the directory's."""
        file = self._archive.fp
        assert file is not None
        file.seek(member.header_offset)
        local = file.read(30)
        if len(local) < 30 or local[:4] != b"PK\x03\x04":
            raise zipfile.BadZipFile(f"no local header of {member.filename}")
        name, extra = struct.unpack("<HH", local[26:30])
        return int(member.header_offset + 30 + name + extra)
