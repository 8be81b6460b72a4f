"""An exponential moving average of the weights, which is validated, tested and kept in place of them."""

from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.strategies import FSDPStrategy, ModelParallelStrategy
from lightning.pytorch.trainer.states import TrainerFn
from torch import Tensor

from litlab.errors import UserError

_KEY = "litlab_ema"  # in a checkpoint


class EMA(Callback):
    """Moves an average towards the weights: average = d * average + (1 - d) * weights, d = `decay` in the long run.

    Update number t, counted from 0, has d = min(`decay`, (1 + t) / (10 + t)), as TensorFlow's ExponentialMovingAverage
    with `num_updates`, so that the initial weights are soon forgotten. All floating-point parameters and buffers are
    averaged, the statistics of batch norm among them; other buffers are taken as they are. The average is float32
    under bf16-true, too, where it would otherwise stand still: 1 - d is less than the precision of bfloat16.

    Validation sees the average. A checkpoint's `state_dict` is the average, so this is what is tested and what
    evaluate, predict and export use; the weights in training are beside it, for resuming.

    Args:
        decay: from 0, where the average is the weights themselves, to below 1.
        every_steps: optimizer steps from one update to the next.
    """

    def __init__(self, *, decay: float, every_steps: int) -> None:
        self._decay, self._every_steps = decay, every_steps
        self._names: list[str] = []
        self._weights: list[Tensor] = []  # the task's own
        self._averages: list[Tensor] = []
        self._set_aside: list[Tensor] | None = None  # weights in training, while the task has the averages
        self._restored: dict[str, Tensor] | None = None
        self._num_updates = 0
        self._last_step = 0

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """
        Raises:
            UserError: if no process has whole weights.
        """
        if isinstance(trainer.strategy, FSDPStrategy | ModelParallelStrategy):
            raise UserError(
                "callbacks.ema: an average needs whole weights on each device, and "
                f"{type(trainer.strategy).__name__} shards them; use trainer=ddp, or callbacks=default"
            )

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        named = {name: each for name, each in pl_module.state_dict().items() if each.is_floating_point()}
        self._names, self._weights = list(named), list(named.values())
        self._averages = [each.to(torch.promote_types(each.dtype, torch.float32), copy=True) for each in self._weights]
        if self._restored is not None:
            torch._foreach_copy_(self._averages, [self._restored[name] for name in self._names])
            self._restored = None
        self._last_step = trainer.global_step

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        last, self._last_step = self._last_step, trainer.global_step
        if self._last_step // self._every_steps > last // self._every_steps:
            decay = min(self._decay, (1 + self._num_updates) / (10 + self._num_updates))
            weights = [weight.to(each.dtype) for weight, each in zip(self._weights, self._averages, strict=True)]
            torch._foreach_lerp_(self._averages, weights, 1 - decay)
            self._num_updates += 1

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if trainer.state.fn == TrainerFn.FITTING and self._averages:
            self._set_aside = [each.clone() for each in self._weights]
            torch._foreach_copy_(self._weights, self._averages)

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if self._set_aside is not None:
            torch._foreach_copy_(self._weights, self._set_aside)
            self._set_aside = None

    def on_save_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        trained = self._set_aside or self._weights
        averages = [each.to(weight.dtype) for each, weight in zip(self._averages, self._weights, strict=True)]
        checkpoint["state_dict"] |= dict(zip(self._names, averages, strict=True))
        checkpoint[_KEY] = {
            "trained": dict(zip(self._names, trained, strict=True)),
            "averages": dict(zip(self._names, self._averages, strict=True)),  # where equal, the file has them once
            "num_updates": self._num_updates,
        }

    def on_load_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        if trainer.state.fn != TrainerFn.FITTING:
            return
        pl_module.load_state_dict(checkpoint[_KEY]["trained"], strict=False)
        self._restored = checkpoint[_KEY]["averages"]
        self._num_updates = checkpoint[_KEY]["num_updates"]
