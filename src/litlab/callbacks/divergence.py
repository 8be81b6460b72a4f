"""Divergence of a training: weights or a loss that are no finite numbers any more."""

from collections.abc import Mapping
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.trainer.states import TrainerFn
from torch import Tensor
from torch.distributed.tensor import DTensor

from litlab.process.failure import FIRST_LOSS


class Divergence(Callback):
    """Detect a training that has diverged, at each validation and at the end of each epoch.

    Weights that are NaN or infinite never recover, so they end the training. A loss alone may be infinite for one
    batch, or as long as the scaler of `16-mixed` skips its steps: only that of the last step counts.

    Attributes:
        reason: Reason why the training has diverged, by the last check; None if it has not.
        is_final: True if the weights themselves are not finite.
    """

    def __init__(self) -> None:
        self.reason: str | None = None
        self.is_final = False
        self._loss: Tensor | None = None  # of the last batch
        self._first_loss: Tensor | None = None  # of the first one
        self._checked_step: int | None = None

    def state(self) -> dict[str, float | None]:
        """Return the losses of the first and the last batch for a checkpoint, summed if they have several elements."""
        losses = {"first": self._first_loss, "last": self._loss}
        return {name: None if loss is None else float(loss.detach().sum()) for name, loss in losses.items()}

    def set_state(self, losses: Mapping[str, float | None]) -> None:
        """Restore the losses of the first and the last batch."""
        self._first_loss, self._loss = (
            None if (loss := losses.get(name)) is None else torch.tensor(loss) for name in ("first", "last")
        )

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Keep the loss without reading it, which would wait for the device at each step."""
        if outputs:
            self._loss = outputs.get("loss")
            if self._first_loss is None:
                self._first_loss = self._loss

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Check the weights before a callback validates others, such as averages."""
        if trainer.state.fn == TrainerFn.FITTING and not trainer.sanity_checking:
            self._check(trainer, pl_module)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Check an epoch that ends without a validation."""
        self._check(trainer, pl_module)

    def _check(self, trainer: Trainer, task: LightningModule) -> None:
        """Check loss and weights once for each step; stop the training if weights are not finite."""
        step, device = trainer.global_step, trainer.strategy.root_device
        if step == self._checked_step:
            return
        self._checked_step = step
        checks = {
            name: _local(parameter).isfinite().all().to(device)
            for name, parameter in task.named_parameters()
            if parameter.requires_grad
        }
        yes = torch.ones((), dtype=torch.bool, device=device)
        losses = (self._loss, self._first_loss)
        are_losses_finite = (yes if loss is None else loss.isfinite().all().to(device) for loss in losses)
        finite = torch.stack([torch.stack([yes, *checks.values()]).all(), *are_losses_finite]).float()
        reduced = trainer.strategy.reduce(finite, reduce_op="min").bool().tolist()
        has_finite_weights, has_finite_loss, began_finite = reduced
        self.reason, self.is_final = None, not has_finite_weights
        if self.is_final:
            trainer.should_stop = True
            trainer.fit_loop.min_epochs, trainer.fit_loop.epoch_loop.min_steps = None, None  # they would delay the stop
            found = next((f" ({name})" for name, is_finite in checks.items() if not is_finite), "")  # on this rank
            self.reason = f"NaN or infinity in the weights after {step} steps{found}"
        elif not has_finite_loss:
            self.reason = "NaN or infinity as the loss of the last step"
        if self.reason and not began_finite:
            self.reason += FIRST_LOSS


def _local(parameter: Tensor) -> Tensor:
    """Return the part of a parameter that this rank holds, if it is sharded."""
    values = parameter.detach()
    return values.to_local() if isinstance(values, DTensor) else values
