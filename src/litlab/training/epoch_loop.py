"""Drop-in training epoch loop with cached hook lookup: same results as Lightning's, less overhead per step."""

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
# Methods that Lightning wraps around optimizer and schedule; `on_train_batch_start` of a module may end the epoch.
_UNSUPPORTED_OVERRIDES = (
    "backward",
    "configure_gradient_clipping",
    "lr_scheduler_step",
    "on_train_batch_start",
    "optimizer_step",
    "optimizer_zero_grad",
)
_NO_CONTEXT = nullcontext()


class EpochLoop(_TrainingEpochLoop):
    """Epoch loop that trains on one batch after the other, as long as nothing but training is due.

    Hooks, their order, counters, logging and results are Lightning's. The loop that it inherits from runs the first
    batch after a restart, whatever comes between two batches, such as validations, and every step in a setting that
    `is_supported` rejects.
    """

    _step: "TrainingStep | None" = None

    @classmethod
    def install(cls, trainer: Trainer) -> None:
        """Replace the epoch loop of a new Trainer."""
        replaced = trainer.fit_loop.epoch_loop
        trainer.fit_loop.epoch_loop = cls(trainer, replaced.min_steps, replaced.max_steps)

    @property
    def global_step(self) -> int:
        """Number of optimizer steps; read several times a step."""
        return super().global_step if self._step is None else self.automatic_optimization.optim_progress.optimizer_steps

    def on_run_start(self, data_fetcher: _DataFetcher) -> None:
        """Look up what stays the same over the epoch."""
        super().on_run_start(data_fetcher)
        self._step = TrainingStep(self.trainer) if is_supported(self.trainer, data_fetcher) else None
        self._check_interval = self._num_batches_between_events()

    def advance(self, data_fetcher: _DataFetcher) -> None:
        """Train on batches until `on_advance_end` may have something to do.

        Raises:
            StopIteration: When there are no more batches.
        """
        if self._step is None or self.restarting:
            super().advance(data_fetcher)
            return
        self.val_loop.restarting = False
        while True:
            has_stepped = self._train_on_next_batch(self._step, data_fetcher)
            if self._is_something_due():
                return
            self._batches_that_stepped += has_stepped

    def _train_on_next_batch(self, step: "TrainingStep", data_fetcher: _DataFetcher) -> bool:
        """Train on a batch; return whether the optimizer made a step, and did not only accumulate gradients."""
        batch, _, _ = next(data_fetcher)
        progress, trainer = self.batch_progress, self.trainer
        batch_idx = self.batch_idx + 1
        progress.is_last_batch = data_fetcher.done
        batch = step.prepare(batch)
        progress.increment_ready()
        self._start_results(batch)
        if not step.hooks.are_current():
            step = self._step = TrainingStep(trainer)
        is_last = self._num_ready_batches_reached()
        accumulates = progress.current.ready % trainer.accumulate_grad_batches != 0 and not is_last
        outputs = None
        if batch is None:  # Lightning skips it with this warning
            self._warning_cache.warn("train_dataloader yielded None. If this was on purpose, ignore this warning...")
        else:
            step.hooks.call("on_train_batch_start", batch, batch_idx)
            progress.increment_started()
            outputs = step.optimize(batch, batch_idx, accumulates=accumulates)
        progress.increment_processed()
        if not accumulates:
            self._step_schedules(step)
        if is_last:
            self.update_lr_schedulers("epoch", update_plateau_schedulers=False)
        step.hooks.call("on_train_batch_end", outputs, batch, batch_idx)
        self._end_results()
        return not accumulates

    def _start_results(self, batch: Any) -> None:
        """Do what the logger connector does in `on_batch_start`."""
        connector, results = self.trainer._logger_connector, self._results
        connector._first_loop_iter = connector._first_loop_iter is None
        results.batch, results.batch_size, results.dataloader_idx = batch, None, None

    def _end_results(self) -> None:
        """Complete the batch, and do what the logger connector does after one, if `self.log` was called."""
        connector, results = self.trainer._logger_connector, self._results
        if results:
            connector.on_batch_end()
        results.batch = results.batch_size = None
        self.batch_progress.increment_completed()
        if results:
            connector.update_train_step_metrics()

    def _step_schedules(self, step: "TrainingStep") -> None:
        """Step all schedules but those that wait for a metric, as `update_lr_schedulers` does."""
        for config in step.schedules:
            if not config.reduce_on_plateau and self.batch_progress.current.ready % config.frequency == 0:
                self.scheduler_progress.increment_ready()
                config.scheduler.step()  # type: ignore[call-arg]  # that of plateaus alone takes more
                self.scheduler_progress.increment_completed()

    def _is_something_due(self) -> bool:
        ready = self.batch_progress.current.ready
        return (
            self._num_ready_batches_reached()
            or ready % self._check_interval == 0
            or self.trainer.should_stop
            or (self.max_steps != -1 and self.global_step >= self.max_steps)
        )

    def _num_batches_between_events(self) -> float:
        """Return how many batches can pass before `on_advance_end` has to be called; infinity for never."""
        trainer = self.trainer
        if (
            trainer.check_val_every_n_epoch is None
            or trainer.val_check_batch is None  # by the clock
            or any(config.reduce_on_plateau for config in trainer.lr_scheduler_configs)
            or (trainer.val_check_batch == math.inf and isinstance(trainer.limit_train_batches, int))
        ):
            return 1
        return float(trainer.val_check_batch)


