"""One value for each seed: repetitions, and settings that `--group` averages over."""

import os
import shutil
from pathlib import Path
from statistics import fmean
from typing import Any

import numpy as np
import pytest
from scipy import stats
from support.grids import LR, SEED, WIDTHS, accuracy, names, remarks
from support.studies import accuracy_interval, make_study

from litlab.compare.comparison import compare
from litlab.compare.data_model import Comparison, Group
from litlab.errors import UserError

AXES = {LR: [0.05, 0.1], WIDTHS: [[2, 4], [4, 8]], SEED: [0, 1, 2, 3]}


def test_a_seed_counts_once_and_the_newest(tmp_path: Path) -> None:
    make_study(tmp_path / "a", {SEED: [0, 1]}, accuracy)
    make_study(tmp_path / "b", {SEED: [1, 2]}, lambda point: 0.9)
    for path in (tmp_path / "a").rglob("result.json"):
        os.utime(path, (0, 0))
    comparison = compare([tmp_path])
    (group,) = comparison.groups
    assert [(run.seed, run.study) for run in group.runs] == [
        (0, tmp_path / "a"), (1, tmp_path / "b"), (2, tmp_path / "b"),
    ]  # fmt: skip
    assert comparison.notes == ("1 run is not averaged, as a newer one has the same settings and seed: a/0001_seed-1",)


def test_a_newer_one_without_the_metric_does_not_count(tmp_path: Path) -> None:
    (old,) = make_study(tmp_path / "a", {SEED: [0]}, accuracy)
    (new,) = make_study(tmp_path / "b", {SEED: [0]}, accuracy, best={}, last={})
    new.metrics.unlink()
    os.utime(old.result, (0, 0))
    (group,) = compare([tmp_path]).groups
    assert [run.path for run in group.runs] == [old.path]


@pytest.mark.parametrize("group", [None, ["lr"], []])
def test_copies_do_not_make_an_interval_narrower(study: Path, tmp_path: Path, group: list[str] | None) -> None:
    before = compare([study], group=group)
    shutil.copytree(study, tmp_path / "copy")
    after = compare([study, tmp_path / "copy"], group=group)
    assert [group.value for group in after.groups] == [group.value for group in before.groups]
    (note,) = set(after.notes) - set(before.notes)
    assert note.startswith("18 runs are not averaged, as a newer one has the same settings and seed: ")


def accuracy_of_order(point: dict[str, Any]) -> float:
    """Order the seeds differently for each learning rate; wider networks are much better."""
    of_seed = {0.05: [0.2, 0.0, 0.1, 0.3], 0.1: [0.1, 0.3, 0.0, 0.15]}[point[LR]][point[SEED]]
    return round(0.3 + point[LR] + (0.4 if point[WIDTHS] == [4, 8] else 0.0) + 0.1 * of_seed, 6)


def of_seeds(lr: float, seeds: list[int]) -> list[float]:
    return [fmean(accuracy_of_order({LR: lr, WIDTHS: widths, SEED: seed}) for widths in AXES[WIDTHS]) for seed in seeds]


def group_named(comparison: Comparison, name: str) -> Group:
    return next(group for group in comparison.groups if group.name == name)


def test_the_interval_is_one_over_seeds(tmp_path: Path) -> None:
    """The interval is that of the mean over the widths, which differ by far more than seeds do."""
    make_study(tmp_path / "s", AXES, accuracy_of_order)
    comparison = compare([tmp_path / "s"], group=["optimizer.lr"], baseline="lr=0.05")
    assert (names(comparison), comparison.labels) == (["lr=0.1", "lr=0.05"], ("lr",))
    note = "averaged over widths ([2,4], [4,8]) for each seed, and then over seeds, which n and intervals count"
    assert comparison.notes[0] == note
    means = {lr: of_seeds(lr, AXES[SEED]) for lr in AXES[LR]}
    for lr, values in means.items():
        value = group_named(comparison, f"lr={lr}").value
        assert len(group_named(comparison, f"lr={lr}").runs) == 8
        assert (value.num, value.mean) == (4, pytest.approx(np.mean(values)))
        assert value.deviation == pytest.approx(np.std(values, ddof=1))
        assert (value.low, value.high) == pytest.approx(accuracy_interval(values))
        assert value.best == max(accuracy_of_order({LR: lr, WIDTHS: [4, 8], SEED: seed}) for seed in AXES[SEED])
    difference = group_named(comparison, "lr=0.1").difference
    assert (difference.kind, difference.num) == ("paired", 4)
    assert difference.mean == pytest.approx(fmean(means[0.1]) - fmean(means[0.05]))
    assert difference.p == pytest.approx(stats.ttest_rel(means[0.1], means[0.05]).pvalue)


def test_seeds_that_not_all_settings_have_are_left_out(tmp_path: Path) -> None:
    """With them, the mean of a seed would be one over other settings."""

    def status(point: dict[str, Any]) -> str:
        return "failed" if (point[LR], point[WIDTHS], point[SEED]) == (0.1, [4, 8], 1) else "completed"

    make_study(tmp_path / "s", AXES, accuracy_of_order, status=status)
    comparison = compare([tmp_path / "s"], group=["lr"])
    value = group_named(comparison, "lr=0.1").value
    assert (value.num, value.mean) == (3, pytest.approx(np.mean(of_seeds(0.1, [0, 2, 3]))))
    assert [run.seed for run in group_named(comparison, "lr=0.1").runs] == [0, 0, 2, 2, 3, 3]
    assert remarks(comparison)[1:] == (
        "1 run is not averaged, as not all settings that --group averages over have a completed one with the same "
        "seed: 0009_lr-0.1_widths-[2,4]_seed-1",
        "1 run is not completed and not averaged: 1 failed",
    )


def test_without_a_seed_that_has_all_settings_there_is_no_interval(tmp_path: Path) -> None:
    make_study(tmp_path / "a", {LR: [0.05, 0.1], WIDTHS: [[2, 4]], SEED: [0]}, accuracy_of_order)
    make_study(tmp_path / "b", {LR: [0.05, 0.1], WIDTHS: [[4, 8]], SEED: [1]}, accuracy_of_order)
    comparison = compare([tmp_path], group=["lr"])
    value = group_named(comparison, "lr=0.1").value
    assert (value.num, value.low, value.high) == (2, None, None)
    note = "lr=0.05, lr=0.1: no seed has all settings that --group averages over, so no interval"
    assert note in comparison.notes
    with pytest.raises(UserError, match=r"--baseline lr=0.1: no seed has a completed run of all settings"):
        compare([tmp_path], group=["lr"], baseline="lr=0.1")
