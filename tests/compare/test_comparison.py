"""Comparisons: order, baseline and notes."""

import re
from pathlib import Path

import pytest
from support.grids import LR, SEED, names, put
from support.studies import config_with, make_run, make_study

from litlab.compare.comparison import compare
from litlab.errors import UserError
from litlab.runs.files import write_json


def test_sorting(study: Path) -> None:
    by_lr = ["0.01", "0.01", "0.05", "0.05", "0.1", "0.1"]
    assert [group.settings["lr"] for group in compare([study], sort="lr").groups] == by_lr
    assert [group.settings["lr"] for group in compare([study], sort="test/accuracy").groups] == by_lr[::-1]
    assert names(compare([study], sort="name")) == sorted(names(compare([study])))
    assert len(compare([study], sort="time").groups) == 6
    assert [group.settings["lr"] for group in compare([study], sort="optimizer.lr").groups] == by_lr
    columns = "expected one of name, lr, widths, n, val/accuracy, test/accuracy, time, images/s, parameters, test/loss$"
    with pytest.raises(UserError, match=f"--sort rl: no such column; {columns}"):
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
    comparison = compare([study], baseline="lr=0.05 widths=[2,4]")
    assert comparison.baseline == "lr=0.05 widths=[2,4]"
    differences = {group.name: group.difference for group in comparison.groups}
    assert differences.pop(comparison.baseline) is None
    assert {difference.num for difference in differences.values() if difference} == {3}
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
    assert len(notes) <= 10
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
    assert [summary.num for summary in summaries] == [1, 1, 1, 1]
    assert group.test["test/accuracy"].mean == 0.5
    make_run(tmp_path / "other", {LR: 0.3}, 0.5).metrics.unlink()
    group = next(group for group in compare([tmp_path], at="epoch=1").groups if group.name == "lr=0.3")
    assert (group.value, group.test, group.seconds, group.images_per_second) == (None, {}, None, None)
    result = runs[1].read_json(runs[1].result)
    write_json(runs[1].result, result | {"test": {}})
    comparison = compare([tmp_path / "s"])
    assert comparison.groups[0].test["test/accuracy"].num == 2
    assert comparison.notes == ("1 run has no test/accuracy, which is averaged over the others: 0001_seed-1",)


def test_different_devices_are_named(tmp_path: Path) -> None:
    """A precision counts where `auto` chose it; one that the study sweeps is a setting."""
    axes, device = {"trainer.precision": ["32-true", "bf16-mixed"], SEED: [0, 1]}, "A fast one"
    swept = {"device": device, "precision": lambda point: point["trainer.precision"]}
    make_study(tmp_path / "swept", axes, lambda _: 0.5, **swept)
    assert not any("different devices" in note for note in compare([tmp_path / "swept"]).notes)
    precisions = ["bf16-mixed", "32-true", "bf16-mixed"]
    make_study(
        tmp_path / "auto",
        {"trainer.precision": ["auto"], SEED: [0, 1, 2]},
        lambda point: 0.5 + point[SEED] / 10,
        device=device,
        precision=lambda point: precisions[point[SEED]],
    )
    (note,) = (note for note in compare([tmp_path / "auto"]).notes if "different devices" in note)
    assert note.endswith(": 2 on A fast one, bf16-mixed; 1 on A fast one, 32-true")


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
    unique = set(names(compare([tmp_path])))
    assert len(unique) == 3
    assert all(name.isprintable() and len(name) < 80 for name in unique)
    assert sum(name.endswith(" (2)") for name in unique) == 1
