"""Staged training of DGAM: all but the gate, then the gate alone."""

from lightning.pytorch import LightningModule
from lightning.pytorch.callbacks import BaseFinetuning
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR

from litlab.optim import schedules


class GateStages(BaseFinetuning):
    """Freeze the gate at first; from an epoch on, train it alone, at a constant rate without weight decay.

    What is frozen, and the parameter groups of the optimizer, are part of litlab's checkpoints, so a run that is
    resumed goes through the same stages.

    Args:
        gate_epoch: Number of the first epoch in which the gate is trained, from 0.
        rate_factor: Its learning rate, relative to that of the optimizer's config.
    """

    def __init__(self, *, gate_epoch: int, rate_factor: float) -> None:
        super().__init__()
        self.gate_epoch, self.rate_factor = gate_epoch, rate_factor

    def freeze_before_training(self, pl_module: LightningModule) -> None:
        """Freeze the gate, before the optimizer is made of the parameters that are not frozen."""
        self.freeze(pl_module.network.gate, train_bn=False)

    def finetune_function(self, pl_module: LightningModule, epoch: int, optimizer: Optimizer) -> None:
        """Freeze network and heads and add the gate to the optimizer, in the epoch in which the second stage begins."""
        if epoch != self.gate_epoch:
            return
        network = pl_module.network
        self.freeze([network.network, network.heads], train_bn=False)
        self.make_trainable(network.gate)
        rate = self.rate_factor * optimizer.defaults["lr"]
        optimizer.add_param_group({"params": [*network.gate.parameters()], "lr": rate, "weight_decay": 0.0})


def one_cycle(
    optimizer: Optimizer,
    *,
    total_steps: int,
    stage_epochs: int,
    max_epochs: int,
    warmup: float,
    initial: float,
    final: float,
) -> LambdaLR:
    """Make litlab's one-cycle schedule of the first stage alone; the rate of the gate does not follow it.

    Args:
        optimizer: Optimizer of the first stage.
        total_steps: Number of steps of all epochs.
        stage_epochs: Number of epochs of the first stage.
        max_epochs: Number of all epochs.
        warmup: Fraction of the first stage until the peak.
        initial: Factor on the learning rate at the first step.
        final: Factor on the learning rate from the end of the first stage on.
    """
    num_steps = round(total_steps * stage_epochs / max_epochs)
    return schedules.one_cycle(optimizer, total_steps=num_steps, warmup=warmup, initial=initial, final=final)
