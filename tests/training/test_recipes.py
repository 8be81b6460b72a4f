"""Difficulty of the embedded data: the tutorial network learns them in an epoch, and a better recipe wins."""

from functools import cache
from pathlib import Path
from statistics import mean

import pytest
from support.runs import train_here
from support.thorough import THOROUGH

from litlab.data import shapes
from litlab.runs.result import read_result

pytestmark = pytest.mark.integrations
PLAIN = (
    "data=shapes", "data.num_train=8000", "data.num_test=1000", "data.val_size=0",
    "data.batch_size=32", "data.crop_padding=0", "data.flip=false",
    "model=cnn", "optimizer=sgd", "optimizer.lr=0.05", "schedule=one_cycle",
    "trainer=cpu", "trainer.max_epochs=1", "threads=1", "objective=null", "~logger", "~callbacks",
)  # fmt: skip
BETTER = (*PLAIN, "trainer.max_epochs=2")
NUM_SEEDS = 3 if THOROUGH else 2  # accuracies spread by 0.02 from seed to seed, the recipes are 0.09 apart


def accuracies(folder: Path, recipe: tuple[str, ...]) -> list[float]:
    """Return the test accuracy of each seed."""
    runs = [train_here(folder / str(seed), *recipe, f"seed={seed}") for seed in range(NUM_SEEDS)]
    return [read_result(run)["test"]["test/accuracy"] for run in runs]


def test_a_better_recipe_wins_on_shapes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shapes, "draw_images", cache(shapes.draw_images))  # all runs have the same images
    plain, better = accuracies(tmp_path / "plain", PLAIN), accuracies(tmp_path / "better", BETTER)
    assert all(0.60 < accuracy < 0.90 for accuracy in plain), f"too hard or too easy: {plain}"
    assert mean(better) - mean(plain) >= 0.05, f"{better} is hardly better than {plain}"
