"""Ends a run at a sound moment, in all ranks at the same one."""

from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.trainer.states import TrainerFn

from litlab.signals import Stopped, StopRequest

EVERY = 8  # batches between two agreements of several ranks; each costs them a round of messages


class StopOnRequest(Callback):
    """Raises `Stopped` between two batches once a signal has come, to any rank; while fitting it saves first."""

    def __init__(self, stop: StopRequest, *, path: Path) -> None:
        self._stop = stop
        self._path = path

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._stop.take_back()

    def on_test_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._stop.take_back()

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        self._check(trainer, batch_idx)

    def on_validation_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int, dataloader_idx: int = 0
    ) -> None:
        self._check(trainer, batch_idx)

    def on_test_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int, dataloader_idx: int = 0
    ) -> None:
        self._check(trainer, batch_idx)

    def _check(self, trainer: Trainer, batch_idx: int) -> None:
        signum = self._stop.pending()
        if trainer.world_size > 1:
            if batch_idx % EVERY:
                return
            flag = torch.tensor(signum, device=trainer.strategy.root_device)
            signum = int(trainer.strategy.reduce(flag, reduce_op="max"))
        if signum:
            raise Stopped(signum, self._saved_at(trainer))

    def _saved_at(self, trainer: Trainer) -> int | None:
        """Save, if there is anything to continue, and give the step; all ranks come here at the same batch."""
        if trainer.state.fn != TrainerFn.FITTING:
            return None
        trainer.save_checkpoint(self._path)
        return trainer.global_step
