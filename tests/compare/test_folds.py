"""Runs of a k-fold cross-validation: folds are the repetitions, and the seeds of a fold count as one value."""

import json
import shutil
from pathlib import Path
from statistics import fmean
from typing import Any

import numpy as np
import pytest
from scipy import stats
from support.grids import LR, SEED, names
from support.studies import accuracy_interval, make_run, make_study
from tensorboard.backend.event_processing.event_file_loader import EventFileLoader

from litlab.api import results
from litlab.compare.comparison import compare
from litlab.compare.conclusion import answer
from litlab.compare.data_model import Comparison, Group
from litlab.compare.formats import render
from litlab.compare.html import to_html
from litlab.compare.plots.curves import _curve
from litlab.compare.table import build_table
from litlab.compare.tensorboard_summary import FOLDER, MEANS, write_summaries
from litlab.compare.tensorboard_view import View
from litlab.errors import UserError
from litlab.tensorboard_session import PREFIX, LoggedSummary, scalars, write_events

FOLD, FOLDS, VAL_SEED = "data.fold", "data.folds", "data.val_seed"
NUM_FOLDS = 4
OF_FOLD = {0.05: [0.2, 0.0, 0.1, 0.3], 0.1: [0.3, 0.15, 0.12, 0.38]}


def accuracy(point: dict[str, Any]) -> float:
    """Return an accuracy that depends on the fold, and less on the seed."""
    return round(0.5 + OF_FOLD[point.get(LR, 0.05)][point[FOLD]] + 0.02 * point.get(SEED, 0) * (1 + point[FOLD]), 6)


def axes(**more: list[Any]) -> dict[str, list[Any]]:
    return {FOLDS: [NUM_FOLDS], VAL_SEED: [0], FOLD: list(range(NUM_FOLDS)), **more}


def group_named(comparison: Comparison, name: str) -> Group:
    return next(group for group in comparison.groups if group.name == name)


def test_folds_are_repetitions(tmp_path: Path) -> None:
    make_study(tmp_path / "s", {LR: [0.05, 0.1], **axes()}, accuracy)
    comparison = compare([tmp_path / "s"], baseline="lr=0.05")
    assert names(comparison) == ["lr=0.1", "lr=0.05"]
    assert comparison.labels == ("lr",)
    for lr, of_fold in OF_FOLD.items():
        group, values = group_named(comparison, f"lr={lr}"), [0.5 + value for value in of_fold]
        assert [run.fold.number for run in group.runs] == [0, 1, 2, 3]
        assert (group.value.num, group.value.mean) == (4, pytest.approx(np.mean(values)))
        assert group.value.deviation == pytest.approx(np.std(values, ddof=1))
        assert (group.value.low, group.value.high) == pytest.approx(accuracy_interval(values))
        assert group.test["test/accuracy"].num == 4
    difference = group_named(comparison, "lr=0.1").difference
    assert (difference.kind, difference.num) == ("paired", 4)
    assert difference.p == pytest.approx(stats.ttest_rel(OF_FOLD[0.1], OF_FOLD[0.05]).pvalue)
    caption = " ".join(build_table(comparison).caption)
    assert "mean ± sample standard deviation over n folds; best: of the folds" in caption
    assert "Student's t on the logit scale over folds" in caption
    assert "paired by fold" in caption
    assert "The unit is the fold: n counts folds. Folds share training images" in caption
    assert "seed" not in caption
    assert answer(comparison).endswith("4 folds); the other one cannot be told from it.")


def test_the_seeds_of_a_fold_count_as_one_value(tmp_path: Path) -> None:
    make_study(tmp_path / "s", {LR: [0.05, 0.1], **axes(), SEED: [0, 1, 2]}, accuracy)
    comparison = compare([tmp_path / "s"], baseline="lr=0.05")
    means = {
        lr: [fmean(accuracy({LR: lr, FOLD: fold, SEED: seed}) for seed in range(3)) for fold in range(NUM_FOLDS)]
        for lr in OF_FOLD
    }
    for lr, values in means.items():
        group = group_named(comparison, f"lr={lr}")
        assert len(group.runs) == 12
        assert (group.value.num, group.value.mean) == (4, pytest.approx(np.mean(values)))
        assert (group.value.low, group.value.high) == pytest.approx(accuracy_interval(values))
    difference = group_named(comparison, "lr=0.1").difference
    assert (difference.kind, difference.num) == ("paired", 4)
    assert difference.p == pytest.approx(stats.ttest_rel(means[0.1], means[0.05]).pvalue)
    note = "averaged over seed (0, 1, 2) for each fold, and then over folds, which n and intervals count"
    assert comparison.notes[0] == note
    assert "n counts folds, each averaged over its seeds" in " ".join(build_table(comparison).caption)


