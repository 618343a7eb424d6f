"""`cast`: a rounding with its report, in one pass."""

from __future__ import annotations

import math
from dataclasses import dataclass, fields
from typing import Any

from gradkern import _core
from gradkern._arguments import number, seed_of
from gradkern._arrays import Bits, as_bits_view, empty_beside, read_in_place
from gradkern._backend import takes_device
from gradkern._output import is_apart, output_view
from gradkern._result import Result
from gradkern.arithmetic import rounding_mode
from gradkern.formats import FormatLike, finfo, format_ids, format_name


def log2_sum(parts: tuple[float, float, float]) -> float:
    """log2 of a sum of squares that the kernels hold in three ranges; -inf for zero."""
    big, medium, small = parts
    if big == 0 and small == 0:
        return math.log2(medium) if medium > 0 else -math.inf
    terms = [math.log2(v) + e for v, e in ((big, 1200.0), (medium, 0.0), (small, -1200.0)) if v > 0]
    if not terms:
        return -math.inf
    top = max(terms)
    return top + math.log2(math.fsum(2.0 ** max(t - top, -1074.0) for t in terms))


@dataclass(frozen=True, repr=False)
class RoundingReport(Result):
    """What rounding a tensor did.

    ``exact + inexact + overflow + subnormal + flushed + nan + inf == size``.

    Attributes
    ----------
    size : int
        Elements.
    exact, inexact : int
        Stored as zero or a normal value, without and with a change.
    overflow : int
        Finite before; inf, NaN or clamped to the largest finite value after.
    subnormal : int
        Stored below the smallest normal, with fewer digits.
    flushed : int
        Non-zero before, zero after.
    nan, inf : int
        Already NaN or infinite before.
    first_overflow, first_flushed : int or None
        Flat index of the first such element.
    max_ulp : float
        Largest error in units in the last place of the destination: at most 0.5 for nearest_even, but for values clamped by
        ``saturate`` and subnormals flushed, which count with all they lost.
    sqnr_db : float
        Signal to quantisation noise, 10 log10(sum x^2 / sum (stored - x)^2) [dB], over elements finite before and after.
    """

    size: int
    exact: int
    inexact: int
    overflow: int
    subnormal: int
    flushed: int
    nan: int
    inf: int
    first_overflow: int | None
    first_flushed: int | None
    max_ulp: float
    sqnr_db: float

    @classmethod
    def from_counts(cls, counts: Any) -> RoundingReport:
        """Build the report from what the kernels count; what a device counts is waited for when the report is looked at."""
        if not isinstance(counts, dict):
            report: RoundingReport = object.__new__(cls)
            report.__dict__["_pending"] = counts
            return report
        names = ("exact", "inexact", "overflow", "subnormal", "flushed", "nan", "inf")
        signal, noise = log2_sum(counts["signal"]), log2_sum(counts["noise"])
        decibel = 10 * math.log10(2)
        sqnr = math.nan if signal == -math.inf else math.inf if noise == -math.inf else decibel * (signal - noise)
        return cls(
            size=sum(counts[n] for n in names),
            **{n: counts[n] for n in names},
            first_overflow=_index(counts["first_overflow"]),
            first_flushed=_index(counts["first_flushed"]),
            max_ulp=counts["max_ulp"],
            sqnr_db=sqnr,
        )

    def __getattr__(self, name: str) -> Any:
        """Fetch what a device counted, once."""
        pending = self.__dict__.get("_pending")
        if pending is None or name not in type(self).__dataclass_fields__:
            raise AttributeError(f"{type(self).__name__} has no attribute {name!r}")
        self.__dict__.update(self.from_counts(pending.fetch()).__dict__)
        return self.__dict__[name]

    def __getstate__(self) -> dict[str, Any]:
        """Give the fields, as copying and pickling want them."""
        return {f.name: getattr(self, f.name) for f in fields(self)}


def _index(first: int) -> int | None:
    return first if first >= 0 else None


