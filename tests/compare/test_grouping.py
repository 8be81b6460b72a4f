"""Which runs are one group, by which names groups go, and what is chosen among them."""

import os
import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml
from made_studies import config_with, make_run, make_study

from litlab.compare.comparing import compare
from litlab.compare.filters import Condition
from litlab.compare.model import Comparison
from litlab.compare.settings import full_name, parsed, short_names, text
from litlab.errors import UserError
from litlab.runs.files import write_json

LR, WIDTHS, SEED = "optimizer.lr", "model.widths", "seed"
RESNET = {"_target_": "litlab.models.resnet.ResNet", "depth": 8}


def accuracy(point: dict[str, Any]) -> float:
    """Best at 0.1; between seeds, a spread of 0.01."""
    return {0.01: 0.3, 0.05: 0.6, 0.1: 0.8}.get(point.get(LR), 0.5) + 0.01 * point.get(SEED, 0)


def names(comparison: Comparison) -> list[str]:
    return [group.name for group in comparison.groups]


def put(path: Path, config: dict[str, Any], value: float = 0.5) -> None:
    """A run with a config of its own."""
    run = make_run(path, {SEED: config[SEED]}, value)
    run.config.write_text(yaml.dump(config))


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two settings, three seeds; only to be read."""
    path = tmp_path_factory.mktemp("grouping") / "s"
    make_study(path, {LR: [0.01, 0.05, 0.1], WIDTHS: [[2, 4], [4, 8]], SEED: [0, 1, 2]}, accuracy)
    return path


def test_groups_are_settings_and_runs_are_seeds(study: Path) -> None:
    found = compare([study])
    assert (found.metric, found.mode, found.labels) == ("val/accuracy", "max", ("lr", "widths"))
    assert found.keys == {"lr": LR, "widths": WIDTHS}
    assert names(found)[0] == "lr=0.1 widths=[2,4]"
    assert names(found)[-1] == "lr=0.01 widths=[4,8]"
    assert len(found.groups) == 6
    first = found.groups[0]
    assert [run.seed for run in first.runs] == [0, 1, 2]
    assert first.value is not None
    assert (first.value.num, first.value.mean) == (3, pytest.approx(0.81))
    assert first.test["test/accuracy"].mean == pytest.approx(0.81)
    assert (first.seconds and first.seconds.mean, first.parameters) == (5.0, 1254)
    assert found.ties == {"lr=0.1 widths=[2,4]", "lr=0.1 widths=[4,8]"}
    assert (found.notes, found.skipped, found.baseline) == ((), (), None)


def test_one_group(tmp_path: Path) -> None:
    make_study(tmp_path / "s", {SEED: [0, 1]}, accuracy)
    found = compare([tmp_path / "s"])
    assert (names(found), found.labels, found.ties) == (["all runs"], (), {"all runs"})


def test_only_what_is_done_is_averaged(study: Path, tmp_path: Path) -> None:
    study = shutil.copytree(study, tmp_path / "s")
    for name, status in (("0000", "failed"), ("0006", "pruned"), ("0007", "interrupted")):
        (run,) = study.glob(f"{name}_*")
        result = yaml.safe_load((run / "result.json").read_text()) | {"status": status, "data": None}
        write_json(run / "result.json", result)
    found = {group.name: group for group in compare([study]).groups}
    assert found["lr=0.01 widths=[2,4]"].others == {"failed": 1}
    assert [run.seed for run in found["lr=0.01 widths=[2,4]"].runs] == [1, 2]
    assert found["lr=0.05 widths=[2,4]"].others == {"pruned": 1, "interrupted": 1}
    assert len(found) == 6
    assert compare([study]).notes == ("3 runs are not done and not averaged: 1 failed, 1 pruned, 1 interrupted",)


def test_a_seed_counts_once_and_the_newest(tmp_path: Path) -> None:
    make_study(tmp_path / "a", {SEED: [0, 1]}, accuracy)
    make_study(tmp_path / "b", {SEED: [1, 2]}, lambda point: 0.9)
    for path in (tmp_path / "a").rglob("result.json"):
        os.utime(path, (0, 0))
    found = compare([tmp_path])
    (group,) = found.groups
    assert [(run.seed, run.study) for run in group.runs] == [
        (0, tmp_path / "a"), (1, tmp_path / "b"), (2, tmp_path / "b"),
    ]  # fmt: skip
    assert found.notes == ("1 run is not averaged, as a newer one has the same settings and seed: a/0001_seed-1",)


def test_what_follows_the_seed_is_no_setting(tmp_path: Path) -> None:
    """Though one old run has a seed of its own for the data, and though one has just the same by chance."""
    make_study(tmp_path / "s", {LR: [0.05, 0.1], SEED: [1, 2]}, accuracy)
    config = config_with({LR: 0.1, SEED: 3})
    put(tmp_path / "fixed" / "3", config | {"data": config["data"] | {"seed": 7}})
    config = config_with({LR: 0.1, SEED: 4})
    put(tmp_path / "fixed" / "4", config | {"data": config["data"] | {"seed": 7}})
    found = {group.name: [run.seed for run in group.runs] for group in compare([tmp_path]).groups}
    assert found == {"lr=0.05": [1, 2], "lr=0.1": [1, 2], "lr=0.1 data.seed=7": [3, 4]}


def test_other_data_are_another_group(tmp_path: Path) -> None:
    make_study(tmp_path / "a", {SEED: [0, 1]}, accuracy)
    make_study(tmp_path / "b", {SEED: [2, 3]}, accuracy, data="e" * 64)
    found = compare([tmp_path])
    assert sorted(names(found)) == ["data fingerprint=dddddddddddd", "data fingerprint=eeeeeeeeeeee"]
    assert found.notes == ("not all of the runs had the same data: the fingerprints of their images differ",)


def test_choices_stand_for_what_they_bring(tmp_path: Path) -> None:
    """And the study that doesn't sweep the model shows which it had; likewise a run of its own."""
    runs = make_study(tmp_path / "a", {SEED: [0, 1], LR: [0.05, 0.1]}, accuracy)
    lines = (tmp_path / "a" / "jobs.jsonl").read_text().replace(f'"{LR}": "0.05"', '"model": "cnn"')
    (tmp_path / "a" / "jobs.jsonl").write_text(lines.replace(f'"{LR}": "0.1"', '"model": "resnet"'))
    for run in runs:
        config = run.read_config()
        swept = {"name": "a", "swept": ["model", SEED]}
        net = RESNET if config["optimizer"]["lr"] == 0.1 else config["model"]
        run.config.write_text(
            yaml.dump(config | {"model": net, "study": swept, "optimizer": config_with({})["optimizer"]})
        )
    assert sorted(names(compare([tmp_path / "a"]))) == ["model=cnn", "model=resnet"]
    put(tmp_path / "b", config_with({SEED: 5, LR: 0.2}))
    put(tmp_path / "c", config_with({SEED: 5, "model.hidden": [9]}))
    found = compare([tmp_path])
    assert sorted(names(found)) == [
        "model=cnn hidden=[8] lr=0.05", "model=cnn hidden=[8] lr=0.2", "model=cnn hidden=[9] lr=0.05",
        "model=resnet lr=0.05",
    ]  # fmt: skip
    put(tmp_path / "d", config_with({SEED: 5}) | {"model": {"_target_": "my.Net", "size": 1}})
    assert set(names(compare([tmp_path]))) - set(names(found)) == {"model=Net lr=0.05"}


