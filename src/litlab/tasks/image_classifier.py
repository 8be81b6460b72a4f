"""Image classification task: a network with its loss, metrics, optimizer and schedule."""

import math
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any, Self, TypedDict

import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.strategies import DDPStrategy, SingleDeviceStrategy
from lightning.pytorch.trainer.states import TrainerFn
from lightning.pytorch.utilities.types import OptimizerLRScheduler
from torch import Tensor, nn
from torch.optim import LBFGS, Optimizer
from torchmetrics import Metric

from litlab.data.loader import Batch
from litlab.errors import UserError
from litlab.optim.parameter_groups import decayed_names, parameter_groups, takes_one_group
from litlab.optim.schedule_factory import ScheduleFactory
from litlab.runs.metrics import Metric as MetricInfo
from litlab.tasks.frozen_parameters import FrozenParameters, find_backbone
from litlab.tasks.losses import ClassificationLoss, ClassWeights, LossFunction
from litlab.tasks.metrics import EvaluationMetrics, TrainingMetrics
from litlab.tasks.tta import TTA

_IGNORED = -100  # label for which torch's cross entropy is zero


class EvaluationOutput(TypedDict):
    """Output of a validation or test step for callbacks: this rank's real images only, without padding."""

    logits: Tensor  # float32 b num_classes
    losses: Tensor  # float32 b, as in `val/loss`: without label smoothing and class weights


