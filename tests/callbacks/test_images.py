"""Pictures of a real fit and test, and their drawing."""

from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from lightning.pytorch.loggers import TensorBoardLogger
from support.fonts import ASCII, installed_only, write_font
from support.small_fit import CLASS_NAMES, MEAN, NORMALIZATION, NUM_TEST, STD, Batches, Shown, make_task, make_trainer
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from litlab.callbacks.confusion_matrix import ConfusionMatrix, draw_confusion_matrix
from litlab.callbacks.images import TrainingImages, WorstMistakes, contact_sheet, get_font, to_pixels, truncate
from litlab.callbacks.predictions import PredictionCounter
from litlab.tasks.image_classifier import ImageClassifier


def expected_counts(task: ImageClassifier, batches: Batches) -> np.ndarray:
    counts = np.zeros((len(CLASS_NAMES), len(CLASS_NAMES)), dtype=np.int64)
    with torch.no_grad():
        predicted = task(batches.images).argmax(dim=1)
    np.add.at(counts, (batches.labels.numpy(), predicted.numpy()), 1)
    return counts


def test_pictures_show_the_expected_images_captions_and_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shown, task, logger = Shown(monkeypatch), make_task(), TensorBoardLogger(tmp_path)
    train, val, test = Batches(40), Batches(21), Batches(NUM_TEST)
    callbacks = [
        TrainingImages(num_images=5, **NORMALIZATION),
        WorstMistakes(num_images=6, **NORMALIZATION),
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


def test_no_picture_without_mistakes(monkeypatch: pytest.MonkeyPatch) -> None:
    shown, test = Shown(monkeypatch), Batches(NUM_TEST)
    task = make_task()
    with torch.no_grad():
        test.labels = task(test.images).argmax(dim=1)
    make_trainer([], [WorstMistakes(num_images=6, **NORMALIZATION)]).test(task, test, verbose=False)
    assert shown.sheets == []


def test_pixels_are_those_before_the_normalization() -> None:
    pixels = torch.randint(0, 256, (2, 3, 4, 5), dtype=torch.uint8)
    mean, std = torch.tensor(MEAN).view(1, 3, 1, 1), torch.tensor(STD).view(1, 3, 1, 1)
    assert np.array_equal(to_pixels((pixels / 255 - mean) / std, mean=MEAN, std=STD), pixels.permute(0, 2, 3, 1))
    gray = to_pixels((pixels[:, :1] / 255 - 0.5) / 0.2, mean=(0.5,), std=(0.2,))
    assert np.array_equal(gray, pixels[:, :1].expand(-1, 3, -1, -1).permute(0, 2, 3, 1))


@pytest.mark.parametrize(("size", "shown_size"), [(32, 128), (28, 112), (224, 112)])
def test_tiles_are_enlarged_by_whole_factors_or_reduced(size: int, shown_size: int) -> None:
    images = np.zeros((3, size, size, 3), dtype=np.uint8)
    images[1, :, :, 0] = 200
    sheet = contact_sheet(images, ["a", "b", "c" * 200])
    dark_or_red = (sheet[:, :, 1] == 0) & (sheet[:, :, 2] == 0)
    columns = np.flatnonzero(dark_or_red[20])
    assert len(columns) == 2 * shown_size  # two tiles in the first row
    assert (sheet[20, columns[shown_size:]] == (200, 0, 0)).all()


def test_long_lines_are_truncated_to_their_width() -> None:
    font = get_font(14)
    assert truncate("a cat", 100, font) == "a cat"
    for line in ("W" * 255, "some words that go on", "i" * 255):
        short = truncate(line, 100, font)
        assert short.endswith("…")
        assert line.startswith(short[:-1])
        assert 80 < font.getlength(short) <= 100


@pytest.mark.parametrize("has_font", [False, True])
def test_classes_without_a_font_are_numbers_with_a_legend(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, has_font: bool
) -> None:
    """Train with names of characters that DejaVu Sans does not have."""
    names = ("猫", "狗", "鳥", "a | b", "魚", "fox")
    shown_names = names if has_font else tuple(f"class {number}" for number in range(6))
    write_font(tmp_path / "sans.ttf", ASCII + ("猫狗鳥魚" if has_font else "猫狗"))
    shown, logger, train = Shown(monkeypatch), TensorBoardLogger(tmp_path), Batches(40)
    with installed_only(tmp_path):
        normalization = NORMALIZATION | {"class_names": names}
        callbacks = [
            TrainingImages(num_images=5, **normalization),
            WorstMistakes(num_images=6, **normalization),
            ConfusionMatrix(class_names=names),
        ]
        trainer, task = make_trainer([logger], callbacks, max_epochs=1), make_task()
        trainer.fit(task, train)
        trainer.test(task, train, verbose=False)
        counts = np.eye(6, dtype=np.int64)
        drawn = draw_confusion_matrix(counts, names)
        assert np.array_equal(drawn, draw_confusion_matrix(counts, shown_names))
        others = ("狗", "猫", *names[2:])  # two boxes would look the same
        assert np.array_equal(drawn, draw_confusion_matrix(counts, others)) != has_font

    assert shown.sheets[0][1] == [shown_names[label] for label in train.labels[:5]]
    assert {line.rpartition("is ")[2] for line in shown.sheets[1][1]} <= {*shown_names}
    tags = [] if has_font else ["test/confusion_matrix", "test/worst_mistakes", "train/images"]
    legend = "".join(f"    {row}  {name}\n" for row, name in enumerate(names))
    assert read_texts(logger) == {f"{tag}/classes/text_summary": legend for tag in tags}


def read_texts(logger: TensorBoardLogger) -> dict[str, str]:
    """Return tag -> text of all texts that were logged."""
    logger.experiment.flush()
    events = EventAccumulator(logger.log_dir, size_guidance={"tensors": 0})
    events.Reload()
    tensors = {tag: events.Tensors(tag)[0].tensor_proto.string_val[0] for tag in events.Tags()["tensors"]}
    return {tag: text.decode() for tag, text in tensors.items()}


def test_many_classes_have_a_legend() -> None:
    names = [f"class {number}" for number in range(61)]
    for num_classes, legend in ((61, names), (60, [])):
        counter = PredictionCounter(num_classes)
        counter.update(torch.eye(num_classes), torch.arange(num_classes))
        assert ConfusionMatrix(class_names=names[:num_classes]).draw(counter.compute())[1] == legend
