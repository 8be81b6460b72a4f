"""Keeps the state of a run on disk: when it is due, when the run is asked to stop, when it fails, and at its end."""

import logging
import math
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.trainer.states import TrainerFn

from litlab.callbacks.training_log import Timing
from litlab.errors import UserError
from litlab.process.signals import Stopped, StopRequest
from litlab.runs.directory import RunDirectory
from litlab.runs.files import link, sizes
from litlab.training.state import Hook, LoaderState, TrainState, restore_train_state, state_of_rank

SOON = 0.25  # seconds between two agreements that are aimed at
MOST = 64  # batches


class Agreement:
    """Brings together what single ranks know: a signal that came, a clock that ran out.

    All ranks ask at the same batches. Each agreement costs a round of messages, so they come to one every so many
    batches only, as many as take about a quarter of a second.
    """

    def __init__(self) -> None:
        self._every = 1
        self._left = 1
        self._since = time.monotonic()

    def __call__(self, trainer: Trainer, *wishes: int, now: bool = False) -> tuple[int, ...]:
        """The largest wish of any rank, for each kind of wish; zeros between two agreements, unless it is to be `now`.

        One rank gets its own wishes.
        """
        if trainer.world_size == 1:
            return wishes
        self._left -= 1
        if self._left and not now:
            return (0,) * len(wishes)
        moment = time.monotonic()
        mine = torch.tensor([*wishes, moment - self._since], dtype=torch.float32, device=trainer.strategy.root_device)
        *agreed, seconds = trainer.strategy.reduce(mine, reduce_op="max").tolist()
        self._every = min(2 * self._every, MOST) if seconds < SOON else max(1, self._every // 2)
        self._left, self._since = self._every, moment
        return tuple(int(each) for each in agreed)


@dataclass
class Best:
    """Attributes:
    metric, mode: the objective: what is compared, and whether `max` or `min` is better.
    value, step: the best so far, the first of equals, and the optimizer step it was measured at; None before it.
    metrics: all values that were logged in that validation.
    """

    metric: str
    mode: str
    value: float | None = None
    step: int | None = None
    metrics: dict[str, float] = field(default_factory=dict)

    def improved(self, measured: Mapping[str, Any], step: int, logged: Mapping[str, float] | None = None) -> bool:
        """Take in a validation's values, and tell whether it is the best; one that is no number never is.

        Args:
            measured: All values known after a validation.
            step: Optimizer steps done.
            logged: Those of them that were logged in this validation; None for all.

        Raises:
            UserError: If the metric is not among the measured ones.
        """
        if self.metric not in measured:
            raise UserError(
                f"objective.metric={self.metric}: was not logged in validation; "
                f"logged: {', '.join(measured) or 'nothing'}"
            )
        value = float(measured[self.metric])
        if math.isnan(value):
            return False
        better = self.value is None or (value > self.value if self.mode == "max" else value < self.value)
        if better:
            self.value, self.step = value, step
            self.metrics = dict(measured if logged is None else logged)
        return better

    def state(self) -> dict[str, Any]:
        return {"value": self.value, "step": self.step, "metrics": self.metrics}

    def set_state(self, state: dict[str, Any]) -> None:
        self.value, self.step, self.metrics = state["value"], state["step"], state["metrics"]


EPOCH_SECONDS = 1.0  # an epoch that ends sooner after a save is not saved at its end
_log = logging.getLogger("litlab")


@dataclass(frozen=True)
class When:
    """Besides the end of each epoch; None: not by this."""

    every_steps: int | None
    every_minutes: float | None


class Checkpoints(Callback):
    """Saves `last.ckpt`, keeps the one before, names the best `best.ckpt`; restores what Lightning does not.

    It comes first of all callbacks, and saves between two optimizer steps: before the first batch of the next one, or
    before a validation. There, everything that was logged belongs to the steps done, and nothing is in flight that a
    checkpoint could not hold. A stop within a validation saves the state from before it; it is repeated.

    Attributes:
        timing: the clock of the training, which goes on from what it was; to be added to the callbacks after this one.
        seconds: that saving took.
    """

    def __init__(
        self,
        *,
        run: RunDirectory,
        stop: StopRequest,
        when: When,
        facts: dict[str, Any],
        best: Best | None,
        timing: Timing,
        restored: dict[str, Any] | None,
    ) -> None:
        self.seconds = 0.0
        self._run, self._stop, self._when, self._facts, self.timing = run, stop, when, facts, timing
        self._best = best
        self._agreed = Agreement()
        self._restored = restored
        self._saving: TrainState | None = None
        self._validation: TrainState | None = None
        self._loaders = LoaderState()
        self._saved_step: int | None = None
        self._saved_time = time.monotonic()
        self._new_best = False
        if restored is not None:
            self.seconds, self._saved_step = restored["seconds_saving"], restored["step"]
            timing.clock.set_state(restored["training"])
            if best is not None and restored["best"] is not None:
                best.set_state(restored["best"])

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._saved_time = time.monotonic()
        self._check_start(trainer)
        if self._restored is None:
            self._loaders.start(trainer)
        else:
            self._loaders.resume(trainer, self._restored, state_of_rank(self._restored, trainer, pl_module))

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if trainer.current_epoch > 0 and not trainer.fit_loop.is_resuming:  # before that, the loaders were started
            self._loaders.start_epoch(trainer)

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        if self._restored is not None:
            self._restore(trainer, pl_module)
        if batch_idx % trainer.accumulate_grad_batches:
            return
        first = batch_idx == 0
        signum, late = self._agreed(trainer, self._stop.pending(), self._is_late(first), now=first)
        if signum or late or self._is_due(trainer.global_step):
            if self._new_best or trainer.global_step != (self._saved_step or 0):
                self._save(trainer, self._capture(trainer, pl_module, "on_train_batch_start"))
            if signum:
                raise Stopped(signum, self._saved_step)

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if trainer.state.fn != TrainerFn.FITTING or trainer.sanity_checking:
            return
        if self._restored is not None:
            self._restore(trainer, pl_module)
        if not trainer.fit_loop._should_accumulate():  # else gradients are in flight
            self._validation = self._capture(trainer, pl_module, "on_validation_start")
            self._weights = _weight_norms(pl_module)

    def on_validation_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int, dataloader_idx: int = 0
    ) -> None:
        if self._validation is None:
            return
        (signum,) = self._agreed(trainer, self._stop.pending())
        if signum and self._has_training_weights(trainer, pl_module):  # else it stops after the validation
            if trainer.global_step != self._saved_step:
                self._save(trainer, self._validation)
            raise Stopped(signum, self._saved_step)

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if trainer.state.fn != TrainerFn.FITTING or trainer.sanity_checking:
            return
        in_flight, self._validation = self._validation is None, None
        if self._best is not None and self._best.improved(*self._measured(trainer)):
            if in_flight:  # nothing can go on from here, and the next step changes the weights
                trainer.save_checkpoint(self._run.best, weights_only=True)
            else:
                self._new_best = True

    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._save(trainer, TrainState.capture(trainer, pl_module, "on_fit_end", None))

    def on_test_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int, dataloader_idx: int = 0
    ) -> None:
        (signum,) = self._agreed(trainer, self._stop.pending())
        if signum:
            raise Stopped(signum, self._saved_step)

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Save the state from before a failed validation; add the step that the run resumes from to the error."""
        if not isinstance(exception, Exception) or isinstance(exception, OSError):
            return
        state, self._validation = self._validation, None
        if state is not None and state.step != (self._saved_step or 0) and trainer.world_size == 1:
            try:
                if self._has_training_weights(trainer, pl_module):
                    self._save(trainer, state)
            except Exception as failure:
                exception.add_note(f"(the state before this validation could not be saved: {failure})")
        if self._saved_step:
            exception.add_note(f"(the last checkpoint is of step {self._saved_step}; `litlab resume` continues there)")

    def on_save_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        if self._saving is None:  # by somebody else
            return
        part = self._saving.add_to(checkpoint, trainer)
        part["best"] = self._best.state() if self._best is not None and self._best.step is not None else None
        part["training"] = self.timing.clock.state()
        part["seconds_saving"] = self.seconds
        part |= self._facts
        if trainer.is_global_zero:
            for logger in trainer.loggers:
                logger.save()
            part["sizes"] = sizes(self._run.path)

    def _check_start(self, trainer: Trainer) -> None:
        """
        Raises:
            UserError: if not all ranks go on from the same step, or the file was changed since it was looked at.
        """
        step = self._restored["step"] if self._restored is not None else 0
        ends = torch.tensor([step, -step], dtype=torch.float64, device=trainer.strategy.root_device)
        most, least = trainer.strategy.reduce(ends, reduce_op="max").tolist()
        if most != -least or trainer.global_step != step:
            raise UserError(
                "the checkpoint changed while the run was started, or not all ranks see the same one in "
                f"{self._run.checkpoints}; start it again, on a file system that they share"
            )

    def _measured(self, trainer: Trainer) -> tuple[dict[str, float], int, dict[str, float]]:
        """Collect the arguments of `Best.improved`.

        The objective is that of rank zero, or ranks would decide differently.
        """
        values = {name: float(value) for name, value in trainer.callback_metrics.items()}
        assert self._best is not None
        if trainer.world_size > 1 and (value := values.get(self._best.metric)) is not None:
            mine = torch.tensor(value if trainer.is_global_zero else 0.0, device=trainer.strategy.root_device)
            values[self._best.metric] = float(trainer.strategy.reduce(mine, reduce_op="sum"))
        logged = trainer._logger_connector.metrics["callback"]  # in this validation; the others are older
        return values, trainer.global_step, {name: values[name] for name in logged if name in values}

    def _has_training_weights(self, trainer: Trainer, task: LightningModule) -> bool:
        """Callbacks may validate other weights, such as averages, in place of those that are trained. All ranks ask."""
        same = torch.tensor(float(torch.equal(self._weights, _weight_norms(task))), device=trainer.strategy.root_device)
        return bool(trainer.strategy.reduce(same, reduce_op="min"))

    def _capture(self, trainer: Trainer, task: LightningModule, hook: Hook) -> TrainState:
        return TrainState.capture(trainer, task, hook, self._loaders.random_states)

    def _restore(self, trainer: Trainer, task: LightningModule) -> None:
        assert self._restored is not None
        restore_train_state(self._restored, trainer, task)
        self._restored = None

    def _is_late(self, first: bool) -> int:
        """Whether it is time, by this rank's clock: `first` of an epoch, or in its middle."""
        minutes, seconds = self._when.every_minutes, time.monotonic() - self._saved_time
        return int((first and seconds >= EPOCH_SECONDS) or (minutes is not None and seconds >= 60 * minutes))

    def _is_due(self, step: int) -> bool:
        every_steps = self._when.every_steps
        return self._new_best or (every_steps is not None and step % every_steps == 0)

    def _save(self, trainer: Trainer, state: TrainState) -> None:
        started = time.perf_counter()
        self._saving = state
        try:
            trainer.save_checkpoint(self._run.last, weights_only=False, storage_options=self._run.previous)
        finally:
            self._saving = None
        if self._new_best and trainer.is_global_zero:  # the weights have not changed since they were validated
            link(self._run.last, self._run.best)
        self._new_best = False
        self._saved_step, self._saved_time = state.step, time.monotonic()
        seconds = time.perf_counter() - started
        self.seconds += seconds
        _log.info("saved step %d in %.1f ms", state.step, 1000 * seconds)


def _weight_norms(task: LightningModule) -> torch.Tensor:
    """Compute the norm of each floating-point parameter, to see changes.

    Buffers are left out: for a validation, DDP copies those of rank zero.
    """
    tensors = [parameter.detach() for parameter in task.parameters() if parameter.is_floating_point()]
    return torch.stack([norm.double() for norm in torch._foreach_norm(tensors)]) if tensors else torch.zeros(0)
