"""Drawing of confusion matrices."""

import time

import numpy as np
import pytest
from numpy.typing import NDArray

from litlab.callbacks.confusion_matrix import draw_confusion_matrix


def test_color_is_the_fraction_of_the_true_class() -> None:
    picture = draw_confusion_matrix(np.array([[30, 10], [5, 5]]), ("yes", "no"))

    def center(color: tuple[int, int, int]) -> NDArray[np.float64]:  # the same colors in the scale are a few lines
        return np.median(np.argwhere((picture == color).all(axis=2)), axis=0)

    three_quarters, quarter, half = center((39, 108, 174)), center((186, 212, 236)), center((104, 164, 213))
    assert three_quarters[0] == pytest.approx(quarter[0], abs=2)  # the row of the true "yes"
    assert half[0] > quarter[0] + 100  # the row of the true "no", in both columns
    assert three_quarters[1] + 50 < half[1] < quarter[1] - 50


@pytest.mark.parametrize("num_classes", [1, 2, 10, 25, 26, 60, 61, 200, 1500])
@pytest.mark.parametrize("name", ["a long name of a class, " * 9, "кошка\nи собака", ""])
def test_nothing_is_cut_off_at_the_edge(num_classes: int, name: str) -> None:
    counts = np.eye(num_classes, dtype=np.int64) * 1_234_567
    picture = draw_confusion_matrix(counts, [name] * num_classes)
    assert min(picture.shape[:2]) > 280
    assert max(picture.shape[:2]) < 2400
    picture = picture.copy()
    picture[8:-8, 8:-8] = 255
    assert (picture == 255).all()  # nothing but paper at the edge


def test_counts_and_names_are_drawn_if_they_fit() -> None:
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
