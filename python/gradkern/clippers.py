"""Clipping to a norm that the norms of former steps give: by quantile and by z-score."""

from __future__ import annotations

import math
import numbers
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Mapping
from typing import Any

import numpy as np

from gradkern._arguments import fraction
from gradkern._clip_survey import check_policy, coefficient_of, limit, survey
from gradkern._clipping import norm_of, settle
from gradkern.clip_result import ClipResult


def _count(value: Any, function: str, name: str) -> int:
    if isinstance(value, bool) or not isinstance(value, numbers.Integral) or value < 1:
        raise ValueError(f"{function}: {name} must be a positive whole number, got {value!r}")
    return int(value)


class _Clipper(ABC):
    """What the clippers have in common.

    Attributes
    ----------
    ignored : int
        Steps whose norm was NaN or infinite: they leave no trace in the history.
    """

    def __init__(self) -> None:
        self.ignored = 0

    @abstractmethod
    def _threshold(self, norm: float) -> float:
        """Return the norm to clip to."""

    @abstractmethod
    def _remember(self, norm: float, threshold: float) -> None:
        """Take a finite norm into the history."""

    def clip(
        self, arrays: Any, *, p: float = 2, scale: float = 1.0, nonfinite: str = "raise", out: Any = None
    ) -> ClipResult:
        """Clip to the norm that the history gives, in place, and take the norm before into the history.

        Parameters
        ----------
        arrays, p, scale, nonfinite, out
            As for `clip_by_global_norm`.

        Returns
        -------
        ClipResult

        Raises
        ------
        TypeError, ValueError, NonFiniteError
            As `clip_by_global_norm` does; the history is as it was, but for the count of those ignored.
        """
        function = f"{type(self).__name__}.clip"
        check_policy(nonfinite, function)
        found = survey(arrays, p, scale, function, out)
        before = norm_of(found, finite=False)
        norm = norm_of(found, nonfinite == "zero")
        threshold = self._threshold(before)
        if not math.isfinite(before):
            self.ignored += 1
        whole = found.mantissa_exponent if math.isfinite(norm) else (norm, 0)
        coefficient = coefficient_of(threshold, *whole, 0.0)
        result = settle(found, np.full(found.counted, coefficient), norm, nonfinite, function)
        if math.isfinite(before) and not result.skipped:
            self._remember(before, threshold)
        return result

    def state_dict(self) -> dict[str, Any]:
        """Return the settings and the history as plain values."""
        return {name: list(v) if isinstance(v, deque) else v for name, v in vars(self).items()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from a state; nothing changes if it is not one.

        Raises
        ------
        ValueError
            If entries are missing, unknown or none that `state_dict` gives.
        """
        function = f"{type(self).__name__}.load_state_dict"
        if set(state) != set(vars(self)):
            raise ValueError(f"{function}: needs the entries {', '.join(vars(self))}, got {', '.join(map(str, state))}")
        try:
            vars(self).update(self._checked(dict(state)))
        except TypeError as error:
            raise ValueError(f"{function}: {error}") from None

    @abstractmethod
    def _checked(self, state: dict[str, Any]) -> dict[str, Any]:
        """Return the attributes of a state."""


def _history(values: Any, length: int | None) -> deque[float]:
    found = [limit(v, "load_state_dict", "a norm of the history") for v in values]
    if not all(map(math.isfinite, found)):
        raise ValueError("load_state_dict: a norm of the history is not finite")
    return deque(found, length)


def _ignored(value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or value < 0:
        raise ValueError(f"load_state_dict: ignored must be a count, got {value!r}")
    return value


class QuantileClipper(_Clipper):
    """Clip to a quantile of the norms seen so far (AutoClip).

    Parameters
    ----------
    quantile : float
        Between 0 and 1; linear between neighbours.
    window : int, optional
        Remember only so many last norms; all of them by default.

    Attributes
    ----------
    ignored : int
        Steps whose norm was NaN or infinite.
    history : deque of float
        Norms before clipping, oldest first.

    Raises
    ------
    ValueError
        If quantile or window is out of range.

    Notes
    -----
    The history policy: each finite norm enters before its own step is clipped, as in AutoClip, and as it was before
    clipping; a NaN or infinite norm never does, which would make every later quantile NaN.

    References
    ----------
    Seetharaman, Wichern, Pardo, Le Roux, "AutoClip: Adaptive gradient clipping for source separation networks", MLSP 2020.

    Examples
    --------
    >>> clipper = gk.QuantileClipper(0.5)
    >>> [clipper.clip(np.array([norm])).coefficient for norm in (1.0, 3.0)]
    [1.0, 0.6666666666666666]
    """

    def __init__(self, quantile: float = 0.1, window: int | None = None) -> None:
        super().__init__()
        self.quantile = fraction(quantile, "QuantileClipper", "quantile")
        self.window = None if window is None else _count(window, "QuantileClipper", "window")
        self.history: deque[float] = deque(maxlen=self.window)

    def _threshold(self, norm: float) -> float:
        seen = deque(self.history, self.window)
        if math.isfinite(norm):
            seen.append(norm)
        return float(np.quantile(seen, self.quantile)) if seen else math.inf

    def _remember(self, norm: float, threshold: float) -> None:
        self.history.append(norm)

    def _checked(self, state: dict[str, Any]) -> dict[str, Any]:
        window = None if state["window"] is None else _count(state["window"], "load_state_dict", "window")
        return {
            "ignored": _ignored(state["ignored"]), "quantile": fraction(state["quantile"], "load_state_dict", "quantile"),
            "window": window, "history": _history(state["history"], window),
        }  # fmt: skip


class ZScoreClipper(_Clipper):
    """Clip norms that stand out (ZClip): where ``z = (norm - mean) / std`` is above it, to ``mean + threshold**2 / z * std``.

    Parameters
    ----------
    threshold : float
        The largest z that is left alone; positive.
    decay : float
        Of the moving mean and variance.
    warmup : int
        Steps that are only watched: mean and variance begin as theirs.

    Attributes
    ----------
    ignored : int
        Steps whose norm was NaN or infinite.
    mean, variance : float
        As they are; NaN during the warmup.
    history : deque of float
        Norms of the warmup.

    Raises
    ------
    ValueError
        If an argument is out of range.

    Notes
    -----
    The history policy: a norm enters *after* clipping, so that an outlier moves the mean little; a NaN or infinite one never
    does, which would make every z NaN and switch the clipper off.

    References
    ----------
    Kumar, Owen, Chowdhury, Güra, "ZClip: Adaptive spike mitigation for LLM pre-training", 2025, arXiv:2504.02507.
    """

    def __init__(self, threshold: float = 2.5, decay: float = 0.97, warmup: int = 25) -> None:
        super().__init__()
        self.threshold = limit(threshold, "ZScoreClipper", "threshold", zero=False)
        self.decay = fraction(decay, "ZScoreClipper", "decay")
        self.warmup = _count(warmup, "ZScoreClipper", "warmup")
        self.mean = self.variance = math.nan
        self.history: deque[float] = deque(maxlen=self.warmup)

    def _threshold(self, norm: float) -> float:
        std = math.sqrt(self.variance)
        if math.isnan(std) or not math.isfinite(norm):
            return math.inf if math.isnan(std) else self.mean + self.threshold * std
        if norm <= self.mean + self.threshold * std:
            return math.inf
        return self.mean + (self.threshold * std) * (self.threshold * std) / (norm - self.mean)

    def _remember(self, norm: float, threshold: float) -> None:
        norm = min(norm, threshold)
        if len(self.history) < self.warmup:
            self.history.append(norm)
            if len(self.history) == self.warmup:
                self.mean, self.variance = float(np.mean(self.history)), float(np.var(self.history))
            return
        self.mean = self.decay * self.mean + (1 - self.decay) * norm
        self.variance = self.decay * self.variance + (1 - self.decay) * (norm - self.mean) ** 2

    def _checked(self, state: dict[str, Any]) -> dict[str, Any]:
        warmup = _count(state["warmup"], "load_state_dict", "warmup")
        history = _history(state["history"], warmup)
        warm = len(history) == warmup
        return {
            "ignored": _ignored(state["ignored"]), "decay": fraction(state["decay"], "load_state_dict", "decay"),
            "threshold": limit(state["threshold"], "load_state_dict", "threshold", zero=False), "warmup": warmup,
            "mean": limit(state["mean"], "load_state_dict", "mean") if warm else math.nan,
            "variance": limit(state["variance"], "load_state_dict", "variance") if warm else math.nan,
            "history": history,
        }  # fmt: skip
