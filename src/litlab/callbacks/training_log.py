"""Rows of training values: loss, accuracy, learning rate, images per second."""

import time
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor
from torch.optim import Optimizer

from litlab.data.loader import Batch
from litlab.tasks.image_classifier import ImageClassifier, log_row


class TrainingClock:
    """Images and seconds since it was last set back; stands still while paused.

    Attributes:
        num_images: counted so far.
    """

    def __init__(self) -> None:
        self._since: float | None = None
        self.set_back()

    def set_back(self) -> None:
        """Count from zero; it goes on running, or standing."""
        self.num_images, self._seconds = 0, 0.0
        if self._since is not None:
            self._since = time.perf_counter()

    def start(self) -> None:
        """Go on, if it stands."""
        if self._since is None:
            self._since = time.perf_counter()

    def pause(self) -> None:
        """Stand still, if it runs."""
        self._seconds, self._since = self.seconds, None

    def count(self, batch: Any) -> None:
        """Add the images of a batch over all ranks; a batch that isn't litlab's can't be counted."""
        self.num_images += batch.num_global if isinstance(batch, Batch) else 0

    def state(self) -> dict[str, float]:
        """As `set_state` takes it."""
        return {"images": self.num_images, "seconds": self.seconds}

    def set_state(self, state: dict[str, float]) -> None:
        """Go on from there; standing."""
        self.num_images, self._seconds, self._since = int(state["images"]), state["seconds"], None

    @property
    def seconds(self) -> float:
        """Running time so far."""
        return self._seconds + (time.perf_counter() - self._since if self._since is not None else 0.0)

    @property
    def images_per_second(self) -> float | None:
        """None if there was nothing to count."""
        return self.num_images / self.seconds if self.num_images else None


class Timing(Callback):
    """Times the whole training, with the first step's preparations; `clock` has the outcome."""

    def __init__(self) -> None:
        self.clock = TrainingClock()

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.clock.start()

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        self.clock.start()
        self.clock.count(batch)

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.clock.pause()

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.clock.pause()


class TrainingLog(Callback):
    """Sends a row to the loggers every `trainer.log_every_n_steps` optimizer steps and at the end of an epoch.

    `train/loss` and `train/accuracy` are means over the images since the row before, over all ranks; `lr` is the rate
    of the last optimizer step (of the first parameter group); `throughput/images_per_second` counts the images of all
    ranks since the row before, per second of training, without validation and what comes after it until the next
    batch. The row also becomes `ImageClassifier.latest`.

    Nothing waits for the device between two rows: `self.log` at each step would cost more than a step of a small
    network. Other LightningModules get the learning rate, and the throughput where their batches are `litlab`'s.
    """

    def __init__(self) -> None:
        self._last_step = 0
        self._lr: float | Tensor | None = None
        self._clock = TrainingClock()

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._last_step = trainer.global_step
        self._clock = TrainingClock()

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        self._clock.start()

    def on_before_optimizer_step(self, trainer: Trainer, pl_module: LightningModule, optimizer: Optimizer) -> None:
        lr = optimizer.param_groups[0]["lr"]
        self._lr = lr.clone() if isinstance(lr, Tensor) else lr  # schedules change a tensor in place

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        self._clock.count(batch)
        every, step = trainer.log_every_n_steps, trainer.global_step  # type: ignore[attr-defined]
        if step > self._last_step and (step % every == 0 or trainer.is_last_batch):
            self._write(trainer, pl_module)

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._clock.pause()

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if trainer.global_step > self._last_step:  # stopped in mid-epoch, by max_steps for one
            self._write(trainer, pl_module)

    def _write(self, trainer: Trainer, pl_module: LightningModule) -> None:
        row: dict[str, float] = {}
        if isinstance(pl_module, ImageClassifier):
            metrics = pl_module.train_metrics
            row |= {f"train/{name}": value.item() for name, value in metrics.compute().items()}
            metrics.reset()
        if self._lr is not None:
            row["lr"] = float(self._lr)
        if (speed := self._clock.images_per_second) is not None:
            row["throughput/images_per_second"] = speed
        self._clock.set_back()
        self._last_step = trainer.global_step
        if isinstance(pl_module, ImageClassifier):
            pl_module.latest = row
        log_row(trainer, row)
