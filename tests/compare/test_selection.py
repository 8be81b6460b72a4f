"""The best group: how much of its value is owed to being selected by it, and its test value."""

import json
from pathlib import Path
from typing import Any

import pytest
from support.grids import LR, SEED
from support.studies import make_run, make_study

from litlab.compare.comparison import compare
from litlab.compare.formats import render
from litlab.compare.html import to_html
from litlab.statistics.selection import selection_bias

RATES = [0.1, 0.2, 0.3]
NOISE = {0.1: [0.01, -0.02, 0.02], 0.2: [-0.01, 0.03, 0.0], 0.3: [0.02, -0.01, -0.03]}


def accuracy(point: dict[str, Any]) -> float:
    return 0.6 + NOISE[point[LR]][point[SEED]]


def test_several_groups(tmp_path: Path) -> None:
    """The validation metric ranks; the test metric is that of the same group, though another one has more."""
    make_study(tmp_path / "s", {LR: RATES, SEED: [0, 1, 2]}, accuracy, test_accuracy=lambda point: 0.5 + point[LR] / 10)
    comparison = compare([tmp_path / "s"])
    bias = selection_bias([{seed: 0.6 + noise for seed, noise in enumerate(NOISE[lr])} for lr in RATES], is_max=True)
    selection = comparison.selection
    assert selection is not None
    assert bias is not None
    assert (selection.group, selection.num_groups, selection.test) == ("lr=0.2", 3, 0.52)
    assert selection.lead == pytest.approx(0.02 / 3 - 0.01 / 3)
    assert (selection.value_bias, selection.lead_bias) == pytest.approx((bias.value, bias.lead))
    assert bias.lead > selection.lead, "these groups are equal"
    note = (
        f"lr=0.2: the best of 3 groups by val/accuracy; of its 60.7 %, about {100 * bias.value:.1f} points are "
        "expected to be selection, and of its lead of 0.3 points, all; its test/accuracy, by which nothing was "
        "selected, is 52.00 %"
    )
    assert comparison.notes == (note,)
    assert note in " ".join(render(comparison, "table").split())
    assert note in to_html(comparison)
    assert json.loads(render(comparison, "json"))["selection"]["test"] == 0.52


def test_a_loss_is_selected_as_the_smallest(tmp_path: Path) -> None:
    make_study(tmp_path / "s", {LR: RATES, SEED: [0, 1, 2]}, accuracy)
    by_loss, by_accuracy = (compare([tmp_path / "s"], metric=metric).selection for metric in ("val/loss", None))
    assert by_loss is not None
    assert by_accuracy is not None
    assert by_loss.group == by_accuracy.group
    assert by_loss.lead == pytest.approx(2 * by_accuracy.lead)
    assert by_loss.value_bias == pytest.approx(2 * (by_accuracy.value_bias or 0))


def test_a_search_without_repeated_trials(tmp_path: Path) -> None:
    for lr in RATES:
        make_run(tmp_path / str(lr), {LR: lr}, 0.5 + lr, test_accuracy=0.4 + lr)
    (_, note) = compare([tmp_path]).notes
    assert note == (
        "lr=0.3: the best of 3 groups by val/accuracy: how much of its 80.00 % is selection can't be told, as no group "
        "has two seeds; its test/accuracy, by which nothing was selected, is 70.00 %"
    )


def test_a_search_some_of_whose_trials_were_repeated(tmp_path: Path) -> None:
    """Their spread over seeds tells how much a single seed may be off."""
    for lr in RATES:
        for seed in range(3 if lr == 0.1 else 1):
            make_run(tmp_path / f"{lr}_{seed}", {LR: lr, SEED: seed}, accuracy({LR: lr, SEED: seed}))
    selection = compare([tmp_path]).selection
    assert selection is not None
    assert selection.group == "lr=0.3"
    assert 0.005 < (selection.value_bias or 0) < 0.03


def test_without_a_test_metric(tmp_path: Path) -> None:
    for run in make_study(tmp_path / "s", {LR: RATES, SEED: [0, 1, 2]}, accuracy):
        run.result.write_text(json.dumps({**json.loads(run.result.read_text()), "test": {}}))
    (note,) = compare([tmp_path / "s"]).notes
    assert note.endswith("; a value without selection needs a test/accuracy, which it does not have")


def test_nothing_is_selected_from_one_group(tmp_path: Path) -> None:
    make_study(tmp_path / "s", {SEED: [0, 1, 2]}, lambda point: 0.5)
    assert compare([tmp_path / "s"]).selection is None
