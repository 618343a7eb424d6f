"""What the command line writes: consoles, JSON, the progress bar, files."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.console import Console


HEALTHY, FOUND, USAGE, INTERRUPTED = 0, 1, 2, 130

CODES = """[bold]Exit codes[/bold]

0 healthy, or no finding as severe as --fail-on; 1 findings; 2 wrong usage; 130 interrupted"""


class FailOn(str, Enum):
    """Least severity that makes the exit code 1."""

    critical = "critical"
    major = "major"
    minor = "minor"
    none = "none"


def console(stream: Any = None) -> Console:
    """Return a rich console for stdout or another stream; 100 columns where that is no terminal."""
    from rich.console import Console

    terminal = (stream or sys.stdout).isatty() or "COLUMNS" in os.environ
    return Console(file=stream, highlight=False, width=None if terminal else 100)


def print_json(payload: dict[str, Any]) -> None:
    """Print strict JSON: NaN and infinity must be strings by now."""
    import json

    print(json.dumps(payload, allow_nan=False, indent=1))


@contextmanager
def progress() -> Iterator[Callable[[int, int], None] | None]:
    """Give a progress callback that draws a bar on stderr, or None where stderr is no terminal."""
    if not sys.stderr.isatty():
        yield None
        return
    from rich.progress import Progress

    with Progress(console=console(sys.stderr), transient=True) as bar:
        task = bar.add_task("probing", total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)


def check_outputs(plot: Path | None, save: Path | None) -> None:
    """Refuse before the work what could not be written after it.

    Raises
    ------
    ValueError
        If the name has another ending, its folder is missing, or matplotlib is.
    """
    from importlib.util import find_spec

    for option, path, endings in (("--plot", plot, (".png", ".svg", ".pdf")), ("--save", save, (".json", ".json.gz"))):
        if path is None:
            continue
        if not path.name.endswith(endings):
            raise ValueError(f"{option}: the name must end in {', '.join(endings)}, got {path.name!r}")
        if not path.parent.is_dir():
            raise ValueError(f"{option}: no such folder: {path.parent}")
    if plot is not None and find_spec("matplotlib") is None:
        raise ValueError("--plot: needs matplotlib, which is not installed: pip install 'gradkern[plot]'")
