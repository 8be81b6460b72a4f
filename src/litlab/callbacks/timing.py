"""How long training took, without validation, and how many images it saw."""

import time
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer

from litlab.data.batch import Batch


class Timing(Callback):
    """Seconds inside training epochs less validation, and images over all ranks. The first step counts: it is waited for, too.

    Attributes:
        seconds: in training so far.
        num_images: seen so far, over all ranks.
    """

    def __init__(self) -> None:
        self.seconds = 0.0
        self.num_images = 0
        self._since: float | None = None

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._since = time.perf_counter()

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        self._since = self._since or time.perf_counter()
        if isinstance(batch, Batch):
            self.num_images += batch.num_global

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._pause()

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._pause()

    def images_per_second(self) -> float | None:
        """Over the whole training; None where the batches are not ours to count."""
        return round(self.num_images / self.seconds, 1) if self.num_images and self.seconds else None

    def _pause(self) -> None:
        if self._since is not None:
            self.seconds += time.perf_counter() - self._since
            self._since = None
