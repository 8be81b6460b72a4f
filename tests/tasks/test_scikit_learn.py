"""Metrics over unequal batches and two ranks, and class weights, against scikit-learn."""

from pathlib import Path

import numpy as np
import pytest
from callbacks.test_two_ranks import last_validation, predictions, run_two_ranks

from litlab.tasks.losses import compute_class_weights

pytestmark = pytest.mark.integrations


def test_metrics_of_two_ranks_equal_those_of_scikit_learn(tmp_path: Path) -> None:
    """The last of three batches has one image, on rank 0."""
    from sklearn import metrics

    two, _ = run_two_ranks(tmp_path)
    values = last_validation(two["rows"])
    probabilities, labels = predictions(two["weights"])
    predicted = probabilities.argmax(axis=1)
    is_class = labels[:, None] == np.arange(probabilities.shape[1])
    expected = {
        "accuracy": metrics.accuracy_score(labels, predicted),
        "top5_accuracy": metrics.top_k_accuracy_score(labels, probabilities, k=5),
        "f1": metrics.f1_score(labels, predicted, average="macro"),
        "balanced_accuracy": metrics.balanced_accuracy_score(labels, predicted),
        "kappa": metrics.cohen_kappa_score(labels, predicted),
        "matthews": metrics.matthews_corrcoef(labels, predicted),
        "auroc": metrics.roc_auc_score(labels, probabilities, multi_class="ovr", average="macro"),
        "precision": metrics.average_precision_score(is_class, probabilities, average="macro"),
    }
    for name, value in expected.items():
        assert values[name] == pytest.approx(value, rel=1e-5), name


def test_balanced_class_weights_are_those_of_scikit_learn() -> None:
    from sklearn.utils.class_weight import compute_class_weight

    counts = (40, 7, 13, 1)
    expected = compute_class_weight("balanced", classes=np.arange(4), y=np.repeat(np.arange(4), counts))
    weights = compute_class_weights("balanced", counts, 4)
    assert weights is not None
    assert weights.tolist() == pytest.approx(expected.tolist(), rel=1e-6)