def test_classes_stand_for_what_only_they_have(tmp_path: Path) -> None:
    sgd, adam = config_with({SEED: 0}), config_with({SEED: 0})
    adam["optimizer"] = {"_target_": "torch.optim.Adam", "lr": 0.001, "betas": [0.9, 0.999]}
    none = config_with({SEED: 0}) | {"model": None}
    for name, config in {"sgd": sgd, "adam": adam, "none": none}.items():
        put(tmp_path / name, config)
    assert sorted(names(compare([tmp_path / "sgd", tmp_path / "adam"]))) == [
        "optimizer=Adam lr=0.001", "optimizer=SGD lr=0.05",
    ]  # fmt: skip
    assert sorted(names(compare([tmp_path / "sgd", tmp_path / "none"]))) == ["model=CNN", "model=null"]
    other = config_with({SEED: 0}) | {"model": {**config_with({})["model"], "_target_": "mine.CNN"}}
    put(tmp_path / "other", other)
    assert sorted(names(compare([tmp_path / "sgd", tmp_path / "other"]))) == [
        "model=litlab.models.cnn.CNN", "model=mine.CNN",
    ]  # fmt: skip


def test_what_an_experiment_sets(tmp_path: Path) -> None:
    """A swept key without a place in the config stands for all that goes with it."""
    runs = make_study(tmp_path / "a", {LR: [0.05, 0.1], SEED: [0, 1]}, accuracy)
    jobs = tmp_path / "a" / "jobs.jsonl"
    jobs.write_text(jobs.read_text().replace(f'"{LR}": "0.', '"experiment": "best_'))
    for run in runs:
        config = run.read_config()
        config["trainer"]["max_epochs"] = 3 if config["optimizer"]["lr"] == 0.1 else 2
        run.config.write_text(yaml.dump(config))
    assert sorted(names(compare([tmp_path / "a"]))) == ["experiment=best_05", "experiment=best_1"]


