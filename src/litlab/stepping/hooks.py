"""The hooks of a training step that somebody has overridden, found once instead of at every step."""

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.profilers import PassThroughProfiler

STEP_HOOKS = (
    "on_train_batch_start",
    "on_before_zero_grad",
    "on_before_backward",
    "on_after_backward",
    "on_before_optimizer_step",
    "on_train_batch_end",
)
_NOTHING = nullcontext()


class Unprofiled(PassThroughProfiler):
    """No profiler. Lightning asks for one at every hook; its own, a generator each time, takes 4 times as long."""

    def profile(self, action_name: str) -> AbstractContextManager[None]:  # type: ignore[override]
        return _NOTHING


class Hooks:
    """Calls `STEP_HOOKS` as Lightning does: those of the callbacks, in their order, then the module's.

    Hooks that nobody has overridden are left out. So are those that are set on an object while an epoch runs.
    """

    def __init__(self, trainer: Trainer) -> None:
        self._trainer, self._module = trainer, trainer.lightning_module
        self._callbacks = list(_callbacks(trainer))
        self._calls = {name: self._find(name) for name in STEP_HOOKS}

    def are_current(self) -> bool:
        """Whether the Trainer has the callbacks that it had; some add others while they run."""
        return self._callbacks == _callbacks(self._trainer)

    def call(self, name: str, *arguments: Any) -> None:
        """Calls all hooks of this name; `self.log` knows within them which one it is called in."""
        of_callbacks, of_module = self._calls[name]
        if not of_callbacks and of_module is None:
            return
        attributes = vars(self._module)  # to set one of a module takes longer
        outer, attributes["_current_fx_name"] = attributes["_current_fx_name"], name
        for hook in of_callbacks:
            hook(self._trainer, self._module, *arguments)
        if of_module is not None:
            of_module(*arguments)
        attributes["_current_fx_name"] = outer

    def _find(self, name: str) -> tuple[list[Callable[..., Any]], Callable[..., Any] | None]:
        of_callbacks = [getattr(each, name) for each in self._callbacks if overrides(each, name, Callback)]
        of_module = getattr(self._module, name) if overrides(self._module, name, LightningModule) else None
        return of_callbacks, of_module


def overrides(each: object, name: str, base: type) -> bool:
    """Whether an object has a method of its own in place of its base class's."""
    return name in vars(each) or getattr(type(each), name) is not getattr(base, name)


def _callbacks(trainer: Trainer) -> list[Callback]:
    callbacks: list[Callback] = trainer.callbacks  # type: ignore[attr-defined]  # Lightning gives it no type
    return callbacks
