import pytest
import torch
from torch import Tensor

from litlab.data.split import stratified_split
from litlab.errors import UserError

CLASS_NAMES = ("ant", "bee", "cat")
LABELS = torch.tensor([0] * 50 + [1] * 30 + [2] * 20)


def split(val_size: float, labels: Tensor = LABELS) -> tuple[list[int], list[int]]:
    train, val = stratified_split(labels, class_names=CLASS_NAMES, size=val_size, seed=0, setting="data.val_size")
    return train.tolist(), val.tolist()


def test_quotas_are_proportional_and_sum_up() -> None:
    for val_size, expected in {10: [5, 3, 2], 1: [1, 0, 0], 7: [4, 2, 1], 0: [0, 0, 0], 50: [25, 15, 10]}.items():
        train, val = split(val_size)
        assert torch.bincount(LABELS[val], minlength=3).tolist() == expected
        assert sorted(train + val) == list(range(100))
        assert (train, val) == (sorted(train), sorted(val))


def test_a_fraction_equals_that_number_of_images() -> None:
    for fraction, num_val in {0.1: 10, 0.07: 7, 0.5: 50, 0.29: 29}.items():  # 0.29 * 100 is a little less than 29
        assert split(fraction) == split(num_val)
    assert split(0.0)[1] == []


@pytest.mark.parametrize(
    ("class_sizes", "fraction", "expected"),
    [
        ((1, 1, 1), 0.1, [0, 0, 0]),
        ((2, 1, 1), 0.1, [1, 0, 0]),
        ((1, 1, 30), 0.1, [0, 0, 3]),
        ((5, 5, 5), 0.1, [1, 1, 0]),
        ((2, 3, 9), 0.99, [1, 2, 8]),
    ],
)
def test_a_fraction_fits_the_smallest_sets(class_sizes: tuple[int, ...], fraction: float, expected: list[int]) -> None:
    labels = torch.arange(3).repeat_interleave(torch.tensor(class_sizes))
    train, val = split(fraction, labels)
    assert torch.bincount(labels[val], minlength=3).tolist() == expected
    assert set(labels[train].tolist()) == {0, 1, 2}, "each class is trained on"


def test_too_large() -> None:
    message = r"data.val_size=100 leaves nothing to train on: .* has 100 images; .* such as 0.1"
    with pytest.raises(UserError, match=message):
        split(100)
    with pytest.raises(UserError, match=r"data.val_size=98 takes all 20 training images of class cat"):
        split(98)