def test_a_fold_that_lacks_a_seed_is_left_out(tmp_path: Path) -> None:
    """With it, the mean of the fold would be one over other seeds."""

    def status(point: dict[str, Any]) -> str:
        return "failed" if (point[FOLD], point[SEED]) == (2, 1) else "completed"

    make_study(tmp_path / "s", axes(**{SEED: [0, 1]}), accuracy, status=status)
    comparison = compare([tmp_path / "s"])
    (group,) = comparison.groups
    assert (group.value.num, [run.fold.number for run in group.runs]) == (3, [0, 1, 3, 0, 1, 3])
    assert (
        "1 run is not averaged, as not all seeds and settings that are averaged over have a completed one on the same "
        "fold: 0004_folds-4_val_seed-0_fold-2_seed-0"
    ) in comparison.notes


@pytest.mark.parametrize("more", [{}, {LR: [0.05, 0.1]}])
def test_a_seed_that_few_folds_have_is_left_out(tmp_path: Path, more: dict[str, list[Any]]) -> None:
    """One run of a further seed must not take the other folds away."""

    def status(point: dict[str, Any]) -> str:
        return "completed" if point[SEED] < 2 or point[FOLD] == 2 else "failed"

    make_study(tmp_path / "s", axes(**more, **{SEED: [0, 1, 2]}), accuracy, status=status)
    comparison = compare([tmp_path / "s"], group=[])
    (group,) = comparison.groups
    lrs = more.get(LR, [0.05])
    expected = [
        fmean(accuracy({LR: lr, FOLD: fold, SEED: seed}) for lr in lrs for seed in (0, 1)) for fold in range(NUM_FOLDS)
    ]
    assert (group.value.num, group.value.mean) == (4, pytest.approx(fmean(expected)))
    assert group.value.deviation == pytest.approx(np.std(expected, ddof=1))
    (note,) = [note for note in comparison.notes if "as their seeds were not completed on all folds" in note]
    assert note.startswith("2 runs are not averaged, " if more else "1 run is not averaged, ")


@pytest.mark.parametrize("num_seeds", [1, 2])
def test_each_fold_may_have_seeds_of_its_own(tmp_path: Path, num_seeds: int) -> None:
    values = []
    for fold in range(NUM_FOLDS):
        points = [{FOLDS: NUM_FOLDS, FOLD: fold, SEED: num_seeds * fold + number} for number in range(num_seeds)]
        for point in points:
            make_run(tmp_path / f"{fold}_{point[SEED]}", point, accuracy(point))
        values.append(fmean(accuracy(point) for point in points))
    comparison = compare([tmp_path])
    (group,) = comparison.groups
    assert (group.value.num, group.value.mean) == (4, pytest.approx(fmean(values)))
    assert group.value.deviation == pytest.approx(np.std(values, ddof=1))
    assert len(group.runs) == NUM_FOLDS * num_seeds
    assert not any("not averaged" in note or "no interval" in note for note in comparison.notes)


def test_a_fold_counts_once_and_the_newest(tmp_path: Path) -> None:
    make_study(tmp_path / "s", axes(), accuracy)
    before = compare([tmp_path / "s"])
    shutil.copytree(tmp_path / "s", tmp_path / "copy")
    after = compare([tmp_path / "s", tmp_path / "copy"])
    assert [group.value for group in after.groups] == [group.value for group in before.groups]
    (note,) = set(after.notes) - set(before.notes)
    assert note.startswith("4 runs are not averaged, as a newer one has the same settings, seed and fold: ")


