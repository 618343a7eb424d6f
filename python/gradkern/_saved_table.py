"""A table of statistics in a file: JSON, gzipped or not, or JSON in an .npz."""

from __future__ import annotations

import gzip
import json
import zipfile
import zlib
from pathlib import Path
from typing import Any

import numpy as np

ENDINGS = (".json", ".json.gz", ".npz")
_VERSION = 1
_KEY = "gradkern_table"


def write(path: Path, fields: dict[str, Any]) -> None:
    """Write what `StatsTable.to_dict` returned.

    Raises
    ------
    ValueError
        If the name has another ending.
    OSError
        If it cannot be written.
    """
    if not path.name.endswith(ENDINGS):
        raise ValueError(f"save: the name must end in .json, .json.gz or .npz, got {path.name!r}")
    data = json.dumps({_KEY: _VERSION, **fields}, allow_nan=False).encode()
    if path.suffix == ".npz":
        np.savez_compressed(path, gradkern_table=np.frombuffer(data, np.uint8))
        return
    path.write_bytes(gzip.compress(data, mtime=0) if path.suffix == ".gz" else data)


def read(path: Path) -> dict[str, Any]:
    """Read what `write` wrote.

    Raises
    ------
    ValueError
        If the file is missing or is not a table.
    """
    if not path.exists():
        raise ValueError(f"StatsTable.load: {path}: no such file")
    try:
        if path.suffix == ".npz":
            with np.load(path, allow_pickle=False) as archive:
                raw = archive[_KEY].tobytes()
        else:
            raw = path.read_bytes()
        fields = json.loads(gzip.decompress(raw) if path.suffix == ".gz" else raw)
    except (OSError, ValueError, KeyError, EOFError, zlib.error, zipfile.BadZipFile) as error:
        raise ValueError(f"StatsTable.load: {path} holds no saved StatsTable ({error})") from None
    version = fields.pop(_KEY, None) if isinstance(fields, dict) else None
    if version != _VERSION:
        found = f"no {_KEY}" if version is None else f"version {version}, this gradkern reads {_VERSION}"
        raise ValueError(f"StatsTable.load: {path} holds no saved StatsTable ({found})")
    return dict(fields)


def is_saved(path: Path) -> bool:
    """Whether a file is named, or an .npz laid out, as a table: an index of shards is not, nor an .npz of arrays."""
    if path.name.endswith((".json", ".json.gz")):
        return not path.name.endswith(".safetensors.index.json") and not path.is_dir()
    if path.suffix != ".npz" or not path.is_file():
        return False
    try:
        with zipfile.ZipFile(path) as archive:
            return archive.namelist() == [f"{_KEY}.npy"]
    except (OSError, zipfile.BadZipFile):
        return False
