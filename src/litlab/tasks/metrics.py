"""Metrics of a classifier, exact over batches, padding and ranks: sums and counts, divided once at the end.

A metric of one's own is a `torchmetrics.Metric` named in the config:

    task.metrics: {f1: {_target_: torchmetrics.classification.MulticlassF1Score, average: macro}}

Its constructor gets `num_classes` if it has a parameter of that name. It is updated with `update(preds, target)`,
probabilities `b num_classes` and int64 labels `b`, in validation and test; if its first parameter is named `logits`, it
gets float32 logits instead. Its `compute()` returns a single number. It declares its unit, direction and bounds by
class attributes: `unit` ("%" for a fraction that is displayed in percent), and torchmetrics' `higher_is_better`,
`plot_lower_bound` and `plot_upper_bound`.
"""

import inspect
import math
import warnings
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torchmetrics import MeanMetric, Metric
from torchmetrics.classification import MulticlassCalibrationError

from litlab.errors import UserError
from litlab.runs.metrics import Metric as MetricInfo
from litlab.tasks.losses import FixedDtype

NUM_CALIBRATION_BINS = 15  # as in Guo et al. 2017
MAX_PENDING_LOGITS = 2**20  # 4 MiB
MAX_PENDING_BATCHES = 256
NUM_TRIAL_IMAGES = 8  # that a metric of the user's own is tried on


class LossAndAccuracy(Metric):
    """Mean loss and accuracy over images; one metric, since two take twice the time at every training step.

    `update_later` keeps a batch until `flush`, since adding up at every step costs as much as the forward pass of a
    small network. Batches are added one by one in their order, so the delay changes no bit of the result.
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
        self._pending: list[tuple[Tensor, Tensor, Tensor]] = []

    def update_later(self, losses: Tensor, logits: Tensor, labels: Tensor) -> None:
        """Keep a batch for the next `flush`, which has to precede `compute` and any access to the states."""
        self._pending.append((losses.detach(), logits.detach(), labels))  # detached, or graphs would be kept as well
        if len(self._pending) * logits.numel() > MAX_PENDING_LOGITS or len(self._pending) == MAX_PENDING_BATCHES:
            self.flush()

    def flush(self) -> None:
        """Update with all pending batches."""
        pending, self._pending = self._pending, []
        if not pending:
            return
        batches_of_losses, logits, labels = zip(*pending, strict=True)
        for losses in batches_of_losses:
            self.loss_sum = self.loss_sum + losses.sum()
        self._count(torch.cat(logits), torch.cat(labels))
        self._update_count += len(pending)
        self._computed = None  # torchmetrics caches the last value

    def update(self, losses: Tensor, logits: Tensor, labels: Tensor) -> None:
        """Add a batch.

        Args:
            losses: One loss per image, shape `b`; b may be 0.
            logits: Shape `b num_classes`.
            labels: Shape `b`, int64.
        """
        self.loss_sum = self.loss_sum + losses.sum()
        self._count(logits, labels)

    def compute(self) -> dict[str, Tensor]:
        """Return `loss` and `accuracy`."""
        return {"loss": self.loss_sum / self.num_images, "accuracy": self.num_correct / self.num_images}

    def reset(self) -> None:
        """Forget all batches, the pending ones included."""
        super().reset()
        self._pending = []

    def _count(self, logits: Tensor, labels: Tensor) -> None:
        self.num_correct = self.num_correct + (logits.argmax(dim=1) == labels).sum()
        self.num_images = self.num_images + len(labels)


class TrainingMetrics(FixedDtype):
    """Metrics of the training steps: loss and accuracy.

    Args:
        loss_bounds: Smallest and largest possible loss; None if unknown.
    """

    def __init__(self, loss_bounds: tuple[float, float] | None = (0.0, math.inf)) -> None:
        super().__init__()
        self.loss_bounds = loss_bounds
        self.loss_and_accuracy = LossAndAccuracy()

    def update(self, losses: Tensor, logits: Tensor, labels: Tensor) -> None:
        """Add a batch of real images; arguments as in `LossAndAccuracy.update`."""
        self.loss_and_accuracy.update_later(losses, logits, labels)

    def compute(self) -> dict[str, Tensor]:
        """Compute the values over all ranks since the last reset; every rank has to call it."""
        self.loss_and_accuracy.flush()
        values: dict[str, Tensor] = self.loss_and_accuracy.compute()
        return values

    def take(self, other: "TrainingMetrics") -> None:
        """Add this rank's batches of other metrics to these, and reset those."""
        metric, source = self.loss_and_accuracy, other.loss_and_accuracy
        source.flush()
        for name in ("loss_sum", "num_correct", "num_images"):
            setattr(metric, name, getattr(metric, name) + getattr(source, name))
        metric._update_count += source._update_count
        metric._computed = None  # torchmetrics caches the last value
        other.reset()

    def reset(self) -> None:
        """Forget all batches."""
        for module in self.modules():
            if isinstance(module, Metric):
                module.reset()

    def describe(self) -> list[MetricInfo]:
        """Return unit, direction and bounds of each value."""
        return [
            MetricInfo("loss", mode="min", bounds=self.loss_bounds),
            MetricInfo("accuracy", unit="%", mode="max", bounds=(0.0, 1.0)),
        ]


