"""Conditions of `--filter`: the runs that they keep, and their errors."""

from pathlib import Path

import pytest
import yaml
from support.grids import LR, RESNET, SEED, accuracy, names
from support.studies import config_with, make_study

from litlab.compare.comparison import compare
from litlab.compare.filters import Condition
from litlab.errors import UserError


@pytest.mark.parametrize(
    ("typed", "num"),
    [
        ("optimizer.lr<0.1", 12), ("lr <= 0.1", 18), ("lr>0.05", 6), ("lr>=5e-2", 12), ("lr=0.10", 6), ("lr!=0.1", 12),
        ("seed=1", 6), ("seed<2", 12), ("widths=[2,4]", 9), ("widths != [2,4]", 9), ("optimizer=SGD", 18),
        ("widths=[2, 4]", 9), ("widths!=[ 2 , 4 ]", 9), ("optimizer=sgd", 18), ("model=cnn", 18), ("model!=Resnet", 18),
        ("model=litlab.models.cnn.CNN", 18), ("flip=True", 18),
    ],
)  # fmt: skip
def test_filters(study: Path, typed: str, num: int) -> None:
    comparison = compare([study], filters=[typed])
    assert sum(len(group.runs) for group in comparison.groups) == num
    left_out = [note for note in comparison.notes if "--filter" in note]
    assert left_out == ([f"--filter leaves out {18 - num} of 18 runs"] if num < 18 else [])


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
        ("lr<fast", "fast is not a number; < compares numbers"),
        ("widths<3", r"\[2,4\] is not a number; < compares numbers"),
        ("lr>5", "no run is left by --filter lr>5; lr is 0.01, 0.05, 0.1$"),
        ("model=vgg", "no run is left by --filter model=vgg; model is CNN$"),
        ("seed=9", "no run is left by --filter seed=9; seed is 0, 1, 2$"),
    ],
)
def test_wrong_filters(study: Path, typed: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        compare([study], filters=[typed])


def test_a_choice_goes_by_its_name_and_by_its_class(tmp_path: Path) -> None:
    """Two choices of one class: the name of the class means both, and a choice only itself."""
    runs = make_study(tmp_path / "s", {LR: [0.05, 0.1, 0.2], SEED: [0]}, accuracy)
    jobs = (tmp_path / "s" / "jobs.jsonl").read_text()
    for rate, choice in {"0.05": "cnn", "0.1": "cnn_wide", "0.2": "resnet20"}.items():
        jobs = jobs.replace(f'"{LR}": "{rate}"', f'"model": "{choice}"')
    (tmp_path / "s" / "jobs.jsonl").write_text(jobs)
    models = [config_with({})["model"], config_with({"model.widths": [8, 8]})["model"], RESNET]
    for run, model in zip(runs, models, strict=True):
        run.config.write_text(yaml.dump(run.read_config() | {"model": model}))
    for typed, choices in {
        "model=cnn": {"cnn"}, "model=CNN": {"cnn", "cnn_wide"}, "model!=CNN": {"resnet20"},
        "model=ResNet": {"resnet20"}, "model=Resnet20": {"resnet20"}, "model=Cnn_Wide": {"cnn_wide"},
    }.items():  # fmt: skip
        comparison = compare([tmp_path / "s"], filters=[typed])
        assert {run.choices["model"] for group in comparison.groups for run in group.runs} == choices, typed
    message = "--filter model=vgg lr=3; model is cnn, cnn_wide, resnet20; lr is 0.05, 0.1, 0.2"
    with pytest.raises(UserError, match=message):
        compare([tmp_path / "s"], filters=["model=vgg", "lr=3"])


def test_a_missing_setting_fails_every_comparison_except_unequal() -> None:
    assert Condition.parse("a!=1").holds(None)
    assert not Condition.parse("a=1").holds(None)
    assert not Condition.parse("a<1").holds(None)
