"""One batch of training, from the loader's rows to the optimizer's step, in Lightning's order."""

import math
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from lightning.pytorch import Callback, LightningDataModule, LightningModule, Trainer
from lightning.pytorch.core.hooks import DataHooks
from lightning.pytorch.loops.fetchers import _DataFetcher, _DataLoaderIterDataFetcher
from lightning.pytorch.loops.optimization.automatic import ClosureResult
from lightning.pytorch.loops.training_epoch_loop import _TrainingEpochLoop
from lightning.pytorch.plugins.precision import HalfPrecision, MixedPrecision, Precision
from lightning.pytorch.profilers import PassThroughProfiler
from lightning.pytorch.strategies import SingleDeviceStrategy
from lightning.pytorch.utilities.signature_utils import is_param_in_hook_signature
from torch import Tensor

from litlab.data.loader import Batch
from litlab.errors import UserError

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


_LIGHTNINGS = (
    "backward",
    "configure_gradient_clipping",
    "lr_scheduler_step",
    "on_train_batch_start",  # which may end the epoch
    "optimizer_step",
    "optimizer_zero_grad",
)


def is_standard(trainer: Trainer, fetcher: _DataFetcher) -> bool:
    """Whether `Step` does all that Lightning would do.

    That is on one device, by automatic optimization, in a precision without a scaler, without a profiler, and with
    nothing overridden that Lightning wraps around optimizer and schedule.
    """
    module, precision = trainer.lightning_module, trainer.precision_plugin
    return (
        type(trainer.strategy) is SingleDeviceStrategy
        and type(precision) in (Precision, HalfPrecision, MixedPrecision)
        and getattr(precision, "scaler", None) is None
        and isinstance(trainer.profiler, Unprofiled)  # type: ignore[attr-defined]
        and not isinstance(fetcher, _DataLoaderIterDataFetcher)
        and module.automatic_optimization
        and len(trainer.optimizers) == 1
        and not trainer.fit_loop.epoch_loop.automatic_optimization._skip_backward
        and not trainer.fast_dev_run  # type: ignore[attr-defined]
        and not any(overrides(module, name, LightningModule) for name in _LIGHTNINGS)
    )


