"""Losses of one's own and class weights: values, gradients over ranks and mixed labels, and what is refused."""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from support.exact_resume import differences, new_run, outcome, stop_and_resume, train_until
from support.runs import TINY
from support.small_fit import CLASS_NAMES, Batches, Rows, make_task, make_trainer
from torch import Tensor, nn

from litlab.data.loader import Partners
from litlab.errors import UserError
from litlab.tasks.image_classifier import ImageClassifier
from litlab.tasks.losses import compute_class_weights

NUM_CLASSES = len(CLASS_NAMES)
COUNTS = (40, 10, 10, 20, 5, 15)


class Focal(nn.Module):
    """Focal loss (Lin et al. 2017), which takes the reduction as torch's losses do."""

    def __init__(self, *, gamma: float = 2.0, reduction: str = "mean") -> None:
        super().__init__()
        self.gamma, self.reduction = gamma, reduction

    def forward(self, logits: Tensor, labels: Tensor) -> Tensor:
        log_likelihood = -F.cross_entropy(logits, labels, reduction="none")
        losses = -((1 - log_likelihood.exp()) ** self.gamma) * log_likelihood
        return losses.mean() if self.reduction == "mean" else losses


def brier(logits: Tensor, labels: Tensor, power: float = 2.0) -> Tensor:
    return ((logits.softmax(dim=1) - F.one_hot(labels, NUM_CLASSES)).abs() ** power).sum(dim=1)


class Unbounded(nn.Module):
    """Fails for an empty batch, and may be negative."""

    def forward(self, logits: Tensor, labels: Tensor) -> Tensor:
        return -(logits.gather(1, labels[:, None])[:, 0] - logits.max().detach())


LOSSES: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "focal": Focal(reduction="none"),
    "torch": nn.MultiMarginLoss(reduction="none"),
    "smoothed": nn.CrossEntropyLoss(reduction="none", label_smoothing=0.2),
    "function": partial(brier, power=1.5),
    "unbounded": Unbounded(),
}


def gradient(task: ImageClassifier, loss: Tensor) -> Tensor:
    return torch.cat([part.flatten() for part in torch.autograd.grad(loss, list(task.network.parameters()))])


@pytest.mark.parametrize("weights", [None, "balanced", [1.0, 0.0, 3.0, 1.0, 1.0, 2.0]])
@pytest.mark.parametrize("loss", LOSSES)
def test_the_gradient_over_ranks_is_that_of_the_weighted_mean_of_one_process(loss: str, weights: Any) -> None:
    """With 9 images, the second global batch has a single one: rank 1 has none."""
    task = make_task(loss=LOSSES[loss], class_weights=weights, class_counts=COUNTS)
    task.trainer = make_trainer([], [])
    task.trainer.strategy.world_size = 2
    data = Batches(9)
    by_class = torch.ones(NUM_CLASSES) if weights is None else torch.tensor(scaled(weights), dtype=torch.float32)
    for number, rows in enumerate((slice(0, 8), slice(8, 9))):
        parts = [list(Batches(9, rank=rank, world_size=2))[number] for rank in range(2)]
        averaged = sum(gradient(task, task.training_step(part, rank)) for rank, part in enumerate(parts)) / 2
        labels = data.labels[rows]
        losses = LOSSES[loss](task.network(data.images[rows]), labels) * by_class[labels]
        if loss != "unbounded":  # which depends on the largest logit of the batch in its value, not in its gradient
            assert task.train_metrics.compute()["loss"].item() == pytest.approx(losses.mean().item(), rel=1e-5)
        torch.testing.assert_close(averaged, gradient(task, losses.mean()))
        task.train_metrics.reset()


def scaled(weights: Any) -> np.ndarray:
    """Compute the class weights by their definition: their mean over the training images is 1."""
    counts = np.array(COUNTS)
    if weights == "balanced":
        return counts.sum() / (len(counts) * counts)
    return np.array(weights) / np.average(weights, weights=counts)


