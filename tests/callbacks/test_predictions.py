"""Accuracy of each class and reliability diagrams: their counts, shared by the callbacks, and their drawing."""

from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from lightning.pytorch.loggers import TensorBoardLogger
from numpy.typing import NDArray
from support.exact_resume import new_run, train_until
from support.runs import TINY_WITH_PICTURES
from support.small_fit import CLASS_NAMES, NUM_TEST, Batches, Shown, make_task, make_trainer
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from litlab.callbacks.class_accuracy import BAR, BAR_WIDTH, LINE, MAX_ROWS, TRACK, ClassAccuracy, draw_class_accuracy
from litlab.callbacks.confusion_matrix import ConfusionMatrix
from litlab.callbacks.predictions import PredictionCounter, PredictionCounts
from litlab.callbacks.reliability_diagram import BAR as ACCURACY
from litlab.callbacks.reliability_diagram import (
    EXCEEDING,
    HISTOGRAM_HEIGHT,
    LACKING,
    SIDE,
    ReliabilityDiagram,
    draw_reliability_diagram,
)
from litlab.tasks.metrics import EvaluationMetrics
from litlab.training.checkpoint_io import read_checkpoint

PICTURES = (ConfusionMatrix, ClassAccuracy, ReliabilityDiagram)


@pytest.mark.parametrize("kinds", [PICTURES, PICTURES[::-1], PICTURES[1:2], PICTURES[2:]])
def test_pictures_of_validation_and_test_share_one_count(
    kinds: tuple[Any, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shown, logger, batches = Shown(monkeypatch), TensorBoardLogger(tmp_path), []
    update = PredictionCounter.update
    monkeypatch.setattr(PredictionCounter, "update", lambda *arguments: (batches.append(1), update(*arguments))[0])
    trainer = make_trainer([logger], [kind(class_names=CLASS_NAMES) for kind in kinds], max_epochs=2)
    task, val, test = make_task(), Batches(21), Batches(NUM_TEST)
    trainer.fit(task, Batches(16), val)
    trainer.test(task, test, verbose=False)

    assert len(batches) == 2 * len(val) + len(test)
    for number, data in enumerate((val, test)):
        with torch.no_grad():
            confidences, predicted = task.eval()(data.images).softmax(dim=1).max(dim=1)
        expected = np.zeros((6, 6), dtype=np.int64)
        np.add.at(expected, (data.labels.numpy(), predicted.numpy()), 1)
        for counts in (shown.counts, shown.confusions, [bins.confusion for bins in shown.bins]):
            assert not counts or np.array_equal(counts[number], expected)
        if shown.bins:
            bins, is_right = (confidences * 15).long().numpy(), (predicted == data.labels).numpy()
            assert np.array_equal(shown.bins[number].images, np.bincount(bins, minlength=16))
            assert np.array_equal(shown.bins[number].correct, np.bincount(bins, is_right, minlength=16))
            assert shown.bins[number].confidence == pytest.approx(
                np.bincount(bins, confidences, minlength=16), rel=1e-5
            )
    logger.experiment.flush()
    events = EventAccumulator(logger.log_dir, size_guidance={"images": 0})
    events.Reload()
    assert {tag: [event.step for event in events.Images(tag)] for tag in events.Tags()["images"]} == {
        f"{split}/{kind.name}": [4] for split in ("val", "test") for kind in kinds
    }


def test_no_pictures_without_a_validation_or_of_an_earlier_one(monkeypatch: pytest.MonkeyPatch) -> None:
    shown, task = Shown(monkeypatch), make_task()
    trainer = make_trainer([], [kind(class_names=CLASS_NAMES) for kind in PICTURES], max_epochs=1)
    trainer.validate(task, Batches(21), verbose=False)
    trainer.fit(task, Batches(16))
    assert (shown.counts, shown.confusions, shown.bins) == ([], [], [])


def test_a_run_that_resumes_after_its_last_validation_logs_the_pictures_of_it(tmp_path: Path) -> None:
    settings = (*TINY_WITH_PICTURES, "trainer.check_val_every_n_epoch=2", "trainer.max_epochs=3")
    whole, config = new_run(tmp_path / "whole", *settings)
    looks = train_until(whole, config, None)
    assert looks is not None
    resumed, config = new_run(tmp_path / "resumed", *settings)
    number = looks - 4  # in the third epoch; the last of them are in the test
    assert train_until(resumed, config, number) is None
    saved = read_checkpoint(resumed.last)
    assert (saved["litlab"]["epoch"], saved["litlab"]["hook"]) == (2, "on_train_batch_start")
    assert train_until(resumed, config, None)
    expected = pictures(whole.path)
    assert {f"val/{kind.name}" for kind in PICTURES} <= expected.keys()
    assert pictures(resumed.path) == expected


def pictures(folder: Path) -> dict[str, list[bytes]]:
    events = EventAccumulator(str(folder), size_guidance={"images": 0})
    events.Reload()
    return {tag: [event.encoded_image_string for event in events.Images(tag)] for tag in events.Tags()["images"]}


def test_saved_counts_are_restored_on_one_rank_and_count_once() -> None:
    generator = torch.Generator().manual_seed(3)
    counters = [PredictionCounter(4) for _ in range(3)]
    counters[0].update(torch.randn(50, 4, generator=generator), torch.randint(4, (50,), generator=generator))
    for rank, counter in enumerate(counters[1:]):
        counter.restore(counters[0].counted(), is_owner=rank == 0)
    expected, owner, other = (counter.compute() for counter in counters)
    for name, values in expected._asdict().items():
        assert np.array_equal(getattr(owner, name), values)
        assert not getattr(other, name).any()


def test_the_bins_give_the_calibration_error_that_is_logged() -> None:
    """With probabilities that are exactly 1, and one on the border of two bins."""
    generator = torch.Generator().manual_seed(3)
    logits = torch.randn(500, 4, generator=generator) * torch.tensor([1.0, 4.0, 60.0, 2.0]).repeat(125)[:, None]
    logits[0] = torch.tensor([0.6, 0.4, 1e-30, 1e-30]).log()
    labels = torch.randint(0, 4, (500,), generator=generator)
    counter, metrics = PredictionCounter(4), EvaluationMetrics(num_classes=4, metrics={})
    for rows in torch.arange(500).split(64):
        counter.update(logits[rows], labels[rows])
        metrics.update(torch.zeros(len(rows)), logits[rows], labels[rows])
    counter.update(logits[:0], labels[:0])  # a rank without a real image
    counts = counter.compute()
    assert counts.images[-1] > 0
    error = np.abs(counts.correct - counts.confidence).sum() / counts.images.sum()
    assert metrics.compute()["calibration_error"].item() == pytest.approx(error, rel=1e-5)


def runs(line: NDArray[np.bool_]) -> list[int]:
    """Return the lengths of the connected parts of a line."""
    edges = np.flatnonzero(np.diff(np.concatenate([[0], line.astype(int), [0]])))
    return [int(end - start) for start, end in list(pairwise(edges))[::2]]


def is_color(picture: NDArray[np.uint8], color: tuple[int, int, int]) -> NDArray[np.bool_]:
    return (picture == color).all(axis=2)


def test_bars_are_as_long_as_the_accuracies_and_the_lowest_comes_first() -> None:
    confusion = np.array([[9, 1, 0, 0], [0, 0, 0, 0], [5, 0, 5, 0], [3, 0, 0, 0]])
    picture = draw_class_accuracy(confusion, ("nine of ten", "without images", "half", "none"))
    rows = np.flatnonzero(is_color(picture, TRACK).any(axis=1) | is_color(picture, BAR).any(axis=1))
    starts = [row for row in rows if row - 1 not in rows]
    assert len(starts) == 3  # a class without images has no accuracy
    lengths = [int(is_color(picture, BAR)[row + 2].sum()) for row in starts]
    lines = int(is_color(picture, LINE).any(axis=0).argmax())
    left = int(is_color(picture, TRACK)[starts[0]].argmax())
    assert lengths == [0, BAR_WIDTH // 2 - 1, round(0.9 * BAR_WIDTH) - 1]  # the line of the mean covers a pixel
    assert lines - left == pytest.approx((0 + 0.5 + 0.9) / 3 * BAR_WIDTH, abs=1)


@pytest.mark.parametrize("num_classes", [1, 2, 10, 60, 61, 1500])
@pytest.mark.parametrize("name", ["a long name of a class, " * 9, ""])
def test_bars_and_labels_are_not_cut_off(num_classes: int, name: str) -> None:
    picture = draw_class_accuracy(np.eye(num_classes, dtype=np.int64) * 1_234_567, [name] * num_classes).copy()
    column = is_color(picture, BAR)[:, is_color(picture, BAR).any(axis=0).argmax() + 5]
    assert len(runs(column)) == min(num_classes, MAX_ROWS)
    picture[8:-8, 8:-8] = 255
    assert (picture == 255).all()


def test_a_diagram_shows_accuracy_gap_and_share() -> None:
    images = np.array([0] * 7 + [10] + [0] * 6 + [25, 15])
    correct = np.array([0] * 7 + [8] + [0] * 6 + [15, 15])
    confidence = np.array([0.0] * 7 + [5.0] + [0.0] * 6 + [24.0, 15.0])
    confusion = np.zeros((2, 2), dtype=np.int64)
    picture = draw_reliability_diagram(PredictionCounts(confusion, images, correct, confidence))
    width = SIDE // 15
    left = int(is_color(picture, (40, 40, 40)).sum(axis=0).argmax()) + 1  # right of the frame
    middle, last = (picture[:, left + number * width + 5] for number in (7, 14))
    assert runs((middle == ACCURACY).all(axis=1))[-1] == round(10 / 40 * HISTOGRAM_HEIGHT)
    assert (last == LACKING).all(axis=1).sum() == pytest.approx((39 - 30) / 40 * SIDE, abs=2)
    assert (middle == LACKING).all(axis=1).sum() == 0
    box = np.flatnonzero((middle == EXCEEDING).all(axis=1))
    assert box.max() - box.min() == pytest.approx(0.3 * SIDE, abs=3)  # from the accuracy 0.8 down to 0.5
