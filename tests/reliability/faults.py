"""User classes that cause faults at chosen moments of a run.

The environment chooses, since a frozen config stays what it is:

    LITLAB_TEST_SIGNAL="MOMENT NUMBER SIGNAL"    sends this process a signal at a moment, counted from 1 in each process
    LITLAB_TEST_FAULT="MOMENT NUMBER"            raises an error there
    LITLAB_TEST_SLEEP="MOMENT NUMBER SECONDS"    sleeps there; number 0: each time
    LITLAB_TEST_DEAF="MOMENT NUMBER SECONDS"     sleeps there and ignores what is raised in it
"""

import os
import random
import time
from collections import Counter
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from support.runs import Dropping
from torch import Tensor
from torch.utils.data import DataLoader

from litlab.data.loader import Batch
from litlab.data.shapes import Shapes

_seen: Counter[str] = Counter()


def reaches(moment: str) -> None:
    """Act as the environment says for this moment."""
    _seen[moment] += 1
    for name, act in (("SIGNAL", _send), ("FAULT", _fail), ("SLEEP", time.sleep), ("DEAF", _be_deaf)):
        where, number, *argument = os.environ.get(f"LITLAB_TEST_{name}", " 0").split(" ")
        if where == moment and int(number) in (0, _seen[moment]):
            act(*map(float, argument))


def _send(signum: float) -> None:
    os.kill(os.getpid(), int(signum))


def _fail() -> None:
    raise ArithmeticError("a fault of the user's own")


def _be_deaf(seconds: float) -> None:
    end = time.monotonic() + seconds
    while (left := end - time.monotonic()) > 0:
        with suppress(BaseException):
            time.sleep(left)


class Watch(Callback):
    """Writes the rows of the data set that each training batch has to `seen.RANK` in the run directory."""

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Batch, batch_idx: int) -> None:
        rows = " ".join(map(str, batch.indices[: batch.num_valid].tolist()))
        with Path(trainer.default_root_dir, f"seen.{trainer.global_rank}").open("a", encoding="ascii") as file:
            file.write(f"{trainer.current_epoch},{batch_idx},{rows}\n")
        reaches("train_batch")


_MOMENTS = {
    "setup": "setup", "on_train_start": "train_start", "on_train_batch_end": "train_batch_end",
    "on_validation_batch_start": "validation_batch", "on_validation_end": "validation_end",
    "on_train_epoch_end": "epoch_end", "on_save_checkpoint": "save", "on_fit_end": "fit_end",
    "on_test_batch_start": "test_batch",
}  # fmt: skip
for _hook, _moment in _MOMENTS.items():
    setattr(Watch, _hook, lambda *_, moment=_moment, **__: reaches(moment))


class Noisy(Dropping):
    """Draws from Python's and NumPy's generators in each training step."""

    def forward(self, images: Tensor) -> Tensor:
        output: Tensor = super().forward(images)
        if self.training:
            output = output * (1 + 0.1 * random.random()) + 0.1 * float(np.random.rand())
            reaches("noise")
        return output


class Shuffled(Shapes):
    """With torch's own loader for training: it cannot seek, and shuffles by the global generator."""

    def train_dataloader(self) -> Any:
        rows = self.train_indices.tolist()
        return DataLoader(
            rows,
            self.settings["batch_size"],
            shuffle=True,
            num_workers=self.settings["num_workers"],
            collate_fn=self._batch,
        )

    def _batch(self, rows: list[int]) -> Batch:
        chosen = torch.tensor(rows)
        noise = torch.randint(0, 9, (len(rows), 1, 1, 1), dtype=torch.uint8)
        images = self.arrays.train_images[chosen] // 2 + noise
        return Batch(images, self.arrays.train_labels[chosen], chosen, len(rows), len(rows))


class Faulty(Dropping):
    """Network with batch norm and dropout that may fail in its forward."""

    def forward(self, images: Tensor) -> Tensor:
        output: Tensor = super().forward(images)
        reaches("forward" if self.training else "forward_evaluating")
        return output
