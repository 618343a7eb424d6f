"""The seven number formats, and every name users give them."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cache
from typing import Any, TypeAlias

import ml_dtypes
import numpy as np

from gradkern import _core

FormatLike: TypeAlias = "str | np.dtype[Any] | type | FormatInfo | Any"

_DTYPES: dict[str, np.dtype[Any]] = {
    "float64": np.dtype(np.float64),
    "float32": np.dtype(np.float32),
    "tfloat32": np.dtype(np.float32),
    "float16": np.dtype(np.float16),
    "bfloat16": np.dtype(ml_dtypes.bfloat16),
    "float8_e4m3fn": np.dtype(ml_dtypes.float8_e4m3fn),
    "float8_e5m2": np.dtype(ml_dtypes.float8_e5m2),
}

_ALIASES = {
    "double": "float64", "fp64": "float64", "f64": "float64",
    "single": "float32", "float": "float32", "fp32": "float32", "f32": "float32",
    "tf32": "tfloat32",
    "half": "float16", "fp16": "float16", "f16": "float16",
    "bf16": "bfloat16",
    "e4m3": "float8_e4m3fn", "e4m3fn": "float8_e4m3fn", "fp8_e4m3": "float8_e4m3fn",
    "e5m2": "float8_e5m2", "fp8_e5m2": "float8_e5m2",
}  # fmt: skip


@dataclass(frozen=True)
class FormatInfo:
    """The constants of one number format.

    Attributes
    ----------
    name : str
        NumPy's or ml_dtypes' name.
    bits : int
        Width of the format (19 for tfloat32, which is kept in a float32).
    significand_bits : int
        Precision p, the hidden bit included.
    min_exponent : int
        Exponent of the smallest normal value.
    max, smallest_normal, smallest_subnormal, epsilon : float
        Largest finite value, smallest normal, smallest subnormal, and 2**(1 - p).
    overflow_threshold : float
        max plus half a unit in its last place. Nearest-even rounding overflows from here on where the format has an
        infinity, and above here where it has none (464 ties down to 448 in float8_e4m3fn). float64's own threshold,
        2**1024 - 2**970, is not a float64 and reads inf.
    zero_threshold : float
        Magnitudes at or below round to zero: half the smallest subnormal (0.0 for float64: 2**-1075 is not one).
    has_inf : bool
        False for float8_e4m3fn, whose overflow gives NaN.
    """

    name: str
    bits: int
    significand_bits: int
    min_exponent: int
    max: float
    smallest_normal: float
    smallest_subnormal: float
    epsilon: float
    overflow_threshold: float
    zero_threshold: float
    has_inf: bool

    @property
    def dtype(self) -> np.dtype[Any]:
        """NumPy dtype of stored values (float32 for tfloat32)."""
        return _DTYPES[self.name]

    @property
    def max_exponent(self) -> int:
        """Exponent of the largest finite value."""
        return math.frexp(self.max)[1] - 1

    @property
    def min_quantum(self) -> int:
        """log2 of the smallest subnormal."""
        return self.min_exponent - self.significand_bits + 1

    def overflows(self, magnitude: float) -> bool:
        """Whether nearest-even rounding of this finite magnitude overflows."""
        if self.has_inf:
            return magnitude >= self.overflow_threshold
        return magnitude > self.overflow_threshold


@cache
def _table() -> dict[str, FormatInfo]:
    table = {}
    for raw in _core.formats():
        largest, tiny = raw["max"], raw["smallest_subnormal"]
        half_ulp = math.ldexp(1.0, math.frexp(largest)[1] - 1 - raw["significand_bits"])
        fields = {k: raw[k] for k in FormatInfo.__dataclass_fields__ if k in raw}
        table[raw["name"]] = FormatInfo(**fields, overflow_threshold=largest + half_ulp, zero_threshold=tiny / 2)
    return table


@cache
def format_ids() -> dict[str, int]:
    """Return the number of each format in the kernels' interface, by name."""
    return {raw["name"]: index for index, raw in enumerate(_core.formats())}


def formats() -> list[str]:
    """Names of all formats, widest first."""
    return list(_table())


def format_name(fmt: FormatLike) -> str:
    """Canonical name of a format given as a name, an alias, a NumPy, ml_dtypes or torch dtype, or a `FormatInfo`.

    Raises
    ------
    ValueError
        If it names no format of gradkern.
    """
    if isinstance(fmt, FormatInfo):
        return fmt.name
    if isinstance(fmt, str):
        text = fmt
    elif fmt is None:
        text = "None"
    elif type(fmt).__module__ == "torch":
        text = str(fmt).removeprefix("torch.")
    else:
        try:
            text = np.dtype(fmt).name
        except TypeError:
            text = repr(fmt)
    name = _ALIASES.get(text, text)
    if name not in _DTYPES:
        raise ValueError(f"format: must be one of {', '.join(_DTYPES)}, got {text!r}")
    return name


def finfo(fmt: FormatLike) -> FormatInfo:
    """Return the constants of a format.

    Parameters
    ----------
    fmt : str, dtype or FormatInfo
        ``"float16"``, ``"bf16"``, ``np.float32``, ``ml_dtypes.float8_e5m2``, ``torch.bfloat16``, ...

    Returns
    -------
    FormatInfo

    Raises
    ------
    ValueError
        If ``fmt`` names no format of gradkern.

    References
    ----------
    IEEE 754-2019; OCP 8-bit Floating Point Specification (OFP8), revision 1.0, 2023.

    Examples
    --------
    >>> gk.finfo("float16").overflow_threshold
    65520.0
    """
    return _table()[format_name(fmt)]