@pytest.mark.parametrize(
    ("other", "groups"),
    [
        ({FOLDS: 5, VAL_SEED: 0}, ["folds=4", "folds=5"]),
        ({FOLDS: NUM_FOLDS, VAL_SEED: 1}, ["val_seed=0", "val_seed=1"]),
    ],
)
def test_folds_of_another_partition_are_not_paired(tmp_path: Path, other: dict[str, Any], groups: list[str]) -> None:
    """Fold 0 of five holds other images than fold 0 of four, and another seed gives other folds."""
    make_study(tmp_path / "s", axes(**{SEED: [7]}), accuracy)
    for fold in range(NUM_FOLDS):
        make_run(tmp_path / "other" / str(fold), {**other, FOLD: fold, SEED: 7}, 0.5 + OF_FOLD[0.1][fold])
    comparison = compare([tmp_path], baseline=groups[0])
    assert sorted(names(comparison)) == groups
    difference = group_named(comparison, groups[1]).difference
    assert (difference.kind, difference.num) == ("welch", 4)


@pytest.mark.parametrize(
    ("key", "values", "kind"),
    [
        ("data.num_train", [1000, 2000], "welch"),
        ("data.classes", [None, ["cat", "dog"]], "welch"),
        ("data.of_a_project", [0, 1], "welch"),
        ("data.flip", [True, False], "paired"),
        ("data.batch_size", [16, 32], "paired"),
        ("data.transforms", [{"train": []}, {"train": [{"_target_": "a.B", "size": 8}]}], "paired"),
        ("data.mean", [None, [0.5]], "paired"),
    ],
)
def test_settings_of_the_data_that_may_change_the_folds(tmp_path: Path, key: str, values: list[Any], kind: str) -> None:
    """Folds are drawn by the labels, so whatever may change these makes other folds."""
    for number, value in enumerate(values):
        for fold in range(NUM_FOLDS):
            point = {FOLDS: NUM_FOLDS, VAL_SEED: 0, FOLD: fold, key: value}
            make_run(tmp_path / str(number) / str(fold), point, 0.5 + OF_FOLD[[0.05, 0.1][number]][fold])
    comparison = compare([tmp_path])
    first, second = compare([tmp_path], baseline=names(comparison)[0]).groups
    assert (second.difference.kind, second.difference.num, first.value.num) == (kind, 4, 4)


def test_the_location_of_data_counts_where_no_fingerprint_tells_them(tmp_path: Path) -> None:
    for number in range(2):
        for fold in range(NUM_FOLDS):
            point = {FOLDS: NUM_FOLDS, FOLD: fold, "data._target_": "mine.Data", "data.root": f"/data/{number}"}
            make_run(tmp_path / f"{number}_{fold}", point, 0.5 + OF_FOLD[[0.05, 0.1][number]][fold], data=None)
    _, second = compare([tmp_path], baseline=names(compare([tmp_path]))[0]).groups
    assert (second.difference.kind, second.difference.num) == ("welch", 4)


def test_folds_of_other_data_are_not_paired(tmp_path: Path) -> None:
    make_study(tmp_path / "s", axes(**{SEED: [7]}), accuracy)
    for fold in range(NUM_FOLDS):
        point = {FOLDS: NUM_FOLDS, VAL_SEED: 0, FOLD: fold, SEED: 7}
        make_run(tmp_path / "other" / str(fold), point, 0.5 + OF_FOLD[0.1][fold], data="e" * 64)
    comparison = compare([tmp_path])
    _, second = compare([tmp_path], baseline=names(comparison)[0]).groups
    assert (second.difference.kind, second.difference.num) == ("welch", 4)


def test_folds_beside_seeds_are_groups_of_their_own(tmp_path: Path) -> None:
    make_study(tmp_path / "folds", axes(), accuracy)
    make_study(tmp_path / "seeds", {FOLDS: [None], FOLD: [None], VAL_SEED: [0], SEED: [0, 1, 2]}, lambda point: 0.6)
    comparison = compare([tmp_path], baseline="folds=4")
    assert {group.name: group.value.num for group in comparison.groups} == {"folds=4": 4, "folds=null": 3}
    assert group_named(comparison, "folds=null").difference.kind == "welch"
    assert "over n folds or seeds" in " ".join(build_table(comparison).caption)


