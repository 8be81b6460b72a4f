"""Pictures of what the network sees and of what it gets most wrong."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor

from litlab.callbacks.drawing import contact_sheet, show, to_pixels
from litlab.data.batch import Batch


class TrainingImages(Callback):
    """Shows the first images of the first training batch as `train/images`: augmented, as the network gets them.

    Args:
        num_images: at most so many.
        class_names: in the order of the labels.
        mean, std: of the normalisation, per channel, which is undone.
    """

    def __init__(
        self, *, num_images: int, class_names: Sequence[str], mean: Sequence[float], std: Sequence[float]
    ) -> None:
        self._num_images = num_images
        self._class_names = class_names
        self._mean = mean
        self._std = std

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        if batch_idx or trainer.global_step or not trainer.is_global_zero or not isinstance(batch, Batch):
            return
        num_images = min(self._num_images, batch.num_valid)
        captions = [self._class_names[label] for label in batch.labels[:num_images].tolist()]
        pixels = to_pixels(batch.images[:num_images], mean=self._mean, std=self._std)
        show(trainer, "train/images", contact_sheet(pixels, captions))


class WorstMistakes(Callback):
    """Shows as `test/worst_mistakes` the misclassified test images with the highest loss, worst first.

    The captions say what the network took the image for and its probability, then what it is. The images of all ranks
    compete; none is shown where there are no mistakes. Needs steps that return `logits` and `losses` of the real rows.

    Args:
        num_images: at most so many.
        class_names: in the order of the labels.
        mean, std: of the normalisation, per channel, which is undone.
    """

    def __init__(
        self, *, num_images: int, class_names: Sequence[str], mean: Sequence[float], std: Sequence[float]
    ) -> None:
        self._num_images = num_images
        self._class_names = class_names
        self._mean = mean
        self._std = std
        self._worst: dict[str, Tensor] | None = None

    def on_test_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._worst = None

    def on_test_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        if not (isinstance(batch, Batch) and isinstance(outputs, Mapping) and {"logits", "losses"} <= outputs.keys()):
            return
        probabilities, predicted = outputs["logits"].softmax(dim=1).max(dim=1)
        labels = batch.labels[: batch.num_valid]
        candidates = {
            "losses": torch.where(predicted != labels, outputs["losses"], -1.0),  # a loss is never negative
            "labels": labels,
            "predicted": predicted,
            "probabilities": probabilities,
            "images": batch.images[: batch.num_valid],
        }
        if self._worst is None:  # always num_images rows, so that ranks can gather
            self._worst = {
                name: value.new_full((self._num_images, *value.shape[1:]), -1) for name, value in candidates.items()
            }
        self._worst = self._highest({name: torch.cat([self._worst[name], candidates[name]]) for name in candidates})

    def on_test_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if self._worst is None:
            return
        worst = self._highest({name: _over_ranks(pl_module, value) for name, value in self._worst.items()})
        self._worst = None
        num_mistakes = int((worst["losses"] >= 0).sum())
        if num_mistakes and trainer.is_global_zero:
            pixels = to_pixels(worst["images"][:num_mistakes], mean=self._mean, std=self._std)
            show(trainer, "test/worst_mistakes", contact_sheet(pixels, self._captions(worst)[:num_mistakes]))

    def _highest(self, rows: dict[str, Tensor]) -> dict[str, Tensor]:
        chosen = rows["losses"].topk(self._num_images).indices
        return {name: value[chosen] for name, value in rows.items()}

    def _captions(self, worst: dict[str, Tensor]) -> list[str]:
        return [
            f"{self._class_names[predicted]} {100 * probability:.0f} %\nis {self._class_names[label]}"
            for predicted, probability, label in zip(
                worst["predicted"].tolist(), worst["probabilities"].tolist(), worst["labels"].tolist(), strict=True
            )
        ]


def _over_ranks(pl_module: LightningModule, rows: Tensor) -> Tensor:
    """The rows of all ranks below each other; every rank has equally many."""
    gathered = pl_module.all_gather(rows)
    assert isinstance(gathered, Tensor)
    return gathered.reshape(-1, *rows.shape[1:])