class TrainingStep:
    """Training step of an epoch, in Lightning's order, with all that stays the same looked up once.

    Attributes:
        hooks: Cached hooks of callbacks and module.
        schedules: Schedules that step with the optimizer.
    """

    def __init__(self, trainer: Trainer) -> None:
        self.hooks = HookCache(trainer)
        self.schedules = [config for config in trainer.lr_scheduler_configs if config.interval == "step"]
        self._trainer, self._module, self._device = trainer, trainer.lightning_module, trainer.strategy.root_device
        self._precision, self._optimizer = trainer.precision_plugin, trainer.optimizers[0]
        self._progress = trainer.fit_loop.epoch_loop.automatic_optimization.optim_progress.optimizer
        self._before_transfer, self._transfer, self._after_transfer = map(
            self._find_data_hook, ("on_before_batch_transfer", "transfer_batch_to_device", "on_after_batch_transfer")
        )
        plain = type(self._precision) is Precision  # others have a context around it
        self._training_step = self._module.training_step if plain else trainer.strategy.training_step
        self._takes_index = is_param_in_hook_signature(self._module.training_step, "batch_idx", min_args=2)

    def prepare(self, batch: Any) -> Any:
        """Move a batch to the device and pass it through the data hooks."""
        batch = self._precision.convert_input(batch)
        if self._before_transfer is not None:
            batch = self._before_transfer(batch, 0)
        if self._transfer is not None:
            batch = self._transfer(batch, self._device, 0)
        elif not _is_on(batch, self._device):
            batch = self._module.transfer_batch_to_device(batch, self._device, 0)
        return batch if self._after_transfer is None else self._after_transfer(batch, 0)

    def optimize(self, batch: Any, batch_idx: int, *, accumulates: bool) -> dict[str, Any]:
        """Compute gradients and, unless they accumulate further, step the optimizer.

        Args:
            batch: Prepared batch.
            batch_idx: Number of the batch in the epoch, from 0.
            accumulates: Whether the optimizer waits for the gradients of later batches.

        Returns:
            `outputs` for the callbacks.

        Raises:
            UserError: If the optimizer steps without calling the closure that it is given.
        """
        self._arguments = (batch, batch_idx) if self._takes_index else (batch,)
        self._batch_idx = batch_idx
        self._outputs: dict[str, Any] | None = None
        if accumulates:
            self._compute_gradients()
        else:
            self._progress.step.increment_ready()
            self._optimizer.step(closure=self._closure)  # type: ignore[arg-type]  # torch's own pass tensors on
            self._progress.step.increment_completed()
        del self._arguments  # or the batch would take memory while the next one is prepared
        if self._outputs is None:
            raise UserError(
                f"{type(self._optimizer).__name__}.step(closure) did not call the closure, which computes the gradients"
            )
        return self._outputs

    def _closure(self) -> Tensor | None:
        loss = self._compute_gradients()
        self.hooks.call("on_before_optimizer_step", self._optimizer)
        if (clip := self._trainer.gradient_clip_val) is not None:
            algorithm = self._trainer.gradient_clip_algorithm
            self._precision._clip_gradients(self._module, self._optimizer, clip, gradient_clip_algorithm=algorithm)
        return loss

    @torch.enable_grad()
    def _compute_gradients(self) -> Tensor | None:
        attributes = vars(self._module)
        outer, attributes["_current_fx_name"] = attributes["_current_fx_name"], "training_step"
        output = self._training_step(*self._arguments)
        attributes["_current_fx_name"] = outer
        loss, self._outputs = _split_output(output, self._trainer.accumulate_grad_batches)
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

    def _find_data_hook(self, name: str) -> Callable[..., Any] | None:
        """Return the hook of the data module or the module, whichever Lightning takes; None if it is the default."""
        selector = self._trainer._data_connector._datahook_selector
        assert selector is not None
        owner: LightningDataModule | LightningModule = selector.get_instance(name)
        return getattr(owner, name) if _overrides(owner, name, DataHooks) else None


