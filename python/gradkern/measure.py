"""Statistics of a tensor, and what any format at any loss scale would make of it, without reading it again."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gradkern import _core
from gradkern._arrays import read
from gradkern._backend import check_device
from gradkern._result import Result
from gradkern.cast import log2_sum
from gradkern.formats import FormatInfo, FormatLike, finfo


def log2_of_scale(scale: float, function: str) -> int:
    """Return k of a scale 2**k.

    Raises
    ------
    ValueError
        If the scale is not a positive power of two.
    """
    mantissa, exponent = math.frexp(scale) if scale > 0 and math.isfinite(scale) else (0.0, 0)
    if mantissa != 0.5:
        raise ValueError(f"{function}: scale must be a power of two, got {scale}")
    return exponent - 1


@dataclass(frozen=True)
class Bracket:
    """A count that lies between `low` and `high`; exact where they agree."""

    low: int
    high: int

    @property
    def exact(self) -> bool:
        """Whether the binades alone decide."""
        return self.low == self.high

    def __str__(self) -> str:
        return f"{self.low:,}" if self.exact else f"{self.low:,}..{self.high:,}"


@dataclass(frozen=True, repr=False)
class FormatFit(Result):
    """How many non-zero finite entries a cast (nearest even) would lose, as counts or honest brackets."""

    overflow: Bracket
    subnormal: Bracket
    flushed: Bracket
    kept: Bracket


@dataclass(frozen=True, repr=False)
class ScaleWindow(Result):
    """Loss scales, powers of two, at which nothing overflows and few enough entries flush.

    Attributes
    ----------
    exists : bool
        Whether there is one.
    low, high : float or None
        Smallest and largest loss scale of the window; None where there is no bound.
    best : float or None
        A scale inside, with headroom on both sides.
    log2_low, log2_high : int or None
        The same as exponents, which also reach where float64 does not.
    headroom_bits : int or None
        log2(high / low).
    why : str
        What bounds the window, or why there is none.
    """

    exists: bool
    low: float | None
    high: float | None
    best: float | None
    log2_low: int | None
    log2_high: int | None
    headroom_bits: int | None
    why: str


def power_of_two(k: int) -> float:
    """Return 2.0**k; inf or 0.0 where float64 ends."""
    return math.ldexp(1.0, k) if k <= 1023 else math.inf


@dataclass(frozen=True, repr=False, eq=False)
class TensorStats(Result):
    """Statistics of one tensor from one read. True values are the measured ones times ``2**exponent``.

    Attributes
    ----------
    size, nan, pos_inf, neg_inf, zero, negative, subnormal : int
        Counts; `negative` and `subnormal` are among the finite non-zero entries.
    amax, amin : float
        Largest and smallest non-zero finite magnitude (0.0 and inf if there is none).
    mean, std : float
        Over finite entries; population standard deviation.
    l1, l2 : float
        Norms over finite entries. `l2` is right where squares would overflow or underflow.
    first_nonfinite : int or None
        Flat index.
    dtype : str
        Format of the tensor.
    exponent : int
        0 but for tensors of a reference chain, which outgrow float64.
    first_binade : int
        Exponent b of the first entry of `binades`, which counts 2**b <= |x| < 2**(b + 1).
    """

    size: int
    nan: int
    pos_inf: int
    neg_inf: int
    zero: int
    negative: int
    subnormal: int
    amax: float
    amin: float
    mean: float
    std: float
    l1: float
    l2: float
    log2_l2: float
    first_nonfinite: int | None
    dtype: str
    name: str | None
    scale: float
    exponent: int
    first_binade: int
    binade_counts: NDArray[np.int64] = field(repr=False)
    powers_of_two: NDArray[np.int64] = field(repr=False)

    @classmethod
    def from_summary(
        cls, summary: dict[str, Any], dtype: str, *, name: str | None = None, exponent: int = 0, scale: float = 1.0
    ) -> TensorStats:
        """Build from what the kernels count."""
        log2_l2 = log2_sum(summary["squares"]) / 2
        finite = summary["finite_count"]
        counts = ("size", "nan", "pos_inf", "neg_inf", "zero", "negative", "subnormal", "amax", "amin", "mean", "l1")
        return cls(
            **{k: summary[k] for k in counts},
            std=math.sqrt(summary["m2"] / finite) if finite else 0.0,
            l2=2.0**log2_l2 if log2_l2 < 1024 else math.inf,
            log2_l2=log2_l2 + exponent,
            first_nonfinite=summary["first_nonfinite"] if summary["first_nonfinite"] >= 0 else None,
            dtype=dtype,
            name=name,
            scale=scale,
            exponent=exponent,
            first_binade=summary["first_binade"],
            binade_counts=summary["binades"],
            powers_of_two=summary["powers"],
        )

    @property
    def binades(self) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Exponents and counts: entries with 2**exponent <= |true value| < 2**(exponent + 1)."""
        exponents = np.arange(len(self.binade_counts), dtype=np.int64) + self.first_binade + self.exponent
        return exponents, self.binade_counts

    @property
    def nonzero(self) -> int:
        """Finite non-zero entries."""
        return int(self.binade_counts.sum())

    @property
    def nonfinite(self) -> int:
        """NaN and infinite entries."""
        return self.nan + self.pos_inf + self.neg_inf

    @property
    def log2_amax(self) -> float:
        """log2 of the largest true magnitude; -inf where there is none."""
        return math.log2(self.amax) + self.exponent if self.amax > 0 else -math.inf

    def _overflow(self, info: FormatInfo, exponents: NDArray[np.int64]) -> Bracket:
        shift = int(exponents[0]) - self.first_binade if len(exponents) else 0
        top = exponents == info.max_exponent
        sure = int(self.binade_counts[exponents > info.max_exponent].sum())
        unsure = int((self.binade_counts - self.powers_of_two)[top].sum())
        largest = math.ldexp(self.amax, shift) if self.amax and shift + math.log2(self.amax) < 1024 else math.inf
        if not unsure or not info.overflows(largest):
            return Bracket(sure, sure)
        return Bracket(sure + (not sure), sure + unsure) if unsure > 1 else Bracket(sure + 1, sure + 1)

    def fit(self, fmt: FormatLike, scale: float = 1.0) -> FormatFit:
        """Count what a nearest-even cast of ``scale * x`` to a format would do, from the binades alone.

        Parameters
        ----------
        fmt : str or dtype
            The format.
        scale : float
            A power of two.

        Returns
        -------
        FormatFit
            `flushed` is exact always; `overflow` and `subnormal` are brackets where one binade holds the threshold.

        Raises
        ------
        ValueError
            If scale is not a power of two.
        """
        info = finfo(fmt)
        exponents = self.binades[0] + log2_of_scale(scale, "fit")
        counts, powers = self.binade_counts, self.powers_of_two
        tie = info.min_quantum - 1
        flushed = int(counts[exponents < tie].sum() + powers[exponents == tie].sum())
        below = int(counts[exponents < info.min_exponent].sum()) - flushed
        rounds_up = int((counts - powers)[exponents == info.min_exponent - 1].sum())
        overflow = self._overflow(info, exponents)
        subnormal = Bracket(below - rounds_up, below)
        rest = self.nonzero - flushed
        kept = Bracket(rest - overflow.high - subnormal.high, rest - overflow.low - subnormal.low)
        return FormatFit(overflow, subnormal, Bracket(flushed, flushed), kept)

    def largest_scale(self, fmt: FormatLike) -> int | None:
        """Largest k such that 2**k times the largest magnitude does not overflow; None for an all-zero tensor."""
        if self.amax == 0:
            return None
        info = finfo(fmt)
        mantissa, exponent = math.frexp(self.amax)
        k = info.max_exponent + 1 - exponent
        if info.overflows(math.ldexp(mantissa, info.max_exponent + 1) if info.max_exponent < 1023 else self.amax):
            k -= 1
        return k - self.exponent

    def smallest_scale(self, fmt: FormatLike, lose: float = 1e-3) -> int | None:
        """Smallest k at which at most a fraction `lose` of the non-zero entries flush; None for an all-zero tensor."""
        counts: list[int] = self.binade_counts.tolist()
        total = sum(counts)
        if total == 0:
            return None
        tie, first = finfo(fmt).min_quantum - 1, self.first_binade + self.exponent
        allowed = math.floor(lose * total)
        gone = 0  # entries below the binade in hand
        for exponent, (count, powers) in enumerate(zip(counts, self.powers_of_two.tolist(), strict=True), first):
            if gone + powers > allowed:  # even exact powers of two must clear the tie
                return int(tie + 1 - exponent)
            if gone + count > allowed:
                return tie - exponent
            gone += count
        return tie - (first + len(counts) - 1)

    def loss_scale_window(self, fmt: FormatLike, lose: float = 1e-3) -> ScaleWindow:
        """Loss scales at which nothing overflows and at most a fraction `lose` of non-zero entries flush.

        Parameters
        ----------
        fmt : str or dtype
            The format that the scaled tensor is cast to.
        lose : float
            Fraction of the non-zero entries that may flush.

        Returns
        -------
        ScaleWindow
        """
        return window(
            finfo(fmt).name, self.smallest_scale(fmt, lose), self.largest_scale(fmt), self.name or "the tensor"
        )

    def to_dict(self) -> dict[str, Any]:
        """Return the fields; the binades as a mapping from exponent to count."""
        fields = super().to_dict()
        exponents, counts = self.binades
        del fields["first_binade"]
        fields["binades"] = {e: c for e, c in zip(exponents.tolist(), counts.tolist(), strict=True) if c}
        return fields