@pytest.mark.parametrize("weights", [None, "balanced"])
def test_mixed_labels_are_weighed_by_their_shares_and_class_weights(weights: Any) -> None:
    task = make_task(loss=LOSSES["focal"], class_weights=weights, class_counts=COUNTS)
    task.trainer = make_trainer([], [])
    (batch,) = Batches(7)  # seven real rows of eight
    partners = Partners(batch.images, batch.labels.flip(0), batch.indices.flip(0), torch.linspace(0, 1, 8))
    loss = task.training_step(batch._replace(partners=partners), 0)
    by_class = torch.ones(NUM_CLASSES) if weights is None else torch.tensor(scaled(weights), dtype=torch.float32)
    logits, own, other = task.network(batch.images)[:7], batch.labels[:7], batch.labels.flip(0)[:7]
    lam, focal = torch.linspace(0, 1, 8)[:7], LOSSES["focal"]
    expected = lam * by_class[own] * focal(logits, own) + (1 - lam) * by_class[other] * focal(logits, other)
    torch.testing.assert_close(loss, expected.mean())


def test_class_weights_are_those_of_scikit_learns_definition() -> None:
    """`n / (classes * count)`, which scikit-learn calls balanced; only the ratios of a list matter."""
    balanced = compute_class_weights("balanced", COUNTS, NUM_CLASSES)
    assert balanced is not None
    assert balanced.tolist() == pytest.approx(scaled("balanced").tolist())
    assert np.average(balanced.numpy(), weights=COUNTS) == pytest.approx(1)
    once, twice = (compute_class_weights([1 * k, 2 * k, 1 * k], (3, 4, 5), 3) for k in (1, 2))
    assert once is not None
    assert twice is not None
    assert torch.equal(once, twice)
    assert once.tolist() == pytest.approx([0.75, 1.5, 0.75])


def test_classes_without_training_images_have_no_balanced_weight() -> None:
    weights = compute_class_weights("balanced", (2, 0, 6), 3)
    assert weights is not None
    assert weights.tolist() == pytest.approx([2, 0, 2 / 3])


def test_an_evaluation_without_training_images_needs_no_weights() -> None:
    assert compute_class_weights("balanced", (0, 0), 2) is not None
    assert compute_class_weights([1.0, 2.0], None, 2) is not None


@pytest.mark.parametrize(
    "changes",
    [
        {"label_smoothing": 0.3},
        {"class_weights": "balanced", "class_counts": COUNTS},
        {"loss": LOSSES["focal"], "class_weights": "balanced", "class_counts": COUNTS},
    ],
)
def test_validation_and_test_have_no_smoothing_and_no_weights(changes: dict[str, Any]) -> None:
    task, data = make_task(**changes), Batches(21)
    (val,) = make_trainer([], []).validate(task, data, verbose=False)
    (test,) = make_trainer([], []).test(task, data, verbose=False)
    with torch.no_grad():
        losses = (changes.get("loss") or F.cross_entropy)(task.network(data.images), data.labels)
    assert val["val/loss"] == test["test/loss"] == pytest.approx(losses.mean().item(), rel=1e-6)


def test_weights_stay_exact_under_bfloat16_and_out_of_checkpoints() -> None:
    task = make_task(class_weights="balanced", class_counts=COUNTS)
    expected = task.loss.class_weights
    task.bfloat16()
    assert torch.equal(task.loss.class_weights, expected)
    assert task.loss.class_weights.dtype == torch.float32
    assert all(key.startswith("network.") for key in task.state_dict())


@pytest.mark.integrations
@pytest.mark.parametrize("loss", LOSSES)
def test_losses_train(loss: str) -> None:
    rows = Rows()
    task = make_task(loss=LOSSES[loss], class_weights="balanced", class_counts=COUNTS)
    make_trainer([rows], [], max_epochs=4).fit(task, Batches(40), Batches(21))
    values = list(rows.values("val/loss").values())
    assert len(values) == 4
    assert all(np.isfinite(values))
    (train,) = make_trainer([], []).validate(task, Batches(40), verbose=False)
    (before,) = make_trainer([], []).validate(make_task(loss=LOSSES[loss]), Batches(40), verbose=False)
    assert loss == "unbounded" or train["val/loss"] < before["val/loss"]


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"label_smoothing": 0.1}, ""),
        ({"loss": LOSSES["function"]}, "brier"),
        ({"loss": LOSSES["focal"], "class_weights": "balanced"}, "Focal, class weights 0.417 to 3.33"),
    ],
)
def test_the_summary_of_a_run_names_loss_and_weights(changes: dict[str, Any], text: str) -> None:
    assert str(make_task(class_counts=COUNTS, **changes).loss) == text


