"""How every table here is timed: medians of samples taken in turn, so that all rivals meet the same noise."""

from __future__ import annotations

import os
import statistics
import sys
import time
from collections.abc import Callable

REST = 0.004  # seconds: OpenMP and BLAS threads look for work that long after a call, on our processors


def let_blas_sleep() -> None:
    """Start this script again with OpenBLAS's threads going to sleep after some 2^20 cycles, less than a rest.

    They look for work a tenth of a second after a product of NumPy's, on the cores that the next rival needs.
    """
    if "OPENBLAS_THREAD_TIMEOUT" not in os.environ:
        os.environ["OPENBLAS_THREAD_TIMEOUT"] = "20"
        os.execv(sys.executable, [sys.executable, *sys.argv])


def medians(functions: dict[str, Callable[[], object]], seconds: float) -> dict[str, float]:
    """Median seconds of each. A turn is a rest, a call that is not timed, and samples for about 30 ms."""
    samples: dict[str, list[float]] = {name: [] for name in functions}
    end = time.perf_counter() + seconds
    while time.perf_counter() < end or len(samples[next(iter(samples))]) < 5:
        for name, function in functions.items():
            time.sleep(REST)
            function()
            turn = start = time.perf_counter()
            while start < turn + 0.03:
                function()
                stop = time.perf_counter()
                samples[name].append(stop - start)
                start = stop
    return {name: statistics.median(times) for name, times in samples.items()}