@dataclass(frozen=True, repr=False)
class CastResult(Result):
    """Values of a cast, of the kind the input was, and the `RoundingReport`."""

    values: Any
    report: RoundingReport

    def to_dict(self) -> dict[str, Any]:
        """Return the report's fields."""
        return self.report.to_dict()


def round_to(
    source: Bits,
    fmt: str,
    mode: tuple[int, int, int],
    *,
    scale: float = 1.0,
    seed: int = 0,
    stream: int = 0,
    out: Any = None,
) -> tuple[Any, RoundingReport]:
    """Round bits to a format; the shared path of `cast` and of every operation's rounding to storage.

    Writes into `out`, when it is contiguous and apart from the source, and gives it back.
    """
    direct = out is not None and is_apart(out, source.bits)
    stored = out if direct else empty_beside(source.bits, source.shape, fmt)
    counts = _core.convert(
        source.bits, source.format_id, as_bits_view(stored), format_ids()[fmt], scale, *mode, seed, stream
    )
    if out is not None and not direct:
        out[...] = stored
        stored = out
    return stored, RoundingReport.from_counts(counts)


@takes_device
def cast(
    x: Any,
    fmt: FormatLike,
    *,
    scale: float = 1.0,
    rounding: str = "nearest_even",
    overflow: str = "ieee",
    subnormals: str = "keep",
    seed: int = 0,
    out: Any = None,
    device: str | None = None,
) -> CastResult:
    """Round an array to a format, once, and report what was lost.

    Parameters
    ----------
    x : array
        Any shape; NumPy (ml_dtypes included), torch, JAX, or anything NumPy can read; on a device CuPy, torch, JAX, and
        anything with DLPack or ``__cuda_array_interface__``, which stays there. Any format as source.
    fmt : str or dtype
        The destination; see `formats`. ``"tfloat32"`` is kept in float32.
    scale : float
        Multiplies x first, in float64: exact for a power of two, as loss scales are.
    rounding : {"nearest_even", "toward_zero", "stochastic"}
        Stochastic rounding goes up with the probability of the lost fraction, from a counter-based generator and `seed`.
    overflow : {"ieee", "saturate"}
        What a finite value beyond the range becomes. An infinite x stays infinite in both (NaN in float8_e4m3fn).
    subnormals : {"keep", "flush"}
        Whether results below the smallest normal become signed zeros.
    seed : int
        Seed of stochastic rounding.
    out : array, optional
        Where to write: a NumPy array, or one on x's device; x's shape and the destination's dtype. Written directly where it
        is contiguous and no part of x.
    device : {None, "cpu", "cuda", "simt"}
        Where to compute. None: where x lies.

    Returns
    -------
    CastResult
        ``values`` (of x's kind) and ``report``. Nothing numeric raises: overflow and NaN are counted. On a device the work is
        enqueued on the stream of x's library, and the report is waited for when it is looked at.

    Raises
    ------
    TypeError
        If x is not an array of real numbers, scale no number, seed no integer, or out has the wrong dtype.
    ValueError
        If an option is unknown, scale is not positive and finite, seed is negative or of more than 64 bits, or out has the wrong
        shape or is read-only.

    Notes
    -----
    float64 to float16 rounds once (torch on the CPU rounds twice, through float32).

    Examples
    --------
    >>> gk.cast([1.0, 1e-9, 7e4], "float16").report.flushed
    1
    """
    source = read_in_place(x, "cast: x")
    name = format_name(fmt)
    mode = rounding_mode("cast", rounding, overflow, subnormals)
    factor = number(scale, "cast", "scale")
    if not (factor > 0 and math.isfinite(factor)):
        raise ValueError(f"cast: scale must be positive and finite, got {scale}")
    seed = seed_of(seed, "cast")
    target = None if out is None else output_view(out, source.place, source.shape, finfo(name).dtype, "cast")
    stored, report = round_to(source, name, mode, scale=factor, seed=seed, out=target)
    return CastResult(source.restore(stored) if out is None else out, report)
