"""`sgd_update`: one step of gradient descent, rounded once, and what rounding made of the update."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gradkern import _core
from gradkern._arguments import log2_of_scale, number, seed_of
from gradkern._arrays import Bits, as_bits_view, empty_stored, read
from gradkern._backend import takes_device
from gradkern._result import Result
from gradkern.arithmetic import rounding_mode
from gradkern.cast import log2_sum

_COUNTS = ("unchanged", "applied", "lost", "overflow", "nonfinite")
_PARTS, _FIRST = ("flushed", "subnormal"), ("first_overflow", "first_nonfinite")


@dataclass(frozen=True, repr=False)
class UpdateReport(Result):
    """What rounding made of a descent step.

    ``unchanged + applied + lost + overflow + nonfinite == size``.

    Attributes
    ----------
    size : int
        Entries.
    unchanged : int
        The update was zero, and so the weight stayed.
    applied : int
        The weight changed.
    lost : int
        The update was not zero, but ``w - u`` was rounded back to ``w``.
    overflow : int
        Weight and gradient were finite, ``w - u`` is beyond the format.
    nonfinite : int
        Weight or gradient was NaN or infinite already.
    flushed, subnormal : int
        New weights that became zero though ``w - u`` is not, or are below the smallest normal.
    first_overflow, first_nonfinite : int or None
        Flat index of the first such entry.
    log2_wanted, log2_made : float
        log2 of the 2-norms of the update u and of the change ``w' - w``, over entries finite before and after; -inf for zero.
    """

    size: int
    unchanged: int
    applied: int
    lost: int
    overflow: int
    nonfinite: int
    flushed: int
    subnormal: int
    first_overflow: int | None
    first_nonfinite: int | None
    log2_wanted: float
    log2_made: float

    @property
    def wanted(self) -> int:
        """Entries whose update was finite and not zero."""
        return self.applied + self.lost + self.overflow

    @property
    def lost_share(self) -> float:
        """Share of the entries with an update that did not move; NaN where none had one."""
        return self.lost / self.wanted if self.wanted else math.nan

    @classmethod
    def from_counts(cls, counts: dict[str, Any]) -> UpdateReport:
        """Build the report from what the kernel counted."""
        first: dict[str, Any] = {n: counts[n] if counts[n] >= 0 else None for n in _FIRST}
        return cls(
            size=sum(counts[name] for name in _COUNTS), **{name: counts[name] for name in (*_COUNTS, *_PARTS)}, **first,
            log2_wanted=log2_sum(counts["wanted"]) / 2, log2_made=log2_sum(counts["made"]) / 2,
        )  # fmt: skip

    @classmethod
    def merged(cls, reports: Iterable[UpdateReport]) -> UpdateReport:
        """Add the reports of several tensors; the first indices are those of the first tensor that has one."""
        parts = list(reports)
        values: dict[str, Any] = {n: sum(getattr(r, n) for r in parts) for n in ("size", *_COUNTS, *_PARTS)}
        for name in _FIRST:
            values[name] = next((getattr(r, name) for r in parts if getattr(r, name) is not None), None)
        return cls(
            **values,
            log2_wanted=log2_hypot(r.log2_wanted for r in parts),
            log2_made=log2_hypot(r.log2_made for r in parts),
        )


def log2_hypot(log2_norms: Iterable[float]) -> float:
    """log2 of the norm of parts whose norms have these logarithms, of any size; NaN if one is, -inf for zero."""
    terms = list(log2_norms)
    top = max(terms, default=-math.inf)
    if any(math.isnan(t) for t in terms):
        return math.nan
    if math.isinf(top):
        return top
    return top + math.log2(math.fsum(4.0 ** max(t - top, -537.0) for t in terms)) / 2


@dataclass(frozen=True, repr=False)
class UpdateResult(Result):
    """The new weight, of the kind the old one was, and the `UpdateReport`."""

    weight: Any
    report: UpdateReport

    def to_dict(self) -> dict[str, Any]:
        """Return the report's fields."""
        return self.report.to_dict()


def update_into(
    weight: Bits, gradient: Bits, updated: NDArray[Any], rate: float, mode: tuple[int, int, int], seed: int, stream: int
) -> UpdateReport:
    """Write the new weight into `updated`, which may be the weight's own memory."""
    counts = _core.update(
        weight.bits,
        weight.format_id,
        gradient.bits,
        gradient.format_id,
        as_bits_view(updated),
        rate,
        *mode,
        seed,
        stream,
    )
    return UpdateReport.from_counts(counts)


@takes_device
def sgd_update(
    weight: Any,
    gradient: Any,
    lr: float,
    *,
    scale: float = 1.0,
    rounding: str = "nearest_even",
    overflow: str = "ieee",
    subnormals: str = "keep",
    seed: int = 0,
    device: str | None = None,
) -> UpdateResult:
    """Take one step of plain gradient descent, ``w' = fl(w - lr / scale * g)``, and say what rounding made of it.

    Parameters
    ----------
    weight : array
        Any shape, kind and format; the result is rounded to this format. Not modified.
    gradient : array
        The same shape, any format.
    lr : float
        The learning rate, finite. A negative one ascends.
    scale : float
        The loss scale that the gradient carries, a power of two.
    rounding, overflow, subnormals, seed
        As for `cast`. Stochastic rounding keeps, on average, updates below half a unit in the last place.
    device : {None, "cpu", "cuda", "simt"}
        Where to compute.

    Returns
    -------
    UpdateResult
        ``weight`` and ``report``. Nothing numeric raises: overflow, NaN and lost updates are counted.

    Raises
    ------
    TypeError
        If an argument is no array of real numbers, no number, or a seed that is no integer.
    ValueError
        If the shapes differ, an option is unknown, the rate is not finite, the scale no power of two, or the seed negative or
        of more than 64 bits.

    Notes
    -----
    One fused multiply-add in float64, whatever the formats, then one rounding to the format of the weight.

    Examples
    --------
    >>> gk.sgd_update(np.ones(4, np.float16), np.full(4, 1e-4), lr=1.0).report.lost
    4

    References
    ----------
    Gupta et al., "Deep learning with limited numerical precision", ICML 2015, for stochastic rounding of updates.
    """
    w, g = read(weight, "sgd_update: weight"), read(gradient, "sgd_update: gradient")
    if w.shape != g.shape:
        raise ValueError(f"sgd_update: weight has shape {w.shape}, gradient {g.shape}")
    mode = rounding_mode("sgd_update", rounding, overflow, subnormals)
    rate, seed = rate_of(lr, scale, "sgd_update"), seed_of(seed, "sgd_update")
    updated = empty_stored(w.shape, w.format)
    report = update_into(w, g, updated, rate, mode, seed, 0)
    return UpdateResult(w.restore(updated), report)


def rate_of(lr: float, scale: float, function: str) -> float:
    """Return lr / scale, exact but at the ends of float64.

    Raises
    ------
    TypeError, ValueError
        If lr is no finite number, or the scale no power of two.
    """
    value, exponent = number(lr, function, "lr"), log2_of_scale(scale, function)
    with np.errstate(all="ignore"):
        rate = float(np.ldexp(value, -exponent))
    if not math.isfinite(rate):
        raise ValueError(f"{function}: lr must be finite, got {lr}" + (f" at scale {scale:g}" if scale != 1 else ""))
    return rate