class HookCache:
    """Caller of `STEP_HOOKS` in Lightning's order: those of the callbacks, then the module's.

    Hooks that are not overridden are left out, and so are those that are set on an object while an epoch runs.
    """

    def __init__(self, trainer: Trainer) -> None:
        self._trainer, self._module = trainer, trainer.lightning_module
        self._callbacks = list(_callbacks(trainer))
        self._hooks = {name: self._find(name) for name in STEP_HOOKS}

    def are_current(self) -> bool:
        """Check that the Trainer's callbacks are still the same; some add others while they run."""
        return self._callbacks == _callbacks(self._trainer)

    def call(self, name: str, *arguments: Any) -> None:
        """Call all hooks of this name, in which `self.log` knows the name."""
        callback_hooks, module_hook = self._hooks[name]
        if not callback_hooks and module_hook is None:
            return
        attributes = vars(self._module)  # setting an attribute of a module takes longer
        outer, attributes["_current_fx_name"] = attributes["_current_fx_name"], name
        for hook in callback_hooks:
            hook(self._trainer, self._module, *arguments)
        if module_hook is not None:
            module_hook(*arguments)
        attributes["_current_fx_name"] = outer

    def _find(self, name: str) -> tuple[list[Callable[..., Any]], Callable[..., Any] | None]:
        hooks = [getattr(callback, name) for callback in self._callbacks if _overrides(callback, name, Callback)]
        return hooks, getattr(self._module, name) if _overrides(self._module, name, LightningModule) else None


class NoProfiler(PassThroughProfiler):
    """Profiler that does nothing, in a quarter of the time of Lightning's, which makes a generator at every hook."""

    def profile(self, action_name: str) -> AbstractContextManager[None]:  # type: ignore[override]
        """Return an empty context."""
        return _NO_CONTEXT


def is_supported(trainer: Trainer, fetcher: _DataFetcher) -> bool:
    """Check that `TrainingStep` does all that Lightning would do.

    It does on one device, by automatic optimization, in a precision without a scaler, without a profiler, and with no
    override of a method that Lightning wraps around optimizer and schedule.
    """
    module, precision = trainer.lightning_module, trainer.precision_plugin
    return (
        type(trainer.strategy) is SingleDeviceStrategy
        and type(precision) in (Precision, HalfPrecision, MixedPrecision)
        and getattr(precision, "scaler", None) is None
        and isinstance(trainer.profiler, NoProfiler)  # type: ignore[attr-defined]
        and not isinstance(fetcher, _DataLoaderIterDataFetcher)
        and module.automatic_optimization
        and len(trainer.optimizers) == 1
        and not trainer.fit_loop.epoch_loop.automatic_optimization._skip_backward
        and not trainer.fast_dev_run  # type: ignore[attr-defined]
        and not any(_overrides(module, name, LightningModule) for name in _UNSUPPORTED_OVERRIDES)
    )


def _overrides(instance: object, name: str, base: type) -> bool:
    return name in vars(instance) or getattr(type(instance), name) is not getattr(base, name)


def _callbacks(trainer: Trainer) -> list[Callback]:
    callbacks: list[Callback] = trainer.callbacks  # type: ignore[attr-defined]  # Lightning gives it no type
    return callbacks


def _split_output(output: Any, num_accumulated: int) -> tuple[Tensor | None, dict[str, Any]]:
    """Split what a `training_step` returned into the loss to differentiate and the outputs for callbacks."""
    if isinstance(output, Tensor) and num_accumulated == 1:  # Lightning divides by one and copies
        return output, {"loss": output.detach()}
    result = ClosureResult.from_training_step_output(output, num_accumulated)
    return result.closure_loss, {} if result.loss is None else result.asdict()


def _is_on(batch: Any, device: torch.device) -> bool:
    return isinstance(batch, Batch) and batch.images.device == batch.labels.device == batch.indices.device == device
