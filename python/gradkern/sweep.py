"""`sweep`: a probe at every point of a grid, by any executor, in a file that a killed sweep goes on with."""

from __future__ import annotations

from collections.abc import Generator, Iterable, Iterator, Mapping
from concurrent.futures import BrokenExecutor, CancelledError, Executor, Future
from contextlib import closing
from pathlib import Path
from queue import SimpleQueue
from typing import Any

from gradkern._arguments import check_callback, positive_integer
from gradkern._progress import Callback, count_bar
from gradkern.sweep_file import Journal
from gradkern.sweep_grid import Grid
from gradkern.sweep_point import Row, SweepPoint, failed, measure_point
from gradkern.sweep_result import SweepResult


def sweep(
    grid: Mapping[str, Any] | Iterable[Mapping[str, Any]],
    executor: Executor | None = None,
    progress: bool | Callback = True,
    *,
    path: str | Path | None = None,
    in_flight: int = 256,
) -> SweepResult:
    """Probe random networks at every point of a grid.

    Parameters
    ----------
    grid : dict or list of dict
        Names and values, or lists of values, whose product is taken; of a list of dicts, one product after the other. The names
        are those of `SweepPoint`, with its defaults: ``depth``, ``width``, ``activation``, ``init``, ``gain`` (sigma_w, with
        ``init="lecun_normal"``), ``bias_std`` (sigma_b), ``arithmetic``, ``scale``, ``batch`` and ``seed``. A point that occurs
        twice is measured once.
    executor : concurrent.futures.Executor, optional
        Who computes: threads, processes, ``client.get_executor()`` of dask.distributed for a cluster. None: this thread. A point
        is a pure function of its parameters, so the rows are the same whoever computes them. Where every core has a process of
        its own, set ``GRADKERN_NUM_THREADS=1``.
    progress : bool or callable
        True draws a bar on stderr where that is a terminal; or called with (points done, points in all).
    path : path, optional
        A .jsonl file to which every row is appended as it comes, or a .parquet file (needs pyarrow), written at the end from a
        journal beside it. Points that are in the file already are not computed again, unless they failed; other points in it are
        left alone. So a sweep that was killed goes on where it stopped when the same call is made again, and a larger grid
        computes what is new.
    in_flight : int
        Most points handed to the executor at a time; at least as many as it has workers.

    Returns
    -------
    SweepResult
        A row for every point, in the order of the grid. A point that raised has a row with its ``error``.

    Raises
    ------
    TypeError, ValueError
        If the grid has a wrong name or value, the file is not a sweep's, or another sweep writes it; before anything is computed.
    BrokenExecutor, CancelledError
        If the executor broke, as a pool of processes does when one of them is killed, or gave the work up. As after Ctrl-C, the
        rows that came before are in the file.

    Examples
    --------
    >>> grid = {"depth": [10, 30, 100], "activation": "tanh", "init": "lecun_normal", "gain": [0.5, 1.0, 2.0], "seed": range(10)}
    >>> with concurrent.futures.ProcessPoolExecutor() as pool:
    ...     result = gk.sweep(grid, pool, path="tanh.jsonl")
    >>> result.quenched().plot()
    """
    points = Grid(grid)
    if executor is not None and not callable(getattr(executor, "submit", None)):
        raise TypeError(
            f"sweep: executor must have submit, as those of concurrent.futures, got {type(executor).__name__}"
        )
    in_flight = positive_integer(in_flight, "sweep", "in_flight")
    check_callback(progress, "sweep", "progress", switch=True)
    journal, finished = Journal(path), False
    try:
        with count_bar(progress, len(points), "sweeping") as tell:
            todo = _Todo(points, journal, tell)
            with closing(_here(todo) if executor is None else _through(executor, todo, in_flight, journal)) as rows:
                for row in rows:
                    journal.add(row)
                    todo.finish()
        finished = True
    finally:
        journal.close(finished)
    return SweepResult(tuple(journal.of(point.key for point in points)))


class _Todo:
    """Points of a grid that nobody has computed yet, each once; counts those that are done."""

    def __init__(self, points: Grid, journal: Journal, tell: Callback) -> None:
        self._points, self._journal, self._tell = points, journal, tell
        self._done, self._total = 0, len(points)

    def __iter__(self) -> Iterator[SweepPoint]:
        seen: set[str] = set()
        for point in self._points:
            key = point.key
            if key in seen or self._journal.has(key):
                self.finish()
            else:
                seen.add(key)
                yield point

    def finish(self) -> None:
        """Count one more point."""
        self._done += 1
        self._tell(self._done, self._total)


def _here(todo: Iterable[SweepPoint]) -> Generator[Row, None, None]:
    yield from map(measure_point, todo)


def _through(
    executor: Executor, todo: Iterable[SweepPoint], in_flight: int, journal: Journal
) -> Generator[Row, None, None]:
    """Rows as the executor finishes them; never more than so many points are with it."""
    pending: dict[Future[Row], SweepPoint] = {}
    finished: SimpleQueue[Future[Row]] = SimpleQueue()

    def next_row() -> Row:
        future = finished.get()
        return _row(future, pending.pop(future))

    try:
        for point in todo:
            future = executor.submit(measure_point, point)
            pending[future] = point
            future.add_done_callback(finished.put)
            if len(pending) >= in_flight:
                yield next_row()
        while pending:
            yield next_row()
    finally:  # interrupted, or broken: what came meanwhile is kept
        for future in pending:
            if not future.cancel() and future.done() and not future.exception():
                journal.add(future.result())


def _row(future: Future[Row], point: SweepPoint) -> Row:
    if future.cancelled():
        raise CancelledError("sweep: the executor gave the work up")
    error = future.exception()
    if error is None:
        return future.result()
    if isinstance(error, BrokenExecutor | CancelledError) or not isinstance(error, Exception):
        raise error
    return failed(point, error)  # such as a worker that died too often with this point
