"""Checkpoints of a run: at intervals, at the best validation, on a stop request and at the end of the training."""

import logging
import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.trainer.states import TrainerFn
from torch import nn
from torch.optim import Optimizer

from litlab.callbacks.divergence import Divergence
from litlab.callbacks.training_log import Timing
from litlab.config.targets import find_callback_problem
from litlab.config.tree import did_you_mean
from litlab.errors import UserError
from litlab.optim.schedule_factory import check_intervals, step_plateaus
from litlab.process.signals import Stopped, StopRequest
from litlab.runs.append_only_files import appended_lengths, sync_appended
from litlab.runs.directory import RunDirectory
from litlab.runs.files import hard_link
from litlab.tasks.logged_metrics import logged_values
from litlab.training.loader_state import LoaderState
from litlab.training.module_state import add_parameter_groups, is_wrapped_by_ddp, reduce_trainable_gradients
from litlab.training.train_state import Hook, TrainState, restore_epoch_state, restore_train_state, state_of_rank
from litlab.training.unsaved_state import UnsavedState

MIN_EPOCH_SECONDS = 1.0  # an epoch that ends sooner after a checkpoint is not saved at its end
REDUCE_SECONDS = 0.25  # intended time between two reductions over ranks
MAX_REDUCE_BATCHES = 64
MAX_NAMES = 5  # of attributes or parameters in a message
_log = logging.getLogger("litlab")


