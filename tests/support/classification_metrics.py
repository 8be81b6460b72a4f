"""Metrics of a classifier by their definitions, in NumPy, and the torchmetrics that have to equal them."""

import numpy as np
from numpy.typing import NDArray
from torchmetrics import Metric
from torchmetrics.classification import (
    MulticlassAUROC,
    MulticlassAveragePrecision,
    MulticlassCohenKappa,
    MulticlassF1Score,
    MulticlassMatthewsCorrCoef,
    MulticlassRecall,
)


def torchmetrics_of_the_reference(num_classes: int) -> dict[str, Metric]:
    """Return metrics with sums for a state, and with lists that ranks have to gather."""
    return {
        "f1": MulticlassF1Score(num_classes, average="macro"),
        "balanced_accuracy": MulticlassRecall(num_classes, average="macro"),
        "kappa": MulticlassCohenKappa(num_classes),
        "matthews": MulticlassMatthewsCorrCoef(num_classes),
        "auroc": MulticlassAUROC(num_classes, average="macro"),
        "precision": MulticlassAveragePrecision(num_classes, average="macro"),
    }


def reference_values(probabilities: NDArray[np.float32], labels: NDArray[np.int64]) -> dict[str, float]:
    """Compute the values of all images at once.

    Args:
        probabilities: Shape `b num_classes`.
        labels: Shape `b`; each class has an image.
    """
    num_images, num_classes = probabilities.shape
    assert set(labels) == set(range(num_classes))
    confusion = np.zeros((num_classes, num_classes))
    np.add.at(confusion, (labels, probabilities.argmax(axis=1)), 1)
    hits, true, predicted = np.diag(confusion), confusion.sum(axis=1), confusion.sum(axis=0)
    chance = true @ predicted / num_images**2
    spread = (num_images**2 - true @ true) * (num_images**2 - predicted @ predicted)
    is_class = labels[:, None] == np.arange(num_classes)
    return {
        "f1": np.mean(2 * hits / (true + predicted)),
        "balanced_accuracy": np.mean(hits / true),
        "kappa": (hits.sum() / num_images - chance) / (1 - chance),
        "matthews": (hits.sum() * num_images - true @ predicted) / np.sqrt(spread),
        "auroc": np.mean([_auroc(*column) for column in zip(probabilities.T, is_class.T, strict=True)]),
        "precision": np.mean([_average_precision(*column) for column in zip(probabilities.T, is_class.T, strict=True)]),
    }


def _auroc(scores: NDArray[np.float32], is_positive: NDArray[np.bool_]) -> float:
    """Share of the pairs of a positive and a negative image in which the positive one has the higher score."""
    difference = scores[is_positive][:, None] - scores[~is_positive]
    return float(np.mean((difference > 0) + 0.5 * (difference == 0)))


def _average_precision(scores: NDArray[np.float32], is_positive: NDArray[np.bool_]) -> float:
    """Mean, over the positive images, of the share of positive images among those with at least its score."""
    return float(np.mean([is_positive[scores >= score].mean() for score in scores[is_positive]]))
