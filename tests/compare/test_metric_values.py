"""The compared metric: its choice, split, unit and direction, and its value at a place in a run."""

import csv
import os
from pathlib import Path

import pytest
import yaml
from support.grids import LR, SEED, accuracy, names
from support.studies import config_with, make_run, make_study

from litlab.compare.comparison import compare
from litlab.compare.formats import render
from litlab.compare.plots import figures
from litlab.compare.tensorboard_summary import metric_columns
from litlab.errors import UserError
from litlab.runs.files import write_json


def make_foreign(path: Path, split: str, values: dict[str, float], lr: float = 0.1) -> None:
    """Make a run of a foreign LightningModule that names its metrics by itself, and neither unit nor direction."""
    objective = {"objective.metric": f"{split}_acc", "objective.mode": "max"}
    run = make_run(path, {LR: lr, **objective}, 0.5)
    run.metric_table.unlink()
    rows = [(0, 9, name, value) for name, value in values.items()]
    with run.metrics.open("w", newline="") as file:
        csv.writer(file, lineterminator="\n").writerows([("epoch", "step", "metric", "value"), *rows])
    result = run.read_json(run.result)
    validated = {name: value for name, value in values.items() if not name.startswith("test")}
    tested = {name: value for name, value in values.items() if name.startswith("test")}
    write_json(run.result, result | {"best": validated, "last": validated, "test": tested})


@pytest.mark.parametrize("split", ["val", "valid", "validation"])
def test_metrics_of_a_foreign_module_have_splits_by_their_names(split: str, tmp_path: Path) -> None:
    for lr, value in ((0.1, 0.75), (0.2, 0.5)):
        values = {f"{split}_acc": value, "test_acc": 1 - value, f"{split}_f1": 1 - value}
        make_foreign(tmp_path / str(lr), split, values, lr)
    comparison = compare([tmp_path])
    assert (comparison.metric.name, comparison.mode, comparison.test_metric.name) == (f"{split}_acc", "max", "test_acc")
    assert names(comparison) == ["lr=0.1", "lr=0.2"]
    assert [group.value.mean for group in comparison.groups] == [0.75, 0.5]
    assert [group.test["test_acc"].mean for group in comparison.groups] == [0.25, 0.5]
    table = render(comparison, "table")
    assert f"{split}_acc" in table
    assert "%" not in table.splitlines()[0], "no unit by the name"
    assert "0.7500" in table
    assert figures(comparison)["lr"].axes[0].get_ylabel() == "validation acc"
    runs = [run for group in comparison.groups for run in group.runs]
    assert list(metric_columns(runs))[:3] == [
        f"result/best/{split}_acc", f"result/last/{split}_acc", "result/test/test_acc",
    ]  # fmt: skip
    with pytest.raises(UserError, match="--metric test_acc: nothing is selected on the test split"):
        compare([tmp_path], metric="test_acc")
    with pytest.raises(UserError, match=rf"--metric {split}_f1: it is unknown which .* add --mode max or --mode min"):
        compare([tmp_path], metric=f"{split}_f1")
    assert names(compare([tmp_path], metric=f"{split}_f1", mode="max")) == ["lr=0.2", "lr=0.1"]
    assert names(compare([tmp_path], metric=f"{split}_f1", mode="min")) == ["lr=0.1", "lr=0.2"]


def test_an_objective_on_the_test_split_is_none(tmp_path: Path) -> None:
    make_run(tmp_path / "run", {"objective.metric": "test_acc"}, 0.5)
    with pytest.raises(UserError, match="the runs have no objective"):
        compare([tmp_path])


def test_direction_and_unit_are_those_that_the_runs_recorded(tmp_path: Path) -> None:
    """`accuracy` in a name decides nothing, nor does `loss`."""
    study = tmp_path / "s"
    for run in make_study(study, {LR: [0.1, 0.2], SEED: [0, 1]}, lambda point: point[LR] + 0.01 * point[SEED]):
        loss = {"unit": "ms", "mode": "max", "bounds": [0, None]}
        write_json(run.metric_table, {"val/loss": loss, "val/accuracy": {"unit": "", "mode": "min", "bounds": None}})
    comparison = compare([study], metric="val/loss")
    assert (comparison.metric.unit, comparison.mode, names(comparison)) == ("ms", "max", ["lr=0.1", "lr=0.2"])
    table = render(comparison, "table")
    assert "val/loss (ms)" in table
    assert "Student's t on the log scale" in " ".join(table.split())
    by_objective = compare([study])
    assert (by_objective.metric.unit, by_objective.mode) == ("", "max"), "the objective says its direction itself"
    assert "val/accuracy  " in render(by_objective, "table")
    assert compare([study], mode="min").mode == "min"


