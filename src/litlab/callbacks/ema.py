"""Exponential moving average of the weights, which is validated, tested and saved in their place."""

from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.strategies import FSDPStrategy, ModelParallelStrategy
from lightning.pytorch.trainer.states import TrainerFn
from torch import Tensor

from litlab.errors import UserError

_KEY = "litlab_ema"  # in a checkpoint


class EMA(Callback):
    """Keep an average of the weights: average = d * average + (1 - d) * weights.

    Update number t, counted from 0, has d = min(`decay`, (1 + t) / (10 + t)), as TensorFlow's ExponentialMovingAverage
    with `num_updates`, so that the initial weights lose their influence soon. All floating-point parameters and buffers
    are averaged, the statistics of batch norm among them; other buffers are copied. The average is float32 under
    bf16-true, too, where it would otherwise never change: 1 - d is less than the precision of bfloat16.

    A validation uses the average. The `state_dict` of a checkpoint is the average, so it is also tested, and used by
    evaluate, predict and export; the weights in training are beside it, for resuming.

    Lightning's `WeightAveraging` cannot replace this callback, see docs/architecture.md.

    Args:
        decay: Long-term value of d, from 0, where the average equals the weights, to below 1.
        every_steps: Optimizer steps from one update to the next.
    """

    def __init__(self, *, decay: float, every_steps: int) -> None:
        self._decay, self._every_steps = decay, every_steps
        self._names: list[str] = []
        self._weights: list[Tensor] = []  # the task's own
        self._averages: list[Tensor] = []
        self._trained: list[Tensor] | None = None  # weights in training, while the task has the averages
        self._restored: dict[str, Tensor] | None = None
        self._num_updates = 0
        self._last_step = 0

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Check the strategy.

        Raises:
            UserError: The strategy shards the weights, so that no process has all of them.
        """
        if isinstance(trainer.strategy, FSDPStrategy | ModelParallelStrategy):
            raise UserError(
                "callbacks.ema: an average needs whole weights on each device, and "
                f"{type(trainer.strategy).__name__} shards them; use trainer=ddp, or callbacks=default"
            )

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Start with the weights themselves, or with the averages of a checkpoint."""
        weights = {name: value for name, value in pl_module.state_dict().items() if _is_weight(name, value)}
        self._names, self._weights = list(weights), list(weights.values())
        self._averages = [
            weight.to(torch.promote_types(weight.dtype, torch.float32), copy=True) for weight in self._weights
        ]
        if self._restored is not None:
            torch._foreach_copy_(self._averages, [self._restored[name] for name in self._names])
            self._restored = None
        self._last_step = trainer.global_step

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Update the averages, if an update is due."""
        last, self._last_step = self._last_step, trainer.global_step
        if self._last_step // self._every_steps > last // self._every_steps:
            decay = min(self._decay, (1 + self._num_updates) / (10 + self._num_updates))
            weights = [weight.to(average.dtype) for weight, average in zip(self._weights, self._averages, strict=True)]
            torch._foreach_lerp_(self._averages, weights, 1 - decay)
            self._num_updates += 1

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Put the averages into the task."""
        if trainer.state.fn == TrainerFn.FITTING and self._averages:
            self._trained = [weight.clone() for weight in self._weights]
            torch._foreach_copy_(self._weights, self._averages)

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Put the weights in training back into the task."""
        if self._trained is not None:
            torch._foreach_copy_(self._weights, self._trained)
            self._trained = None

    def on_save_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """Save the averages as `state_dict`, and the weights in training beside it."""
        trained = self._trained or self._weights
        averages = [average.to(weight.dtype) for average, weight in zip(self._averages, self._weights, strict=True)]
        checkpoint["state_dict"] |= dict(zip(self._names, averages, strict=True))
        checkpoint[_KEY] = {
            "trained": dict(zip(self._names, trained, strict=True)),
            "averages": dict(zip(self._names, self._averages, strict=True)),  # where equal, the file has them once
            "num_updates": self._num_updates,
        }

    def on_load_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """Restore averages and weights in training for a resumed fit."""
        if trainer.state.fn != TrainerFn.FITTING:
            return
        pl_module.load_state_dict(checkpoint[_KEY]["trained"], strict=False)
        self._restored = checkpoint[_KEY]["averages"]
        self._num_updates = checkpoint[_KEY]["num_updates"]


def _is_weight(name: str, value: Any) -> bool:
    """Tell floating-point parameters and buffers from others, and from what `get_extra_state` of a module returned."""
    is_extra = name.rpartition(".")[2] == "_extra_state"
    return isinstance(value, Tensor) and value.is_floating_point() and not is_extra
