"""Files of tensors, memory-mapped: .safetensors (single, sharded, indexed), .npz and .npy.

Opening reads the headers alone. `StoredTensor.load` maps the bytes of one tensor, and they are unmapped with the array: a
file of any size is walked through with the memory of its page cache only.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from gradkern import _numpy_files, _safetensors
from gradkern._npz import Archive
from gradkern.errors import TensorFileError

ENDINGS = (".safetensors", ".npz", ".npy")
_INDEX = ".safetensors.index.json"


def natural_key(name: str) -> list[tuple[int, str]]:
    """Sort key that puts ``layers.2`` before ``layers.10``."""
    return [(int(part), "") if part.isdecimal() else (-1, part) for part in re.split(r"(\d+)", name)]


@dataclass(frozen=True)
class StoredTensor:
    """A tensor in a file, not read yet.

    Attributes
    ----------
    name : str
        In the file; a .npy file's is that of the file.
    path : Path
        The file.
    dtype_name : str
        The dtype as the file has it.
    dtype : dtype or None
        None where NumPy has none.
    shape : tuple of int
        Its shape.
    nbytes : int
        Bytes, uncompressed.
    start : int or None
        First byte in the file; None where it is compressed.
    fortran : bool
        Whether the first index runs fastest.
    problem : str or None
        Why it cannot be loaded.
    archive : Archive or None
        The open archive that a member of an .npz file is in.
    """

    name: str
    path: Path
    dtype_name: str
    dtype: np.dtype[Any] | None
    shape: tuple[int, ...]
    nbytes: int
    start: int | None = None
    fortran: bool = False
    problem: str | None = None
    archive: Archive | None = field(default=None, repr=False, compare=False)

    def load(self, *, verify: bool = False) -> NDArray[Any]:
        """Return the array: mapped and read-only where it lies uncompressed, else read.

        Parameters
        ----------
        verify : bool
            Read members of .npz files and compare their checksums, in place of mapping them.

        Raises
        ------
        TensorFileError
            If it cannot be loaded, or the file has changed since it was opened, or was closed.
        """
        if self.problem is not None or self.dtype is None:
            raise TensorFileError(f"{self.path}: tensor {self.name!r}: {self.problem}", self.path, self.name)
        if self.archive is not None and (verify or self.start is None):
            return self.archive.load(self.name)
        if self.nbytes == 0:
            return np.empty(self.shape, self.dtype)
        start = self.start
        assert start is not None
        if self.path.stat().st_size < start + self.nbytes:
            raise TensorFileError(
                f"{self.path}: tensor {self.name!r} ends at byte {start + self.nbytes:,}, "
                f"{self.path.stat().st_size:,} there: the file was changed after it was opened",
                self.path,
                self.name,
            )
        order: Literal["F", "C"] = "F" if self.fortran else "C"
        return np.asarray(np.memmap(self.path, self.dtype, "r", start, self.shape, order))


@dataclass(frozen=True)
class TensorFile:
    """What a file, or a folder of shards, holds. An .npz file stays open until it is closed, by `with` or `close`."""

    path: Path
    tensors: list[StoredTensor]
    metadata: dict[str, str]
    archive: Archive | None = field(default=None, repr=False, compare=False)

    def close(self) -> None:
        """Close the file: no compressed tensor can be loaded from then on."""
        if self.archive is not None:
            self.archive.close()

    def __enter__(self) -> TensorFile:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def __iter__(self) -> Iterator[StoredTensor]:
        return iter(self.tensors)

    def __len__(self) -> int:
        return len(self.tensors)


def _open_safetensors(path: Path) -> TensorFile:
    entries, metadata = _safetensors.read_header(path)
    tensors = []
    for name, kind, shape, start, size in entries:
        dtype = _safetensors.DTYPES.get(kind)
        problem = None if dtype is not None else f"dtype {kind}, which is no number format here"
        tensors.append(StoredTensor(name, path, kind, dtype, shape, size, start, problem=problem))
    return TensorFile(path, sorted(tensors, key=lambda tensor: natural_key(tensor.name)), metadata)


def _open_npz(path: Path) -> TensorFile:
    tensors, archive = [], Archive(path)
    try:
        members = archive.members()
    except BaseException:
        archive.close()
        raise
    for name, header, start, problem in members:
        if header is None:
            tensors.append(StoredTensor(name, path, "none", None, (), 0, problem=problem))
            continue
        dtype, shape, fortran, _ = header
        size = _numpy_files.size_of(dtype, shape)
        tensors.append(StoredTensor(name, path, str(dtype), dtype, shape, size, start, fortran, problem, archive))
    return TensorFile(path, tensors, {}, archive)


def _open_npy(path: Path) -> TensorFile:
    dtype, shape, fortran, start = _numpy_files.npy_header(path)
    size, problem = _numpy_files.size_of(dtype, shape), _numpy_files.problem_of(dtype)
    return TensorFile(
        path, [StoredTensor(path.stem, path, str(dtype), dtype, shape, size, start, fortran, problem)], {}
    )


def _open_shards(path: Path, shards: list[Path]) -> TensorFile:
    tensors: dict[str, StoredTensor] = {}
    metadata: dict[str, str] = {}
    for shard in shards:
        opened = _open_safetensors(shard)
        metadata |= opened.metadata
        for tensor in opened:
            if tensor.name in tensors:
                other = tensors[tensor.name]
                raise TensorFileError(
                    f"{path}: tensor {tensor.name!r} is in two shards: {other.path.name} with shape {other.shape}, "
                    f"{shard.name} with {tensor.shape}",
                    path,
                    tensor.name,
                )
            tensors[tensor.name] = tensor
    return TensorFile(path, sorted(tensors.values(), key=lambda tensor: natural_key(tensor.name)), metadata)


def _open_index(path: Path) -> TensorFile:
    """Open the shards that an index names; every tensor must be where it says."""
    try:
        weights = json.loads(path.read_bytes())["weight_map"]
        shards = {str(name): path.parent / str(shard) for name, shard in weights.items()}
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise TensorFileError(f"{path}: not an index of shards, no weight_map ({error})", path) from None
    files = sorted(set(shards.values()), key=lambda shard: natural_key(shard.name))
    for name, shard in shards.items():
        if Path(weights[name]).name != weights[name]:
            raise TensorFileError(f"{path}: tensor {name!r} in {weights[name]!r}, outside the folder", path, name)
        if not shard.is_file():
            missing = sum(other == shard for other in shards.values())
            raise TensorFileError(f"{path}: shard {shard.name} is missing, with {missing} tensors", path, name)
    opened = _open_shards(path, files)
    found = {tensor.name: tensor.path for tensor in opened}
    for name, shard in shards.items():
        if found.get(name) != shard:
            raise TensorFileError(f"{path}: tensor {name!r} should be in {shard.name}, and is not", path, name)
    return opened


def _open_folder(path: Path) -> TensorFile:
    indices = sorted(path.glob("*" + _INDEX))
    if len(indices) > 1:
        names = ", ".join(index.name for index in indices)
        raise TensorFileError(f"{path}: holds {len(indices)} indices of shards, name one: {names}", path)
    if indices:
        return _open_index(indices[0])
    shards = sorted(path.glob("*.safetensors"), key=lambda shard: natural_key(shard.name))
    if not shards:
        held = ", ".join(sorted(entry.name for entry in path.iterdir())[:5]) or "nothing"
        raise TensorFileError(f"{path}: a folder without .safetensors files; it holds {held}", path)
    return _open_shards(path, shards)


def open_tensors(path: str | Path) -> TensorFile:
    """Open a file of tensors, a folder of .safetensors shards, or the index of one.

    Parameters
    ----------
    path : path
        Ends in .safetensors, .npz, .npy or .safetensors.index.json, or is a folder.

    Returns
    -------
    TensorFile
        Tensors of .safetensors in the natural order of their names, members of .npz in that of the file.

    Raises
    ------
    TensorFileError
        If it is missing, truncated or of another kind; names the tensor, and both sizes or shapes.
    """
    path = Path(path)
    if path.is_dir():
        return _open_folder(path)
    if not path.exists():
        raise TensorFileError(f"{path}: no such file", path)
    if path.name.endswith(_INDEX):
        return _open_index(path)
    openers = {".safetensors": _open_safetensors, ".npz": _open_npz, ".npy": _open_npy}
    if path.suffix not in openers:
        ending = path.suffix or "no ending"
        raise TensorFileError(f"{path}: must be a .npy, .npz or .safetensors file, got {ending!r}", path)
    if not path.is_file():
        raise TensorFileError(f"{path}: not a file", path)
    return openers[path.suffix](path)
