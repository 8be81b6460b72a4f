"""What the pictures show, in a real fit and test."""

from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from lightning.pytorch.loggers import TensorBoardLogger
from support.small_fit import CLASS_NAMES, MEAN, NORMALISATION, NUM_TEST, STD, Batches, Shown, make_task, make_trainer
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from litlab.callbacks.confusion_matrix import ConfusionMatrix
from litlab.callbacks.images import TrainingImages, WorstMistakes, to_pixels
from litlab.tasks.image_classifier import ImageClassifier

pytestmark = [
    pytest.mark.filterwarnings("ignore:You defined a `validation_step` but have no `val_dataloader`"),
    pytest.mark.filterwarnings("ignore:The number of training batches"),  # is smaller than the logging interval
]


def expected_counts(task: ImageClassifier, batches: Batches) -> np.ndarray:
    counts = np.zeros((len(CLASS_NAMES), len(CLASS_NAMES)), dtype=np.int64)
    with torch.no_grad():
        predicted = task(batches.images).argmax(dim=1)
    np.add.at(counts, (batches.labels.numpy(), predicted.numpy()), 1)
    return counts


def test_pictures_hold_the_right_images_names_and_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shown, task, logger = Shown(monkeypatch), make_task(), TensorBoardLogger(tmp_path)
    train, val, test = Batches(40), Batches(21), Batches(NUM_TEST)
    callbacks = [
        TrainingImages(num_images=5, **NORMALISATION),
        WorstMistakes(num_images=6, **NORMALISATION),
        ConfusionMatrix(class_names=CLASS_NAMES),
    ]
    trainer = make_trainer([logger], callbacks, max_epochs=2)
    trainer.fit(task, train, val)
    trainer.test(task, test, verbose=False)

    (images, captions), (worst_images, worst_captions) = shown.sheets
    assert captions == [CLASS_NAMES[label] for label in train.labels[:5]]
    assert np.array_equal(images, to_pixels(train.images[:5], mean=MEAN, std=STD))
    assert np.array_equal(shown.counts[0], expected_counts(task, val))
    assert np.array_equal(shown.counts[1], expected_counts(task, test))

    with torch.no_grad():
        logits = task(test.images)
    losses = F.cross_entropy(logits, test.labels, reduction="none")
    probabilities, predicted = logits.softmax(dim=1).max(dim=1)
    mistakes = [row for row in losses.argsort(descending=True).tolist() if predicted[row] != test.labels[row]][:6]
    assert worst_captions == [
        f"{CLASS_NAMES[predicted[row]]} {100 * probabilities[row]:.0f} %\nis {CLASS_NAMES[test.labels[row]]}"
        for row in mistakes
    ]
    assert np.array_equal(worst_images, to_pixels(test.images[mistakes], mean=MEAN, std=STD))

    logger.experiment.flush()
    events = EventAccumulator(logger.log_dir, size_guidance={"images": 0})
    events.Reload()
    assert {tag: [event.step for event in events.Images(tag)] for tag in events.Tags()["images"]} == {
        "train/images": [0],
        "val/confusion_matrix": [10],
        "test/confusion_matrix": [10],
        "test/worst_mistakes": [10],
    }


def test_no_mistakes_no_picture(monkeypatch: pytest.MonkeyPatch) -> None:
    shown, test = Shown(monkeypatch), Batches(NUM_TEST)
    task = make_task()
    with torch.no_grad():
        test.labels = task(test.images).argmax(dim=1)
    make_trainer([], [WorstMistakes(num_images=6, **NORMALISATION)]).test(task, test, verbose=False)
    assert shown.sheets == []