def test_what_one_study_sweeps_and_another_fixes(tmp_path: Path) -> None:
    make_study(tmp_path / "a", {LR: [0.05, 0.1], SEED: [0, 1]}, accuracy)
    make_study(tmp_path / "b", {"optimizer.momentum": [0.9, 0.5], SEED: [5, 6]}, accuracy)
    make_study(tmp_path / "c", {"trainer.devices": [1, 2], SEED: [7]}, accuracy)
    found = compare([tmp_path / "a", tmp_path / "b"])
    assert found.labels == ("lr", "momentum")
    assert sorted(names(found)) == ["lr=0.05 momentum=0.5", "lr=0.05 momentum=0.9", "lr=0.1 momentum=0.9"]
    assert sorted(names(compare([tmp_path / "a", tmp_path / "c"]))) == [
        "lr=0.05 devices=1", "lr=0.05 devices=2", "lr=0.1 devices=1",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("value", "read"),
    [
        (0.1, "0.1"), (1e-05, "1e-05"), (100000.0, "100000"), (0.1 + 0.2, "0.30000000000000004"), (16, "16"),
        (True, "true"), (None, "null"), ([16, 32], "[16,32]"), (["a", None, [1.5]], "[a,null,[1.5]]"), ({}, "{}"),
        ("cnn", "cnn"), ("1", "'1'"), ("true", "'true'"), ("", "''"), (" a", "' a'"), ("nan", "'nan'"),
    ],
)  # fmt: skip
def test_values_as_people_read_them(value: Any, read: str) -> None:
    assert text(value) == read
    if not isinstance(value, list | dict | str):
        assert parsed(read) == value


def test_shortest_names() -> None:
    known = ["optimizer.lr", "schedule.lr", "seed", "data.seed", "model.widths", "net.model.depth"]
    assert short_names(["optimizer.lr", "data.seed", "seed", "model.widths", "net.model.depth"], known) == {
        "optimizer.lr": "optimizer.lr", "data.seed": "data.seed", "seed": "seed", "model.widths": "widths",
        "net.model.depth": "depth",
    }  # fmt: skip
    assert [full_name(name, known, "--sort") for name in ("widths", "seed", "model.depth")] == [
        "model.widths", "seed", "net.model.depth",
    ]  # fmt: skip
    with pytest.raises(UserError, match=r"--group lr: which one is meant\? optimizer.lr, schedule.lr"):
        full_name("lr", known, "--group")
    with pytest.raises(UserError, match=r"--group widhts: no run has such a setting; did you mean model.widths\?"):
        full_name("widhts", known, "--group")


@pytest.mark.parametrize(
    ("typed", "num"),
    [
        ("optimizer.lr<0.1", 12), ("lr <= 0.1", 18), ("lr>0.05", 6), ("lr>=5e-2", 12), ("lr=0.10", 6), ("lr!=0.1", 12),
        ("seed=1", 6), ("seed<2", 12), ("widths=[2,4]", 9), ("widths != [2,4]", 9), ("optimizer=SGD", 18),
    ],
)  # fmt: skip
def test_filters(study: Path, typed: str, num: int) -> None:
    found = compare([study], filters=[typed])
    assert sum(len(group.runs) for group in found.groups) == num
    assert found.notes == ((f"--filter leaves out {18 - num} of 18 runs",) if num < 18 else ())


