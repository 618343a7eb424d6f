"""Loss scaling: a scale that grows while gradients are finite, backs off when they are not, and says why."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Protocol

from gradkern._scaler_state import checked
from gradkern._unscale import Outcome, unscale
from gradkern.errors import LossScaleFloorError
from gradkern.fit import ScaleWindow
from gradkern.formats import FormatLike
from gradkern.step_record import StepRecord, power


class _HasWindow(Protocol):
    """A `TensorStats`, a `StatsTable` or a `ChainReport`."""

    def loss_scale_window(self, fmt: FormatLike, lose: float = 1e-3) -> ScaleWindow: ...


class LossScaler:
    """A dynamic loss scale: multiply the loss by `scale`, then give the gradients to `step`.

    The scale is multiplied by `growth` after `interval` steps without NaN or inf in a row, by `backoff` after a step with
    some. It is the rule of `torch.amp.GradScaler`, and the same scales as long as they stay between floor and ceiling.

    Parameters
    ----------
    initial : float
        The first scale; a power of two, as all of these, so that scaling itself never rounds a normal number.
    growth, backoff : float
        Factors, at least 2 and at most 0.5.
    interval : int
        Clean steps in a row before the scale grows.
    floor, ceiling : float
        The scale stays between them. An overflow that would take it below the floor is an error, not a scale of zero.
    hysteresis : int
        The overflow, counted since the scale last had reason to grow, at which it begins to back off: 2 lets one pass. As in
        Megatron-LM.

    Attributes
    ----------
    scale : float
        The scale for the next loss.

    Raises
    ------
    TypeError
        If an argument is no number.
    ValueError
        If an argument is no power of two or out of range; names it.

    Examples
    --------
    >>> scaler = gk.LossScaler(initial=2.0**15)
    >>> scaler.step({"weight": np.array([np.inf, 1.0])}).next_scale
    16384.0
    """

    def __init__(
        self,
        initial: float = 2.0**16,
        growth: float = 2.0,
        backoff: float = 0.5,
        interval: int = 2000,
        floor: float = 1.0,
        ceiling: float = 2.0**24,
        hysteresis: int = 1,
    ) -> None:
        settings = {
            "scale": initial, "growth": growth, "backoff": backoff, "interval": interval, "floor": floor,
            "ceiling": ceiling, "hysteresis": hysteresis, "clean": 0, "overflows": 0, "steps": 0,
        }  # fmt: skip
        self._state = checked(settings, "LossScaler", {"scale": "initial"})

    @property
    def scale(self) -> float:
        """The scale for the next loss."""
        return float(self._state["scale"])

    @property
    def clean(self) -> int:
        """Clean steps since the last overflow or growth."""
        return int(self._state["clean"])

    def step(
        self, grads: Any, max_norm: float | None = None, *, p: float = 2, format: FormatLike | None = None
    ) -> StepRecord:
        """Divide gradients by the scale in place, check them, clip them if asked, and choose the next scale.

        Parameters
        ----------
        grads : mapping, iterable of arrays, or GradientGroup
            Gradients of the scaled loss, as `clip_by_global_norm` takes them.
        max_norm : float, optional
            Clip the true gradients to this global norm.
        p : {1, 2, inf}
            Which norm.
        format : str or dtype, optional
            The format that the gradients were computed in, if they are stored in a wider one; the record's `margin` is to
            its edge.

        Returns
        -------
        StepRecord
            If ``skipped``, some entries are NaN or infinite: nothing was written, and the weights should be left alone.

        Raises
        ------
        LossScaleFloorError
            If the scale would have to go below the floor; names the tensors. Nothing was written.
        NonFiniteError
            If the scale is below 1 and the true gradients are beyond the format they are stored in. Nothing was written, and
            the scaler is as it was.
        TypeError, ValueError
            As `clip_by_global_norm` does; the scaler is as it was.
        """
        return self.after(unscale(grads, self.scale, max_norm, p, format, function="LossScaler.step"))

    def after(self, outcome: Outcome) -> StepRecord:
        """Choose the next scale after gradients were unscaled elsewhere; `step` does both."""
        step, before = int(self._state["steps"]), self.scale
        stuck = self._advance(outcome.skipped)
        record = StepRecord(
            step=step, scale=before, skipped=outcome.skipped, tensor=outcome.tensor, index=outcome.index,
            nonfinite=outcome.nonfinite, margin=outcome.margin, flushed=outcome.flushed, norm=outcome.norm,
            coefficient=outcome.coefficient, next_scale=self.scale,
        )  # fmt: skip
        if stuck:
            raise LossScaleFloorError(
                f"LossScaler: overflow at the floor, a loss scale of {power(before)}: {record.where}. No smaller scale is "
                "allowed (floor=); the network itself may give NaN or inf, or gradients beyond their format",
                record,
            )
        return record

    def _advance(self, overflowed: bool) -> bool:
        """Move to the next scale; whether it should be smaller and is at the floor."""
        state = self._state
        state["steps"] += 1
        if overflowed:
            state["clean"] = 0
            state["overflows"] = min(state["overflows"] + 1, state["hysteresis"])
            if state["overflows"] < state["hysteresis"]:
                return False
            stuck = bool(state["scale"] == state["floor"])
            state["scale"] = max(state["scale"] * state["backoff"], state["floor"])
            return stuck
        state["clean"] += 1
        if state["clean"] >= state["interval"]:
            state.update(clean=0, overflows=0, scale=min(state["scale"] * state["growth"], state["ceiling"]))
        return False

    def replay(self, records: Iterable[StepRecord]) -> list[dict[str, Any]]:
        """Take the steps of a trace again, without gradients: the states that the recording scaler went through.

        Parameters
        ----------
        records : iterable of StepRecord
            What `step` returned or `LossScaleFloorError` carries, in order; the scaler has to be in the state it was in before.

        Returns
        -------
        list of dict
            `state_dict` after each step.

        Raises
        ------
        TypeError
            If records is no iterable, or one is no `StepRecord`.
        ValueError
            If a record is not what this scaler would have done; names the step. The scaler stays at it.
        """
        if not isinstance(records, Iterable):
            raise TypeError(
                f"LossScaler.replay: records must be an iterable of StepRecord, got {type(records).__name__}"
            )
        states = []
        for i, record in enumerate(records):
            if not isinstance(record, StepRecord):
                raise TypeError(f"LossScaler.replay: records[{i}] must be a StepRecord, got {type(record).__name__}")
            self._expect(record, "starts", record.scale)
            self._advance(record.skipped)
            self._expect(record, "goes on", record.next_scale)
            states.append(self.state_dict())
        return states

    def _expect(self, record: StepRecord, word: str, scale: float) -> None:
        if scale != self.scale:
            raise ValueError(
                f"LossScaler.replay: step {record.step} {word} at scale {power(scale)}, this scaler at {power(self.scale)}"
            )

    def state_dict(self) -> dict[str, Any]:
        """Return the settings and the state as plain numbers; `load_state_dict` reverses it."""
        return dict(self._state)

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take on the settings and the state of another scaler.

        Raises
        ------
        TypeError
            If the state is no mapping, or an entry is no number.
        ValueError
            If an entry is missing, unknown, no power of two or out of range; names it. The scaler is as it was.
        """
        self._state = checked(state, "LossScaler.load_state_dict", {})

    @classmethod
    def from_stats(cls, stats: _HasWindow, format: FormatLike, lose: float = 1e-3, **options: Any) -> LossScaler:
        """Make a scaler that starts at the scale that measured gradients ask for.

        Parameters
        ----------
        stats : TensorStats, StatsTable or ChainReport
            Of gradients of the unscaled loss, or measured with the scale they carried.
        format : str or dtype
            The format that scaled gradients are stored in.
        lose : float
            Fraction of each tensor's non-zero entries that may flush.
        **options
            As for `LossScaler`, but for `initial`. Floor and ceiling give way to a scale that is beyond them.

        Returns
        -------
        LossScaler

        Raises
        ------
        TypeError
            If stats is none of these.
        ValueError
            If no scale serves all tensors; names those that conflict, and the formats that would fit.
        """
        if not callable(getattr(stats, "loss_scale_window", None)):
            raise TypeError(
                "LossScaler.from_stats: stats must be a TensorStats, a StatsTable or a ChainReport, got "
                f"{type(stats).__name__}; measure or measure_many makes one of arrays, StatsTable one of a dict of TensorStats"
            )
        window = stats.loss_scale_window(format, lose)
        if not window.exists or window.best is None:
            raise ValueError(f"LossScaler.from_stats: {window.why}")
        options = {"floor": min(1.0, window.best), "ceiling": max(2.0**24, window.best), **options}
        return cls(window.best, **options)

    def __repr__(self) -> str:
        state = self._state
        words = {name: power(state[name]) for name in ("scale", "growth", "backoff", "floor", "ceiling")}
        after = f"{state['hysteresis']} overflow{'s' * (state['hysteresis'] != 1)}"
        return (
            f"LossScaler: {words['scale']} ({words['floor']} to {words['ceiling']}), step {state['steps']:,}; "
            f"times {words['growth']} after {state['interval']:,} clean steps ({state['clean']:,} so far), "
            f"times {words['backoff']} after {after}"
        )
