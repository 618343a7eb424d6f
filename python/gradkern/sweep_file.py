"""Where a sweep's rows go as they come: memory, or a file that any kill leaves usable.

A row is one line of JSON, written whole by one call, after which it survives the death of the process. A line that a power cut
tore is cut off when the sweep goes on. The last row of a point counts. Parquet cannot be appended to: its rows are kept in a
journal of lines beside it, ``NAME.parquet.jsonl``, until the sweep ends and the file is written anew as a whole.
"""

from __future__ import annotations

import fcntl
import json
import math
import os
from collections.abc import Iterable, Sequence
from pathlib import Path

from gradkern._result import plain
from gradkern.sweep_point import Row

ENDINGS = (".jsonl", ".parquet")
_SPECIAL = {"nan": math.nan, "inf": math.inf, "-inf": -math.inf}
_WORDS = ("key", "activation", "init", "arithmetic", "overflow_role", "severity", "findings", "error")


def _line(row: Row) -> bytes:
    return json.dumps(plain(row), allow_nan=False).encode() + b"\n"


def _read_line(line: bytes, where: str) -> Row:
    try:
        row = json.loads(line)
        if isinstance(row, dict) and isinstance(row["key"], str):
            return {k: v if k in _WORDS or not isinstance(v, str) else _SPECIAL[v] for k, v in row.items()}
    except (ValueError, KeyError):
        pass
    raise ValueError(f"sweep: {where} is no row of a sweep: {line[:60].decode(errors='replace')!r}")


def _read_lines(raw: bytes, path: Path) -> tuple[list[Row], int]:
    """Return the rows and where the last whole line ends."""
    end = raw.rfind(b"\n") + 1
    if end == 0 and raw and not raw.startswith(b'{"key"'[: len(raw)]):
        raise ValueError(f"sweep: {path} is no file of a sweep")
    rows = [_read_line(line, f"{path}, line {i},") for i, line in enumerate(raw[:end].splitlines(), 1) if line.strip()]
    return rows, end


def check_path(path: str | Path) -> Path:
    """Return the path of a file of rows.

    Raises
    ------
    ValueError
        If its name has another ending, or its folder is missing.
    ImportError
        If it is a .parquet file and pyarrow is not installed.
    """
    found = Path(path)
    if found.suffix not in ENDINGS:
        raise ValueError(f"sweep: path must end in {' or '.join(ENDINGS)}, got {found.name!r}")
    if not found.parent.is_dir():
        raise ValueError(f"sweep: no such folder: {found.parent}")
    if found.is_dir():
        raise ValueError(f"sweep: path is a folder: {found}")
    if found.suffix == ".parquet":
        try:
            import pyarrow.parquet  # noqa: F401
        except ImportError:
            raise ImportError(
                "sweep: .parquet needs pyarrow, which is not installed: pip install 'gradkern[sweep]'"
            ) from None
    return found


def write_rows(rows: Sequence[Row], path: Path) -> None:
    """Write rows as a whole, so that the file is the old one or the new one and nothing between."""
    beside = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        if path.suffix == ".parquet":
            import pyarrow
            import pyarrow.parquet

            names = dict.fromkeys(name for row in rows for name in row)
            table = pyarrow.table({name: [row.get(name) for row in rows] for name in names})
            pyarrow.parquet.write_table(table, beside)
        else:
            beside.write_bytes(b"".join(map(_line, rows)))
        os.replace(beside, path)
    finally:
        beside.unlink(missing_ok=True)


def read_rows(path: Path) -> list[Row]:
    """Read the rows of a file, the last of each point, in the order in which the points came first.

    Raises
    ------
    ValueError
        If the file is missing, or not one of a sweep.
    """
    if not path.is_file():
        raise ValueError(f"sweep: {path}: no such file")
    if path.suffix == ".parquet":
        import pyarrow.parquet

        try:
            rows: list[Row] = pyarrow.parquet.read_table(path).to_pylist()
        except (OSError, pyarrow.ArrowInvalid) as error:
            raise ValueError(f"sweep: {path} is no file of a sweep ({error})") from None
        if any(not isinstance(row.get("key"), str) for row in rows):
            raise ValueError(f"sweep: {path} is no file of a sweep")
        rows = [row if row.get("error") is None else _only_known(row) for row in rows]
    else:
        rows = _read_lines(path.read_bytes(), path)[0]
    return list({row["key"]: row for row in rows}.values())


def _only_known(row: Row) -> Row:
    return {name: value for name, value in row.items() if value is not None}


class Journal:
    """Rows of a sweep, of this run and of those before.

    Raises
    ------
    ValueError
        If the file is not one of a sweep, or another sweep is writing it.
    """

    def __init__(self, path: str | Path | None) -> None:
        self.path = None if path is None else check_path(path)
        self._rows: dict[str, Row] = {}
        self._file: int | None = None
        if self.path is None:
            return
        before = read_rows(self.path) if self.path.suffix == ".parquet" and self.path.exists() else []
        self._lines = self.path if self.path.suffix == ".jsonl" else self.path.with_name(f"{self.path.name}.jsonl")
        self._file = os.open(self._lines, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o666)
        try:
            self._open(self._file)
        except BaseException:
            os.close(self._file)
            raise
        self._rows = {row["key"]: row for row in before} | self._rows

    def _open(self, file: int) -> None:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise ValueError(f"sweep: another sweep is writing {self._lines}") from None
        raw = self._lines.read_bytes()
        rows, end = _read_lines(raw, self._lines)
        if end < len(raw):
            os.ftruncate(file, end)
        self._rows = {row["key"]: row for row in rows}

    def has(self, key: str) -> bool:
        """Whether a point is done; one that failed is not."""
        row = self._rows.get(key)
        return row is not None and row["error"] is None

    def add(self, row: Row) -> None:
        """Keep a row; when this returns it is with the operating system."""
        if self._file is not None:
            line = _line(row)
            if os.write(self._file, line) != len(line):
                raise OSError(f"sweep: the disk of {self._lines} is full")
        self._rows[row["key"]] = row

    def of(self, keys: Iterable[str]) -> list[Row]:
        """Return the rows of some points, each once."""
        return [self._rows[key] for key in dict.fromkeys(keys) if key in self._rows]

    def close(self, finished: bool) -> None:
        """Release the file; a finished one that is no file of lines is written now."""
        if self.path is None or self._file is None:
            return
        os.fsync(self._file)
        if finished and self._lines != self.path:
            write_rows(list(self._rows.values()), self.path)
            self._lines.unlink()
        os.close(self._file)
        self._file = None
