"""`litlab evaluate` against result.json, and against what it must not do."""

import json
import os
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from support.runs import Command

from litlab.cli import evaluate
from litlab.errors import UserError
from litlab.runs.directory import RunDirectory
from litlab.runs.files import write_json
from litlab.runs.signature import sign
from litlab.training.checkpoint_io import AtomicCheckpointIO


@pytest.fixture
def copied(tiny_run: RunDirectory, tmp_path: Path) -> RunDirectory:
    """Copy a run whose data has a root."""
    return RunDirectory(Path(shutil.copytree(tiny_run.path, tmp_path / "copied")))


def evaluated(capsys: pytest.CaptureFixture[str], *arguments: str | Path) -> dict[str, Any]:
    evaluate.main([*map(str, arguments), "--json"])
    report: dict[str, Any] = json.loads(capsys.readouterr().out)
    return report


def test_the_test_metrics_are_those_of_the_run_to_the_last_bit(tiny_run: RunDirectory, litlab: Command) -> None:
    before = {path: path.stat().st_mtime_ns for path in tiny_run.path.rglob("*")}
    done = litlab("evaluate", str(tiny_run.path), "--json")
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    assert report.pop("metrics") == tiny_run.read_json(tiny_run.result)["test"]
    assert report == {
        "run": str(tiny_run.path), "checkpoint": "best", "split": "test", "device": "cpu", "same_data": True
    }  # fmt: skip
    assert done.stderr == ""
    assert {path: path.stat().st_mtime_ns for path in tiny_run.path.rglob("*")} == before


def test_validation_metrics_of_best_and_last(tiny_run: RunDirectory, capsys: pytest.CaptureFixture[str]) -> None:
    result = tiny_run.read_json(tiny_run.result)
    for checkpoint in ("best", "last"):
        report = evaluated(capsys, tiny_run.path, "--split", "val", "--checkpoint", checkpoint)
        assert report["metrics"] == pytest.approx(result[checkpoint], rel=1e-6)


def test_the_table_holds_every_metric(tiny_run: RunDirectory, capsys: pytest.CaptureFixture[str]) -> None:
    evaluate.main([str(tiny_run.path)])
    shown = capsys.readouterr().out
    for metric, value in tiny_run.read_json(tiny_run.result)["test"].items():
        assert any(line.split() == [metric, f"{value:.6f}"] for line in shown.splitlines())


def test_an_inherited_launcher_is_ignored(
    tiny_run: RunDirectory, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("RANK", "LOCAL_RANK", "WORLD_SIZE", "MASTER_PORT", "SLURM_NTASKS", "SLURM_JOB_NAME"):
        monkeypatch.setitem(os.environ, name, "2")
    assert evaluated(capsys, tiny_run.path)["metrics"]["test/loss"] > 0


def test_normalisation_is_that_of_the_training(copied: RunDirectory, capsys: pytest.CaptureFixture[str]) -> None:
    facts = copied.read_json(copied.dataset)
    write_json(copied.dataset, facts | {"mean": [0.0, 0.0, 0.0], "std": [9.0, 9.0, 9.0]})
    changed = evaluated(capsys, copied.path)["metrics"]
    assert changed["test/loss"] != copied.read_json(copied.result)["test"]["test/loss"]


def test_other_data_are_noted_and_other_classes_refused(
    copied: RunDirectory, capsys: pytest.CaptureFixture[str]
) -> None:
    facts = copied.read_json(copied.dataset)
    write_json(copied.dataset, facts | {"fingerprint": "of other images"})
    evaluate.main([str(copied.path), "--json"])
    output = capsys.readouterr()
    assert json.loads(output.out)["same_data"] is False
    assert "these are not the data" in output.err
    write_json(copied.dataset, facts | {"class_names": [*facts["class_names"][:-1], "wombat"]})
    with pytest.raises(UserError, match=r"was trained on .*wombat"):
        evaluate.main([str(copied.path)])


@pytest.mark.parametrize(
    ("option", "value", "message"),
    [
        ("--set", "data.batch_size=3", r"a key of data\.root or data\.path or data\.cache"),
        ("--set", "data.root", "expected KEY=PATH"),
        ("--set", "data.root=/elsewhere", r"litlab\.data\.shapes\.Shapes, the data of this run, has no 'root'"),
        ("--device", "cuda", "no CUDA device"),
        ("--split", "val", "no validation images"),
    ],
)
def test_options_that_do_not_fit_the_run(
    option: str, value: str, message: str, copied: RunDirectory, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    write_json(copied.dataset, copied.read_json(copied.dataset) | {"num_val": 0})
    with pytest.raises(UserError, match=message):
        evaluate.main([str(copied.path), option, value])


TASK = """\
import torch
from lightning.pytorch import LightningDataModule, LightningModule
class Data(LightningDataModule):
    def __init__(self, root):
        super().__init__()
        self.root = root
    def test_dataloader(self):
        return torch.utils.data.DataLoader([float(self.root)] * 4, batch_size=2)
class Task(LightningModule):
    def __init__(self):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(()))
    def test_step(self, batch, batch_idx):
        print("not for standard output")
        self.log("test/product", self.weight * batch.float().mean())
"""


def test_a_foreign_task_on_foreign_data(
    copied: RunDirectory, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "evaluate_test_package.py").write_text(TASK)
    copied.dataset.unlink()
    copied.best.unlink()
    write_json(copied.provenance, {"project": str(tmp_path)})
    config = yaml.safe_load(copied.config.read_text()) | dict.fromkeys(("model", "optimizer", "schedule"))
    config["data"] = {"_target_": "evaluate_test_package.Data", "root": "1"}
    config["task"] = {"_target_": "evaluate_test_package.Task"}
    copied.config.write_text(yaml.safe_dump(config))
    sign(copied)
    checkpoint = torch.load(copied.last, weights_only=True) | {"state_dict": {"weight": torch.tensor(3.0)}}
    AtomicCheckpointIO().save_checkpoint(checkpoint, copied.last)
    report = evaluated(capsys, copied.path, "--set", "data.root=7")
    assert report["metrics"] == {"test/product": 21.0}
    assert (report["checkpoint"], report["same_data"]) == ("last", None)

    checkpoint["state_dict"] = {"_orig_mod.weight": torch.tensor(3.0)}
    AtomicCheckpointIO().save_checkpoint(checkpoint, copied.last)
    with pytest.raises(UserError, match=r"(?s)not those of Task: .*Missing key.*\"weight\".*\"_orig_mod.weight\""):
        evaluate.main([str(copied.path)])
