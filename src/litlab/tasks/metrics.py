"""Metrics that are exact over batches, padding and ranks: sums and counts, divided once at the end."""

from collections.abc import Callable
from typing import Any, Self

import torch
from torch import Tensor, nn
from torchmetrics import MeanMetric, Metric
from torchmetrics.classification import MulticlassCalibrationError

NUM_CALIBRATION_BINS = 15  # as in Guo et al. 2017
MAX_WAITING = 2**20  # logits, 4 MiB
MAX_BATCHES_WAITING = 256


class LossAndAccuracy(Metric):
    """Mean loss and accuracy over images; one metric, since two cost twice the time at every training step.

    What `collect` is given waits until somebody asks, since adding up at every step costs as much as a small network's
    forward. Batches are added in their order and one by one, so it makes no difference to the bits how long they wait.
    """

    full_state_update = False
    loss_sum: Tensor
    num_correct: Tensor
    num_images: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.add_state("loss_sum", torch.zeros(()), dist_reduce_fx="sum")
        self.add_state("num_correct", torch.zeros((), dtype=torch.int64), dist_reduce_fx="sum")
        self.add_state("num_images", torch.zeros((), dtype=torch.int64), dist_reduce_fx="sum")
        self._waiting: list[tuple[Tensor, Tensor, Tensor]] = []

    def collect(self, losses: Tensor, logits: Tensor, labels: Tensor) -> None:
        """As `update`, but later: before `compute` and before states are read, `add_up` has to be called."""
        self._waiting.append((losses.detach(), logits.detach(), labels))  # or graphs would wait as well
        if len(self._waiting) * logits.numel() > MAX_WAITING or len(self._waiting) == MAX_BATCHES_WAITING:
            self.add_up()

    def add_up(self) -> None:
        """Update with all batches that wait."""
        waiting, self._waiting = self._waiting, []
        if not waiting:
            return
        batches_of_losses, logits, labels = zip(*waiting, strict=True)
        loss_sum = self.loss_sum
        for losses in batches_of_losses:
            loss_sum = loss_sum + losses.sum()
        self.loss_sum = loss_sum
        self._count(torch.cat(logits), torch.cat(labels))
        self._update_count += len(waiting)
        self._computed = None  # torchmetrics keeps the last value

    def update(self, losses: Tensor, logits: Tensor, labels: Tensor) -> None:
        """Takes one loss per image, `b`, logits, `b num_classes`, and labels, `b`; b may be 0."""
        self.loss_sum = self.loss_sum + losses.sum()
        self._count(logits, labels)

    def compute(self) -> dict[str, Tensor]:
        return {
            "loss": self.loss_sum / self.num_images,
            "accuracy": self.num_correct / self.num_images,
        }

    def reset(self) -> None:
        super().reset()
        self._waiting = []

    def _count(self, logits: Tensor, labels: Tensor) -> None:
        self.num_correct = self.num_correct + (logits.argmax(dim=1) == labels).sum()
        self.num_images = self.num_images + len(labels)


class TrainingMetrics(nn.Module):
    """What is measured at every training step: loss and accuracy."""

    def __init__(self) -> None:
        super().__init__()
        self.loss_and_accuracy = LossAndAccuracy()

    def update(self, losses: Tensor, logits: Tensor, labels: Tensor) -> None:
        self.loss_and_accuracy.collect(losses, logits, labels)

    def compute(self) -> dict[str, Tensor]:
        """Values over all ranks since the last reset; every rank has to call it."""
        self.loss_and_accuracy.add_up()
        values: dict[str, Tensor] = self.loss_and_accuracy.compute()
        return values

    def reset(self) -> None:
        for metric in self.children():
            assert isinstance(metric, Metric)
            metric.reset()

    def _apply(self, fn: Callable[[Tensor], Tensor], *args: Any, **kwargs: Any) -> Self:
        # Moves to the device but keeps the type: under bf16-true a sum would otherwise stop growing at 256.
        super()._apply(lambda tensor: tensor.to(fn(tensor).device), *args, **kwargs)  # type: ignore[no-untyped-call]
        return self


class EvaluationMetrics(TrainingMetrics):
    """Loss, accuracy, top-5 accuracy (top `min(5, num_classes)`) and expected calibration error (L1, 15 bins)."""

    def __init__(self, *, num_classes: int) -> None:
        super().__init__()
        self.num_top = min(5, num_classes)
        self.top5_accuracy = MeanMetric(nan_strategy="disable")  # looking for NaN would wait for the device
        self.calibration_error = MulticlassCalibrationError(
            num_classes, n_bins=NUM_CALIBRATION_BINS, norm="l1", validate_args=False
        )

    def update(self, losses: Tensor, logits: Tensor, labels: Tensor) -> None:
        super().update(losses, logits, labels)
        if len(labels) == 0:  # which torchmetrics does not take
            return
        in_top = (logits.topk(self.num_top, dim=1).indices == labels[:, None]).any(dim=1)
        self.top5_accuracy.update(in_top.float())
        # Probabilities, not logits: torchmetrics takes logits that happen to lie in 0..1 for probabilities.
        self.calibration_error.update(logits.softmax(dim=1), labels)

    def compute(self) -> dict[str, Tensor]:
        top5_accuracy: Tensor = self.top5_accuracy.compute()
        calibration_error: Tensor = self.calibration_error.compute()
        return super().compute() | {"top5_accuracy": top5_accuracy, "calibration_error": calibration_error}
