"""Comparisons: groups, order, baseline, notes; n, intervals and tests count seeds, also with `--group`."""

import re
import shutil
from pathlib import Path
from statistics import fmean
from typing import Any

import numpy as np
import pytest
from scipy import stats
from support.grids import LR, SEED, WIDTHS, names, put
from support.studies import accuracy_interval, config_with, make_run, make_study

from litlab.compare.comparison import compare
from litlab.compare.data_model import Comparison, Group
from litlab.errors import UserError
from litlab.runs.files import write_json

AXES = {LR: [0.05, 0.1], WIDTHS: [[2, 4], [4, 8]], SEED: [0, 1, 2, 3]}


def test_group_averages_over_the_rest(study: Path) -> None:
    found = compare([study], group=["optimizer.lr"], baseline="lr=0.05")
    assert names(found) == ["lr=0.1", "lr=0.05", "lr=0.01"]
    assert found.labels == ("lr",)
    assert [group.value and group.value.num for group in found.groups] == [3, 3, 3]
    assert found.notes[0] == (
        "averaged over widths ([2,4], [4,8]) for each seed, and then over seeds, which n and intervals count"
    )
    difference = found.groups[0].difference
    assert difference is not None
    assert (difference.kind, difference.num, difference.mean) == ("paired", 3, pytest.approx(0.2))


@pytest.mark.parametrize("group", [None, ["lr"], []])
def test_copies_do_not_make_an_interval_narrower(study: Path, tmp_path: Path, group: list[str] | None) -> None:
    before = compare([study], group=group)
    shutil.copytree(study, tmp_path / "copy")
    after = compare([study, tmp_path / "copy"], group=group)
    assert [group.value for group in after.groups] == [group.value for group in before.groups]
    (said,) = set(after.notes) - set(before.notes)
    assert said.startswith("18 runs are not averaged, as a newer one has the same settings and seed: ")


def test_sorting(study: Path) -> None:
    by_lr = ["0.01", "0.01", "0.05", "0.05", "0.1", "0.1"]
    assert [group.settings["lr"] for group in compare([study], sort="lr").groups] == by_lr
    assert [group.settings["lr"] for group in compare([study], sort="test/accuracy").groups] == by_lr[::-1]
    assert names(compare([study], sort="name")) == sorted(names(compare([study])))
    assert len(compare([study], sort="time").groups) == 6
    for same in (LR, "optimizer.lr"):
        assert [group.settings["lr"] for group in compare([study], sort=same).groups] == by_lr
    said = "expected one of name, lr, widths, n, val/accuracy, test/accuracy, time, images/s, parameters, test/loss$"
    with pytest.raises(UserError, match=f"--sort rl: no such column; {said}"):
        compare([study], sort="rl")
    with pytest.raises(UserError, match="--group seed: groups are averaged over seeds"):
        compare([study], group=["lr", "seed"])


def test_sorting_by_cost(tmp_path: Path) -> None:
    """The fastest, the smallest, and those with the most seeds come first."""
    for number, seconds in enumerate([3.0, 1.0, 2.0]):
        cost = {"seconds": {"training": seconds}, "images_per_second": 1 / seconds, "parameters": int(seconds)}
        for seed in range(1 + number % 3):
            make_run(tmp_path / f"{number}_{seed}", {LR: (number + 1) / 10, SEED: seed}, 0.5, **cost)
    for column in ("time", "images/s", "parameters"):
        assert names(compare([tmp_path], sort=column)) == ["lr=0.2", "lr=0.3", "lr=0.1"], column
    assert names(compare([tmp_path], sort="n")) == ["lr=0.3", "lr=0.2", "lr=0.1"]


def test_baseline(study: Path) -> None:
    found = compare([study], baseline="lr=0.05 widths=[2,4]")
    assert found.baseline == "lr=0.05 widths=[2,4]"
    differences = {group.name: group.difference for group in found.groups}
    assert differences.pop(found.baseline) is None
    assert {each.num for each in differences.values() if each} == {3}
    assert compare([study], baseline="widths=[2,4] lr=0.01").baseline == "lr=0.01 widths=[2,4]"
    with pytest.raises(UserError, match=r"lr=0.1: is a part of several names; name one of\n  lr=0.1 widths=\[2,4\]\n"):
        compare([study], baseline="lr=0.1")
    assert compare([study], baseline="lr=0.05", group=["lr"], filters=["lr=0.05"]).notes[-1] == (
        "lr=0.05 is the only group: there is nothing to compare with it"
    )
    with pytest.raises(UserError, match=r"lr=7: is not a group; name one of\n  lr=0\.01"):
        compare([study], baseline="lr=7")


def test_many_groups_like_the_baseline_are_not_all_named(tmp_path: Path) -> None:
    rates = [0.01 * number for number in range(1, 13)]
    make_study(tmp_path / "s", {LR: rates, SEED: [0, 1, 2]}, lambda point: (point[LR] * 7919 * (point[SEED] + 1)) % 1)
    notes = compare([tmp_path / "s"], baseline="lr=0.01").notes
    assert len(notes) <= 9
    assert notes[-1].endswith("more groups can't be told from lr=0.01 either")
    few = [f"lr<{rates[9] + 0.001}"]
    assert compare([tmp_path / "s"], baseline="lr=0.01", filters=few).notes[-1].startswith("1 more group can't be told")