def test_choice_of_the_metric(study: Path, tmp_path: Path) -> None:
    comparison = compare([study], metric="val/loss")
    assert (comparison.metric.name, comparison.mode, names(comparison)[0]) == ("val/loss", "min", "lr=0.1 widths=[2,4]")
    with pytest.raises(UserError, match="nothing is selected on the test split"):
        compare([study], metric="test/accuracy")
    with pytest.raises(UserError, match=r"no metric val/acuracy|has the metric val/acuracy; did you mean val/accuracy"):
        compare([study], metric="val/acuracy")
    make_run(tmp_path / "other", {"objective.metric": "val/loss", "objective.mode": "min"}, 0.5)
    with pytest.raises(UserError, match=r"several objectives: val/accuracy \(max\), val/loss \(min\); .*: val/acc"):
        compare([study, tmp_path])
    none = make_run(tmp_path / "none", {}, 0.5)
    none.config.write_text(yaml.dump(config_with({}) | {"objective": None}))
    with pytest.raises(UserError, match="no objective; choose a metric with --metric: val/accuracy, val/loss"):
        compare([none.path])
    assert names(compare([none.path], metric="val/accuracy")) == ["all runs"]


def test_places_in_a_run(tmp_path: Path) -> None:
    """Epochs count from 1, as the console counts; the test stays that of the best checkpoint."""
    curve = [0.25, 0.75, 0.5]
    make_study(tmp_path / "s", {SEED: [0]}, accuracy, num_epochs=3, curve=lambda point, epoch: curve[epoch])

    def value(at: str, metric: str | None = None) -> float:
        (group,) = compare([tmp_path / "s"], at=at, metric=metric).groups
        assert group.test["test/accuracy"].mean == 0.5
        return group.value.mean

    assert [value(at) for at in ("best", "last", "epoch=1", "epoch=2", "epoch=3")] == [0.75, 0.5, 0.25, 0.75, 0.5]
    assert value("epoch=1", "train/loss") == 2 / 3
    assert value("best", "train/loss") == 2 / 4  # the last before the second validation
    assert value("last", "train/loss") == 2 / 5
    with pytest.raises(UserError, match="--metric lr: it is unknown which values are better"):
        value("last", "lr")
    with pytest.raises(UserError, match="no run has a value of val/accuracy at epoch=4; the longest has 3 epochs"):
        value("epoch=4")
    for wrong in ("epoch=0", "epoch=-1", "first", "epoch=", "epoch=1.5"):
        with pytest.raises(UserError, match="expected best, last or epoch=N, with epochs counted from 1"):
            value(wrong)


def test_damaged_metrics_files(tmp_path: Path) -> None:
    curve = [0.25, 0.75]
    runs = make_study(tmp_path / "s", {SEED: [0, 1, 2, 3]}, accuracy, curve=lambda point, epoch: curve[epoch])
    runs[0].metrics.unlink()
    runs[1].metrics.unlink()
    os.mkfifo(runs[1].metrics)
    lines = "x" * 5000 + "\n\0,,,\n0,10,val/accuracy,nan\n0,10,val/accuracy,much\n0,10,val/accuracy,0.5"  # torn
    runs[2].metrics.write_text(lines)
    comparison = compare([tmp_path / "s"], at="epoch=1")
    assert (comparison.groups[0].value.num, comparison.groups[0].value.mean) == (1, 0.25)
    assert comparison.notes == (
        "3 runs are completed, but without val/accuracy at epoch=1: 0000_seed-0, 0001_seed-1, 0002_seed-2",
    )


def test_error_without_completed_runs(tmp_path: Path) -> None:
    make_run(tmp_path / "failed", {}, 0.5, status="failed", error="out of memory\nmore")
    make_run(tmp_path / "other", {}, 0.5, status="failed")
    make_run(tmp_path / "pruned", {}, 0.5, status="pruned", error=None)
    message = (
        r"No completed runs to compare \(2 failed, 1 pruned\).\nfailed: failed: out of memory\nlitlab status DIR says"
    )
    with pytest.raises(UserError, match=message):
        compare([tmp_path])