class Step:
    """The parts of a training step, with all that stays the same over an epoch looked up once."""

    def __init__(self, trainer: Trainer) -> None:
        self.hooks = Hooks(trainer)
        self.schedules = [each for each in trainer.lr_scheduler_configs if each.interval == "step"]
        self._trainer, self._module, self._device = trainer, trainer.lightning_module, trainer.strategy.root_device
        self._precision, self._optimizer = trainer.precision_plugin, trainer.optimizers[0]
        self._progress = trainer.fit_loop.epoch_loop.automatic_optimization.optim_progress.optimizer
        self._before_transfer, self._transfer, self._after_transfer = map(
            self._transfer_hook, ("on_before_batch_transfer", "transfer_batch_to_device", "on_after_batch_transfer")
        )
        plain = type(self._precision) is Precision  # others have a context around it
        self._training_step = self._module.training_step if plain else trainer.strategy.training_step
        self._takes_index = is_param_in_hook_signature(self._module.training_step, "batch_idx", min_args=2)

    def ready(self, batch: Any) -> Any:
        """The batch on the device, as the data hooks make it."""
        batch = self._precision.convert_input(batch)
        if self._before_transfer is not None:
            batch = self._before_transfer(batch, 0)
        if self._transfer is not None:
            batch = self._transfer(batch, self._device, 0)
        elif not _is_on(batch, self._device):
            batch = self._module.transfer_batch_to_device(batch, self._device, 0)
        return batch if self._after_transfer is None else self._after_transfer(batch, 0)

    def optimize(self, batch: Any, batch_idx: int, *, accumulates: bool) -> dict[str, Any]:
        """Forward, backward and, where gradients don't go on to accumulate, the optimizer's step.

        Returns what callbacks get as `outputs`.

        Raises:
            UserError: if the optimizer makes its step without the closure that it is given.
        """
        self._arguments = (batch, batch_idx) if self._takes_index else (batch,)
        self._batch_idx = batch_idx
        self._outputs: dict[str, Any] | None = None
        if accumulates:
            self._gradients()
        else:
            self._progress.step.increment_ready()
            self._optimizer.step(closure=self._closure)  # type: ignore[arg-type]  # torch's own pass tensors on
            self._progress.step.increment_completed()
        if self._outputs is None:
            raise UserError(
                f"{type(self._optimizer).__name__}.step(closure) did not call the closure, which computes the gradients"
            )
        return self._outputs

    def _closure(self) -> Tensor | None:
        loss = self._gradients()
        self.hooks.call("on_before_optimizer_step", self._optimizer)
        if (clip := self._trainer.gradient_clip_val) is not None:
            algorithm = self._trainer.gradient_clip_algorithm
            self._precision._clip_gradients(self._module, self._optimizer, clip, gradient_clip_algorithm=algorithm)
        return loss

    @torch.enable_grad()
    def _gradients(self) -> Tensor | None:
        attributes = vars(self._module)
        outer, attributes["_current_fx_name"] = attributes["_current_fx_name"], "training_step"
        output = self._training_step(*self._arguments)
        attributes["_current_fx_name"] = outer
        loss, self._outputs = _taken(output, self._trainer.accumulate_grad_batches)
        if self._batch_idx % self._trainer.accumulate_grad_batches == 0:
            self._zero_gradients()
        if loss is None:
            return None
        self.hooks.call("on_before_backward", loss)
        loss.backward()  # type: ignore[no-untyped-call]
        self.hooks.call("on_after_backward")
        return loss.detach()

    def _zero_gradients(self) -> None:
        progress = self._progress.zero_grad
        progress.increment_ready()
        self.hooks.call("on_before_zero_grad", self._optimizer)
        progress.increment_started()
        self._optimizer.zero_grad()
        progress.increment_completed()

    def _transfer_hook(self, name: str) -> Callable[..., Any] | None:
        """The data module's or the module's, whichever Lightning takes; None if neither has overridden it."""
        selector = self._trainer._data_connector._datahook_selector
        assert selector is not None
        owner: LightningDataModule | LightningModule = selector.get_instance(name)
        return getattr(owner, name) if overrides(owner, name, DataHooks) else None


def _taken(output: Any, num_accumulated: int) -> tuple[Tensor | None, dict[str, Any]]:
    """The loss to be differentiated, and what callbacks get, of what a `training_step` has returned."""
    if isinstance(output, Tensor) and num_accumulated == 1:  # Lightning divides by one and copies
        return output, {"loss": output.detach()}
    result = ClosureResult.from_training_step_output(output, num_accumulated)
    return result.closure_loss, {} if result.loss is None else result.asdict()


def _is_on(batch: Any, device: torch.device) -> bool:
    return isinstance(batch, Batch) and batch.images.device == batch.labels.device == batch.indices.device == device