@pytest.mark.parametrize("loss", [None, "focal"])
def test_bounds_of_the_loss_are_known_for_cross_entropy_alone(loss: str | None) -> None:
    infos = {info.name: info for info in make_task(loss=loss and LOSSES[loss]).describe_metrics()}
    assert {infos[f"{split}/loss"].mode for split in ("train", "val", "test")} == {"min"}
    assert (infos["val/loss"].bounds is None) == (infos["train/loss"].bounds is None) == (loss is not None)


class Scaled(nn.Linear):
    def forward(self, logits: Tensor, labels: Tensor) -> Tensor:
        return F.cross_entropy(super().forward(logits), labels, reduction="none")


@pytest.mark.parametrize(
    ("loss", "message"),
    [
        (Focal(), r'Focal returned shape \(\) for 2 images, but .*one loss for each image.* litlab sets to "none"'),
        (nn.NLLLoss(reduction="sum"), r"NLLLoss returned shape \(\) for 2 images"),
        (nn.BCEWithLogitsLoss(reduction="none"), r"BCEWithLogitsLoss failed on logits of shape \(2, 6\) and labels of"),
        (lambda logits, labels: (logits, labels), r"<lambda> returned a tuple for 2 images"),
        (lambda logits, labels: logits.mean(dim=0), r"<lambda> returned shape \(6,\) for 2 images"),
        (lambda logits, labels: (logits.argmax(dim=1) != labels).float(), "<lambda> has no gradient by the logits"),
        (lambda logits: logits, "<lambda> failed .*TypeError"),
        (lambda logits, labels: logits.mean(dim=1).log(), "<lambda> returned NaN or infinity for logits from -1 to 1"),
        (
            Scaled(NUM_CLASSES, NUM_CLASSES),
            "Scaled has parameters, which no optimizer would train",
        ),
        (0.5, "expected a module that is called with logits and labels, got a float"),
    ],
)
def test_losses_that_cannot_be_used_are_refused_before_the_training(loss: Any, message: str) -> None:
    with pytest.raises(UserError, match=rf"task\.loss: .*{message}"):
        make_task(loss=loss)


@pytest.mark.parametrize(
    ("weights", "counts", "message"),
    [
        ([1.0, 2.0], COUNTS, "task.class_weights has 2 weights, but the data set has 6 classes"),
        ("balanced", None, "task.class_weights=balanced: needs the number of training images of each class"),
        ([0, 0, 0, 0, 0, 1], (1, 1, 1, 1, 1, 0), "task.class_weights: all training images have the weight 0"),
    ],
)
def test_weights_that_do_not_fit_the_data_are_refused(weights: Any, counts: Any, message: str) -> None:
    with pytest.raises(UserError, match=message):
        make_task(class_weights=weights, class_counts=counts)


@pytest.mark.integrations
def test_a_run_with_a_loss_weights_and_metrics_of_ones_own_resumes_exactly(tmp_path: Path) -> None:
    overrides = (
        *TINY,
        f"+task.loss._target_={__name__}.Focal",
        "task.class_weights=balanced",
        "data.mixup=0.5",
        "+task.metrics.auroc={_target_: torchmetrics.classification.MulticlassAUROC, average: weighted}",
        "objective.metric=val/auroc",
        "~logger",
    )
    whole, config = new_run(tmp_path / "whole", *overrides)
    looks = train_until(whole, config, None)
    assert looks is not None
    for number in (looks // 3, looks - 2):  # within an epoch, within a validation
        resumed = stop_and_resume(tmp_path / str(number), number, *overrides)
        assert differences(outcome(resumed), outcome(whole)) == []
    assert outcome(whole)["result"]["objective"] == outcome(whole)["result"]["best"]["val/auroc"]
