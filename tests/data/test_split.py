import pytest
import torch
from torch import Tensor

from litlab.data.split import stratified_fold, stratified_split
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


def fold(number: int, folds: int = 5, seed: int = 0, labels: Tensor = LABELS) -> tuple[list[int], list[int]]:
    train, val = stratified_fold(labels, class_names=CLASS_NAMES, folds=folds, fold=number, seed=seed)
    return train.tolist(), val.tolist()


@pytest.mark.parametrize(("sizes", "folds"), [((50, 30, 20), 5), ((50, 30, 20), 7), ((7, 4, 3), 3), ((2, 2, 2), 6)])
def test_folds_are_disjoint_stratified_and_whole(sizes: tuple[int, ...], folds: int) -> None:
    labels = torch.arange(3).repeat_interleave(torch.tensor(sizes))
    every = [fold(number, folds, labels=labels) for number in range(folds)]
    assert sorted(row for _, val in every for row in val) == list(range(len(labels)))
    for train, val in every:
        assert sorted(train + val) == list(range(len(labels)))
        assert (train, val) == (sorted(train), sorted(val))
        assert set(labels[train].tolist()) == {0, 1, 2}, "each class is trained on"
    num_images = torch.tensor([len(val) for _, val in every])
    counts = torch.stack([torch.bincount(labels[val], minlength=3) for _, val in every])
    assert num_images.max() - num_images.min() <= 1
    assert (counts.amax(dim=0) - counts.amin(dim=0)).max() <= 1


def test_folds_are_a_function_of_the_seed() -> None:
    assert fold(2) == fold(2)
    assert fold(2, seed=1)[1] != fold(2)[1]
    assert not set(fold(2)[1]) & set(fold(3)[1])
    assert len({tuple(fold(number)[1]) for number in range(5)}) == 5


def test_folds_that_do_not_fit() -> None:
    with pytest.raises(UserError, match=r"data.folds=101: the training split has only 100 images"):
        fold(0, folds=101)
    with pytest.raises(UserError, match=r"data.folds=2: class cat has a single training image"):
        fold(0, folds=2, labels=torch.tensor([0, 0, 1, 1, 2]))
