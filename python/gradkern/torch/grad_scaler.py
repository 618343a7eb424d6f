"""`torch.amp.GradScaler` on `gradkern.LossScaler`: the same scales, a floor that is an error, and records that say why."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Mapping
from typing import Any

import torch

from gradkern._arguments import number
from gradkern._scaler_state import checked
from gradkern._unscale import Outcome, together, unscale
from gradkern.errors import LossScaleFloorError
from gradkern.scale import LossScaler
from gradkern.step_record import StepRecord

_ENTRIES = {
    "scale": "scale", "growth_factor": "growth", "backoff_factor": "backoff", "growth_interval": "interval",
    "_growth_tracker": "clean",
}  # fmt: skip
_NAMES = {ours: theirs for theirs, ours in _ENTRIES.items()}


class GradScaler:
    """A drop-in replacement for `torch.amp.GradScaler`; the gradients of an optimizer lie on the CPU, or all on one CUDA device.

    It follows the same scales. What differs: factors and scales are powers of two; the scale stays between floor and
    ceiling, and an overflow at the floor raises in `update`; gradients that hold NaN or inf stay as they are, scaled;
    fused optimizers get unscaled gradients, so float16 ones are refused for them, too.

    Parameters
    ----------
    device : str
        As torch has it: ``"cuda"`` without CUDA warns and disables the scaler.
    init_scale, growth_factor, backoff_factor : float
        Powers of two; see `LossScaler`.
    growth_interval : int
        Clean steps in a row before the scale grows.
    enabled : bool
        If not, every method passes on what it is given.
    floor, ceiling, hysteresis
        As for `LossScaler`; without a ceiling it is 2**24, or init_scale if that is larger.

    Attributes
    ----------
    record : StepRecord or None
        What the last `update` decided on: whether the step was skipped, which tensor overflowed first, and the rest. Of all
        optimizers together, if there are several.

    Raises
    ------
    TypeError, ValueError
        As `LossScaler` does.
    """

    def __init__(
        self,
        device: str = "cuda",
        init_scale: float = 2.0**16,
        growth_factor: float = 2.0,
        backoff_factor: float = 0.5,
        growth_interval: int = 2000,
        enabled: bool = True,
        *,
        floor: float = 1.0,
        ceiling: float | None = None,
        hysteresis: int = 1,
    ) -> None:
        self._enabled = enabled
        if enabled and device == "cuda" and not torch.cuda.is_available():
            warnings.warn("GradScaler is enabled, but CUDA is not available. Disabling.", stacklevel=2)
            self._enabled = False
        ceiling = max(2.0**24, number(init_scale, "GradScaler", "init_scale")) if ceiling is None else ceiling
        self._scaler = LossScaler()
        self._set(
            {**_NAMES, "scale": "init_scale"}, scale=init_scale, growth=growth_factor, backoff=backoff_factor,
            interval=growth_interval, floor=floor, ceiling=ceiling, hysteresis=hysteresis,
        )  # fmt: skip
        self._found: dict[int, Outcome] = {}
        self._stepped: set[int] = set()
        self.record: StepRecord | None = None

    def scale(self, outputs: Any) -> Any:
        """Multiply a tensor, or tensors in nested lists, tuples and iterables, by the scale; gives back the same kind."""
        if not self._enabled:
            return outputs
        if isinstance(outputs, torch.Tensor):
            return outputs * torch.full((), self.get_scale(), dtype=torch.float32, device=outputs.device)
        if not isinstance(outputs, Iterable):
            raise ValueError(
                f"GradScaler.scale: outputs must be a tensor or an iterable of tensors, got {outputs!r:.60}"
            )
        scaled = map(self.scale, outputs)
        return type(outputs)(scaled) if isinstance(outputs, list | tuple) else scaled

    def unscale_(self, optimizer: torch.optim.Optimizer) -> None:
        """Divide the gradients of an optimizer's parameters by the scale, once an iteration; not if one holds NaN or inf.

        Raises
        ------
        RuntimeError
            If it was called since the last `update`, or there is no gradient.
        ValueError
            If a gradient is float16, where most of what the scale kept would be lost again.
        """
        if not self._enabled:
            return
        if id(optimizer) in self._stepped:
            raise RuntimeError("unscale_() is being called after step().")
        if id(optimizer) in self._found:
            raise RuntimeError("unscale_() has already been called on this optimizer since the last update().")
        grads = _gradients(optimizer)
        if not grads:
            raise RuntimeError("GradScaler: no parameter of this optimizer has a gradient.")
        half = [name for name, grad in grads.items() if grad.dtype == torch.float16]
        if half:
            raise ValueError(f"Attempting to unscale FP16 gradients: {half[0]}; keep parameters in float32.")
        with torch.no_grad():
            self._found[id(optimizer)] = unscale(grads, self.get_scale(), function="GradScaler.unscale_")

    def step(self, optimizer: torch.optim.Optimizer, *args: Any, **kwargs: Any) -> float | None:
        """Unscale, unless `unscale_` has, and step the optimizer if every gradient is finite; gives back what it does.

        Raises
        ------
        RuntimeError
            If it was called since the last `update`, there is no gradient, or a closure is given.
        ValueError
            As `unscale_` does.
        """
        loss: float | None = None
        if not self._enabled:
            loss = optimizer.step(*args, **kwargs)
            return loss
        if "closure" in kwargs:
            raise RuntimeError("Closure use is not currently supported if GradScaler is enabled.")
        if id(optimizer) in self._stepped:
            raise RuntimeError("step() has already been called since the last update().")
        if id(optimizer) not in self._found:
            self.unscale_(optimizer)
        self._stepped.add(id(optimizer))
        if not self._found[id(optimizer)].skipped:
            loss = optimizer.step(*args, **kwargs)
        return loss

    def update(self, new_scale: float | torch.Tensor | None = None) -> None:
        """Choose the scale for the next iteration, or set it.

        Raises
        ------
        LossScaleFloorError
            If the scale would have to go below the floor; names the tensors.
        RuntimeError
            If no optimizer was unscaled since the last update.
        TypeError, ValueError
            If new_scale is no power of two between floor and ceiling.
        """
        if not self._enabled:
            return
        if new_scale is not None:
            self._set(scale=new_scale)
        elif not self._found:
            raise RuntimeError("No inf checks were recorded prior to update.")
        found, self._found, self._stepped = list(self._found.values()), {}, set()
        if new_scale is not None:
            return
        try:
            self.record = self._scaler.after(together(found))
        except LossScaleFloorError as error:
            self.record = error.record
            raise

    def _set(self, names: Mapping[str, str] = _NAMES, **entries: Any) -> None:
        self._scaler.load_state_dict(checked({**self._scaler.state_dict(), **entries}, "GradScaler", names))

    def get_scale(self) -> float:
        """Return the scale; 1.0 if disabled."""
        return self._scaler.scale if self._enabled else 1.0

    def get_growth_factor(self) -> float:
        """Return what the scale is multiplied by after enough clean steps."""
        return float(self._scaler.state_dict()["growth"])

    def set_growth_factor(self, new_factor: float) -> None:
        """Set what the scale is multiplied by after enough clean steps."""
        self._set(growth=new_factor)

    def get_backoff_factor(self) -> float:
        """Return what the scale is multiplied by after an overflow."""
        return float(self._scaler.state_dict()["backoff"])

    def set_backoff_factor(self, new_factor: float) -> None:
        """Set what the scale is multiplied by after an overflow."""
        self._set(backoff=new_factor)

    def get_growth_interval(self) -> int:
        """Return how many clean steps in a row make the scale grow."""
        return int(self._scaler.state_dict()["interval"])

    def set_growth_interval(self, new_interval: int) -> None:
        """Set how many clean steps in a row make the scale grow."""
        self._set(interval=new_interval)

    def is_enabled(self) -> bool:
        """Whether it scales at all."""
        return self._enabled

    def state_dict(self) -> dict[str, Any]:
        """Return the entries of torch's scaler, which loads them, too, and one for a hysteresis; nothing if disabled."""
        if not self._enabled:
            return {}
        state = self._scaler.state_dict()
        more = {"_overflows": state["overflows"]} if state["hysteresis"] > 1 else {}
        return {**{theirs: state[ours] for theirs, ours in _ENTRIES.items()}, **more}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take on what `state_dict` returned, of this scaler or of torch's.

        Raises
        ------
        RuntimeError
            If it is empty, as a disabled scaler's is.
        TypeError
            If it is no mapping, or an entry is no number; names it.
        ValueError
            If an entry is missing, no power of two, or beyond floor and ceiling; names it.
        """
        if not self._enabled:
            return
        if not state_dict:
            raise RuntimeError("The source state dict is empty, possibly because it was saved from a disabled scaler.")
        if not isinstance(state_dict, Mapping):
            kind = type(state_dict).__name__
            raise TypeError(
                f"GradScaler.load_state_dict: the state must be a mapping, as state_dict returns it, got {kind}"
            )
        missing = [name for name in _ENTRIES if name not in state_dict]
        if missing:
            raise ValueError(f"GradScaler.load_state_dict: no {missing[0]}")
        self._set(
            overflows=state_dict.get("_overflows", 0), **{ours: state_dict[theirs] for theirs, ours in _ENTRIES.items()}
        )


def _gradients(optimizer: torch.optim.Optimizer) -> dict[str, torch.Tensor]:
    """Gradients of an optimizer's parameters by name, where they have one; of sparse ones the values."""
    found = {}
    for i, group in enumerate(optimizer.param_groups):
        names = group.get("param_names") or [f"param_groups[{i}].params[{j}]" for j in range(len(group["params"]))]
        for name, parameter in zip(names, group["params"], strict=True):
            if parameter.grad is not None:
                found[name] = parameter.grad._values() if parameter.grad.is_sparse else parameter.grad
    return found