class EpochLoop(_TrainingEpochLoop):
    """Trains on batch after batch, as far as nothing but training is due, without Lightning's machinery between them.

    Hooks, their order, counters, logging and results are Lightning's. What it can't do itself (`is_standard` names it),
    the first batch after a restart, and whatever comes between two batches besides, such as validations, it leaves to
    the loop that it comes in place of.
    """

    _step: Step | None = None

    @classmethod
    def put_into(cls, trainer: Trainer) -> None:
        """Takes the place of a new Trainer's own loop."""
        theirs = trainer.fit_loop.epoch_loop
        trainer.fit_loop.epoch_loop = cls(trainer, theirs.min_steps, theirs.max_steps)

    @property
    def global_step(self) -> int:
        """Optimizer steps done, asked for several times a step."""
        return super().global_step if self._step is None else self.automatic_optimization.optim_progress.optimizer_steps

    def on_run_start(self, data_fetcher: _DataFetcher) -> None:
        super().on_run_start(data_fetcher)
        self._step = Step(self.trainer) if is_standard(self.trainer, data_fetcher) else None
        self._looks_up_every = self._num_batches_between_events()

    def advance(self, data_fetcher: _DataFetcher) -> None:
        """Train on batches until something else may be due, which `on_advance_end` sees to.

        Raises:
            StopIteration: when there are no more batches.
        """
        if self._step is None or self.restarting:
            super().advance(data_fetcher)
            return
        self.val_loop.restarting = False
        while True:
            has_stepped = self._train_on_next(self._step, data_fetcher)
            if self._is_something_due():
                return
            self._batches_that_stepped += has_stepped

    def _train_on_next(self, step: Step, data_fetcher: _DataFetcher) -> bool:
        """Returns whether the optimizer has made a step, rather than that gradients are to be accumulated."""
        batch, _, _ = next(data_fetcher)
        progress, trainer = self.batch_progress, self.trainer
        batch_idx = self.batch_idx + 1
        progress.is_last_batch = data_fetcher.done
        batch = step.ready(batch)
        progress.increment_ready()
        self._results_start(batch)
        if not step.hooks.are_current():
            step = self._step = Step(trainer)
        is_last = self._num_ready_batches_reached()
        accumulates = progress.current.ready % trainer.accumulate_grad_batches != 0 and not is_last
        outputs = None
        if batch is None:  # Lightning leaves it out, and says so in these words
            self._warning_cache.warn("train_dataloader yielded None. If this was on purpose, ignore this warning...")
        else:
            step.hooks.call("on_train_batch_start", batch, batch_idx)
            progress.increment_started()
            outputs = step.optimize(batch, batch_idx, accumulates=accumulates)
        progress.increment_processed()
        if not accumulates:
            self._move_schedules(step)
        if is_last:
            self.update_lr_schedulers("epoch", update_plateau_schedulers=False)
        step.hooks.call("on_train_batch_end", outputs, batch, batch_idx)
        self._results_end()
        return not accumulates

    def _results_start(self, batch: Any) -> None:
        """What the logger connector does in `on_batch_start`."""
        connector, results = self.trainer._logger_connector, self._results
        connector._first_loop_iter = connector._first_loop_iter is None
        results.batch, results.batch_size, results.dataloader_idx = batch, None, None

    def _results_end(self) -> None:
        """What it does after a batch, if `self.log` was called; and that the batch is done."""
        connector, results = self.trainer._logger_connector, self._results
        if results:
            connector.on_batch_end()
        results.batch = results.batch_size = None
        self.batch_progress.increment_completed()
        if results:
            connector.update_train_step_metrics()

    def _move_schedules(self, step: Step) -> None:
        """All but those that wait for a metric; as `update_lr_schedulers` does it."""
        for config in step.schedules:
            if not config.reduce_on_plateau and self.batch_progress.current.ready % config.frequency == 0:
                self.scheduler_progress.increment_ready()
                config.scheduler.step()  # type: ignore[call-arg]  # that of plateaus alone takes more
                self.scheduler_progress.increment_completed()

    def _is_something_due(self) -> bool:
        ready = self.batch_progress.current.ready
        return (
            self._num_ready_batches_reached()
            or ready % self._looks_up_every == 0
            or self.trainer.should_stop
            or (self.max_steps != -1 and self.global_step >= self.max_steps)
        )

    def _num_batches_between_events(self) -> float:
        """After so many batches of the epoch each, `on_advance_end` is to look what is due; infinity for never."""
        trainer = self.trainer
        if (
            trainer.check_val_every_n_epoch is None
            or trainer.val_check_batch is None  # by the clock
            or any(each.reduce_on_plateau for each in trainer.lr_scheduler_configs)
            or (trainer.val_check_batch == math.inf and isinstance(trainer.limit_train_batches, int))
        ):
            return 1
        return float(trainer.val_check_batch)