class Checkpoints(Callback):
    """Save `last.ckpt`, the one before as `previous.ckpt` and the best as `best.ckpt`; restore what Lightning does not.

    This callback comes first and saves between two optimizer steps: before the first batch of the next one, or before
    a validation. There, all logged values belong to steps that are done, and no gradients are in flight. A stop within
    a validation saves the state from before it, and the validation is repeated.

    Args:
        run: Directory of the run.
        stop: Stop request of this process.
        every_steps: Optimizer steps between checkpoints, besides those at the end of each epoch; or None.
        every_minutes: Minutes between them, or None.
        metadata: Further entries of a checkpoint's `litlab` part.
        best: Objective, or None without one.
        timing: Clock of the training, which continues from the checkpoint; it has to be added to the callbacks, too.
        divergence: Check of weights and loss, added to the callbacks as well.
        saved: `litlab` part of the checkpoint that the run resumes from, or None for a new run.
        note: Prints a note for the user.

    Attributes:
        timing: Clock of the training.
        divergence: Check of weights and loss.
        seconds: Seconds that saving took.
    """

    def __init__(
        self,
        *,
        run: RunDirectory,
        stop: StopRequest,
        every_steps: int | None,
        every_minutes: float | None,
        metadata: dict[str, Any],
        best: "BestTracker | None",
        timing: Timing,
        divergence: Divergence,
        saved: dict[str, Any] | None,
        note: Callable[[str], None],
    ) -> None:
        self.seconds = 0.0
        self.timing, self.divergence = timing, divergence
        self._run, self._stop, self._metadata, self._best = run, stop, metadata, best
        self._every_steps, self._every_minutes = every_steps, every_minutes
        self._maximum = RankMaximum()
        self._saved = saved  # None as soon as it is restored
        self._saving: TrainState | None = None
        self._validation: TrainState | None = None
        self._loaders = LoaderState()
        self._unsaved: UnsavedState | None = UnsavedState()  # None as soon as the user knows
        self._note = note
        self._saved_step: int | None = None
        self._trained: frozenset[str] = frozenset()  # parameters whose gradients DDP averages over ranks
        self._frozen: dict[str, nn.Parameter] = {}  # all others
        self._is_first_step = True
        self._saved_time = time.monotonic()
        self._new_best = False
        if saved is not None:
            self.seconds, self._saved_step = saved["seconds_saving"], saved["step"]
            timing.clock.set_state(saved["training"])
            divergence.set_state(saved.get("losses", {}))
            if best is not None and saved["best"] is not None:
                best.set_state(saved["best"])

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Check the callbacks, of which the module may have added some; name a folder for checkpoints of their own.

        Lightning's default is the folder of litlab's checkpoints.

        Raises:
            UserError: No run can have one of them, for example since it could not be resumed exactly.
        """
        for callback in trainer.callbacks:  # type: ignore[attr-defined]  # Lightning gives it no type
            if problem := find_callback_problem(type(callback)):
                raise UserError(problem)
            if isinstance(callback, ModelCheckpoint) and callback.dirpath is None:
                callback.dirpath = str(self._run.path / "model_checkpoints")

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Have the parameter groups of the checkpoint added after all hooks, which may add some of them again.

        Raises:
            UserError: The module steps its schedule in another way than the config says.
        """
        check_intervals(trainer)
        self._record_trained(pl_module)  # here, since DDP has just wrapped the task
        rank = None
        if self._saved is not None:
            groups, load = self._saved["groups"], trainer.strategy.load_optimizer_state_dict

            def add_groups_and_load(checkpoint: Mapping[str, Any]) -> None:
                add_parameter_groups(groups, trainer, pl_module)
                load(checkpoint)

            trainer.strategy.load_optimizer_state_dict = add_groups_and_load  # type: ignore[method-assign]
            rank = state_of_rank(self._saved, trainer, pl_module)
        self._loaders.record_creation(trainer, rank)

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Start the loaders where the run resumes.

        Raises:
            UserError: The ranks do not resume from the same step, or the checkpoint changed meanwhile.
        """
        self._saved_time = time.monotonic()
        self._is_first_step = True
        self._check_saved_step(trainer)
        if self._saved is None:
            self._loaders.start(trainer)
        else:
            rank = state_of_rank(self._saved, trainer, pl_module)
            self._loaders.resume(trainer, self._saved, rank)
            if (
                self._saved["hook"] == "on_validation_start"
            ):  # before that hook, Lightning looks whether an epoch begins
                trainer._logger_connector._first_loop_iter = rank["log"]["first_batch"]

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Record the loaders' random states of the epoch; restore what an epoch starts with after a finished fit."""
        if self._saved is not None and self._saved["hook"] == "on_fit_end":
            restore_epoch_state(self._saved, trainer, pl_module)
        if trainer.current_epoch > 0 and not trainer.fit_loop.is_resuming:  # before that, the loaders were started
            self._loaders.start_epoch(trainer)

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        """Restore the saved state; save, if a checkpoint is due; stop, if requested.

        Raises:
            Stopped: A stop was requested.
        """
        if self._saved is not None:
            self._restore(trainer, pl_module)
        if self._unsaved is not None:
            self._unsaved.start_step(trainer, pl_module)
        first = batch_idx == 0
        if trainer.world_size > 1 and (first or self._is_first_step):
            self._reduce_gradients(trainer, pl_module)
        self._is_first_step = False
        if batch_idx % trainer.accumulate_grad_batches:
            return
        signum, late = self._maximum(trainer, self._stop.pending(), self._is_late(first), now=first)
        is_due = self._every_steps is not None and trainer.global_step % self._every_steps == 0
        if signum or late or is_due or self._new_best:
            if self._new_best or trainer.global_step != (self._saved_step or 0):
                self._save(trainer, self._capture(trainer, pl_module, "on_train_batch_start"))
            if signum:
                raise Stopped(signum, self._saved_step)

    def on_before_optimizer_step(self, trainer: Trainer, pl_module: LightningModule, optimizer: Optimizer) -> None:
        """Check that DDP averages the gradients of all parameters that are trained, or ranks would differ from now on.

        Raises:
            UserError: A callback or the module unfroze some within the epoch.
        """
        if self._frozen and is_wrapped_by_ddp(trainer.strategy):
            unfrozen = [name for name, parameter in self._frozen.items() if parameter.requires_grad]
            if unfrozen:
                raise UserError(
                    f"{_listed(unfrozen)}: unfrozen within epoch {trainer.current_epoch + 1}, but on several devices "
                    "DDP averages only gradients of parameters that are trained from the start of the epoch on; "
                    "unfreeze them in on_train_epoch_start"
                )

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Keep the state from before the validation."""
        if trainer.state.fn != TrainerFn.FITTING or trainer.sanity_checking:
            return
        if self._saved is not None:
            self._restore(trainer, pl_module)
        if not trainer.fit_loop._should_accumulate():  # else gradients are in flight
            self._validation = self._capture(trainer, pl_module, "on_validation_start")
            self._weights = _weight_norms(pl_module)

    def on_validation_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int, dataloader_idx: int = 0
    ) -> None:
        """Save the state from before the validation and stop, if requested.

        Raises:
            Stopped: A stop was requested, and the weights are those of the training.
        """
        if self._validation is None:
            return
        (signum,) = self._maximum(trainer, self._stop.pending())
        if signum and self._has_training_weights(trainer, pl_module):  # else it stops after the validation
            if trainer.global_step != self._saved_step:
                self._save(trainer, self._validation)
            raise Stopped(signum, self._saved_step)

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Step the schedules that follow the objective; save the best weights, or mark them to be saved.

        Raises:
            UserError: The objective was not logged.
        """
        if trainer.state.fn != TrainerFn.FITTING or trainer.sanity_checking:
            return
        in_flight, self._validation = self._validation is None, None
        if self.divergence.is_final:
            return
        if self._best is None:
            return
        metrics = self._validation_metrics(trainer)
        improved = self._best.improved(metrics, trainer.global_step)
        step_plateaus(trainer, metrics[self._best.metric])
        if improved:
            if in_flight:  # this state cannot be resumed from, and the next step changes the weights
                trainer.save_checkpoint(self._run.best, weights_only=True)
            else:
                self._new_best = True

    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Save the final state."""
        self._save(trainer, self._capture(trainer, pl_module, "on_fit_end"))

    def on_test_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int, dataloader_idx: int = 0
    ) -> None:
        """Stop, if requested.

        Raises:
            Stopped: A stop was requested.
        """
        (signum,) = self._maximum(trainer, self._stop.pending())
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
        """Add litlab's part to a checkpoint of this callback."""
        if self._saving is None:  # saved by another callback
            return
        part = self._saving.add_to(checkpoint, trainer)
        part["best"] = self._best.state() if self._best is not None and self._best.step is not None else None
        part["training"] = self.timing.clock.state()
        part["losses"] = self.divergence.state()
        part["diverged"] = self.divergence.reason if self._saving.hook == "on_fit_end" else None
        part["seconds_saving"] = self.seconds
        part |= self._metadata
        if trainer.is_global_zero:
            sync_appended(self._run.path)

    def _reduce_gradients(self, trainer: Trainer, task: LightningModule) -> None:
        """Have the gradients of unfrozen parameters averaged over ranks, too."""
        before = self._trained
        self._record_trained(task)
        if self._trained != before:
            reduce_trainable_gradients(trainer)

    def _record_trained(self, task: LightningModule) -> None:
        parameters = dict(task.named_parameters())
        self._frozen = {name: parameter for name, parameter in parameters.items() if not parameter.requires_grad}
        self._trained = frozenset(parameters.keys() - self._frozen.keys())

    def _check_saved_step(self, trainer: Trainer) -> None:
        step = self._saved["step"] if self._saved is not None else 0
        steps = torch.tensor([step, -step], dtype=torch.float64, device=trainer.strategy.root_device)
        highest, negated_lowest = trainer.strategy.reduce(steps, reduce_op="max").tolist()
        if highest != -negated_lowest or trainer.global_step != step:
            raise UserError(
                "the checkpoint changed while the run was started, or not all ranks see the same one in "
                f"{self._run.checkpoints}; start it again, on a file system that they share"
            )

    def _validation_metrics(self, trainer: Trainer) -> dict[str, float]:
        """Collect what was logged in this validation, and the objective as rank zero has it, equal on all ranks."""
        assert self._best is not None
        objective = self._best.metric
        values = logged_values(trainer, objective)
        if trainer.world_size > 1 and objective in values:
            value = values[objective] if trainer.is_global_zero else 0.0
            local = torch.tensor(value, device=trainer.strategy.root_device)
            values[objective] = float(trainer.strategy.reduce(local, reduce_op="sum"))
        return values

    def _has_training_weights(self, trainer: Trainer, task: LightningModule) -> bool:
        """Tell whether a callback validates other weights, such as averages. All ranks have to call it."""
        before, now = self._weights.nan_to_num(), _weight_norms(task).nan_to_num()  # diverged weights are the same, too
        same = torch.tensor(float(torch.equal(before, now)), device=trainer.strategy.root_device)
        return bool(trainer.strategy.reduce(same, reduce_op="min"))

    def _capture(self, trainer: Trainer, task: LightningModule, hook: Hook) -> TrainState:
        sizes = {}
        if trainer.is_global_zero:
            for logger in trainer.loggers:
                logger.save()
            sizes = appended_lengths(self._run.path)
        if self._unsaved is not None and hook != "on_fit_end":
            self._unsaved.update(trainer, task)
        if hook == "on_fit_end" and self._loaders.random_states is not None:
            self._loaders.start_epoch(trainer)  # which a longer training would start here
        return TrainState.capture(trainer, task, hook, loaders=self._loaders, sizes=sizes)

    def _restore(self, trainer: Trainer, task: LightningModule) -> None:
        assert self._saved is not None
        restore_train_state(self._saved, trainer, task)
        self._saved = None

    def _is_late(self, first_batch: bool) -> int:
        """Tell by this rank's clock whether a checkpoint is due, at the first batch of an epoch or another one."""
        minutes, seconds = self._every_minutes, time.monotonic() - self._saved_time
        return int((first_batch and seconds >= MIN_EPOCH_SECONDS) or (minutes is not None and seconds >= 60 * minutes))

    def _save(self, trainer: Trainer, state: TrainState) -> None:
        started = time.perf_counter()
        self._saving = state
        try:
            trainer.save_checkpoint(self._run.last, weights_only=False, storage_options=self._run.previous)
        finally:
            self._saving = None
        if self._new_best and trainer.is_global_zero:  # the weights have not changed since they were validated
            hard_link(self._run.last, self._run.best)
        self._new_best = False
        if self._unsaved is not None and self._unsaved.changed and state.hook != "on_fit_end":
            if trainer.is_global_zero:
                self._note(_describe_unsaved(self._unsaved.changed))
            self._unsaved = None
        self._saved_step, self._saved_time = state.step, time.monotonic()
        seconds = time.perf_counter() - started
        self.seconds += seconds
        _log.info("saved step %d in %.1f ms", state.step, 1000 * seconds)


