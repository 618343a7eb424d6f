"""Statistics as JSON can hold them, and back: nothing is believed before it is checked, each field and all together."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, NoReturn

import numpy as np
from numpy.typing import NDArray

from gradkern import _core
from gradkern._arguments import log2_of_scale
from gradkern._result import plain
from gradkern.formats import formats
from gradkern.tensor_stats import Parts, TensorStats

_COUNTS = ("size", "nan", "pos_inf", "neg_inf", "zero", "negative", "subnormal")
_FINITE = ("mean", "mean_rest")
_NORMS = ("amax", "std", "l1", "l2")  # not negative; the last three may be beyond float64
_MOST = 2**63 - 1
_LOWEST, _HIGHEST = -1074, 1023  # binades of float64
_CLOSE = 1e-9  # of derived fields, which another machine's log2 and sqrt may round otherwise
_CELLS = len(_core.cell_edges)


def fields_of(stats: TensorStats) -> dict[str, Any]:
    """Return the fields, and binades and cells as mappings from true exponent to counts."""
    fields: dict[str, Any] = dict(plain(stats))
    del fields["first_binade"]
    exponents, counts = stats.binades
    rows = zip(exponents.tolist(), counts.tolist(), stats.cells.tolist(), strict=True)
    filled = [(exponent, count, row) for exponent, count, row in rows if count]
    fields["binades"] = {exponent: count for exponent, count, _ in filled}
    fields["cells"] = {exponent: row for exponent, _, row in filled}
    fields["mean_rest"] = stats.mean_rest
    fields["deviations"], fields["squares"] = list(stats.deviations), list(stats.squares)
    return fields


def _refuse(name: str, rule: str, value: Any) -> NoReturn:
    raise ValueError(f"from_dict: {name} must be {rule}, got {' '.join(repr(value).split())[:60]}")


def _integer(name: str, value: Any, least: int = 0, most: int = _MOST) -> int:
    if not isinstance(value, int | np.integer) or isinstance(value, bool):
        _refuse(name, "an integer", value)
    if not least <= value <= most:
        _refuse(name, f"between {least} and {most}" if least or most != _MOST else "a count from 0 on", value)
    return int(value)


def _real(name: str, value: Any, *, least: float = -math.inf, finite: bool = True) -> float:
    """Return a float; JSON has infinities as strings."""
    if value in ("inf", "-inf") and isinstance(value, str):
        value = float(value)
    if not isinstance(value, int | float | np.floating) or isinstance(value, bool):
        _refuse(name, "a number", value)
    try:
        found = float(value)
    except OverflowError:
        _refuse(name, "within float64", value)
    if math.isnan(found) or (finite and math.isinf(found)):
        _refuse(name, "finite" if finite else "no NaN", value)
    if found < least:
        _refuse(name, f"at least {least:g}", value)
    return found


def _parts(name: str, value: Any) -> Parts:
    if not isinstance(value, list | tuple) or len(value) != 3:
        _refuse(name, "three numbers", value)
    big, medium, small = (_real(name, part, least=0.0) for part in value)
    return big, medium, small


def _rows(name: str, value: Any, exponent: int) -> dict[int, Any]:
    """Return a mapping from measured binade to what it holds."""
    if not isinstance(value, Mapping):
        _refuse(name, "a mapping from exponents", value)
    found = {}
    for key, row in value.items():
        try:
            binade = int(key) - exponent
        except (TypeError, ValueError, OverflowError):
            _refuse(name, "a mapping from exponents", key)
        if not _LOWEST <= binade <= _HIGHEST or binade in found:
            _refuse(name, f"a mapping from exponents, each once, of {_LOWEST} to {_HIGHEST} plus `exponent`", key)
        found[binade] = row
    return found


def _cells(value: Any, exponent: int) -> tuple[int, NDArray[np.int64]]:
    rows = _rows("cells", value, exponent)
    low, high = (min(rows), max(rows) + 1) if rows else (0, 0)
    cells = np.zeros((high - low, _CELLS), np.int64)
    for binade, row in rows.items():
        if not isinstance(row, list | tuple) or len(row) != _CELLS:
            _refuse("cells", f"rows of {_CELLS} counts", row)
        counts = [_integer("cells", count) for count in row]
        if not 0 < sum(counts) <= _MOST:
            _refuse("cells", "rows that hold entries", row)
        cells[binade - low] = counts
    return low, cells


def _check_counts(found: dict[str, Any], nonzero: int) -> None:
    nonfinite = found["nan"] + found["pos_inf"] + found["neg_inf"]
    parts = nonfinite + found["zero"] + nonzero
    if parts != found["size"]:
        _refuse("size", f"the sum of nan, pos_inf, neg_inf, zero and cells, {parts}", found["size"])
    for name in ("negative", "subnormal"):
        if found[name] > nonzero:
            _refuse(name, f"at most the {nonzero} non-zero entries", found[name])
    if found["finite"] != found["size"] - nonfinite:
        _refuse("finite", f"the entries that are, {found['size'] - nonfinite}", found["finite"])
    first = found["first_nonfinite"]
    if (first is None) != (nonfinite == 0) or (first is not None and first >= found["size"]):
        _refuse("first_nonfinite", f"the index of the first of {nonfinite}, in {found['size']}", first)


def _check_histogram(found: dict[str, Any], binades: Any) -> None:
    """Compare binades with cells, and the extremes with the outermost cells."""
    low, cells = found["first_binade"], found["cells"]
    counts = {low + row: int(count) for row, count in enumerate(cells.sum(axis=1)) if count}
    if binades is not None and _rows("binades", binades, found["exponent"]) != counts:
        _refuse("binades", "the sums of the cells", binades)
    if not counts:
        if (found["amax"], found["amin"]) != (0.0, math.inf):
            _refuse("amax and amin", "0.0 and inf where there is no cell", (found["amax"], found["amin"]))
        return
    for name, binade in (("amax", max(counts)), ("amin", min(counts))):
        value = found[name]
        if not (0 < value < math.inf and math.frexp(value)[1] - 1 == binade):
            _refuse(name, f"from 2^{binade} to 2^{binade + 1}, as the cells are", value)


def _check_derived(stats: TensorStats, found: dict[str, Any]) -> None:
    """Compare what follows from the sums of squares with it."""
    for name, source in (("std", "deviations"), ("l2", "squares"), ("log2_l2", "squares")):
        value = getattr(stats, name)
        if not math.isclose(found[name], value, rel_tol=_CLOSE, abs_tol=_CLOSE if name == "log2_l2" else 1e-320):
            _refuse(name, f"{value!r}, as {source} has it", found[name])


def _checked(fields: Mapping[str, Any]) -> dict[str, Any]:
    """Return the fields with their types, each right by itself."""
    found: dict[str, Any] = {name: _integer(name, fields[name]) for name in _COUNTS}
    found |= {name: _real(name, fields[name]) for name in _FINITE}
    found |= {name: _real(name, fields[name], least=0.0, finite=name == "amax") for name in _NORMS}
    found |= {name: _parts(name, fields[name]) for name in ("deviations", "squares")}
    found["amin"] = _real("amin", fields["amin"], least=0.0, finite=False)
    found["log2_l2"] = _real("log2_l2", fields["log2_l2"], finite=False)
    found["finite"] = _real("finite", fields["finite"], least=0.0)
    found["exponent"] = _integer("exponent", fields["exponent"], -(2**40), 2**40)
    first = fields["first_nonfinite"]
    found["first_nonfinite"] = None if first is None else _integer("first_nonfinite", first)
    if fields["dtype"] not in (*formats(), "mixed"):
        _refuse("dtype", f"one of {', '.join(formats())} or mixed", fields["dtype"])
    if not isinstance(fields["name"], str | None):
        _refuse("name", "a string or None", fields["name"])
    found["scale"] = _real("scale", fields["scale"])
    if found["scale"] != 1 and log2_of_scale(found["scale"], "from_dict") != -found["exponent"]:
        _refuse("scale", f"2^-exponent, 2^{-found['exponent']}", fields["scale"])
    return found | {"dtype": fields["dtype"], "name": fields["name"]}


_NAMES = {*_COUNTS, *_FINITE, *_NORMS, "amin", "log2_l2", "finite", "exponent", "first_nonfinite", "dtype", "name",
          "scale", "deviations", "squares", "cells"}  # fmt: skip


def stats_from(fields: Mapping[str, Any]) -> TensorStats:
    """Build statistics from what `fields_of` returned, through JSON or not.

    Raises
    ------
    ValueError
        If a field is missing, is not what it should be, or contradicts another; names it.
    """
    if not isinstance(fields, Mapping):
        raise ValueError(f"from_dict: statistics must be a mapping, got {type(fields).__name__}")
    missing = sorted(_NAMES - set(fields))
    if missing:
        raise ValueError(f"from_dict: no field {missing[0]!r} in these statistics")
    found = _checked(fields)
    found["first_binade"], found["cells"] = _cells(fields["cells"], found["exponent"])
    _check_counts(found, sum(found["cells"].ravel().tolist()))
    _check_histogram(found, fields.get("binades"))
    first = found["first_nonfinite"]
    derived = ("std", "l2", "log2_l2")
    stats = TensorStats.from_summary(
        {**found, "first_nonfinite": -1 if first is None else first},
        found["dtype"], name=found["name"], exponent=found["exponent"], scale=found["scale"],
    )  # fmt: skip
    _check_derived(stats, found)
    vars(stats).update({name: found[name] for name in derived})  # the bits that were saved
    return stats
