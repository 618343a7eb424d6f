"""Bars of bytes and of things on stderr, for work long enough to be watched."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.progress import ProgressColumn

Callback = Callable[[int, int], None]

LONG = 1 << 30  # bytes: about a second of measuring


@contextmanager
def byte_bar(progress: bool | Callback | None, total: int, what: str) -> Iterator[Callback]:
    """Give a callback (done, total) that draws a bar, calls the caller's own, or does nothing.

    The bar is removed and the cursor shown again however the block is left.
    """
    if callable(progress):
        yield progress
        return
    wanted = sys.stderr.isatty() and total >= LONG if progress is None else progress
    if not wanted:
        yield lambda done, total: None
        return
    from rich.progress import BarColumn, DownloadColumn, TextColumn, TimeRemainingColumn, TransferSpeedColumn

    columns = (TextColumn(what), BarColumn(), DownloadColumn(), TransferSpeedColumn(), TimeRemainingColumn())
    with _drawn(what, total, columns) as bar:
        yield bar


@contextmanager
def count_bar(progress: bool | Callback, total: int, what: str) -> Iterator[Callback]:
    """Give a callback (done, total) that draws a bar where stderr is a terminal, calls the caller's own, or does nothing."""
    if callable(progress):
        yield progress
        return
    if not (progress and sys.stderr.isatty()):
        yield lambda done, total: None
        return
    from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn

    with _drawn(what, total, (TextColumn(what), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())) as bar:
        yield bar


@contextmanager
def _drawn(what: str, total: int, columns: tuple[ProgressColumn, ...]) -> Iterator[Callback]:
    from rich.console import Console
    from rich.progress import Progress

    console = Console(file=sys.stderr, highlight=False)
    try:
        with Progress(*columns, console=console, transient=True) as bar:
            task = bar.add_task(what, total=total or None)
            yield lambda done, total: bar.update(task, completed=done, total=total or None)
    finally:
        console.show_cursor()  # an interrupt may come between hiding it and the block
