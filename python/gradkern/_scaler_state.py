"""The settings and the state of a loss scaler, checked as one: where they come from is the caller's, or a saved file."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from gradkern._arguments import log2_of_scale, positive_integer

POWERS = ("scale", "growth", "backoff", "floor", "ceiling")
COUNTS = ("interval", "hysteresis")
TALLIES = ("clean", "overflows", "steps")


def checked(given: Mapping[str, Any], function: str, names: Mapping[str, str]) -> dict[str, Any]:
    """Return a state of which every entry is what it should be; `names` are the caller's own, where they differ.

    Raises
    ------
    TypeError
        If it is no mapping, or an entry is no number.
    ValueError
        If an entry is missing, unknown, no power of two or out of range; names it.
    """
    if not isinstance(given, Mapping):
        raise TypeError(
            f"{function}: the state must be a mapping, as state_dict returns it, got {type(given).__name__}"
        )
    known = (*POWERS, *COUNTS, *TALLIES)
    wrong = [f"no {name}" for name in known if name not in given]
    wrong += [f"an unknown entry {name!r}" for name in given if name not in known]
    if wrong:
        raise ValueError(f"{function}: the state has {wrong[0]}")
    state: dict[str, Any] = {}
    for name in POWERS:
        state[name] = math.ldexp(1.0, log2_of_scale(given[name], function, names.get(name, name)))
    for name in COUNTS:
        state[name] = positive_integer(given[name], function, names.get(name, name))
    for name in TALLIES:
        state[name] = positive_integer(given[name], function, names.get(name, name), least=0)
    _check_ranges(state, function, names)
    return state


def _check_ranges(state: Mapping[str, Any], function: str, names: Mapping[str, str]) -> None:
    if state["growth"] < 2:
        raise ValueError(f"{function}: {names.get('growth', 'growth')} must be at least 2, got {state['growth']:g}")
    if state["backoff"] > 0.5:
        raise ValueError(f"{function}: {names.get('backoff', 'backoff')} must be at most 0.5, got {state['backoff']:g}")
    if state["floor"] > state["ceiling"]:
        raise ValueError(f"{function}: floor {state['floor']:g} is above ceiling {state['ceiling']:g}")
    if not state["floor"] <= state["scale"] <= state["ceiling"]:
        ends = f"floor {state['floor']:g} and ceiling {state['ceiling']:g}"
        raise ValueError(f"{function}: {names.get('scale', 'scale')} must lie between {ends}, got {state['scale']:g}")
