"""A LightningModule and a data module that know nothing of litlab, trained by config alone."""

from pathlib import Path

import pytest
import torch
from lightning.pytorch import LightningDataModule, LightningModule
from support.exact_resume import train_until
from support.runs import Command, compose_config
from torch import Tensor
from torch.utils.data import DataLoader

from litlab.config.config_file import to_yaml
from litlab.runs.directory import RunDirectory
from litlab.runs.metrics import read_metrics
from litlab.runs.result import read_result

BORING = "lightning.pytorch.demos.boring_classes"
PAIR = (
    "~model", "~optimizer", "~schedule", "objective=null", "name=boring",
    "~data", f"+data={{_target_: {BORING}.BoringDataModule}}",
    "~task", f"+task={{_target_: {BORING}.BoringModel}}",
    "trainer=cpu", "trainer.max_epochs=2", "trainer.log_every_n_steps=20", "threads=1",
)  # fmt: skip


def test_a_demo_pair_of_lightning_trains_and_is_tested(tmp_path: Path, litlab: Command) -> None:
    run = RunDirectory(tmp_path / "run")
    done = litlab("train", *PAIR, f"hydra.run.dir={run.path}")
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    result = read_result(run)
    assert (result["status"], result["epochs"], result["steps"]) == ("completed", 2, 128)
    assert (result["objective"], result["images_per_second"]) == (None, None)
    assert result["parameters"] == 32 * 2 + 2
    assert result["seconds"]["test"] > 0
    assert run.last.exists()
    assert not run.best.exists()
    assert not run.dataset.exists(), "there are no facts to tell"
    assert {row.value for row in read_metrics(run.metrics) if row.metric == "lr"} == {0.1, 0.1 * 0.1}


class Training(LightningModule):
    def __init__(self) -> None:
        super().__init__()
        self.layer = torch.nn.Linear(4, 1)

    def training_step(self, batch: Tensor) -> Tensor:
        return self.layer(batch).square().mean()

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=0.1)


class Validation(Training):
    def validation_step(self, batch: Tensor) -> None:
        self.log("val/loss", self.training_step(batch))


class Complete(Validation):
    def test_step(self, batch: Tensor) -> None:
        self.log("test/loss", self.training_step(batch))


class TrainingData(LightningDataModule):
    def train_dataloader(self) -> DataLoader[Tensor]:
        return DataLoader(torch.arange(32.0).reshape(8, 4) / 32, batch_size=2)


class ValidationData(TrainingData):
    val_dataloader = TrainingData.train_dataloader


class CompleteData(ValidationData):
    test_dataloader = TrainingData.train_dataloader


@pytest.mark.filterwarnings("ignore:.*does not have many workers", "ignore:The number of training batches")
@pytest.mark.filterwarnings("ignore:You defined a `validation_step` but have no `val_dataloader`")
@pytest.mark.parametrize(
    ("task", "data", "message"),
    [
        ("Validation", "CompleteData", "no test: Validation.test_step not defined"),
        ("Complete", "ValidationData", "no test: ValidationData.test_dataloader not defined"),
        (
            "Training",
            "TrainingData",
            "no validation: Training.validation_step and TrainingData.val_dataloader not defined; "
            "no test: Training.test_step and TrainingData.test_dataloader not defined",
        ),
        (
            "Complete",
            "TrainingData",
            "no validation: TrainingData.val_dataloader not defined; no test: TrainingData.test_dataloader not defined",
        ),
    ],
)
def test_a_pair_without_test_or_validation_completes_and_says_so(
    task: str, data: str, message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    overrides = [
        setting.replace(f"{BORING}.BoringModel", f"training.test_foreign_module.{task}")
        .replace(f"{BORING}.BoringDataModule", f"training.test_foreign_module.{data}")
        .replace("objective=null", "objective={metric: val/loss, mode: min}")
        for setting in PAIR
    ]
    for max_epochs in (2, 3):  # the second time, it is resumed
        config = compose_config(*overrides, f"trainer.max_epochs={max_epochs}")
        run = RunDirectory(tmp_path / "run")
        if not run.path.exists():
            RunDirectory.create(run.path, to_yaml(config), {})
        assert train_until(run, config, None)
        assert capsys.readouterr().err == f"litlab: {message}\n"
        result = read_result(run)
        assert (result["status"], result["steps"], result["test"]) == ("completed", 4 * max_epochs, {})
        has_validation = "no validation" not in message
        assert (result["objective"] is not None) == (list(result["best"]) == ["val/loss"]) == has_validation
        assert run.last.exists()
