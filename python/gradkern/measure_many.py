"""Measuring many tensors: mappings, iterables, modules, reports and files, each array read once."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from typing import Any

from gradkern._arguments import check_callback, log2_of_scale
from gradkern._arrays import read_in_place
from gradkern._backend import takes_device
from gradkern._progress import byte_bar
from gradkern.joint_window import listed
from gradkern.layer_row import GRADIENT_ROLES
from gradkern.measure import StatsByName, StatsList, stats_of
from gradkern.named_arrays import NamedArrays, Read, named_arrays
from gradkern.report import ChainReport
from gradkern.table import StatsTable

_BATCH_BYTES, _BATCH_TENSORS = 1 << 25, 4096


def _measure_all(names: Sequence[str], arrays: Sequence[Any], exponent: int) -> StatsList:
    """Measure arrays; the one place where that is done."""
    tensors = []
    for name, array in zip(names, arrays, strict=True):
        try:
            tensors.append(read_in_place(array, "measure: x"))
        except TypeError as error:
            raise TypeError(f"measure_many: {name}: {str(error).removeprefix('measure: x: ')}") from None
    return stats_of(tensors, names, exponent, math.ldexp(1.0, -exponent))


def _of_report(report: ChainReport) -> StatsTable:
    """Gradients of a chain: the true ones, or the stored ones where the reference chain did not run."""
    rows = [row for role in GRADIENT_ROLES for row in report.rows(role)]
    return StatsTable({row.name: row.reference or row.stats for row in sorted(rows, key=lambda row: row.layer)})


def _batches(found: NamedArrays) -> Iterator[tuple[list[str], list[Read], int]]:
    """Small tensors together, large ones alone; from a stream one by one, before the next is asked for."""
    most = 1 if found.streamed else _BATCH_TENSORS
    names: list[str] = []
    reads: list[Read] = []
    size = 0
    for name, count, load in found.entries:
        if names and size + count > _BATCH_BYTES:
            yield names, reads, size
            names, reads, size = [], [], 0
        names.append(name)
        reads.append(load)
        size += count
        if len(names) == most:
            yield names, reads, size
            names, reads, size = [], [], 0
    if names:
        yield names, reads, size


@takes_device
def measure_many(
    arrays: Any, *, scale: float = 1.0, progress: bool | Callable[[int, int], None] | None = None,
    device: str | None = None,
) -> StatsTable:  # fmt: skip
    """Measure many tensors, each read once. Those on a device are read there, and their numbers are waited for.

    Parameters
    ----------
    arrays : mapping, iterable, torch module or optimizer, ChainReport, or path
        A mapping from names to arrays, nested ones as ``outer.inner``; an iterable of arrays, numbered, or of pairs
        (name, array), such as ``model.named_parameters()``; anything with a ``state_dict``; a report of `probe`, whose
        gradients were measured already; a .safetensors, .npz or .npy file, or a folder of .safetensors shards,
        memory-mapped and read tensor by tensor, and closed however measuring ends. What is not a dense array of
        floating-point numbers is in ``skipped``, with the reason: integers, None, sparse, nested, quantized and meta
        tensors.
    scale : float
        A power of two that the arrays carry (a loss scale): true values are ``x / scale`` (see `TensorStats`). 1 for a
        report, whose gradients know theirs.
    progress : bool or callable, optional
        A bar on stderr, or ``progress(done_bytes, total_bytes)``. Default: a bar if stderr is a terminal and the work is
        long. The total is 0 where it is not known beforehand.
    device : {None, "cpu", "cuda", "simt"}
        Where to compute. None: where the arrays lie.

    Returns
    -------
    StatsTable

    Raises
    ------
    TypeError
        If arrays is nothing that holds arrays, or one of them cannot be read, as on a device; names it.
    ValueError
        If scale is not a power of two, two arrays have one name, or nothing can be measured.
    TensorFileError
        If the file cannot be read; names the tensor.
    """
    exponent = -log2_of_scale(scale, "measure_many")
    check_callback(progress, "measure_many", "progress", switch=True)
    if isinstance(arrays, ChainReport):
        if exponent:
            raise ValueError(f"measure_many: scale must be 1 for a report, whose gradients know theirs, got {scale}")
        return _of_report(arrays)
    found = named_arrays(arrays)
    tensors = StatsByName()
    with closing(found), byte_bar(progress, found.total, "measuring") as report:
        done = 0
        for names, reads, size in _batches(found):
            tensors.add(names, _measure_all(names, [load() for load in reads], exponent))
            done += size
            report(done, found.total)
    if not tensors:
        reasons = [f"{name} ({why})" for name, why in found.skipped.items()]
        raise ValueError(
            f"measure_many: nothing to measure{': ' if reasons else ''}{listed(reasons) if reasons else ''}"
        )
    return StatsTable(tensors, found.skipped)
