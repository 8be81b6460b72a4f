"""Reason for which a callback or the module ended a training, by setting `trainer.should_stop`."""

import sys
from types import FrameType
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import EarlyStopping, Timer
from lightning.pytorch.callbacks.early_stopping import EarlyStoppingReason

_UNKNOWN = "a callback or the module"


class StopRecorder:
    """Part of a Trainer that notes who sets `should_stop`, which Lightning itself does not."""

    stopped_by: str | None = None
    _should_stop = False

    @property
    def should_stop(self) -> bool:
        """Tell whether the training is to end."""
        return self._should_stop

    @should_stop.setter
    def should_stop(self, value: bool) -> None:
        if value and not self._should_stop:
            self.stopped_by = _find_owner(sys._getframe(1))
        elif not value:
            self.stopped_by = None
        self._should_stop = bool(value)


def record_stops(trainer: Trainer) -> None:
    """Have a Trainer note the class of the callback or module that sets its `should_stop`, as `stopped_by`."""
    cls = type(trainer)
    trainer.__class__ = type(cls.__name__, (StopRecorder, cls), {"__module__": cls.__module__})


def describe_stop(trainer: Trainer) -> str | None:
    """Tell why training ended, or is to end, in the present epoch; None if nothing but its limits ends it."""
    name: str | None = getattr(trainer, "stopped_by", None)
    if name is None:
        return None
    callbacks: list[Callback] = trainer.callbacks  # type: ignore[attr-defined]  # Lightning gives it no type
    at = f"at epoch {trainer.current_epoch}"
    for callback in (callback for callback in callbacks if type(callback).__name__ == name):
        if isinstance(callback, EarlyStopping) and callback.stopping_reason is not EarlyStoppingReason.NOT_STOPPED:
            return f"early stopping {at}: {_explain(callback)}"
        if isinstance(callback, Timer):
            return f"stopped {at}: the time limit was reached (trainer.max_time, or the callback {name})"
    return f"stopped {at} by {name}"


def _explain(callback: EarlyStopping) -> str:
    is_exhausted = callback.stopping_reason is EarlyStoppingReason.PATIENCE_EXHAUSTED
    if is_exhausted and callback.wait_count >= callback.patience:  # else it has improved since, before `min_epochs`
        checks = "epoch" if callback._check_on_train_epoch_end else "validation"
        times = f"{callback.wait_count} {checks}{'s' * (callback.wait_count != 1)}"
        return f"{callback.monitor} did not improve for {times} (best: {float(callback.best_score):.4g})"
    return (callback.stopping_reason_message or "").removesuffix(" Signaling Trainer to stop.").rstrip(".")


def _find_owner(frame: FrameType | None) -> str:
    """Return the class of the innermost callback or module among the callers."""
    while frame is not None:
        names = frame.f_code.co_varnames[: frame.f_code.co_argcount]
        owner: Any = frame.f_locals.get(names[0]) if names else None
        if isinstance(owner, Callback | LightningModule):
            return type(owner).__name__
        frame = frame.f_back
    return _UNKNOWN
