"""Checks of numbers that callers pass: what is wrong, with which argument, and what was passed instead."""

from __future__ import annotations

import math
import numbers
import os
from pathlib import Path
from typing import Any

import numpy as np

_NO_NUMBERS = (bool, np.bool_, str, bytes, bytearray)


def number(value: Any, function: str, name: str) -> float:
    """Return a real number as a float; scalars of NumPy and tensors without dimensions are numbers, bools are not.

    Raises
    ------
    TypeError
        If the argument is no real number.
    ValueError
        If it is beyond float64.
    """
    if type(value) is float:  # most of what there is
        return value
    complex_ = isinstance(value, numbers.Complex) and not isinstance(value, numbers.Real)
    if not isinstance(value, _NO_NUMBERS) and not complex_ and getattr(value, "ndim", 0) == 0:
        try:
            return float(value)
        except OverflowError:
            raise ValueError(f"{function}: {name} must be within float64, got {str(value)[:40]}...") from None
        except (TypeError, ValueError, RuntimeError):
            pass
    raise TypeError(f"{function}: {name} must be a number, got {' '.join(repr(value).split())[:60]}")


def finite(value: Any, function: str, name: str, negative: bool = True) -> float:
    """Return a finite number, which may be negative or not.

    Raises
    ------
    TypeError
        If the argument is no number.
    ValueError
        If it is NaN, infinite, or negative where it must not be.
    """
    found = number(value, function, name)
    if not math.isfinite(found) or (found < 0 and not negative):
        raise ValueError(f"{function}: {name} must be finite{'' if negative else ' and not negative'}, got {value}")
    return found


def log2_of_scale(scale: Any, function: str, name: str = "scale") -> int:
    """Return k of a scale 2**k, or of another argument that has to be a power of two.

    Raises
    ------
    TypeError
        If the scale is no number.
    ValueError
        If it is not a positive power of two.
    """
    value = number(scale, function, name)
    mantissa, exponent = math.frexp(value) if 0 < value < math.inf else (0.0, 0)
    if mantissa != 0.5:
        raise ValueError(f"{function}: {name} must be a power of two, got {scale}")
    return exponent - 1


def fraction(value: Any, function: str, name: str) -> float:
    """Return a fraction between 0 and 1.

    Raises
    ------
    TypeError
        If the argument is no number.
    ValueError
        If it is not between 0 and 1.
    """
    found = number(value, function, name)
    if not 0 <= found <= 1:
        raise ValueError(f"{function}: {name} must be between 0 and 1, got {value}")
    return found


def integer(value: Any, function: str, name: str) -> int:
    """Return an integer, NumPy's too, as an int.

    Raises
    ------
    TypeError
        If the argument is no integer.
    """
    if isinstance(value, _NO_NUMBERS) or not isinstance(value, numbers.Integral):
        raise TypeError(f"{function}: {name} must be an integer, got {' '.join(repr(value).split())[:60]}")
    return int(value)


def positive_integer(value: Any, function: str, name: str, least: int = 1) -> int:
    """Return an integer of at least 1, or another least value.

    Raises
    ------
    TypeError
        If the argument is no integer.
    ValueError
        If it is smaller.
    """
    found = integer(value, function, name)
    if found < least:
        raise ValueError(f"{function}: {name} must be at least {least}, got {found}")
    return found


def seed_of(value: Any, function: str) -> int:
    """Return the seed of stochastic rounding, 64 bits.

    Raises
    ------
    TypeError
        If the argument is no integer.
    ValueError
        If it is negative, or of more bits.
    """
    found = integer(value, function, "seed")
    if not 0 <= found < 2**64:
        raise ValueError(f"{function}: seed must be between 0 and 2**64 - 1, got {found}")
    return found


def generator_of(seed: Any, function: str) -> np.random.Generator:
    """Return NumPy's generator of a seed, or the generator that is given in its place.

    Raises
    ------
    TypeError
        If the seed is nothing that NumPy takes for one.
    ValueError
        If it is negative.
    """
    try:
        return np.random.default_rng(seed)
    except (TypeError, ValueError):
        positive_integer(seed, function, "seed", least=0)
        raise


def path_of(value: Any, function: str, instead: str = "") -> Path:
    """Return a path that is given as text or as a path; `instead` says what takes something else.

    Raises
    ------
    TypeError
        If the argument is neither.
    """
    if isinstance(value, str | os.PathLike):
        return Path(value)
    raise TypeError(f"{function}: path must be a str or a Path, got {type(value).__name__}{instead and '; '}{instead}")


def check_callback(value: Any, function: str, name: str, switch: bool = False) -> None:
    """Refuse what is neither callable nor None, nor, where it is a switch too, a bool.

    Raises
    ------
    TypeError
        If the argument is none of these.
    """
    if value is None or callable(value) or (switch and isinstance(value, bool | np.bool_)):
        return
    wanted = "a bool, a callable or None" if switch else "a callable or None"
    raise TypeError(f"{function}: {name} must be {wanted}, got {' '.join(repr(value).split())[:60]}")


def text_or_none(value: Any, function: str, name: str) -> str | None:
    """Return a string, or None.

    Raises
    ------
    TypeError
        If the argument is neither.
    """
    if value is None or isinstance(value, str):
        return value
    raise TypeError(f"{function}: {name} must be a string or None, got {type(value).__name__}")