def window(fmt: str, low: int | None, high: int | None, low_name: str, high_name: str | None = None) -> ScaleWindow:
    """Make a `ScaleWindow` from the exponents of its two ends and the names of the tensors that set them."""
    high_name = high_name or low_name
    if low is None or high is None:
        return ScaleWindow(True, None, None, 1.0, None, None, None, "all entries are zero: every scale will do")
    ends = (power_of_two(low), power_of_two(high))
    if low > high:
        why = (
            f"no loss scale fits {fmt}: {low_name} needs at least 2^{low} not to flush, "
            f"{high_name} overflows above 2^{high}"
        )
        return ScaleWindow(False, *ends, None, low, high, high - low, why)
    best = max(low, high - max(2, (high - low) // 2)) if high - low >= 2 else high
    best = max(low, min(best, 1023))
    why = f"{low_name} flushes below 2^{low}, {high_name} overflows above 2^{high}"
    if not -1022 <= best <= 1023:
        why = f"no loss scale fits {fmt}: it would have to be 2^{low} to 2^{high}, which is beyond float64"
        return ScaleWindow(False, *ends, None, low, high, high - low, why)
    return ScaleWindow(True, *ends, power_of_two(best), low, high, high - low, why)


def measure(x: Any, *, scale: float = 1.0, name: str | None = None, device: str | None = None) -> TensorStats:
    """Measure a tensor.

    Parameters
    ----------
    x : array
        Any shape and kind (see `cast`), any format of gradkern.
    scale : float
        A power of two that x carries (a loss scale): statistics are of ``x / scale``.
    name : str, optional
        Kept in the result.
    device : {None, "cpu"}
        Where to compute.

    Returns
    -------
    TensorStats

    Raises
    ------
    TypeError
        If x is not an array of real numbers.
    ValueError
        If scale is not a power of two.
    """
    check_device(device, "measure")
    exponent = -log2_of_scale(scale, "measure")
    bits = read(x, "measure: x")
    return TensorStats.from_summary(
        _core.statistics(bits.bits, bits.format_id), bits.format, name=name, exponent=exponent, scale=scale
    )
