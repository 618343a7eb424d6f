"""What the clippers with a history have in common."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Mapping
from typing import Any

from gradkern._arguments import positive_integer
from gradkern._clip_survey import check_policy, coefficients_of, limit, survey
from gradkern._clipping import everywhere, norm_of, settle
from gradkern.clip_result import ClipResult


class Clipper(ABC):
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
        coefficient = coefficients_of(threshold, *whole, 0.0)
        result = settle(found, everywhere(found, coefficient), norm, nonfinite, function)
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
            ignored = positive_integer(state["ignored"], "load_state_dict", "ignored", least=0)
            vars(self).update({**self._checked(dict(state)), "ignored": ignored})
        except TypeError as error:
            raise ValueError(f"{function}: {error}") from None

    @abstractmethod
    def _checked(self, state: dict[str, Any]) -> dict[str, Any]:
        """Return the attributes of a state, but for `ignored`."""


def history(values: Any, length: int | None) -> deque[float]:
    found = [limit(v, "load_state_dict", "a norm of the history") for v in values]
    if not all(map(math.isfinite, found)):
        raise ValueError("load_state_dict: a norm of the history is not finite")
    return deque(found, length)
