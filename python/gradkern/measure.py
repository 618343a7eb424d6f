"""Measuring tensors: one read each, many in one call of the kernels."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gradkern import _core
from gradkern._arguments import log2_of_scale, text_or_none
from gradkern._arrays import Bits, check_places, read_in_place
from gradkern._backend import takes_device
from gradkern.formats import format_ids
from gradkern.tensor_stats import TensorStats


@takes_device
def measure(x: Any, *, scale: float = 1.0, name: str | None = None, device: str | None = None) -> TensorStats:
    """Measure a tensor. On a device it is read there, and its numbers are waited for.

    Parameters
    ----------
    x : array
        Any shape and kind (see `cast`), any format of gradkern; integers are measured as float64.
    scale : float
        A power of two that x carries (a loss scale). Magnitudes and moments are those of x as it is; `fit`,
        `loss_scale_window` and `binades` are of the true values, ``x / scale``.
    name : str, optional
        Kept in the result.
    device : {None, "cpu", "cuda", "simt"}
        Where to compute. None: where x lies.

    Returns
    -------
    TensorStats

    Raises
    ------
    TypeError
        If x is not an array of real numbers (bool and complex are none), scale no number, or name no string.
    ValueError
        If scale is not a power of two.

    Examples
    --------
    >>> gradient = np.array([2.0**-30, 2.0**-20])
    >>> gk.measure(1024 * gradient, scale=1024).fit("float16").flushed
    Bracket(1, 1)
    """
    exponent, name = -log2_of_scale(scale, "measure"), text_or_none(name, "measure", "name")
    bits = read_in_place(x, "measure: x")
    summary = _core.statistics_of(bits.bits, bits.format_id)
    scale = math.ldexp(1.0, -exponent)
    return TensorStats.from_summary(summary, bits.format, name=name, exponent=exponent, scale=scale)


def stats_of(tensors: Sequence[Bits], names: Sequence[str | None], exponent: int, scale: float) -> StatsList:
    """Measure tensors in one call of the kernels, as `measure` does each; scale is 2**-exponent."""
    check_places("measure_many", ((str(name), t) for name, t in zip(names, tensors, strict=True)))
    formats = [t.format for t in tensors]
    ids = format_ids()
    records, cells = _core.statistics([t.bits for t in tensors], [ids[name] for name in formats])
    return StatsList(records, cells, formats, names, exponent, scale)


class StatsList(Sequence[TensorStats]):
    """Statistics of many tensors in the kernels' columns; each becomes a `TensorStats` when it is looked at."""

    def __init__(
        self,
        records: NDArray[Any],
        cells: NDArray[np.int64],
        dtypes: Sequence[str],
        names: Sequence[str | None],
        exponent: int,
        scale: float,
    ) -> None:
        self._records, self._cells = records, cells
        self._dtypes, self._names = dtypes, names
        self._exponent, self._scale = exponent, scale

    def __len__(self) -> int:
        return len(self._records)

    def __getitem__(self, index: Any) -> Any:
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        summary = dict(zip(self._records.dtype.names or (), self._records[index].item(), strict=True))
        summary["cells"] = self._cells[summary["row_begin"] : summary["row_end"]]
        return TensorStats.from_summary(
            summary, self._dtypes[index], name=self._names[index], exponent=self._exponent, scale=self._scale
        )


class StatsByName(Mapping[str, TensorStats]):
    """Statistics by name, out of several `StatsList`: a table of thousands of tensors is made in no time."""

    def __init__(self) -> None:
        self._places: dict[str, tuple[StatsList, int]] = {}
        self._seen: dict[str, TensorStats] = {}

    def add(self, names: Sequence[str], found: StatsList) -> None:
        """Append the statistics of further tensors."""
        self._places.update({name: (found, index) for index, name in enumerate(names)})

    def __getitem__(self, name: str) -> TensorStats:
        stats = self._seen.get(name)
        if stats is None:
            found, index = self._places[name]
            stats = self._seen[name] = found[index]
        return stats

    def __len__(self) -> int:
        return len(self._places)

    def __iter__(self) -> Iterator[str]:
        return iter(self._places)
