"""One loss scale for several tensors: the window that serves all, or who conflicts and which formats would fit."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import replace

from gradkern._arguments import fraction
from gradkern.fit import ScaleWindow, window
from gradkern.formats import FormatLike, finfo, formats
from gradkern.tensor_stats import TensorStats

_NAMED = 3  # tensors named before "and N more"


def listed(names: Sequence[str], limit: int = _NAMED, conjunction: str = "and") -> str:
    """Write names as ``a, b and c``; beyond the limit as ``a, b, c and 4 more``."""
    if len(names) > limit:
        return f"{', '.join(names[:limit])} {conjunction} {len(names) - limit} more"
    return f" {conjunction} ".join([*([", ".join(names[:-1])] if len(names) > 1 else []), *names[-1:]])


def nonfinite_sentence(names: Sequence[str], total: int) -> str:
    """Name the tensors that hold NaN or inf."""
    count = f"{len(names):,} of {total:,} tensor{'s' * (total != 1)}"
    return f"{count} hold{'s' * (len(names) == 1)} NaN or inf, which no scale mends: {listed(names)}"


def _magnitude(stats: TensorStats) -> tuple[int, float]:
    """Order of the largest magnitudes, which may be beyond float64."""
    mantissa, exponent = math.frexp(stats.amax)
    return exponent + stats.exponent, mantissa


def _ends(tensors: Sequence[TensorStats], fmt: str, lose: float) -> tuple[TensorStats, TensorStats] | None:
    """Return the tensor that needs the largest scale and the one that allows the smallest: the same two for every format."""
    bounded = [stats for stats in tensors if stats.nonzero]  # the others fit at any scale
    if not bounded:
        return None
    needs = [(stats.smallest_scale(fmt, lose), stats) for stats in bounded]
    found = [(need, stats) for need, stats in needs if need is not None]
    largest = max(bounded, key=_magnitude)
    return max(found, key=lambda pair: pair[0])[1] if found else largest, largest


def window_of(ends: tuple[TensorStats, TensorStats], fmt: str, lose: float) -> ScaleWindow:
    """Make the window that a tensor bounds from below and another from above."""
    low, high = ends
    names = [stats.name or "the tensor" for stats in ends]
    return window(fmt, low.smallest_scale(fmt, lose), high.largest_scale(fmt), *names)


def joint_window(tensors: Iterable[TensorStats], fmt: FormatLike, lose: float = 1e-3) -> ScaleWindow:
    """Loss scales at which no tensor overflows and none flushes more than a fraction of its non-zero entries.

    Parameters
    ----------
    tensors : iterable of TensorStats
        Their names are used in `why`.
    fmt : str or dtype
        The format that the scaled tensors are cast to.
    lose : float
        Fraction of each tensor's non-zero entries that may flush. If all may (1.0), no scale is too small.

    Returns
    -------
    ScaleWindow
        If there is none, `why` names the two tensors that conflict and the formats that would fit; tensors that hold
        NaN or inf are named too.

    Raises
    ------
    TypeError
        If lose is no number.
    ValueError
        If lose is not between 0 and 1, or there is no such format.
    """
    lose = fraction(lose, "loss_scale_window", "lose")
    name, measured = finfo(fmt).name, list(tensors)
    ends = _ends(measured, name, lose)
    found = window(name, None, None, "") if ends is None else window_of(ends, name, lose)
    why = found.why
    if not found.exists and ends is not None:
        fitting = [other for other in reversed(formats()) if other != name and window_of(ends, other, lose).exists]
        why += f"; {listed(fitting, len(fitting))} would fit" if fitting else "; no format of gradkern would fit"
    broken = [stats.name or "the tensor" for stats in measured if stats.nonfinite]
    if broken:
        why += f"; {nonfinite_sentence(broken, len(measured))}"
    return replace(found, why=why)
