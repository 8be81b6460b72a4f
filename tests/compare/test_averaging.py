"""Averages over seeds: n, intervals and tests count seeds, also with `--group`."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy import stats
from support.studies import accuracy_interval, make_run, make_study

from litlab.compare.comparison import compare, summarize_group
from litlab.compare.grouping import Subgroup
from litlab.compare.model import Comparison, Group, Run
from litlab.errors import UserError
from litlab.runs.metrics import Metric
from litlab.runs.state import RunStatus

LR, WIDTHS, SEED = "optimizer.lr", "model.widths", "seed"
AXES = {LR: [0.05, 0.1], WIDTHS: [[2, 4], [4, 8]], SEED: [0, 1, 2, 3]}
NUM_STUDIES = 200


def accuracy(point: dict[str, Any]) -> float:
    """Order the seeds differently for each learning rate; wider networks are much better."""
    of_seed = {0.05: [0.2, 0.0, 0.1, 0.3], 0.1: [0.1, 0.3, 0.0, 0.15]}[point[LR]][point[SEED]]
    return round(0.3 + point[LR] + (0.4 if point[WIDTHS] == [4, 8] else 0.0) + 0.1 * of_seed, 6)


def of_seeds(lr: float, seeds: list[int]) -> list[float]:
    return [float(np.mean([accuracy({LR: lr, WIDTHS: each, SEED: seed}) for each in AXES[WIDTHS]])) for seed in seeds]


def group(comparison: Comparison, name: str) -> Group:
    return next(each for each in comparison.groups if each.name == name)


def test_the_interval_is_one_over_seeds(tmp_path: Path) -> None:
    """The interval is that of the mean over the widths, which differ by far more than seeds do."""
    make_study(tmp_path / "s", AXES, accuracy)
    found = compare([tmp_path / "s"], group=["lr"], baseline="lr=0.05")
    means = {lr: of_seeds(lr, AXES[SEED]) for lr in AXES[LR]}
    for lr, values in means.items():
        value = group(found, f"lr={lr}").value
        assert value is not None
        assert len(group(found, f"lr={lr}").runs) == 8
        assert (value.num, value.mean) == (4, pytest.approx(np.mean(values)))
        assert value.deviation == pytest.approx(np.std(values, ddof=1))
        assert (value.low, value.high) == pytest.approx(accuracy_interval(values))
        assert value.best == max(accuracy({LR: lr, WIDTHS: [4, 8], SEED: seed}) for seed in AXES[SEED])
    difference = group(found, "lr=0.1").difference
    assert difference is not None
    assert (difference.num, difference.p) == (4, pytest.approx(stats.ttest_rel(means[0.1], means[0.05]).pvalue))


def test_seeds_that_not_all_settings_have_are_left_out(tmp_path: Path) -> None:
    """With them, the mean of a seed would be one over other settings."""

    def status(point: dict[str, Any]) -> str:
        return "failed" if (point[LR], point[WIDTHS], point[SEED]) == (0.1, [4, 8], 1) else "completed"

    make_study(tmp_path / "s", AXES, accuracy, status=status)
    found = compare([tmp_path / "s"], group=["lr"])
    value = group(found, "lr=0.1").value
    assert value is not None
    assert (value.num, value.mean) == (3, pytest.approx(np.mean(of_seeds(0.1, [0, 2, 3]))))
    assert [run.seed for run in group(found, "lr=0.1").runs] == [0, 0, 2, 2, 3, 3]
    assert found.notes[1:] == (
        "1 run is not averaged, as not all settings that --group averages over have a completed one with the same "
        "seed: 0009_lr-0.1_widths-[2,4]_seed-1",
        "1 run is not completed and not averaged: 1 failed",
    )


def test_without_a_seed_that_has_all_settings_there_is_no_interval(tmp_path: Path) -> None:
    make_study(tmp_path / "a", {LR: [0.05, 0.1], WIDTHS: [[2, 4]], SEED: [0]}, accuracy)
    make_study(tmp_path / "b", {LR: [0.05, 0.1], WIDTHS: [[4, 8]], SEED: [1]}, accuracy)
    found = compare([tmp_path], group=["lr"])
    value = group(found, "lr=0.1").value
    assert value is not None
    assert (value.num, value.low, value.high) == (2, None, None)
    said = "lr=0.05, lr=0.1: no seed has all settings that --group averages over, so no interval"
    assert said in found.notes
    with pytest.raises(UserError, match=r"--baseline lr=0.1: no seed has a completed run of all settings"):
        compare([tmp_path], group=["lr"], baseline="lr=0.1")


def test_note_on_groups_that_average_over_different_settings(tmp_path: Path) -> None:
    said = "the groups are not averaged over the same settings, which may be why they differ"
    make_study(tmp_path / "s", AXES, accuracy)
    assert said not in compare([tmp_path / "s"], group=["lr"]).notes
    make_run(tmp_path / "more", {LR: 0.1, WIDTHS: [8, 8], SEED: 0}, 0.9)
    assert said in compare([tmp_path], group=["lr"]).notes


def test_runs_that_share_seeds_do_not_make_an_interval_narrower_than_the_truth() -> None:
    """Four settings with the same seeds, which move all of them: intervals over all runs would often miss."""
    random = np.random.default_rng(11)
    paths = {(setting, seed): Path(f"{setting}/{seed}") for setting in range(4) for seed in range(5)}
    parts = [
        Subgroup((str(setting),), tuple(run(paths[setting, seed], seed) for seed in range(5))) for setting in range(4)
    ]
    num_over_seeds = num_over_runs = 0
    for _ in range(NUM_STUDIES):
        shared = random.normal(0.9, 0.02, 5)
        values = {path: float(shared[seed] + random.normal(0, 0.005)) for (_, seed), path in paths.items()}
        found = summarize_group(parts, values, Metric("val/accuracy", "%", "max"))
        assert found is not None
        assert found.low is not None
        assert found.high is not None
        num_over_seeds += found.low <= 0.9 <= found.high
        low, high = stats.t.interval(
            0.95, 19, loc=np.mean(list(values.values())), scale=stats.sem(list(values.values()))
        )
        num_over_runs += low <= 0.9 <= high
    low, high = stats.binom.interval(0.999, NUM_STUDIES, 0.95)
    assert low <= num_over_seeds <= high
    assert num_over_runs < low


def run(path: Path, seed: int) -> Run:
    return Run(path, str(path), None, RunStatus.COMPLETED, "", seed, {}, {}, None)
