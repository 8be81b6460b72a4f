import pytest
import torch

from litlab.data.split import stratified_split
from litlab.errors import UserError

LABELS = torch.tensor([0] * 50 + [1] * 30 + [2] * 20)
NAMES = ("ant", "bee", "cat")


def test_quotas_are_shares_and_sum_up() -> None:
    for val_size, expected in {10: [5, 3, 2], 1: [1, 0, 0], 7: [4, 2, 1], 0: [0, 0, 0], 50: [25, 15, 10]}.items():
        train, val = stratified_split(LABELS, class_names=NAMES, val_size=val_size, seed=0)
        assert torch.bincount(LABELS[val], minlength=3).tolist() == expected
        assert sorted(train.tolist() + val.tolist()) == list(range(100))
        assert train.tolist() == sorted(train.tolist())
        assert val.tolist() == sorted(val.tolist())


def test_too_large() -> None:
    with pytest.raises(UserError, match=r"data.val_size=100 leaves nothing to train on: .* has 100 images"):
        stratified_split(LABELS, class_names=NAMES, val_size=100, seed=0)
    with pytest.raises(UserError, match=r"data.val_size=98 takes all 20 training images of class cat"):
        stratified_split(LABELS, class_names=NAMES, val_size=98, seed=0)
