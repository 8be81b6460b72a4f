"""The newest state of a run, for whoever continues it."""

from pathlib import Path
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer


class LastCheckpoint(Callback):
    """Saves to one path every so many optimizer steps, and at the end of each epoch."""

    def __init__(self, *, path: Path, every_steps: int | None) -> None:
        self._path = path
        self._every_steps = every_steps
        self._saved_at = 0

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        step = trainer.global_step
        if self._every_steps and step != self._saved_at and step % self._every_steps == 0:
            self._save(trainer)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._save(trainer)

    def _save(self, trainer: Trainer) -> None:
        trainer.save_checkpoint(self._path)
        self._saved_at = trainer.global_step
