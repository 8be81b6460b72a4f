"""Counts of the predictions of a validation or test, shared by the callbacks that draw them."""

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor
from torchmetrics import Metric

from litlab.callbacks.images import INK, get_font, log_image
from litlab.data.loader import Batch
from litlab.tasks.metrics import NUM_CALIBRATION_BINS

MAX_NAME_WIDTH = 200  # all lengths are in pixels
MARGIN = 16
GAP = 8
TITLE_SIZE, TEXT_SIZE, MIN_TEXT_SIZE = 18, 14, 11  # of the fonts


class PredictionCounts(NamedTuple):
    """Counts over all images and ranks.

    A bin holds the images whose predicted class has a probability within it: 15 equal ones from 0 to 1, and one for a
    probability of 1, the bins of `calibration_error`.

    Attributes:
        confusion: Number of images, int64 `true predicted`.
        images: Number of images in each bin, int64.
        correct: Number of correctly classified images in each bin, int64.
        confidence: Sum of the probabilities of the predicted classes in each bin.
    """

    confusion: NDArray[np.int64]
    images: NDArray[np.int64]
    correct: NDArray[np.int64]
    confidence: NDArray[np.float32]


class PredictionCounter(Metric):
    """Count predictions over batches and ranks.

    Args:
        num_classes: Number of classes.
    """

    full_state_update = False
    confusion: Tensor
    images: Tensor
    correct: Tensor
    confidence: Tensor

    def __init__(self, num_classes: int) -> None:
        super().__init__()
        self.num_classes = num_classes
        counts = torch.zeros(NUM_CALIBRATION_BINS + 1, dtype=torch.int64)
        confusion = torch.zeros(num_classes, num_classes, dtype=torch.int64)
        self.add_state("confusion", confusion, dist_reduce_fx="sum")
        self.add_state("images", counts, dist_reduce_fx="sum")
        self.add_state("correct", counts, dist_reduce_fx="sum")
        self.add_state("confidence", counts.float(), dist_reduce_fx="sum")

    def update(self, logits: Tensor, labels: Tensor) -> None:
        """Add a batch; it may be empty.

        Args:
            logits: Shape `b num_classes`.
            labels: Shape `b`, int64.
        """
        confidences, predicted = logits.softmax(dim=1).max(dim=1)
        ones, cells = torch.ones_like(labels), labels * self.num_classes + predicted
        # Not `bincount`, which waits for the device to tell the size of its output.
        self.confusion = self.confusion.view(-1).index_add(0, cells, ones).view_as(self.confusion)
        boundaries = torch.linspace(0, 1, NUM_CALIBRATION_BINS + 1, device=confidences.device)
        bins = torch.bucketize(confidences, boundaries, right=True) - 1
        self.images = self.images.index_add(0, bins, ones)
        self.correct = self.correct.index_add(0, bins, (predicted == labels).long())
        self.confidence = self.confidence.index_add(0, bins, confidences.float())

    def compute(self) -> PredictionCounts:
        """Return the counts."""
        return PredictionCounts(*(getattr(self, name).cpu().numpy() for name in PredictionCounts._fields))

    def counted(self) -> dict[str, Tensor]:
        """Return the counts over all ranks as tensors, of `confusion` the cells that are not zero."""
        counts = {name: torch.tensor(values) for name, values in self.compute()._asdict().items()}
        confusion = counts.pop("confusion").view(-1)
        cells = confusion.nonzero().view(-1)
        return counts | {"cells": cells, "numbers": confusion[cells]}

    def restore(self, counted: Mapping[str, Tensor], *, is_owner: bool) -> None:
        """Continue with what `counted` returned.

        Args:
            counted: Counts over all ranks.
            is_owner: Take them on this rank; the others start with zeros, so that the sum is right.
        """
        self.update(
            torch.zeros(0, self.num_classes, device=self.device), torch.zeros(0, dtype=torch.int64, device=self.device)
        )
        if is_owner:
            counts = {name: values.to(self.device) for name, values in counted.items()}
            self.confusion.view(-1)[counts["cells"]] = counts["numbers"]
            self.images, self.correct, self.confidence = counts["images"], counts["correct"], counts["confidence"]


class PredictionPicture(Callback, ABC):
    """Log a picture of the predictions of the last validation of a fit, and one of the test.

    Validation and test steps have to return `logits` of the real rows. The first of these callbacks in a Trainer counts
    for all of them.

    Args:
        class_names: Class names in the order of the labels.

    Attributes:
        name: Name of the picture: `val/NAME` and `test/NAME` in TensorBoard.
    """

    name: str

    def __init__(self, *, class_names: Sequence[str]) -> None:
        self._class_names = class_names
        self._counter = PredictionCounter(len(class_names))
        self._is_first = True
        self._saved: dict[str, Tensor] | None = None  # counts of the checkpoint, until the training starts

    @abstractmethod
    def draw(self, counts: PredictionCounts) -> tuple[NDArray[np.uint8], Sequence[str]]:
        """Draw the picture, `h w 3`, and choose its legend: the class names if it shows them as numbers."""

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Share the counts of the first of these callbacks."""
        callbacks = trainer.callbacks  # type: ignore[attr-defined]
        first = next(callback for callback in callbacks if isinstance(callback, PredictionPicture))
        self._counter, self._is_first = first._counter, first is self

    def on_validation_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Reset the counts."""
        if self._is_first:
            self._counter.to(pl_module.device).reset()

    def on_validation_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Count a batch."""
        is_counted = isinstance(batch, Batch) and isinstance(outputs, Mapping) and "logits" in outputs
        if self._is_first and is_counted:  # on all ranks alike, also on one with nothing but padding
            self._counter.update(outputs["logits"], batch.labels[: batch.num_valid])

    on_test_epoch_start = on_validation_epoch_start
    on_test_batch_end = on_validation_batch_end

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Forget an earlier validation, but for that of the checkpoint: perhaps none follows."""
        if self._is_first:
            self._counter.to(pl_module.device).reset()
            if self._saved is not None:
                self._counter.restore(self._saved, is_owner=trainer.is_global_zero)
        self._saved = None

    def state_dict(self) -> dict[str, Any]:
        """Return the counts of the last validation over all ranks. Every rank has to call this."""
        return self._counter.counted() if self._is_first and self._counter.update_called else {}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Keep the counts of `state_dict` for the start of the training."""
        self._saved = state_dict

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Log the last validation."""
        self._log(trainer, "val")

    def on_test_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Log the test."""
        self._log(trainer, "test")

    def _log(self, trainer: Trainer, split: str) -> None:
        if not self._counter.update_called:
            return
        counts: PredictionCounts = self._counter.compute()  # over all ranks; torchmetrics keeps them for the others
        if trainer.is_global_zero:
            picture, legend = self.draw(counts)
            log_image(trainer, f"{split}/{self.name}", picture, legend)


def draw_upright(sheet: Image.Image, center: tuple[float, float], text: str) -> None:
    """Draw a line that is read from bottom to top."""
    mask = text_mask(text, get_font(TEXT_SIZE)).transpose(Image.Transpose.ROTATE_90)
    sheet.paste(INK, (round(center[0] - mask.width / 2), round(center[1] - mask.height / 2)), mask)


def text_mask(text: str, font: ImageFont.FreeTypeFont) -> Image.Image:
    """Draw a line in white on black, of the height of the font."""
    ascent, descent = font.getmetrics()
    mask = Image.new("L", (math.ceil(font.getlength(text)) + 2, ascent + descent))
    ImageDraw.Draw(mask).text((1, 0), text, fill=255, font=font)
    return mask
