"""Pixels of what is drawn."""

import time

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from support.small_fit import MEAN, STD

from litlab.callbacks.confusion_matrix import draw_confusion_matrix
from litlab.callbacks.images import contact_sheet, get_font, to_pixels, truncate


def test_pixels_are_those_before_the_normalisation() -> None:
    pixels = torch.randint(0, 256, (2, 3, 4, 5), dtype=torch.uint8)
    mean, std = torch.tensor(MEAN).view(1, 3, 1, 1), torch.tensor(STD).view(1, 3, 1, 1)
    assert np.array_equal(to_pixels((pixels / 255 - mean) / std, mean=MEAN, std=STD), pixels.permute(0, 2, 3, 1))
    grey = to_pixels((pixels[:, :1] / 255 - 0.5) / 0.2, mean=(0.5,), std=(0.2,))
    assert np.array_equal(grey, pixels[:, :1].expand(-1, 3, -1, -1).permute(0, 2, 3, 1))


@pytest.mark.parametrize(("size", "shown_size"), [(32, 128), (28, 112), (224, 112)])
def test_tiles_are_enlarged_by_whole_factors_or_reduced(size: int, shown_size: int) -> None:
    images = np.zeros((3, size, size, 3), dtype=np.uint8)
    images[1, :, :, 0] = 200
    sheet = contact_sheet(images, ["a", "b", "c" * 200])
    dark_or_red = (sheet[:, :, 1] == 0) & (sheet[:, :, 2] == 0)
    columns = np.flatnonzero(dark_or_red[20])
    assert len(columns) == 2 * shown_size  # two tiles in the first row
    assert (sheet[20, columns[shown_size:]] == (200, 0, 0)).all()


def test_long_lines_are_shortened_to_their_width() -> None:
    font = get_font(14)
    assert truncate("a cat", 100, font) == "a cat"
    for line in ("W" * 255, "some words that go on", "i" * 255):
        short = truncate(line, 100, font)
        assert short.endswith("…")
        assert line.startswith(short[:-1])
        assert 80 < font.getlength(short) <= 100


def test_the_colour_of_a_cell_is_the_share_of_its_true_class() -> None:
    picture = draw_confusion_matrix(np.array([[30, 10], [5, 5]]), ("yes", "no"))

    def centre(colour: tuple[int, int, int]) -> NDArray[np.float64]:  # the same colours in the scale are a few lines
        return np.median(np.argwhere((picture == colour).all(axis=2)), axis=0)

    three_quarters, quarter, half = centre((39, 108, 174)), centre((186, 212, 236)), centre((104, 164, 213))
    assert three_quarters[0] == pytest.approx(quarter[0], abs=2)  # the row of the true "yes"
    assert half[0] > quarter[0] + 100  # the row of the true "no", in both columns
    assert three_quarters[1] + 50 < half[1] < quarter[1] - 50


@pytest.mark.parametrize("num_classes", [1, 2, 10, 25, 26, 60, 61, 200, 1500])
@pytest.mark.parametrize("name", ["a", "a long name of a class, " * 9, "кошка\nи собака", ""])
def test_all_of_the_matrix_is_in_its_picture(num_classes: int, name: str) -> None:
    counts = np.eye(num_classes, dtype=np.int64) * 1_234_567
    picture = draw_confusion_matrix(counts, [name] * num_classes)
    assert min(picture.shape[:2]) > 280
    assert max(picture.shape[:2]) < 2400
    picture = picture.copy()
    picture[8:-8, 8:-8] = 255
    assert (picture == 255).all()  # nothing but paper at the edge


def test_counts_names_and_numbers_are_shown() -> None:
    def is_seen(num_classes: int, counts: NDArray[np.int64], name: str) -> bool:
        names = [f"class {row}" for row in range(num_classes)]
        return not np.array_equal(
            draw_confusion_matrix(np.eye(num_classes, dtype=np.int64) * 100, names),
            draw_confusion_matrix(counts, [*names[:-1], name]),
        )

    for num_classes, has_counts, has_names in [(25, True, True), (60, False, True), (61, False, False)]:
        same = np.eye(num_classes, dtype=np.int64) * 100
        other = same.copy()
        other[0, 0], other[1, 1] = 101, 99  # the same shares, accuracy and number of images
        assert is_seen(num_classes, other, f"class {num_classes - 1}") == has_counts
        assert is_seen(num_classes, same, "another") == has_names


def test_drawing_takes_little_processor_time() -> None:
    counts, names = np.eye(10, dtype=np.int64) * 1000, [f"class {row}" for row in range(10)]
    draw_confusion_matrix(counts, names)  # loads the fonts
    started = time.process_time()
    for _ in range(5):
        draw_confusion_matrix(counts, names)
    assert (time.process_time() - started) / 5 < 0.15  # 0.02 on the machine it was written on; 0.7 with Matplotlib
