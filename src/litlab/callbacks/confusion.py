"""The confusion matrix, counted over all ranks."""

from collections.abc import Mapping, Sequence
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer
from torchmetrics.classification import MulticlassConfusionMatrix

from litlab.callbacks.drawing import show
from litlab.callbacks.matrix import draw_confusion_matrix
from litlab.data.batch import Batch


class ConfusionMatrix(Callback):
    """Shows `val/confusion_matrix` (the last validation of a fit) and `test/confusion_matrix`.

    Rows are true classes, columns predicted ones. Needs steps that return `logits` of the real rows.

    Args:
        class_names: in the order of the labels.
    """

    def __init__(self, *, class_names: Sequence[str]) -> None:
        self._class_names = class_names
        # validate_args would wait for the device at every batch.
        self._counts = MulticlassConfusionMatrix(len(class_names), validate_args=False)
        self._has_counts = False

    def on_validation_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._start(pl_module)

    def on_test_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._start(pl_module)

    def on_validation_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        self._count(outputs, batch)

    def on_test_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        self._count(outputs, batch)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._show(trainer, "val")

    def on_test_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._show(trainer, "test")

    def _start(self, pl_module: LightningModule) -> None:
        self._counts.to(pl_module.device).reset()
        self._has_counts = False

    def _count(self, outputs: Any, batch: Any) -> None:
        if not (isinstance(batch, Batch) and isinstance(outputs, Mapping) and "logits" in outputs):
            return
        self._has_counts = True  # on all ranks alike, also on one with nothing but padding
        if batch.num_valid:
            self._counts.update(outputs["logits"], batch.labels[: batch.num_valid])

    def _show(self, trainer: Trainer, split: str) -> None:
        if not self._has_counts:
            return
        counts = self._counts.compute()  # over all ranks
        self._counts.reset()
        self._has_counts = False
        if trainer.is_global_zero:
            show(trainer, f"{split}/confusion_matrix", draw_confusion_matrix(counts.cpu().numpy(), self._class_names))
