"""Groups of runs: the settings that tell them apart, and their names."""

import shutil
from pathlib import Path

import pytest
import yaml
from support.grids import LR, RESNET, SEED, WIDTHS, accuracy, names, put, remarks
from support.studies import config_with, make_run, make_study

from litlab.compare.comparison import compare
from litlab.runs.files import write_json


def test_groups_are_settings_and_runs_are_seeds(study: Path) -> None:
    comparison = compare([study])
    assert (comparison.metric.name, comparison.mode, comparison.labels) == ("val/accuracy", "max", ("lr", "widths"))
    assert comparison.keys == {"lr": LR, "widths": WIDTHS}
    assert names(comparison)[0] == "lr=0.1 widths=[2,4]"
    assert names(comparison)[-1] == "lr=0.01 widths=[4,8]"
    assert len(comparison.groups) == 6
    first = comparison.groups[0]
    assert [run.seed for run in first.runs] == [0, 1, 2]
    assert (first.value.num, first.value.mean) == (3, pytest.approx(0.81))
    assert first.test["test/accuracy"].mean == pytest.approx(0.81)
    assert (first.seconds.mean, first.parameters) == (5.0, 1254)
    assert comparison.ties == {"lr=0.1 widths=[2,4]", "lr=0.1 widths=[4,8]"}
    assert (remarks(comparison), comparison.skipped, comparison.baseline) == ((), (), None)


def test_one_group(tmp_path: Path) -> None:
    make_study(tmp_path / "s", {SEED: [0, 1]}, accuracy)
    comparison = compare([tmp_path / "s"])
    assert (names(comparison), comparison.labels, comparison.ties) == (["all runs"], (), {"all runs"})


def test_only_completed_runs_are_averaged(study: Path, tmp_path: Path) -> None:
    study = shutil.copytree(study, tmp_path / "s")
    for name, status in (("0000", "failed"), ("0006", "pruned"), ("0007", "interrupted")):
        (run,) = study.glob(f"{name}_*")
        result = yaml.safe_load((run / "result.json").read_text()) | {"status": status, "data": None}
        write_json(run / "result.json", result)
    comparison = compare([study])
    groups = {group.name: group for group in comparison.groups}
    assert groups["lr=0.01 widths=[2,4]"].others == {"failed": 1}
    assert [run.seed for run in groups["lr=0.01 widths=[2,4]"].runs] == [1, 2]
    assert groups["lr=0.05 widths=[2,4]"].others == {"pruned": 1, "interrupted": 1}
    assert len(groups) == 6
    assert remarks(comparison) == ("3 runs are not completed and not averaged: 1 failed, 1 pruned, 1 interrupted",)


def test_keys_that_follow_the_seed_are_not_settings(tmp_path: Path) -> None:
    """Though one old run has a seed of its own for the data, and though one has just the same by chance."""
    make_study(tmp_path / "s", {LR: [0.05, 0.1], SEED: [1, 2]}, accuracy)
    config = config_with({LR: 0.1, SEED: 3})
    put(tmp_path / "fixed" / "3", config | {"data": config["data"] | {"seed": 7}})
    config = config_with({LR: 0.1, SEED: 4})
    put(tmp_path / "fixed" / "4", config | {"data": config["data"] | {"seed": 7}})
    seeds = {group.name: [run.seed for run in group.runs] for group in compare([tmp_path]).groups}
    assert seeds == {"lr=0.05": [1, 2], "lr=0.1": [1, 2], "lr=0.1 data.seed=7": [3, 4]}


def test_other_data_are_another_group(tmp_path: Path) -> None:
    make_study(tmp_path / "a", {SEED: [0, 1]}, accuracy)
    make_study(tmp_path / "b", {SEED: [2, 3]}, accuracy, data="e" * 64)
    comparison = compare([tmp_path])
    assert sorted(names(comparison)) == ["data fingerprint=dddddddddddd", "data fingerprint=eeeeeeeeeeee"]
    assert remarks(comparison) == ("not all of the runs had the same data: the fingerprints of their images differ",)


@pytest.mark.parametrize(
    ("target", "expected"),
    [("my.Csv", ["path=/a.csv", "path=/b.csv"]), ("litlab.data.huggingface.HuggingFace", ["all runs"])],
)
def test_the_location_of_data_without_a_fingerprint_is_a_setting(
    target: str, expected: list[str], tmp_path: Path
) -> None:
    for path in ("/a.csv", "/b.csv"):
        put(tmp_path / path[1:], config_with({LR: 0.1}) | {"data": {"_target_": target, "path": path}})
    assert sorted(names(compare([tmp_path]))) == expected