class RankMaximum:
    """Maximum over all ranks of values that a single rank knows first: a signal, a clock that ran out.

    All ranks call it at the same batches. As each reduction takes a round of messages, values are reduced only every
    few batches, about four times a second.
    """

    def __init__(self) -> None:
        self._num_batches = 1  # between two reductions
        self._num_left = 1
        self._last_time = time.monotonic()

    def __call__(self, trainer: Trainer, *values: int, now: bool = False) -> tuple[int, ...]:
        """Reduce values that are 0 while there is nothing to tell.

        Args:
            trainer: Trainer of this rank.
            values: Values of this rank.
            now: Reduce at this batch in any case.

        Returns:
            Maximum of each value over all ranks, or zeros if this batch has no reduction.
        """
        if trainer.world_size == 1:
            return values
        self._num_left -= 1
        if self._num_left and not now:
            return (0,) * len(values)
        time_now = time.monotonic()
        local = torch.tensor(
            [*values, time_now - self._last_time], dtype=torch.float32, device=trainer.strategy.root_device
        )
        *maxima, seconds = trainer.strategy.reduce(local, reduce_op="max").tolist()
        if seconds < REDUCE_SECONDS:
            self._num_batches = min(2 * self._num_batches, MAX_REDUCE_BATCHES)
        else:
            self._num_batches = max(1, self._num_batches // 2)
        self._num_left, self._last_time = self._num_batches, time_now
        return tuple(int(maximum) for maximum in maxima)


@dataclass
class BestTracker:
    """Best validation so far, by the objective.

    Attributes:
        metric: Name of the objective's metric.
        mode: `max` or `min`.
        value: Best value, the first of equals; None before the first.
        step: Number of optimizer steps at the best value.
        metrics: All metrics that were logged in that validation, by name.
    """

    metric: str
    mode: str
    value: float | None = None
    step: int | None = None
    metrics: dict[str, float] = field(default_factory=dict)

    def improved(self, metrics: Mapping[str, float], step: int) -> bool:
        """Update with a validation and tell whether it is the best so far; NaN and infinity never are.

        Args:
            metrics: Metrics of the validation, by name.
            step: Number of optimizer steps.

        Raises:
            UserError: The objective is not among the metrics.
        """
        if self.metric not in metrics:
            remedy = "start a new run with one of these" if metrics else "log it by self.log in validation_step"
            raise UserError(
                f"objective.metric={self.metric}: was not logged in validation{did_you_mean(self.metric, metrics)}; "
                f"logged: {', '.join(metrics) or 'nothing'}. A resumed run keeps its objective: {remedy}"
            )
        value = metrics[self.metric]
        if not math.isfinite(value):
            return False
        improved = self.value is None or (value > self.value if self.mode == "max" else value < self.value)
        if improved:
            self.value, self.step, self.metrics = value, step, dict(metrics)
        return improved

    def state(self) -> dict[str, Any]:
        """Return the best so far for a checkpoint."""
        return {"value": self.value, "step": self.step, "metrics": self.metrics}

    def set_state(self, state: dict[str, Any]) -> None:
        """Restore the best of `state`."""
        self.value, self.step, self.metrics = state["value"], state["step"], state["metrics"]


def _describe_unsaved(names: list[str]) -> str:
    return (
        f"{_listed(names)}: changed in training, but not in checkpoints, so a stopped and resumed run would end "
        "differently; save such state by get_extra_state and set_extra_state of the module, or by state_dict and "
        "load_state_dict of the data module (docs/resuming.md, State of your own)"
    )


def _listed(names: list[str]) -> str:
    return ", ".join(names[:MAX_NAMES]) + f" and {len(names) - MAX_NAMES} more" * (len(names) > MAX_NAMES)


def _weight_norms(task: LightningModule) -> torch.Tensor:
    """Compute the norm of each floating-point parameter; for a validation, DDP copies the buffers of rank zero."""
    tensors = [parameter.detach() for parameter in task.parameters() if parameter.is_floating_point()]
    return torch.stack([norm.double() for norm in torch._foreach_norm(tensors)]) if tensors else torch.zeros(0)