class ImageClassifier(LightningModule):
    """Train a network to classify images, under any precision and any number of ranks.

    The loss is cross entropy in nats, or `loss`. `train/loss` is what is minimized: the mean over images of
    `w[label] * loss(label)`, with label smoothing and the class weights `w`, whose mean over the training images is 1;
    for mixed images `lam * w[own] * loss(own) + (1 - lam) * w[partner] * loss(partner)`. `val/loss` and `test/loss` are
    means of the loss without label smoothing and class weights, so that runs with different ones can be compared.
    `train/accuracy` compares with an image's own label.

    The gradient is that of the mean over the real images of the global batch, for any number of ranks: DDP averages
    over ranks, so each rank divides its sum by the global count and multiplies it by the number of ranks. A rank
    without a real image contributes zero. The sum is not divided by the weights of the batch, as torch does it, since
    each image would then have another weight in each batch.

    Args:
        network: Takes images, float `b c h w`, and returns logits `b num_classes`.
        optimizer: Makes an optimizer from parameter groups.
        schedule: Makes the scheduler of the optimizer. None for a constant learning rate.
        num_classes: Number of logits that the network is expected to return.
        class_counts: Number of training images of each class; None if unknown.
        loss: Takes logits, float32 `b num_classes`, and labels, int64 `b`, and returns a loss for each image, `b`. None
            for cross entropy.
        label_smoothing: Fraction of the target that cross entropy spreads evenly over the classes, 0 to 1.
        class_weights: "balanced", or a weight for each class, see `litlab.tasks.losses`; None for none.
        channels_last: Store images and four-dimensional weights with the channels innermost.
        compile: Compile the network's forward by `torch.compile`, for training alone.
        test_time_flip: Average validation and test over mirrored images, see `TTA`.
        test_time_shift: Average validation and test over images shifted by this many pixels, see `TTA`.
        metrics: Additional metrics of validation and test by name, see `litlab.tasks.metrics`.
        test_time_margin: Average only for images whose class leads the next one by less than this, see `TTA`.
        freeze: Patterns of the names of parameters that are not trained, see `FrozenParameters`.
        freeze_after_epochs: Epochs in which the parameters of `freeze` are trained before that.

    Attributes:
        memory_format: Memory format that images are expected in.
        train_metrics: Metrics of the batches since the last row of training values.
        epoch_metrics: Metrics of the batches of this epoch before those.
        latest: Newest row of training values of this epoch as plain numbers, for a progress bar; `TrainingLog` sets it.
        supports_mixed_targets: The loss weighs both labels of mixed images; data modules require it before they mix.
        records_losses: Training records the loss of each image in `Batch.loss_table`, as it is minimized: with label
            smoothing and class weights. Data modules require it before they draw images by their losses.
    """

    supports_mixed_targets = True
    records_losses = True

    def __init__(
        self,
        *,
        network: nn.Module,
        optimizer: Callable[..., Optimizer],
        schedule: ScheduleFactory | None,
        num_classes: int,
        class_counts: Sequence[int] | None = None,
        loss: LossFunction | None,
        label_smoothing: float,
        class_weights: ClassWeights,
        channels_last: bool,
        compile: bool,
        test_time_flip: bool,
        test_time_shift: int,
        test_time_margin: float | None,
        metrics: Mapping[str, Metric],
        freeze: Sequence[str],
        freeze_after_epochs: int,
    ) -> None:
        super().__init__()
        self.memory_format = torch.channels_last if channels_last else torch.contiguous_format
        self.network = network.to(memory_format=self.memory_format) if channels_last else network
        self.num_classes = num_classes
        self.loss = ClassificationLoss(
            loss,
            label_smoothing=label_smoothing,
            class_weights=class_weights,
            class_counts=class_counts,
            num_classes=num_classes,
        )
        self.latest: dict[str, float] = {}
        bounds = (0.0, math.inf) if loss is None else None  # a loss of the user's own may be negative
        self.train_metrics = TrainingMetrics(bounds)
        self.epoch_metrics = TrainingMetrics(bounds)
        self.val_metrics = EvaluationMetrics(num_classes=num_classes, metrics=metrics, loss_bounds=bounds)
        self.test_metrics = EvaluationMetrics(num_classes=num_classes, metrics=metrics, loss_bounds=bounds)
        self._decayed = decayed_names(network)
        self._make_optimizer = optimizer
        self._schedule = schedule
        self._compile = compile
        self._tta = TTA(flip=test_time_flip, shift=test_time_shift, margin=test_time_margin)
        self._compiled: Callable[[Tensor], Tensor] | None = None
        self._counted: tuple[int, int] | None = None  # epoch and number of the last batch in the training metrics
        self._freeze_after_epochs = freeze_after_epochs
        self._frozen = FrozenParameters(network, freeze, after_epochs=freeze_after_epochs)

    @property
    def backbone(self) -> nn.Module:
        """The network without its head and what `freeze` freezes, as Lightning's `BackboneFinetuning` wants it."""
        return find_backbone(self.network, self._frozen.names)

    def train(self, mode: bool = True) -> Self:
        """Set the mode of all modules; norms in frozen ones stay in evaluation mode."""
        super().train(mode)
        self._frozen.keep_norms()
        return self

    def forward(self, images: Tensor) -> Tensor:
        """Compute logits, `b num_classes`, of normalized float images, `b c h w`."""
        # Under bf16-true the weights are bfloat16.
        images = images.to(self.dtype, memory_format=self.memory_format)
        if not self.training:
            return self._tta.logits(self.network, images)
        logits: Tensor = (self._compiled or self.network)(images)
        return logits

    def setup(self, stage: str) -> None:
        """Check the strategy.

        Raises:
            UserError: It shards the weights, which does not work with one of the settings.
        """
        settings = {
            "freeze_after_epochs": self._freeze_after_epochs,  # shards hold frozen and trained parameters alike
            "test_time_margin": self._tta.margin,  # each pass gathers weights from all ranks
        }
        strategy = self.trainer.strategy
        has_whole_weights = isinstance(strategy, SingleDeviceStrategy) or type(strategy) is DDPStrategy
        for name, value in settings.items():
            if value and not has_whole_weights:
                raise UserError(
                    f"task.{name}={value}: works on one device or with trainer=ddp, not with {type(strategy).__name__}"
                )

    def on_fit_start(self) -> None:
        """Compile the forward pass, after strategies have wrapped the network."""
        self._counted = None
        if self._frozen.norms:
            warnings.filterwarnings("ignore", "Found .* in eval mode at the start of training")
        if self._compile:
            self._compiled = compiled(self.network, self.device)

    def to_batch(self, batch: Any) -> Batch:
        """Convert a batch of a data module that is not litlab's: a pair of images and labels, all of them real rows.

        In training, the number of rows of all ranks is summed up, so that the gradient is that of the mean over the
        images of all ranks.

        Args:
            batch: Images as the network takes them, normalized, float `b ...`, and class numbers, integers of shape
                `b`; or a `Batch`, which stays as it is.

        Raises:
            UserError: If it is anything else, or a label is the number of no class; on a CPU alone.
        """
        if isinstance(batch, Batch):
            return batch
        images, labels = batch if isinstance(batch, list | tuple) and len(batch) == 2 else (None, None)
        if not isinstance(images, Tensor) or not isinstance(labels, Tensor) or images.shape[:1] != labels.shape:
            raise UserError(
                f"the data module yields {_describe_batch(batch)}; {type(self).__name__} takes pairs of images, float "
                "b c h w, and labels, int64 b: let its data set return (image, label), or train with a LightningModule "
                "of your own"
            )
        if not images.is_floating_point() or labels.is_floating_point() or labels.is_complex():
            raise UserError(
                f"the data module yields images of {images.dtype} and labels of {labels.dtype}; "
                f"{type(self).__name__} takes normalized images as float and class numbers as int64: convert them in "
                "the transforms of its data set"
            )
        if labels.device.type == "cpu":  # on a GPU, each step would wait for it
            wrong = labels[(labels >= self.num_classes) | ((labels < 0) & (labels != _IGNORED))]
            if len(wrong):
                raise UserError(
                    f"the data module yields the label {wrong[0]}, but the task has {self.num_classes} classes: "
                    f"expected labels from 0 to {self.num_classes - 1}"
                )
        num_global, trainer = len(labels), self.trainer
        if trainer.training and trainer.world_size > 1:
            count = torch.tensor(num_global, device=self.device)
            num_global = int(trainer.strategy.reduce(count, reduce_op="sum"))
        return Batch(images, labels.long(), torch.full_like(labels, -1).long(), len(labels), num_global)

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """Compute the loss of one rank's batch, scaled for DDP's mean over ranks.

        An optimizer may evaluate a batch several times. The training metrics count the first time, which is that of the
        weights before the step, as for any other optimizer.
        """
        logits, labels = self._shared_step(batch)
        losses: Tensor = self.loss(logits, labels, batch.partners)
        number = (self.trainer.current_epoch, batch_idx)
        if number != self._counted:
            self._counted = number
            self.train_metrics.update(losses, logits, labels)
            if batch.loss_table is not None:
                batch.loss_table.record(batch.indices[: batch.num_valid], losses)
        return losses.sum() * (self.trainer.world_size / batch.num_global)

    def validation_step(self, batch: Batch, batch_idx: int) -> EvaluationOutput:
        """Update the validation metrics with one rank's batch."""
        return self._evaluation_step(batch, self.val_metrics)

    def test_step(self, batch: Batch, batch_idx: int) -> EvaluationOutput:
        """Update the test metrics with one rank's batch."""
        return self._evaluation_step(batch, self.test_metrics)

    def on_train_epoch_start(self) -> None:
        """Freeze the parameters of `freeze` after `freeze_after_epochs`."""
        self._frozen.start_epoch(self.trainer.current_epoch)

    def on_train_epoch_end(self) -> None:
        """Show the means of the epoch, `train/loss` and `train/accuracy`, to callbacks and schedules that monitor them.

        They are set without `self.log`, after which Lightning would go through the logged values at every step.
        """
        self.epoch_metrics.take(self.train_metrics)
        values = self.epoch_metrics.compute()
        self.epoch_metrics.reset()
        self.trainer.callback_metrics.update({f"train/{name}": value for name, value in values.items()})

    def on_validation_epoch_end(self) -> None:
        """Log the validation metrics."""
        self._log_evaluation("val", self.val_metrics)

    def on_test_epoch_end(self) -> None:
        """Log the test metrics."""
        self._log_evaluation("test", self.test_metrics)

    def configure_optimizers(self) -> OptimizerLRScheduler:
        """Make the optimizer of the trainable parameters, and its schedule.

        Raises:
            UserError: Nothing is trainable, the schedule needs a number of steps that is not known, or the optimizer
                evaluates a batch several times in a setting in which that is not possible.
        """
        groups = parameter_groups(self.network, self._decayed)
        if takes_one_group(self._make_optimizer):
            groups = [{"params": [parameter for group in groups for parameter in group["params"]]}]
        optimizer = self._make_optimizer(groups)
        if isinstance(optimizer, LBFGS):
            _check_repeated_evaluations(optimizer, self.trainer)
        return optimizer if self._schedule is None else self._schedule.configure(optimizer, self.trainer)

    def describe_metrics(self) -> list[MetricInfo]:
        """Return unit, direction and bounds of each metric that is logged."""
        splits = {"train": self.train_metrics, "val": self.val_metrics, "test": self.test_metrics}
        return [
            replace(info, name=f"{split}/{info.name}")
            for split, metrics in splits.items()
            for info in metrics.describe()
        ]

    def _shared_step(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Compute logits and labels of the real rows. The network gets the padding, too: equal shapes."""
        output = self(batch.images)
        expected = (len(batch.labels), self.num_classes)
        if not isinstance(output, Tensor) or output.shape != expected:
            returned = f"shape {tuple(output.shape)}" if isinstance(output, Tensor) else f"a {type(output).__name__}"
            is_row = isinstance(output, Tensor) and output.shape[:-1] == expected[:-1]
            remedy = "let the network take num_classes" if is_row else "return the logits alone, one row for each image"
            raise UserError(
                f"{type(self.network).__name__} returned {returned} for {len(batch.labels)} images, but the task "
                f"expects logits of shape {expected}, one for each of the data set's {self.num_classes} classes: "
                f"{remedy}"
            )
        logits, labels = output.float(), batch.labels
        if batch.num_valid < len(labels):
            logits, labels = logits[: batch.num_valid], labels[: batch.num_valid]
        return logits, labels

    def _evaluation_step(self, batch: Batch, metrics: EvaluationMetrics) -> EvaluationOutput:
        logits, labels = self._shared_step(batch)
        losses = self.loss.evaluate(logits, labels)
        metrics.update(losses, logits, labels)
        return {"logits": logits, "losses": losses}

    def _log_evaluation(self, split: str, metrics: EvaluationMetrics) -> None:
        values = {f"{split}/{name}": value for name, value in metrics.compute().items()}
        metrics.reset()
        # Equal on all ranks already, as torchmetrics adds up sums and counts. Lightning warns without sync_dist; the
        # maximum of equal values is exact, the mean would round.
        fitting = self.trainer.state.fn == TrainerFn.FITTING
        self.log_dict(values, batch_size=1, sync_dist=True, reduce_fx="max", logger=False if fitting else None)
        if fitting and not self.trainer.sanity_checking:  # to the loggers directly: Lightning would be a step behind
            log_row(self.trainer, {name: value.item() for name, value in values.items()})


def _check_repeated_evaluations(optimizer: Optimizer, trainer: Trainer) -> None:
    """Check that an optimizer can evaluate each batch as often as its loss demands.

    Raises:
        UserError: Ranks, which see other losses, would take another number of evaluations; or gradients would be
            accumulated or scaled over all of them.
    """
    if trainer.world_size > 1 or trainer.accumulate_grad_batches > 1 or trainer.precision == "16-mixed":
        raise UserError(
            f"{type(optimizer).__name__} evaluates each batch several times, which works on one device, with "
            "trainer.accumulate_grad_batches=1 and any trainer.precision but 16-mixed"
        )


def _describe_batch(batch: Any) -> str:
    """Describe the types in a batch, for a message."""
    if isinstance(batch, Tensor):
        return f"a tensor of shape {tuple(batch.shape)}"
    if isinstance(batch, dict):
        return f"a dict of {', '.join(map(str, batch))}"
    if isinstance(batch, list | tuple):
        return f"a {type(batch).__name__} of {', '.join(map(_describe_batch, batch))}"
    return f"a {type(batch).__name__}"


def compiled(network: nn.Module, device: torch.device) -> Callable[[Tensor], Tensor]:
    """Compile the network's forward with its own weights, whose names do not change.

    Each shape of a batch is compiled separately, so that the code for one shape does not depend on which came first:
    a resumed run may begin with another one.

    Raises:
        UserError: The device is a CPU and there is no C++ compiler.
    """
    from torch._inductor.cpp_builder import get_cpp_compiler  # takes seconds to import
    from torch._inductor.exc import InvalidCxxCompiler

    try:
        if device.type == "cpu":
            get_cpp_compiler()
    except InvalidCxxCompiler as error:
        raise UserError(
            "task.compile=true needs a working C++ compiler on a CPU: install g++, set CXX to another one, "
            "or use task.compile=false"
        ) from error
    return torch.compile(lambda images: network(images), dynamic=False)


def log_row(trainer: Trainer, values: dict[str, float]) -> None:
    """Send values to all loggers, with the number of optimizer steps taken so far as step."""
    for logger in trainer.loggers:
        logger.log_metrics(values | {"epoch": trainer.current_epoch}, step=trainer.global_step)
