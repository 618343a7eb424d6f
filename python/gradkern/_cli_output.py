"""What the command line writes: consoles, JSON, the progress bar, files."""

from __future__ import annotations

import os
import sys
import warnings
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from gradkern._text import printable

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from rich.console import Console


class Saveable(Protocol):
    """A result that can be drawn and kept."""

    @property
    def plot(self) -> Callable[..., Axes]:
        """Draw it."""

    @property
    def save(self) -> Callable[[Path], None]:
        """Write it to a file."""


HEALTHY, FOUND, USAGE, INTERRUPTED, CLOSED_PIPE = 0, 1, 2, 130, 141

CODES = """[bold]Exit codes[/bold]

0 healthy, or no finding as severe as --fail-on; 1 findings; 2 wrong usage, or a file that cannot be read or written;
130 interrupted; 141 the reader of the output went away"""


class FailOn(str, Enum):
    """Least severity that makes the exit code 1, the most severe first."""

    critical = "critical"
    major = "major"
    minor = "minor"
    none = "none"


def exit_code(severities: Iterable[str | None], fail_on: FailOn) -> int:
    """Say whether a severity that was found is as bad as --fail-on, or worse; None is no finding."""
    levels = [level.value for level in FailOn if level is not FailOn.none]  # most severe first
    counted = levels[: levels.index(fail_on.value) + 1] if fail_on is not FailOn.none else ()
    return FOUND if any(severity in counted for severity in severities) else HEALTHY


def console(stream: Any = None) -> Console:
    """Return a rich console for stdout or another stream; 100 columns where that is no terminal."""
    from rich.console import Console

    class Quitting(Console):
        def on_broken_pipe(self) -> None:
            raise BrokenPipeError  # rich's own leaves the process with status 1

    terminal = (stream or sys.stdout).isatty() or "COLUMNS" in os.environ
    return Quitting(file=stream, highlight=False, width=None if terminal else 100)


def print_source(text: str, screen: Console) -> None:
    """Print what is being measured, in one line whatever the name of the file is."""
    from rich.text import Text

    screen.print(Text(printable(text), style="dim"), soft_wrap=True)


def print_json(payload: dict[str, Any]) -> None:
    """Print strict JSON, a line for every field and every object in a list, as fast as the encoder without indents.

    NaN and infinity must be strings by now, ``"nan"``, ``"inf"`` and ``"-inf"``.
    """
    import json

    def text(value: Any) -> str:
        if isinstance(value, list) and value and isinstance(value[0], dict):
            lines = ",\n".join(f"  {json.dumps(item, allow_nan=False)}" for item in value)
            return f"[\n{lines}\n ]"
        return json.dumps(value, allow_nan=False)

    fields = ",\n".join(f" {json.dumps(str(name))}: {text(value)}" for name, value in payload.items())
    print(f"{{\n{fields}\n}}")


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


@contextmanager
def then_files(plot: Path | None, save: Path | None, result: Saveable, **options: Any) -> Iterator[None]:
    """Print in the block, then write the picture and the statistics, even where the reader of the output went away.

    Raises
    ------
    BrokenPipeError
        If the reader went away; the files are written by then.
    OSError
        If a file cannot be written; everything is printed by then.
    """
    closed: BrokenPipeError | None = None
    try:
        yield
        sys.stdout.flush()
    except BrokenPipeError as error:
        closed = error
    if save is not None:
        result.save(save)
    if plot is not None:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "Glyph")  # names may have characters that the picture's font lacks
            result.plot(**options).get_figure(root=True).savefig(plot)  # type: ignore[union-attr]
    if closed is not None:
        raise closed


def check_outputs(plot: Path | None, save: Path | None, saved: tuple[str, ...] = (".json", ".json.gz")) -> None:
    """Refuse before the work what could not be written after it.

    Raises
    ------
    ValueError
        If the name has another ending or is a folder's, its folder is missing or closed to us, or matplotlib is missing.
    """
    for option, path, endings in (("--plot", plot, (".png", ".svg", ".pdf")), ("--save", save, saved)):
        if path is None:
            continue
        if not path.name.endswith(endings):
            raise ValueError(f"{option}: the name must end in {', '.join(endings)}, got {path.name!r}")
        if not path.parent.is_dir():
            raise ValueError(f"{option}: no such folder: {path.parent}")
        if path.is_dir():
            raise ValueError(f"{option}: is a folder: {path}")
        if not os.access(path if path.exists() else path.parent, os.W_OK):
            raise ValueError(f"{option}: no permission to write {path}")
    if plot is not None:
        try:
            import matplotlib
            import matplotlib.figure  # noqa: F401
        except ImportError as error:
            reason = "which is not installed: pip install 'gradkern[plot]'"
            if getattr(error, "name", None) != "matplotlib":
                reason = f"which cannot be imported: {error}"
            raise ValueError(f"--plot: needs matplotlib, {reason}") from None
