"""Loss of a classifier: one value per image, so that its mean is exact over padding, ranks and mixed labels.

A loss of one's own is a module, or a function with `_partial_: true`, named in the config:

    task.loss: {_target_: my_project.FocalLoss, gamma: 2.0}

It is called with float32 logits `b num_classes` and int64 labels `b`, and returns one loss for each image, `b`. Its
constructor gets `reduction="none"`, `num_classes`, `class_counts` and the like where it has parameters of these names.
"""

import copy
from collections.abc import Callable, Sequence
from typing import Any, Literal, Self

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from litlab.data.loader import Partners
from litlab.errors import UserError

LossFunction = Callable[[Tensor, Tensor], Tensor]
ClassWeights = Literal["balanced"] | Sequence[float] | None


class FixedDtype(nn.Module):
    """Module that moves to a device but keeps the types of its tensors, also under `bf16-true`."""

    def _apply(self, fn: Callable[[Tensor], Tensor], *args: Any, **kwargs: Any) -> Self:
        super()._apply(lambda tensor: tensor.to(fn(tensor).device), *args, **kwargs)  # type: ignore[no-untyped-call]
        return self


class ClassificationLoss(FixedDtype):
    """Losses of images, in training with label smoothing, class weights and mixed labels; in evaluation without.

    Args:
        function: Loss of the user's own; None for cross entropy.
        label_smoothing: Fraction of the target that cross entropy spreads evenly over the classes, in training.
        class_weights: See `compute_class_weights`.
        class_counts: Number of training images of each class; None if unknown.
        num_classes: Number of logits.

    Attributes:
        class_weights: Weight of each class in training, float32 `num_classes`; None for none.

    Raises:
        UserError: The function does not return one differentiable loss for each image, or has parameters, or the class
            weights do not fit the data.
    """

    class_weights: Tensor | None

    def __init__(
        self,
        function: LossFunction | None,
        *,
        label_smoothing: float,
        class_weights: ClassWeights,
        class_counts: Sequence[int] | None,
        num_classes: int,
    ) -> None:
        super().__init__()
        if function is not None:
            check_loss(function, num_classes)
        self.function = function
        self.label_smoothing = label_smoothing
        weights = compute_class_weights(class_weights, class_counts, num_classes)
        self.register_buffer("class_weights", weights, persistent=False)  # computed again from config and data

    def __str__(self) -> str:
        """Describe what is not the default: `Focal, class weights 0.5 to 2`; empty for plain cross entropy."""
        parts = [] if self.function is None else [_name(self.function)]
        if (weights := self.class_weights) is not None:
            parts.append(f"class weights {weights.min():.3g} to {weights.max():.3g}")
        return ", ".join(parts)

    def evaluate(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Compute the loss of each image, `b`, without label smoothing and class weights."""
        return self._losses(logits, labels, label_smoothing=0.0)

    def forward(self, logits: Tensor, labels: Tensor, partners: Partners | None = None) -> Tensor:
        """Compute the training loss of each image, `b`.

        Args:
            logits: Float32 `b num_classes`.
            labels: Int64 `b`.
            partners: Other labels of mixed images, with the weights `lam` of their own labels; it may have more rows.
        """
        losses = self._weighted(logits, labels)
        if partners is None:
            return losses
        assert partners.lam is not None, "the data module's `transform_batch` sets it"
        lam, partner_labels = (rows[: len(labels)] for rows in (partners.lam, partners.labels))
        return lam * losses + (1 - lam) * self._weighted(logits, partner_labels)

    def _weighted(self, logits: Tensor, labels: Tensor) -> Tensor:
        losses = self._losses(logits, labels, label_smoothing=self.label_smoothing)
        return losses if self.class_weights is None else losses * self.class_weights[labels]

    def _losses(self, logits: Tensor, labels: Tensor, *, label_smoothing: float) -> Tensor:
        if self.function is None:
            return F.cross_entropy(logits, labels, reduction="none", label_smoothing=label_smoothing)
        if len(labels) == 0:  # a rank without a real image, for which a loss of the user's own need not be defined
            return logits.sum(dim=1)
        return self.function(logits, labels)


def compute_class_weights(weights: ClassWeights, counts: Sequence[int] | None, num_classes: int) -> Tensor | None:
    """Compute the weight of each class, scaled so that the mean over the training images is 1.

    The loss then keeps its scale, and the learning rate its meaning: only the ratios of the weights matter.

    Args:
        weights: "balanced" for weights that give all classes the same sum, `total / (classes with images * count)`; or
            a weight for each class; None for none.
        counts: Number of training images of each class; None if unknown, then taken to be equal. A class without images
            has the weight 0 under "balanced".
        num_classes: Number of classes.

    Returns:
        Weights, float32 `num_classes`; None for none.

    Raises:
        UserError: If the number of weights is not that of the classes, "balanced" lacks the counts, or all images
            have the weight 0.
    """
    if weights is None:
        return None
    num_images = torch.tensor(counts or [1] * num_classes, dtype=torch.float64)
    if not isinstance(weights, str):
        if len(weights) != num_classes:
            raise UserError(
                f"task.class_weights has {len(weights)} weights, but the data set has {num_classes} classes: give one "
                "for each in the order of the labels (class_names in dataset.json), or use balanced or null"
            )
        scaled = torch.tensor(weights, dtype=torch.float64)
    elif counts is None:
        raise UserError(
            "task.class_weights=balanced: needs the number of training images of each class, which the data module "
            "does not tell; give a weight for each class instead"
        )
    else:
        scaled = torch.where(num_images > 0, 1 / num_images, 0.0)
    total = (scaled * num_images).sum()
    if total == 0 < num_images.sum():
        raise UserError(
            "task.class_weights: all training images have the weight 0; give a positive weight to a class with images"
        )
    mean = total / num_images.sum() if total else 1  # no training images: an evaluation on images of another data set
    return (scaled / mean).float()


def check_loss(function: LossFunction, num_classes: int) -> None:
    """Try a loss of the user's own on a few made-up logits.

    Raises:
        UserError: If it does not return one finite, differentiable loss for each image, or has parameters.
    """
    name = _name(function)
    expected = "one loss for each image, so that it can be averaged exactly over ranks and mixed labels"
    if not callable(function):
        raise UserError(f"task.loss: expected a module that is called with logits and labels, got a {name}")
    if isinstance(function, nn.Module) and next(function.parameters(), None) is not None:
        raise UserError(f"task.loss: {name} has parameters, which no optimizer would train: put them into the network")
    num_images = 3 if num_classes == 2 else 2  # another number, to tell the axes apart
    logits = torch.linspace(-1, 1, num_images * num_classes).reshape(num_images, num_classes).requires_grad_()
    labels = torch.arange(num_images) % num_classes
    try:
        with torch.enable_grad(), torch.random.fork_rng(devices=[]):
            losses = copy.deepcopy(function)(logits, labels)  # a copy, since it may count its calls
    except Exception as error:
        raise UserError(
            f"task.loss: {name} failed on logits of shape {tuple(logits.shape)} and labels of shape "
            f"({num_images},), expected {expected}: {type(error).__name__}: {error}"
        ) from error
    if not isinstance(losses, Tensor) or losses.shape != labels.shape:
        returned = f"shape {tuple(losses.shape)}" if isinstance(losses, Tensor) else f"a {type(losses).__name__}"
        raise UserError(
            f"task.loss: {name} returned {returned} for {num_images} images, but the task expects {expected}: let it "
            'take `reduction`, which litlab sets to "none", or return the losses without their mean'
        )
    if not losses.isfinite().all():
        raise UserError(
            f"task.loss: {name} returned NaN or infinity for logits from -1 to 1, so the training would diverge: check "
            "what it divides by, and its logarithms and roots"
        )
    if not losses.requires_grad:
        raise UserError(f"task.loss: {name} has no gradient by the logits, so nothing would be trained")


def _name(function: LossFunction) -> str:
    return str(getattr(getattr(function, "func", function), "__name__", type(function).__name__))
