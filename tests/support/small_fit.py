"""A small, fast fit: a linear network on a few random images, and a logger that records its rows."""

import warnings
from collections.abc import Iterator, Mapping
from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
from lightning.pytorch import Callback, Trainer
from lightning.pytorch.loggers import Logger
from torch import nn

from litlab.callbacks import class_accuracy, reliability_diagram
from litlab.callbacks import confusion_matrix as confusion
from litlab.callbacks import images as pictures
from litlab.callbacks.images import contact_sheet
from litlab.callbacks.predictions import PredictionCounts
from litlab.data.loader import Batch
from litlab.optim import schedules
from litlab.optim.schedule_factory import ScheduleFactory
from litlab.tasks.image_classifier import ImageClassifier

CLASS_NAMES = ("ant", "bee", "cow", "dog", "eel", "fox")
MEAN, STD = (0.5, 0.4, 0.3), (0.2, 0.25, 0.5)
NORMALIZATION: dict[str, Any] = {"class_names": CLASS_NAMES, "mean": MEAN, "std": STD}
NUM_TEST, BATCH_SIZE = 23, 8
_HINTS = ("The number of training batches", "You defined a `validation_step` but have no `val_dataloader`")


class Rows(Logger):
    """Record all rows."""

    def __init__(self) -> None:
        super().__init__()
        self.rows: list[tuple[int, dict[str, float]]] = []

    name = "rows"
    version = 0

    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        assert step is not None
        self.rows.append((step, dict(metrics)))

    def log_hyperparams(self, params: Any, *args: Any, **kwargs: Any) -> None:
        raise AssertionError("litlab has no Lightning hyperparameters")

    def values(self, name: str) -> dict[int, float]:
        return {step: row[name] for step, row in self.rows if name in row}


class Batches:
    """Loader of random images in global batches, sliced for a rank and padded as by litlab's loaders."""

    def __init__(self, num_images: int, *, rank: int = 0, world_size: int = 1) -> None:
        generator = torch.Generator().manual_seed(5)
        self.images = torch.randn(num_images, 3, 8, 8, generator=generator)
        self.labels = torch.randint(0, len(CLASS_NAMES), (num_images,), generator=generator)
        self.rank, self.world_size = rank, world_size

    def __len__(self) -> int:
        return -(-len(self.labels) // BATCH_SIZE)

    def __iter__(self) -> Iterator[Batch]:
        size = BATCH_SIZE // self.world_size
        for start in range(0, len(self.labels), BATCH_SIZE):
            num_global = min(BATCH_SIZE, len(self.labels) - start)
            rows = torch.arange(start + self.rank * size, start + (self.rank + 1) * size)
            num_valid = int((rows < len(self.labels)).sum())
            rows = rows.clamp(max=len(self.labels) - 1)
            yield Batch(self.images[rows], self.labels[rows], rows, num_valid, num_global)


class Loader:
    """A loader of the given batches; Lightning would take a plain list for several loaders."""

    def __init__(self, batches: list[Any]) -> None:
        self._batches = batches

    def __iter__(self) -> Iterator[Any]:
        return iter(self._batches)

    def __len__(self) -> int:
        return len(self._batches)


def make_task(lr: float = 0.05, **changes: Any) -> ImageClassifier:
    """Make a task with a linear network, or with other arguments of ImageClassifier."""
    torch.manual_seed(2)
    arguments: dict[str, Any] = {
        "network": nn.Sequential(nn.Flatten(), nn.Linear(192, len(CLASS_NAMES))),
        "optimizer": partial(torch.optim.SGD, lr=lr),
        "schedule": ScheduleFactory(
            partial(schedules.one_cycle, warmup=0.5, initial=0.1, final=0.0), interval="step", needs_total_steps=True
        ),
        "num_classes": len(CLASS_NAMES),
        "loss": None,
        "label_smoothing": 0.0,
        "class_weights": None,
        "channels_last": False,
        "compile": False,
        "test_time_flip": False,
        "test_time_shift": 0,
        "test_time_margin": None,
        "metrics": {},
        "freeze": [],
        "freeze_after_epochs": 0,
    }
    return ImageClassifier(**(arguments | changes))


def make_trainer(loggers: list[Logger], callbacks: list[Callback], **changes: Any) -> Trainer:
    """Make a Trainer for a small fit, about which Lightning's hints are ignored until pytest ends the test."""
    for hint in _HINTS:
        warnings.filterwarnings("ignore", hint)
    arguments: dict[str, Any] = {
        "accelerator": "cpu",
        "devices": 1,
        "enable_checkpointing": False,
        "enable_progress_bar": False,
        "enable_model_summary": False,
        "num_sanity_val_steps": 0,
    }
    return Trainer(logger=loggers, callbacks=callbacks, **(arguments | changes))


class Shown(Callback):
    """Record the arguments of the drawing functions, by wrapping them."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.sheets: list[tuple[np.ndarray, list[str]]] = []
        self.counts: list[np.ndarray] = []
        self.confusions: list[np.ndarray] = []  # that the accuracy of each class was drawn from
        self.bins: list[PredictionCounts] = []
        draw, draw_bars, draw_diagram = (
            confusion.draw_confusion_matrix,
            class_accuracy.draw_class_accuracy,
            reliability_diagram.draw_reliability_diagram,
        )

        def sheet(images: np.ndarray, captions: list[str]) -> np.ndarray:
            self.sheets.append((images, captions))
            return contact_sheet(images, captions)

        def matrix(counts: np.ndarray, class_names: tuple[str, ...]) -> np.ndarray:
            self.counts.append(counts)
            return draw(counts, class_names)

        def bars(counts: np.ndarray, class_names: tuple[str, ...]) -> np.ndarray:
            self.confusions.append(counts)
            return draw_bars(counts, class_names)

        def diagram(counts: PredictionCounts) -> np.ndarray:
            self.bins.append(counts)
            return draw_diagram(counts)

        monkeypatch.setattr(class_accuracy, "draw_class_accuracy", bars)
        monkeypatch.setattr(reliability_diagram, "draw_reliability_diagram", diagram)
        monkeypatch.setattr(pictures, "contact_sheet", sheet)
        monkeypatch.setattr(confusion, "draw_confusion_matrix", matrix)
