"""Gradients on a device, clipped where they lie."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from gradkern import _core
from gradkern._arrays import Bits, check_places, read_in_place
from gradkern._overlap import Units


def device_units(values: Sequence[Any], names: Sequence[str], function: str) -> Units:
    """View arrays on one device as units; one that is given twice is a single unit.

    Raises
    ------
    TypeError
        If one cannot be written in place there, or they lie in several places.
    ValueError
        If one is read-only, or two overlap without being the same.
    """
    views = [read_in_place(v, f"{function}: {name}", writes=True) for name, v in zip(names, values, strict=True)]
    check_places(function, zip(names, views, strict=True), numbers=False)
    places: dict[tuple[Any, ...], int] = {}
    records: list[int] = []
    own: list[Bits] = []
    for view in views:
        place = (view.bits.pointer, view.shape, view.format) if view.bits.size else (len(records),)
        if place not in places:
            places[place] = len(own)
            own.append(view)
        records.append(places[place])
    arrays = [view.bits for view in own]
    core = _core.ClipGroup(arrays, arrays, [view.format_id for view in own])
    if core.overlap():
        raise ValueError(f"{function}: arrays on a device overlap in part; give each entry once")
    each = range(len(own))
    return Units(core, arrays, arrays, each if records == list(each) else records, stream=own[0].stream)
