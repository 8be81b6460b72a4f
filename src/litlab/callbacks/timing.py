"""How fast training is: images and seconds of training alone, without validation."""

import time
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer

from litlab.data.batch import Batch


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