class EvaluationMetrics(TrainingMetrics):
    """Loss, accuracy, top-5 accuracy, expected calibration error (L1, 15 bins) and the user's own metrics.

    Args:
        num_classes: Number of logits; the top-5 accuracy is one of the top `min(5, num_classes)`.
        metrics: The user's own metrics by name; copies of them are used.
        loss_bounds: See `TrainingMetrics`.

    Raises:
        UserError: A metric of the user's own is none, fails on a few made-up images, or does not compute one number.
    """

    def __init__(
        self,
        *,
        num_classes: int,
        metrics: Mapping[str, Metric],
        loss_bounds: tuple[float, float] | None = (0.0, math.inf),
    ) -> None:
        super().__init__(loss_bounds)
        self.num_top = min(5, num_classes)
        self.top5_accuracy = MeanMetric(nan_strategy="disable")  # looking for NaN would wait for the device
        self.calibration_error = MulticlassCalibrationError(
            num_classes, n_bins=NUM_CALIBRATION_BINS, norm="l1", validate_args=False
        )
        for name, metric in metrics.items():
            check_metric(name, metric, num_classes)
        self.custom_names = tuple(metrics)
        self.custom = nn.ModuleList(metric.clone() for metric in metrics.values())
        self._takes_logits = [_takes_logits(metric) for metric in metrics.values()]

    def update(self, losses: Tensor, logits: Tensor, labels: Tensor) -> None:
        """Add a batch of real images; arguments as in `LossAndAccuracy.update`."""
        super().update(losses, logits, labels)
        if len(labels) == 0:  # torchmetrics raises for an empty batch
            for metric, takes_logits in zip(self.custom, self._takes_logits, strict=True):
                if not metric.update_called:
                    _start_empty(metric, takes_logits, logits.shape[1])  # type: ignore[arg-type]
            return
        in_top = (logits.topk(self.num_top, dim=1).indices == labels[:, None]).any(dim=1)
        self.top5_accuracy.update(in_top.float())
        # Probabilities, not logits: torchmetrics takes logits that happen to lie in 0..1 for probabilities.
        probabilities = logits.softmax(dim=1)
        self.calibration_error.update(probabilities, labels)
        for metric, takes_logits in zip(self.custom, self._takes_logits, strict=True):
            metric.update(logits if takes_logits else probabilities, labels)  # type: ignore[operator]

    def compute(self) -> dict[str, Tensor]:
        """Compute the values over all ranks since the last reset; every rank has to call it.

        Raises:
            UserError: A metric of the user's own did not compute a single number.
        """
        values = super().compute()
        values["top5_accuracy"] = self.top5_accuracy.compute()
        values["calibration_error"] = self.calibration_error.compute()
        for name, metric in zip(self.custom_names, self.custom, strict=True):
            values[name] = _single_number(name, metric.compute(), values["loss"].device)  # type: ignore[operator]
        return values

    def describe(self) -> list[MetricInfo]:
        """Return unit, direction and bounds of each value."""
        top5_accuracy = MetricInfo("top5_accuracy", unit="%", mode="max", bounds=(0.0, 1.0))
        calibration_error = MetricInfo("calibration_error", mode="min", bounds=(0.0, 1.0))
        custom = [metric_info(name, metric) for name, metric in zip(self.custom_names, self.custom, strict=True)]
        return [*super().describe(), top5_accuracy, calibration_error, *custom]


