import pytest
import torch

from litlab.data.split import stratified_split
from litlab.errors import UserError

LABELS = torch.tensor([0] * 50 + [1] * 30 + [2] * 20)
NAMES = ("ant", "bee", "cat")


def test_quotas_are_proportional_and_sum_up() -> None:
    for val_size, expected in {10: [5, 3, 2], 1: [1, 0, 0], 7: [4, 2, 1], 0: [0, 0, 0], 50: [25, 15, 10]}.items():
        train, val = stratified_split(LABELS, class_names=NAMES, val_size=val_size, seed=0)
        assert torch.bincount(LABELS[val], minlength=3).tolist() == expected
        assert sorted(train.tolist() + val.tolist()) == list(range(100))
        assert train.tolist() == sorted(train.tolist())
        assert val.tolist() == sorted(val.tolist())


def test_a_fraction_equals_that_number_of_images() -> None:
    for fraction, num_val in {0.1: 10, 0.07: 7, 0.5: 50, 0.29: 29}.items():  # 0.29 * 100 is a little less than 29
        expected = stratified_split(LABELS, class_names=NAMES, val_size=num_val, seed=3)
        for part, other in zip(
            stratified_split(LABELS, class_names=NAMES, val_size=fraction, seed=3), expected, strict=True
        ):
            assert torch.equal(part, other)
    assert len(stratified_split(LABELS, class_names=NAMES, val_size=0.0, seed=3)[1]) == 0


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
    train, val = stratified_split(labels, class_names=NAMES, val_size=fraction, seed=0)
    assert torch.bincount(labels[val], minlength=3).tolist() == expected
    assert set(labels[train].tolist()) == {0, 1, 2}, "each class is trained on"


def test_too_large() -> None:
    with pytest.raises(
        UserError, match=r"data.val_size=100 leaves nothing to train on: .* has 100 images; .* such as 0.1"
    ):
        stratified_split(LABELS, class_names=NAMES, val_size=100, seed=0)
    with pytest.raises(UserError, match=r"data.val_size=98 takes all 20 training images of class cat"):
        stratified_split(LABELS, class_names=NAMES, val_size=98, seed=0)
