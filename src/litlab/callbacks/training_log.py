"""Rows of training values: loss, accuracy, learning rate and throughput; the time of the whole training."""

import math
import time
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor
from torch.optim import Optimizer

from litlab.data.loader import Batch
from litlab.runs.metrics import Metric
from litlab.tasks.image_classifier import ImageClassifier, log_row

THROUGHPUT = "throughput/images_per_second"


class TrainingClock:
    """Stopwatch that also counts images; it does not run before `start`.

    Attributes:
        num_images: Number of images counted so far.
    """

    def __init__(self) -> None:
        self._running_since: float | None = None
        self.reset()

    def reset(self) -> None:
        """Count from zero, running or paused as before."""
        self.num_images, self._seconds = 0, 0.0
        if self._running_since is not None:
            self._running_since = time.perf_counter()

    def start(self) -> None:
        """Run, if paused."""
        if self._running_since is None:
            self._running_since = time.perf_counter()

    def pause(self) -> None:
        """Stop counting seconds, if running."""
        self._seconds, self._running_since = self.seconds, None

    def count(self, batch: Any) -> None:
        """Add the images of a batch over all ranks; a batch of another type than litlab's adds none."""
        self.num_images += batch.num_global if isinstance(batch, Batch) else 0

    def state(self) -> dict[str, float]:
        """Return the counts for a checkpoint."""
        return {"images": self.num_images, "seconds": self.seconds}

    def set_state(self, state: dict[str, float]) -> None:
        """Restore the counts of `state`, paused."""
        self.num_images, self._seconds, self._running_since = int(state["images"]), state["seconds"], None

    @property
    def seconds(self) -> float:
        """Seconds that it has been running."""
        running = time.perf_counter() - self._running_since if self._running_since is not None else 0.0
        return self._seconds + running

    @property
    def images_per_second(self) -> float | None:
        """Throughput, or None without images."""
        return self.num_images / self.seconds if self.num_images else None


class Timing(Callback):
    """Time the whole training, without validation and with the preparations of the first step.

    Attributes:
        clock: Seconds and images so far.
    """

    def __init__(self) -> None:
        self.clock = TrainingClock()

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Start the clock."""
        self.clock.start()

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        """Count the batch; start the clock again after a validation."""
        self.clock.start()
        self.clock.count(batch)

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Pause the clock until the next batch."""
        self.clock.pause()

    on_train_epoch_end = on_validation_start


class TrainingLog(Callback):
    """Log a row every `trainer.log_every_n_steps` optimizer steps and at the end of an epoch.

    `train/loss` and `train/accuracy` are means over the images since the row before, over all ranks; `lr` is the rate
    of the last optimizer step (of the first parameter group); `throughput/images_per_second` counts the images of all
    ranks since the row before, per second of training, without validation. The row also becomes
    `ImageClassifier.latest`, until the next epoch starts.

    The device is not waited for between two rows: `self.log` at each step would take longer than a step of a small
    network. For other LightningModules a row has the learning rate, and the throughput of litlab's batches.
    """

    def __init__(self) -> None:
        self._last_step = 0
        self._lr: float | Tensor | None = None
        self._clock = TrainingClock()

    def describe_metrics(self) -> list[Metric]:
        """Return the direction of the throughput."""
        return [Metric(THROUGHPUT, mode="max", bounds=(0.0, math.inf))]

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Start the first row."""
        self._last_step = trainer.global_step
        self._clock = TrainingClock()

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Forget the row of the epoch before, which a progress bar would show for this one."""
        if isinstance(pl_module, ImageClassifier):
            pl_module.latest = {}

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        """Start the clock, if paused."""
        self._clock.start()

    def on_before_optimizer_step(self, trainer: Trainer, pl_module: LightningModule, optimizer: Optimizer) -> None:
        """Keep the learning rate of this step."""
        lr = optimizer.param_groups[0]["lr"]
        self._lr = lr.clone() if isinstance(lr, Tensor) else lr  # schedules change a tensor in place

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Log a row if one is due."""
        self._clock.count(batch)
        every, step = trainer.log_every_n_steps, trainer.global_step  # type: ignore[attr-defined]
        if step > self._last_step and (step % every == 0 or trainer.is_last_batch):
            self._log(trainer, pl_module)

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Pause the clock until the next batch."""
        self._clock.pause()

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Log the last steps of a training that stops in mid-epoch, for example by `max_steps`."""
        if trainer.global_step > self._last_step:
            self._log(trainer, pl_module)

    def _log(self, trainer: Trainer, pl_module: LightningModule) -> None:
        row: dict[str, float] = {}
        if isinstance(pl_module, ImageClassifier):
            metrics = pl_module.train_metrics
            row |= {f"train/{name}": value.item() for name, value in metrics.compute().items()}
            pl_module.epoch_metrics.take(metrics)
        if self._lr is not None:
            row["lr"] = float(self._lr)
        if (images_per_second := self._clock.images_per_second) is not None:
            row[THROUGHPUT] = images_per_second
        self._clock.reset()
        self._last_step = trainer.global_step
        if isinstance(pl_module, ImageClassifier):
            pl_module.latest = {name: value for name, value in row.items() if name != "lr"}
        log_row(trainer, row)