def check_metric(name: str, metric: Metric, num_classes: int) -> None:
    """Compute a metric of the user's own on a few made-up images.

    Raises:
        UserError: If it is no metric, fails, or does not compute a single number.
    """
    if not isinstance(metric, Metric):
        raise UserError(f"task.metrics.{name}: expected a torchmetrics.Metric, got a {type(metric).__name__}")
    trial = metric.clone()
    trial.sync_on_compute = False  # the other ranks need not be there
    try:
        with warnings.catch_warnings(), torch.random.fork_rng(devices=[]):
            warnings.simplefilter("ignore")  # some classes have no images
            trial.update(*_made_up(_takes_logits(metric), num_classes, metric.device))
            value = trial.compute()
    except Exception as error:
        raise UserError(
            f"task.metrics.{name}: {type(metric).__name__} failed on the predictions for {NUM_TRIAL_IMAGES} images and "
            f"{num_classes} classes: {type(error).__name__}: {error}. Expected `update(preds, target)` with "
            "probabilities and labels, or `update(logits, labels)`"
        ) from error
    _single_number(name, value, metric.device)


def _start_empty(metric: Metric, takes_logits: bool, num_classes: int) -> None:
    """Give lists the types that they have on other ranks, which gather them: torchmetrics takes floats if empty."""
    trial = metric.clone()
    trial.update(*_made_up(takes_logits, num_classes, metric.device))
    for name, default in metric._defaults.items():
        if isinstance(default, list):
            values = [value.reshape(1) if value.ndim == 0 else value for value in getattr(trial, name)]
            setattr(metric, name, [value[:0] for value in values])
    metric._update_count += 1


def _made_up(takes_logits: bool, num_classes: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """Make up predictions and labels of a few images."""
    labels = torch.arange(NUM_TRIAL_IMAGES, device=device) % num_classes
    logits = torch.linspace(-2, 2, NUM_TRIAL_IMAGES * num_classes, device=device).view(len(labels), num_classes)
    return logits if takes_logits else logits.softmax(dim=1), labels


def _takes_logits(metric: Metric) -> bool:
    return next(iter(inspect.signature(metric.update).parameters), "") == "logits"


def _single_number(name: str, value: Any, device: torch.device) -> Tensor:
    if isinstance(value, int | float):
        return torch.tensor(float(value), device=device)
    if not isinstance(value, Tensor) or value.numel() != 1:
        shape = f"a tensor of shape {tuple(value.shape)}" if isinstance(value, Tensor) else f"a {type(value).__name__}"
        raise UserError(
            f"task.metrics.{name}: compute() returned {shape}, expected a single number; metrics of torchmetrics that "
            "return one for each class do so with average=macro"
        )
    return value.reshape(()) if value.is_floating_point() else value.reshape(()).float()


def metric_info(name: str, metric: nn.Module) -> MetricInfo:
    """Read unit, direction and bounds from the class attributes of a torchmetrics metric.

    Args:
        name: Name that its value is logged under.
        metric: Metric with torchmetrics' `higher_is_better`, `plot_lower_bound` and `plot_upper_bound`; its `unit` is
            an attribute that only some classes have.
    """
    higher_is_better = getattr(metric, "higher_is_better", None)
    lower, upper = getattr(metric, "plot_lower_bound", None), getattr(metric, "plot_upper_bound", None)
    bounds = (-math.inf if lower is None else float(lower), math.inf if upper is None else float(upper))
    return MetricInfo(
        name,
        unit=str(getattr(metric, "unit", "")),
        mode=None if higher_is_better is None else "max" if higher_is_better else "min",
        bounds=None if lower is None and upper is None else bounds,
    )
