"""`litlab train`: its help, and its errors, which name the key, the expected value and the nearest match."""

from collections.abc import Callable
from pathlib import Path

import pytest
from support.runs import TINY, Command, call_litlab

from litlab.cli.train import help_text
from litlab.runs.directory import RunDirectory

WRONG = {
    "unknown key": (["data.batchsize=3"], "data.batchsize: unknown key; did you mean data.batch_size?"),
    "unknown key, added": (["+data.batchsize=3"], "data.batchsize: unknown key; did you mean data.batch_size?"),
    "unknown key of the Trainer, added": (["+trainer.max_epoch=3"], "did you mean trainer.max_epochs?"),
    "unknown group": (["modle=cnn"], "modle: unknown key; did you mean model?"),
    "unknown config": (["model=cn"], "model=cn: no such config; did you mean cnn; known: cnn, resnet18, torchvision"),
    "unknown experiment": (["experiment=foo"], "experiment=foo: no such config; known: accurate_cpu, fast_cpu"),
    "wrong type": (["seed=a"], "seed=a: expected a valid integer"),
    "wrong type in a list": (["model.widths=[3,a]"], "model.widths.1=a: expected a valid integer"),
    "learning rate": (["optimizer.lr=-1"], "optimizer.lr=-1: expected greater than 0"),
    "batch of nothing": (["data.batch_size=0"], "data.batch_size=0: expected greater than or equal to 1"),
    "devices": (["trainer.devices=0"], "expected greater than or equal to 1, or 'auto' or -1, or a valid list"),
    "a share of all": (["data.val_size=1.0"], "data.val_size=1.0: expected a valid integer, or less than 1"),
    "missing": (["data=image_folder"], "data.root: a value is missing; set data.root=..."),
    "selecting on test": (["objective.metric=test/accuracy"], "nothing is ever selected on the test split"),
    "an objective that is not measured": (["objective.metric=val/acuracy"], "did you mean val/accuracy; known"),
    "devices that do not divide the batch": (
        ["data.batch_size=129", "trainer.devices=2"],
        "it counts the images of all devices together, so 2 devices must divide it; use 128 or 130",
    ),
    "grammar": (["optimizer.lr=.1=3"], "optimizer.lr=.1=3: cannot be read as an override"),
    "no such class of ours": (["model._target_=litlab.models.cnn.CNNN"], "did you mean litlab.models.cnn.CNN"),
    "a group set to null": (["model=null"], "to leave the group out, write ~model"),
    "a secret written out": (["+logger.tensorboard.api_key=abc"], "logger.tensorboard.api_key"),
    "interpolation": (["seed=${nothing}"], "cannot be resolved"),
}  # fmt: skip


@pytest.mark.parametrize("case", WRONG)
def test_errors_in_keys_of_litlab(case: str, tmp_path: Path, call_here: Callable[..., tuple[int, str, str]]) -> None:
    overrides, expected = WRONG[case]
    code, output, errors = call_here(tmp_path, "train", *overrides)
    assert code == 1
    assert expected in errors
    assert errors.startswith("litlab: ")
    assert "Traceback" not in errors + output
    assert list(tmp_path.iterdir()) == [], "a run that never started leaves no files"


def test_foreign_targets_are_checked_before_anything_is_written(tmp_path: Path) -> None:
    (tmp_path / "nets.py").write_text("class Net:\n    def __init__(self, *, num_classes, width): ...\n")
    model = ["model._target_=nets.Net", "+model.widht=3", "~model.widths", "~model.hidden"]
    done = call_litlab(tmp_path, "train", *model)
    assert done.returncode == 1
    assert "nets.Net takes no argument 'widht'; did you mean width" in done.stderr
    assert "Traceback" not in done.stderr
    assert {path.name for path in tmp_path.iterdir()} - {"__pycache__"} == {"nets.py"}


def test_an_existing_run_is_never_overwritten(tiny_run: RunDirectory, litlab: Command) -> None:
    before = tiny_run.result.read_bytes()
    done = litlab("train", *TINY, f"hydra.run.dir={tiny_run.path}")
    assert done.returncode == 1
    assert "is the directory of an existing run, which is never overwritten" in done.stderr
    assert tiny_run.result.read_bytes() == before


def test_missing_data_leave_no_files(tmp_path: Path) -> None:
    done = call_litlab(tmp_path, "train", "data=image_folder", "data.root=nowhere", "trainer=cpu")
    assert done.returncode == 1
    assert "nowhere" in done.stderr
    assert "Traceback" not in done.stderr
    assert list(tmp_path.iterdir()) == []


def test_help_names_what_can_be_chosen() -> None:
    lines = help_text(["--help", "model=resnet18"]).splitlines()
    groups = dict(line.split(": ", 1) for line in lines if ": " in line and line[0] != " ")
    assert groups["data"] == "cifar10, image_folder, shapes"
    assert groups["model"].split(", ") == ["cnn", "resnet18", "torchvision", "whitened"]
    assert "sprint" in groups["experiment"]
    assert "data/base" not in groups
    assert "  _target_: litlab.models.resnet.ResNet18" in lines