def test_all_columns_are_of_the_same_runs(tmp_path: Path) -> None:
    """These are the runs that have the metric there; a note names runs without the test metric."""
    runs = make_study(tmp_path / "s", {SEED: [0, 1, 2]}, lambda point: 0.5 + point[SEED] / 10)
    for run in runs[1:]:
        run.metrics.write_text("epoch,step,metric,value\n1,20,val/accuracy,0.5\n")
    (group,) = compare([tmp_path / "s"], at="epoch=1").groups
    summaries = [group.value, group.test["test/accuracy"], group.seconds, group.images_per_second]
    assert [each and each.num for each in summaries] == [1, 1, 1, 1]
    assert group.test["test/accuracy"].mean == 0.5
    make_run(tmp_path / "other", {LR: 0.3}, 0.5).metrics.unlink()
    group = next(each for each in compare([tmp_path], at="epoch=1").groups if each.name == "lr=0.3")
    assert (group.value, group.test, group.seconds, group.images_per_second) == (None, {}, None, None)
    result = runs[1].read_json(runs[1].result)
    write_json(runs[1].result, result | {"test": {}})
    found = compare([tmp_path / "s"])
    assert found.groups[0].test["test/accuracy"].num == 2
    assert found.notes == ("1 run has no test/accuracy, which is averaged over the others: 0001_seed-1",)


def test_huge_values_are_written_short(tmp_path: Path) -> None:
    make_study(tmp_path / "s", {LR: [0.1, 0.2], SEED: [0, 1]}, lambda point: 1e35 * point[LR] * (1 + point[SEED]))
    notes = compare([tmp_path / "s"], baseline="lr=0.1").notes
    assert any("points" in note for note in notes)
    assert all(len(number) <= 6 for note in notes for number in re.findall(r"\d+", note))


def test_unfinished_runs_are_kept_although_they_are_filtered_out(study: Path, tmp_path: Path) -> None:
    make_run(tmp_path / "failed", {LR: 0.3}, 0.5, status="failed")
    assert compare([study]).unfinished == ()
    assert [run.name for run in compare([study, tmp_path], filters=["lr<0.2"]).unfinished] == [
        f"{tmp_path.name}/failed"
    ]


def test_untrusted_names_are_unique_and_printable(tmp_path: Path) -> None:
    for number, value in enumerate(["a\x1b[31m\nb", "x" * 60 + "1", "x" * 60 + "2"]):
        put(tmp_path / str(number), config_with({SEED: 0, "model.hidden": [value]}))
    found = names(compare([tmp_path]))
    assert len(set(found)) == 3
    assert all(name.isprintable() and len(name) < 80 for name in found)
    assert sum(name.endswith(" (2)") for name in found) == 1


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
    found = compare([tmp_path / "s"], group=["lr"], baseline="lr=0.05")
    means = {lr: of_seeds(lr, AXES[SEED]) for lr in AXES[LR]}
    for lr, values in means.items():
        value = group_named(found, f"lr={lr}").value
        assert value is not None
        assert len(group_named(found, f"lr={lr}").runs) == 8
        assert (value.num, value.mean) == (4, pytest.approx(np.mean(values)))
        assert value.deviation == pytest.approx(np.std(values, ddof=1))
        assert (value.low, value.high) == pytest.approx(accuracy_interval(values))
        assert value.best == max(accuracy_of_order({LR: lr, WIDTHS: [4, 8], SEED: seed}) for seed in AXES[SEED])
    difference = group_named(found, "lr=0.1").difference
    assert difference is not None
    assert (difference.num, difference.p) == (4, pytest.approx(stats.ttest_rel(means[0.1], means[0.05]).pvalue))


def test_seeds_that_not_all_settings_have_are_left_out(tmp_path: Path) -> None:
    """With them, the mean of a seed would be one over other settings."""

    def status(point: dict[str, Any]) -> str:
        return "failed" if (point[LR], point[WIDTHS], point[SEED]) == (0.1, [4, 8], 1) else "completed"

    make_study(tmp_path / "s", AXES, accuracy_of_order, status=status)
    found = compare([tmp_path / "s"], group=["lr"])
    value = group_named(found, "lr=0.1").value
    assert value is not None
    assert (value.num, value.mean) == (3, pytest.approx(np.mean(of_seeds(0.1, [0, 2, 3]))))
    assert [run.seed for run in group_named(found, "lr=0.1").runs] == [0, 0, 2, 2, 3, 3]
    assert found.notes[1:] == (
        "1 run is not averaged, as not all settings that --group averages over have a completed one with the same "
        "seed: 0009_lr-0.1_widths-[2,4]_seed-1",
        "1 run is not completed and not averaged: 1 failed",
    )


def test_without_a_seed_that_has_all_settings_there_is_no_interval(tmp_path: Path) -> None:
    make_study(tmp_path / "a", {LR: [0.05, 0.1], WIDTHS: [[2, 4]], SEED: [0]}, accuracy_of_order)
    make_study(tmp_path / "b", {LR: [0.05, 0.1], WIDTHS: [[4, 8]], SEED: [1]}, accuracy_of_order)
    found = compare([tmp_path], group=["lr"])
    value = group_named(found, "lr=0.1").value
    assert value is not None
    assert (value.num, value.low, value.high) == (2, None, None)
    said = "lr=0.05, lr=0.1: no seed has all settings that --group averages over, so no interval"
    assert said in found.notes
    with pytest.raises(UserError, match=r"--baseline lr=0.1: no seed has a completed run of all settings"):
        compare([tmp_path], group=["lr"], baseline="lr=0.1")


def test_note_on_groups_that_average_over_different_settings(tmp_path: Path) -> None:
    said = "the groups are not averaged over the same settings, which may be why they differ"
    make_study(tmp_path / "s", AXES, accuracy_of_order)
    assert said not in compare([tmp_path / "s"], group=["lr"]).notes
    make_run(tmp_path / "more", {LR: 0.1, WIDTHS: [8, 8], SEED: 0}, 0.9)
    assert said in compare([tmp_path], group=["lr"]).notes