def test_choices_stand_for_the_settings_that_follow_from_them(tmp_path: Path) -> None:
    """A study that does not sweep the model, or a single run, shows the choice with the same settings."""
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
    comparison = compare([tmp_path])
    assert sorted(names(comparison)) == [
        "model=cnn hidden=[8] lr=0.05", "model=cnn hidden=[8] lr=0.2", "model=cnn hidden=[9] lr=0.05",
        "model=resnet lr=0.05",
    ]  # fmt: skip
    put(tmp_path / "d", config_with({SEED: 5}) | {"model": {"_target_": "my.Net", "size": 1}})
    assert set(names(compare([tmp_path]))) - set(names(comparison)) == {"model=Net lr=0.05"}


def test_other_settings_of_the_class_of_two_choices_are_neither_of_them(tmp_path: Path) -> None:
    runs = make_study(tmp_path / "a", {WIDTHS: [[2, 4], [4, 8]], SEED: [0]}, accuracy)
    jobs = tmp_path / "a" / "jobs.jsonl"
    jobs.write_text(
        jobs.read_text()
        .replace(f'"{WIDTHS}": "[2,4]"', '"model": "small"')
        .replace(f'"{WIDTHS}": "[4,8]"', '"model": "wide"')
    )
    for run in runs:
        run.config.write_text(yaml.dump(run.read_config() | {"study": {"name": "a", "swept": ["model", SEED]}}))
    put(tmp_path / "b", config_with({SEED: 0, WIDTHS: [8, 16]}))
    assert sorted(names(compare([tmp_path]))) == [
        "model=CNN widths=[8,16]", "model=small widths=[2,4]", "model=wide widths=[4,8]",
    ]  # fmt: skip


def test_classes_stand_for_the_settings_that_only_they_have(tmp_path: Path) -> None:
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


def test_a_swept_experiment_stands_for_the_settings_that_it_changes(tmp_path: Path) -> None:
    """A swept key without a place in the config stands for all that goes with it."""
    runs = make_study(tmp_path / "a", {LR: [0.05, 0.1], SEED: [0, 1]}, accuracy)
    jobs = tmp_path / "a" / "jobs.jsonl"
    jobs.write_text(jobs.read_text().replace(f'"{LR}": "0.', '"experiment": "best_'))
    for run in runs:
        config = run.read_config()
        config["trainer"]["max_epochs"] = 3 if config["optimizer"]["lr"] == 0.1 else 2
        run.config.write_text(yaml.dump(config))
    assert sorted(names(compare([tmp_path / "a"]))) == ["experiment=best_05", "experiment=best_1"]


def test_one_study_sweeps_a_setting_that_another_fixes(tmp_path: Path) -> None:
    make_study(tmp_path / "a", {LR: [0.05, 0.1], SEED: [0, 1]}, accuracy)
    make_study(tmp_path / "b", {"optimizer.momentum": [0.9, 0.5], SEED: [5, 6]}, accuracy)
    make_study(tmp_path / "c", {"trainer.devices": [1, 2], SEED: [7]}, accuracy)
    comparison = compare([tmp_path / "a", tmp_path / "b"])
    assert comparison.labels == ("lr", "momentum")
    assert sorted(names(comparison)) == ["lr=0.05 momentum=0.5", "lr=0.05 momentum=0.9", "lr=0.1 momentum=0.9"]
    assert sorted(names(compare([tmp_path / "a", tmp_path / "c"]))) == [
        "lr=0.05 devices=1", "lr=0.05 devices=2", "lr=0.1 devices=1",
    ]  # fmt: skip


def test_note_on_groups_that_average_over_different_settings(tmp_path: Path) -> None:
    note = "the groups are not averaged over the same settings, which may be why they differ"
    make_study(tmp_path / "s", {LR: [0.05, 0.1], WIDTHS: [[2, 4], [4, 8]], SEED: [0]}, accuracy)
    assert note not in compare([tmp_path / "s"], group=["lr"]).notes
    make_run(tmp_path / "more", {LR: 0.1, WIDTHS: [8, 8], SEED: 0}, 0.9)
    assert note in compare([tmp_path], group=["lr"]).notes