def test_filters_together(study: Path) -> None:
    assert names(compare([study], filters=["lr<0.1", "widths=[2,4]", "lr!=0.01"])) == ["all runs"]


@pytest.mark.parametrize(
    ("typed", "message"),
    [
        ("lr", "expected KEY OPERATOR VALUE"),
        ("lr=", "expected KEY OPERATOR VALUE"),
        ("lr=<1", "expected KEY OPERATOR VALUE"),
        ("lr==1", "expected KEY OPERATOR VALUE"),
        ("optimizer.rl<1", "--filter optimizer.rl: no run has such a setting; did you mean"),
        ("lr<fast", "fast is no number; < compares numbers"),
        ("widths<3", r"\[2,4\] is no number; < compares numbers"),
        ("lr>5", "no run is left by --filter lr>5; without it there are 6 groups"),
    ],
)
def test_wrong_filters(study: Path, typed: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        compare([study], filters=[typed])


def test_what_a_run_has_not_is_equal_to_nothing() -> None:
    assert Condition.parse("a!=1").holds(None)
    assert not Condition.parse("a=1").holds(None)
    assert not Condition.parse("a<1").holds(None)


def test_group_averages_over_the_rest(study: Path) -> None:
    found = compare([study], group=["optimizer.lr"], baseline="lr=0.05")
    assert names(found) == ["lr=0.1", "lr=0.05", "lr=0.01"]
    assert found.labels == ("lr",)
    assert [group.value and group.value.num for group in found.groups] == [6, 6, 6]
    assert found.notes[0] == "averaged over widths ([2,4], [4,8]), and over seeds"
    difference = found.groups[0].difference
    assert difference is not None
    assert (difference.kind, difference.num, difference.mean) == ("paired", 3, pytest.approx(0.2))


def test_copies_do_not_make_an_interval_narrower(study: Path, tmp_path: Path) -> None:
    before = compare([study])
    shutil.copytree(study, tmp_path / "copy")
    after = compare([study, tmp_path / "copy"])
    assert [group.value for group in after.groups] == [group.value for group in before.groups]
    assert after.notes[0].startswith("18 runs are not averaged, as a newer one has the same settings and seed: ")


def test_sorting(study: Path) -> None:
    by_lr = ["0.01", "0.01", "0.05", "0.05", "0.1", "0.1"]
    assert [group.settings["lr"] for group in compare([study], sort="lr").groups] == by_lr
    assert [group.settings["lr"] for group in compare([study], sort="test/accuracy").groups] == by_lr[::-1]
    assert names(compare([study], sort="name")) == sorted(names(compare([study])))
    assert len(compare([study], sort="time").groups) == 6
    with pytest.raises(UserError, match="--sort rl: no such column; expected one of lr, widths, val/accuracy, test/"):
        compare([study], sort="rl")


def test_baseline(study: Path) -> None:
    found = compare([study], baseline="lr=0.05 widths=[2,4]")
    assert found.baseline == "lr=0.05 widths=[2,4]"
    differences = {group.name: group.difference for group in found.groups}
    assert differences.pop(found.baseline) is None
    assert {each.num for each in differences.values() if each} == {3}
    assert compare([study], baseline="widths=[2,4] lr=0.01").baseline == "lr=0.01 widths=[2,4]"
    with pytest.raises(UserError, match=r"lr=0.1: is a part of several names; name one of\n  lr=0.1 widths=\[2,4\]\n"):
        compare([study], baseline="lr=0.1")
    with pytest.raises(UserError, match=r"lr=7: is no group; name one of\n  lr=0\.01"):
        compare([study], baseline="lr=7")


def test_many_groups_like_the_baseline_are_not_all_named(tmp_path: Path) -> None:
    rates = [0.01 * number for number in range(1, 13)]
    make_study(tmp_path / "s", {LR: rates, SEED: [0, 1, 2]}, lambda point: (point[LR] * 7919 * (point[SEED] + 1)) % 1)
    notes = compare([tmp_path / "s"], baseline="lr=0.01").notes
    assert len(notes) <= 9
    assert notes[-1].endswith("more groups can't be told from lr=0.01 either")


def test_which_metric(study: Path, tmp_path: Path) -> None:
    found = compare([study], metric="val/loss")
    assert (found.metric, found.mode, names(found)[0]) == ("val/loss", "min", "lr=0.1 widths=[2,4]")
    with pytest.raises(UserError, match="nothing is selected on the test split"):
        compare([study], metric="test/accuracy")
    with pytest.raises(UserError, match=r"no metric val/acuracy|has the metric val/acuracy; did you mean val/accuracy"):
        compare([study], metric="val/acuracy")
    make_run(tmp_path / "other", {"objective.metric": "val/loss", "objective.mode": "min"}, 0.5)
    with pytest.raises(UserError, match=r"several objectives: val/accuracy \(max\), val/loss \(min\); .*: val/acc"):
        compare([study, tmp_path])
    none = make_run(tmp_path / "none", {}, 0.5)
    none.config.write_text(yaml.dump(config_with({}) | {"objective": None}))
    with pytest.raises(UserError, match="no objective; say what to compare with --metric: val/accuracy, val/loss"):
        compare([none.path])
    assert names(compare([none.path], metric="val/accuracy")) == ["all runs"]


def test_where_in_a_run(tmp_path: Path) -> None:
    """Epochs count from 1, as the console counts; the test stays that of the best checkpoint."""
    curve = [0.25, 0.75, 0.5]
    make_study(tmp_path / "s", {SEED: [0]}, accuracy, num_epochs=3, curve=lambda point, epoch: curve[epoch])

    def value(at: str, metric: str | None = None) -> float:
        (group,) = compare([tmp_path / "s"], at=at, metric=metric).groups
        assert group.value is not None
        assert group.test["test/accuracy"].mean == 0.5
        return group.value.mean

    assert [value(at) for at in ("best", "last", "epoch=1", "epoch=2", "epoch=3")] == [0.75, 0.5, 0.25, 0.75, 0.5]
    assert value("epoch=1", "train/loss") == 2 / 3
    assert value("best", "train/loss") == 2 / 4  # the last before the second validation
    assert value("last", "train/loss") == 2 / 5
    with pytest.raises(UserError, match="no run has a value of val/accuracy at epoch=4; the longest has 3 epochs"):
        value("epoch=4")
    for wrong in ("epoch=0", "epoch=-1", "first", "epoch=", "epoch=1.5"):
        with pytest.raises(UserError, match="expected best, last or epoch=N, with epochs counted from 1"):
            value(wrong)


def test_metrics_files_of_strangers(tmp_path: Path) -> None:
    curve = [0.25, 0.75]
    runs = make_study(tmp_path / "s", {SEED: [0, 1, 2, 3]}, accuracy, curve=lambda point, epoch: curve[epoch])
    runs[0].metrics.unlink()
    runs[1].metrics.unlink()
    os.mkfifo(runs[1].metrics)
    lines = "x" * 5000 + "\n\0,,,\n0,10,val/accuracy,nan\n0,10,val/accuracy,much\n0,10,val/accuracy,0.5"  # torn
    runs[2].metrics.write_text(lines)
    found = compare([tmp_path / "s"], at="epoch=1")
    assert found.groups[0].value is not None
    assert (found.groups[0].value.num, found.groups[0].value.mean) == (1, 0.25)
    assert found.notes == (
        "3 runs are done, but without val/accuracy at epoch=1: 0000_seed-0, 0001_seed-1, 0002_seed-2",
    )


def test_nothing_is_done(tmp_path: Path) -> None:
    make_run(tmp_path / "failed", {}, 0.5, status="failed")
    with pytest.raises(UserError, match="no run is done yet"):
        compare([tmp_path])


def test_names_of_strangers_are_told_apart_and_printable(tmp_path: Path) -> None:
    for number, value in enumerate(["a\x1b[31m\nb", "x" * 60 + "1", "x" * 60 + "2"]):
        put(tmp_path / str(number), config_with({SEED: 0, "model.hidden": [value]}))
    found = names(compare([tmp_path]))
    assert len(set(found)) == 3
    assert all(name.isprintable() and len(name) < 80 for name in found)
    assert sum(name.endswith(" (2)") for name in found) == 1