def test_a_data_module_with_a_setting_of_that_name_has_no_folds(tmp_path: Path) -> None:
    """Without `data.folds`, `data.fold` is a setting like any other."""
    make_study(tmp_path / "s", {FOLD: [0, 1], SEED: [0, 1]}, lambda point: 0.5)
    assert sorted(names(compare([tmp_path / "s"]))) == ["fold=0", "fold=1"]


def test_filters_and_groups(tmp_path: Path) -> None:
    make_study(tmp_path / "s", {LR: [0.05, 0.1], **axes()}, accuracy)
    comparison = compare([tmp_path / "s"], filters=["fold>=2"])
    assert {run.fold.number for group in comparison.groups for run in group.runs} == {2, 3}
    (group,) = compare([tmp_path / "s"], group=[]).groups
    assert group.value.num == 4
    with pytest.raises(UserError, match="--group fold: groups are averaged over folds"):
        compare([tmp_path / "s"], group=["fold"])


def test_the_formats_name_the_folds(tmp_path: Path) -> None:
    make_study(tmp_path / "s", axes(**{SEED: [0, 1]}), accuracy)
    comparison = compare([tmp_path / "s"])
    page = to_html(comparison)
    assert '<th class="number" scope="col">fold</th>' in page
    assert "n = 4" in page
    runs = json.loads(render(comparison, "json"))["groups"][0]["runs"]
    assert [run["fold"]["number"] for run in runs] == [0, 1, 2, 3, 0, 1, 2, 3]


def test_tensorboard_shows_the_mean_over_folds_and_their_numbers(tmp_path: Path) -> None:
    study = tmp_path / "s"
    runs = make_study(study, axes(**{SEED: [0, 1]}), accuracy)
    assert write_summaries(study) == 1
    (file,) = (study / FOLDER).rglob(MEANS)
    values = [
        (value.tag, event.step, value.tensor.float_val[0])
        for event in EventFileLoader(str(file)).Load()
        for value in event.summary.value
    ]
    of_folds = [fmean(accuracy({FOLD: fold, SEED: seed}) for seed in (0, 1)) for fold in range(NUM_FOLDS)]
    low, high = accuracy_interval(of_folds)
    for curve, expected in (("mean", fmean(of_folds)), ("lower", low), ("upper", high)):
        (value,) = [value for tag, step, value in values if (tag, step) == (f"val/accuracy/{curve}", 20)]
        assert value == pytest.approx(expected, rel=1e-6)
    for run in runs:
        write_events(run.path / f"{PREFIX}1.host.1.0", [LoggedSummary(scalars({"val/accuracy": 0.5}), 10, 1.0)])
    (tmp_path / "view").mkdir()
    View(study, tmp_path / "view").refresh()
    shown = {path.parent.name for path in (tmp_path / "view").rglob(f"{PREFIX}1.host.1.0")}
    assert shown == {f"seed={seed} fold={fold}" for seed in (0, 1) for fold in range(NUM_FOLDS)}


def test_curves_are_means_over_folds(tmp_path: Path) -> None:
    make_study(tmp_path / "s", axes(**{SEED: [0, 1]}), accuracy)
    comparison = compare([tmp_path / "s"])
    dots, num_without = _curve(comparison.groups[0], comparison.metric)
    value = comparison.groups[0].value
    assert num_without == 0
    assert dots[-1][1:] == pytest.approx((100 * value.mean, 100 * value.low, 100 * value.high))


def test_results_in_python_name_the_folds(tmp_path: Path) -> None:
    make_study(tmp_path / "s", axes(), accuracy)
    rows = results(tmp_path / "s").rows()
    assert [(row["fold"], row["val/accuracy"]) for row in rows] == [(fold, accuracy({FOLD: fold})) for fold in range(4)]
    make_study(tmp_path / "seeds", {SEED: [0]}, lambda point: 0.5)
    (row,) = results(tmp_path / "seeds").rows()
    assert "fold" not in row
