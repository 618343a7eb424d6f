"""Clipping to a norm that the norms of former steps give: by quantile and by z-score."""

from __future__ import annotations

import math
from collections import deque
from typing import Any

import numpy as np

from gradkern._arguments import fraction, positive_integer
from gradkern._clip_survey import limit
from gradkern._clipper import Clipper, history


class QuantileClipper(Clipper):
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
    TypeError
        If quantile is no number, or window no integer.
    ValueError
        If one is out of range.

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
        self.window = None if window is None else positive_integer(window, "QuantileClipper", "window")
        self.history: deque[float] = deque(maxlen=self.window)

    def _threshold(self, norm: float) -> float:
        seen = deque(self.history, self.window)
        if math.isfinite(norm):
            seen.append(norm)
        return float(np.quantile(seen, self.quantile)) if seen else math.inf

    def _remember(self, norm: float, threshold: float) -> None:
        self.history.append(norm)

    def _checked(self, state: dict[str, Any]) -> dict[str, Any]:
        window = None if state["window"] is None else positive_integer(state["window"], "load_state_dict", "window")
        return {
            "quantile": fraction(state["quantile"], "load_state_dict", "quantile"), "window": window,
            "history": history(state["history"], window),
        }  # fmt: skip


class ZScoreClipper(Clipper):
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
    TypeError
        If threshold or decay is no number, or warmup no integer.
    ValueError
        If one is out of range.

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
        self.warmup = positive_integer(warmup, "ZScoreClipper", "warmup")
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
        warmup = positive_integer(state["warmup"], "load_state_dict", "warmup")
        norms = history(state["history"], warmup)
        warm = len(norms) == warmup
        return {
            "decay": fraction(state["decay"], "load_state_dict", "decay"), "warmup": warmup,
            "threshold": limit(state["threshold"], "load_state_dict", "threshold", zero=False),
            "mean": limit(state["mean"], "load_state_dict", "mean") if warm else math.nan,
            "variance": limit(state["variance"], "load_state_dict", "variance") if warm else math.nan,
            "history": norms,
        }  # fmt: skip
