"""The confusion matrix, counted over all ranks and drawn."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from lightning.pytorch import Callback, LightningModule, Trainer
from numpy.typing import NDArray
from torchmetrics.classification import MulticlassConfusionMatrix

from litlab.callbacks.drawing import show
from litlab.data.batch import Batch

MAX_CLASSES_WITH_COUNTS = 25  # with more, the counts would not fit their cells
MAX_CLASSES_WITH_NAMES = 60


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


def draw_confusion_matrix(counts: NDArray[np.int64], class_names: Sequence[str]) -> NDArray[np.uint8]:
    """A picture, `h w 3`, of counts, `true predicted`; the colour is the share of the true class."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg  # only where something is drawn: it takes a while
    from matplotlib.figure import Figure

    num_classes = len(class_names)
    size = min(3.5 + 0.45 * num_classes, 14.0)  # inches
    figure = Figure(figsize=(size + 0.8, size), dpi=110, layout="compressed")
    canvas = FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    image = axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    figure.colorbar(image, ax=axes, label="share of the true class", fraction=0.046, pad=0.03)
    accuracy = np.trace(counts) / max(counts.sum(), 1)
    axes.set(xlabel="predicted", ylabel="true", title=f"{counts.sum():,} images, accuracy {100 * accuracy:.2f} %")
    if num_classes <= MAX_CLASSES_WITH_NAMES:
        font_size = 9 if num_classes <= MAX_CLASSES_WITH_COUNTS else 7
        axes.set_xticks(range(num_classes), class_names, rotation=45, ha="right", rotation_mode="anchor")
        axes.set_yticks(range(num_classes), class_names)
        axes.tick_params(labelsize=font_size, length=0)
    if num_classes <= MAX_CLASSES_WITH_COUNTS:
        for (row, column), count in np.ndenumerate(counts):
            colour = "white" if shares[row, column] > 0.6 else "#222222" if count else "#bbbbbb"
            axes.text(column, row, f"{count}", ha="center", va="center", color=colour, fontsize=8)
    for _ in range(2):  # the first time, the layout does not know yet how wide the labels are
        canvas.draw()  # type: ignore[no-untyped-call]
    picture: NDArray[np.uint8] = np.asarray(canvas.buffer_rgba())[..., :3]  # type: ignore[no-untyped-call]
    return picture
