"""One batch of training, from the loader's rows to the optimizer's step, in Lightning's order."""

from collections.abc import Callable
from typing import Any

import torch
from lightning.pytorch import LightningDataModule, LightningModule, Trainer
from lightning.pytorch.core.hooks import DataHooks
from lightning.pytorch.loops.fetchers import _DataFetcher, _DataLoaderIterDataFetcher
from lightning.pytorch.loops.optimization.automatic import ClosureResult
from lightning.pytorch.plugins.precision import HalfPrecision, MixedPrecision, Precision
from lightning.pytorch.strategies import SingleDeviceStrategy
from lightning.pytorch.utilities.signature_utils import is_param_in_hook_signature
from torch import Tensor

from litlab.data.batch import Batch
from litlab.errors import UserError
from litlab.stepping.hooks import Hooks, Unprofiled, overrides

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
