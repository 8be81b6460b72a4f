"""Runs that are stopped wherever they check for a signal, and resumed within this process: equal to the bit."""

from pathlib import Path

import pytest
from reliability.report import Tally, times
from reliability.runs import BATCHES, SMALL
from support.exact_resume import differences, new_run, outcome, stop_and_resume, train_until
from support.thorough import THOROUGH

VARIATIONS = {
    "gradients in flight at a validation": ("trainer.accumulate_grad_batches=2", "trainer.val_check_interval=3"),
    "plain": (),
    "accumulation": ("trainer.accumulate_grad_batches=2",),
    "validation within the epoch, AdamW, cosine": (
        "trainer.val_check_interval=2", "optimizer=adamw", "schedule=cosine",
    ),
    "validation across epochs": ("trainer.check_val_every_n_epoch=null", "trainer.val_check_interval=4"),
    "an end by steps": ("trainer.max_steps=9", "trainer.max_epochs=-1"),
    "limited batches": (
        "trainer.limit_train_batches=4", "trainer.limit_val_batches=1", "trainer.limit_test_batches=2",
    ),
    "no validation data": ("data.val_size=0",),
    "Python's and NumPy's random numbers": ("model._target_=reliability.faults.Noisy",),
    "torch's own loader": (
        "data._target_=reliability.faults.Shuffled", "data.num_workers=0", "trainer.val_check_interval=2",
    ),
    "a loss, class weights and metrics of one's own": (
        "+task.loss={_target_: torch.nn.MultiMarginLoss, p: 2}", "task.class_weights=balanced", "data.mixup=0.5",
        "+task.metrics.f1={_target_: torchmetrics.classification.MulticlassF1Score, average: macro}",
        "+task.metrics.auroc={_target_: torchmetrics.classification.MulticlassAUROC, average: weighted}",
    ),
    "images drawn by their losses": ("data.hard_fraction=0.6", "trainer.max_epochs=3", "data.batch_size=4"),
    "pictures": (
        "callbacks.confusion_matrix={_target_: litlab.callbacks.confusion_matrix.ConfusionMatrix}",
        "callbacks.class_accuracy={_target_: litlab.callbacks.class_accuracy.ClassAccuracy}",
        "callbacks.reliability_diagram={_target_: litlab.callbacks.reliability_diagram.ReliabilityDiagram}",
        "callbacks.training_images={_target_: litlab.callbacks.images.TrainingImages, num_images: 4}",
        "callbacks.worst_mistakes={_target_: litlab.callbacks.images.WorstMistakes, num_images: 4}",
    ),
}  # fmt: skip
EVERY = times(3, 1)


@pytest.mark.integrations
@pytest.mark.row("resume from every step: identical state and rows")
@pytest.mark.parametrize("variation", list(VARIATIONS)[: times(1, len(VARIATIONS))])
def test_resumption_from_every_step(variation: str, tally: Tally, tmp_path: Path) -> None:
    overrides = (*SMALL, *VARIATIONS[variation])
    whole, config = new_run(tmp_path / "whole", *overrides)
    looks = train_until(whole, config, None)
    assert looks is not None
    assert looks > BATCHES
    expected = outcome(whole)
    stops = range(1, looks + 1, EVERY)
    different = {}
    for number in stops:
        run = stop_and_resume(tmp_path / f"stopped-{number}", number, *overrides)
        if lines := differences(expected, outcome(run)):
            different[number] = lines
    tally.count(len(stops) - len(different), len(stops), "" if THOROUGH else f"each {EVERY}rd stop of one config")
    assert different == {}
