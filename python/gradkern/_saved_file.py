"""Results in a file: JSON, gzipped or not, or JSON in an .npz; marked with what they are."""

from __future__ import annotations

import gzip
import json
import zlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from gradkern._npz import Archive

T = TypeVar("T")

ENDINGS = (".json", ".json.gz", ".npz")
# What building a result trips over where fields are missing or of another type.
_DAMAGE = (
    OSError, ValueError, LookupError, TypeError, AttributeError, OverflowError, EOFError, RecursionError, zlib.error,
)  # fmt: skip


def write(path: Path, key: str, fields: Mapping[str, Any], version: int = 1) -> None:
    """Write fields, which hold what JSON can, with the key that says what they are.

    Raises
    ------
    ValueError
        If the name has another ending.
    OSError
        If it cannot be written.
    """
    if not path.name.endswith(ENDINGS):
        raise ValueError(f"save: the name must end in {', '.join(ENDINGS[:-1])} or {ENDINGS[-1]}, got {path.name!r}")
    data = json.dumps({key: version, **fields}, allow_nan=False).encode()
    if path.suffix == ".npz":
        arrays: dict[str, Any] = {key: np.frombuffer(data, np.uint8)}
        np.savez_compressed(path, **arrays)
        return
    path.write_bytes(gzip.compress(data, mtime=0) if path.suffix == ".gz" else data)


def _text(path: Path, key: str) -> bytes:
    data = path.read_bytes()
    if path.suffix == ".npz" and not data.startswith(b"{"):  # reports of former days are JSON by any name
        with Archive(path) as archive:
            return archive.load(key).tobytes()
    return gzip.decompress(data) if path.suffix == ".gz" else data


def read(path: Path, key: str, kind: str, build: Callable[[dict[str, Any]], T], version: int = 1) -> T:
    """Read what `write` wrote and build the result from it.

    Raises
    ------
    ValueError
        If the file is missing or damaged, or holds something else.
    """
    if not path.is_file():
        raise ValueError(f"{kind}.load: {path}: {'not a file' if path.exists() else 'no such file'}")
    try:
        fields = json.loads(_text(path, key))
        found = fields.pop(key, None) if isinstance(fields, dict) else None
        if found != version:
            raise ValueError(f"no {key}" if found is None else f"version {found}, this gradkern reads {version}")
        return build(fields)
    except _DAMAGE as error:
        raise ValueError(f"{kind}.load: {path} holds no saved {kind} ({error})") from None
