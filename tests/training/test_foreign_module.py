"""LightningModules and data modules that do not import litlab, trained by config alone."""

import csv
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import Callback, LightningDataModule, LightningModule
from lightning.pytorch.callbacks import ModelPruning
from support.exact_resume import new_run, train_until
from support.foreign import pair
from support.runs import Command, train_here
from torch import Tensor, nn
from torch.utils.data import DataLoader
from torchmetrics import MeanMetric

import litlab
from litlab.cli import compare
from litlab.errors import UserError
from litlab.runs.directory import RunDirectory
from litlab.runs.metrics import read_metric_table, read_metrics
from litlab.runs.result import read_result

BORING = "lightning.pytorch.demos.boring_classes"
HERE = "training.test_foreign_module"


def test_a_demo_pair_of_lightning_trains_and_is_tested(tmp_path: Path, litlab: Command) -> None:
    run = RunDirectory(tmp_path / "run")
    overrides = pair(f"{BORING}.BoringModel", f"{BORING}.BoringDataModule")
    settings = ("objective=null", "trainer.max_epochs=2", "trainer.log_every_n_steps=20")
    done = litlab("train", *overrides, *settings, f"hydra.run.dir={run.path}")
    assert (done.returncode, done.stderr) == (0, "")
    result = read_result(run)
    assert (result["status"], result["epochs"], result["steps"]) == ("completed", 2, 128)
    assert (result["objective"], result["images_per_second"]) == (None, None)
    assert result["parameters"] == 32 * 2 + 2
    assert result["seconds"]["test"] > 0
    assert run.last.exists()
    assert not run.best.exists()
    assert not run.dataset.exists(), "there is no dataset info"
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
    overrides = (*pair(f"{HERE}.{task}", f"{HERE}.{data}"), "objective={metric: val/loss, mode: min}")
    run, config = new_run(tmp_path / "run", *overrides)
    for max_epochs in (2, 3):  # the second time, it is resumed
        config["trainer"]["max_epochs"] = max_epochs
        assert train_until(run, config, None)
        assert capsys.readouterr().err == f"litlab: {message}\n"
        result = read_result(run)
        assert (result["status"], result["steps"], result["test"]) == ("completed", 4 * max_epochs, {})
        has_validation = "no validation" not in message
        assert (result["objective"] is not None) == (list(result["best"]) == ["val/loss"]) == has_validation
        assert run.last.exists()


class Silent(LightningModule):
    """Logs nothing."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(4, 1)

    def training_step(self, batch: Tensor) -> Tensor:
        return self.layer(batch).square().mean()

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=0.1)


@pytest.mark.filterwarnings("ignore:.*does not have many workers", "ignore:The number of training batches")
@pytest.mark.parametrize("objective", ["null", "{metric: val/loss, mode: min}"])
def test_a_module_that_logs_nothing_completes(objective: str, tmp_path: Path) -> None:
    overrides = (*pair(f"{HERE}.Silent", f"{HERE}.TrainingData"), f"objective={objective}", "~callbacks")
    run = train_here(tmp_path / "run", *overrides, "trainer.max_epochs=1")
    assert not run.metrics.exists()
    (result,) = litlab.results(run.path)
    assert (result.status, result.steps, result.last) == ("completed", 4, {})


class AddsPruning(Complete):
    def configure_callbacks(self) -> list[Callback]:
        return [ModelPruning("l1_unstructured")]


def test_a_callback_that_could_not_be_resumed_is_refused_if_the_module_adds_it(tmp_path: Path) -> None:
    run, config = new_run(tmp_path / "run", *pair(f"{HERE}.AddsPruning", f"{HERE}.CompleteData"))
    with pytest.raises(UserError, match="ModelPruning does not save its masks"):
        train_until(run, config, None)
    assert not run.metrics.exists(), "the directory is removed again"


class Wave(LightningModule):
    """Logs a metric that rises and falls again from validation to validation.

    Args:
        metric: Name that it is logged by.
        axis: `lightning` for Lightning's own step count, `epoch` for a step that the module logs, `two_optimizers` for
            manual optimization by two optimizers, `object` for a torchmetrics object in place of a number.
    """

    VALUES = (0.25, 0.75, 0.5)

    def __init__(self, metric: str, axis: str) -> None:
        super().__init__()
        self.metric, self.axis = metric, axis
        self.automatic_optimization = axis != "two_optimizers"
        self.layers = torch.nn.ModuleList(torch.nn.Linear(4, 1) for _ in range(2))
        self.object = Wave.Height()
        self.num_validations = 0

    class Height(MeanMetric):
        unit, higher_is_better, plot_lower_bound, plot_upper_bound = "%", True, 0.0, 1.0

    def training_step(self, batch: Tensor) -> Tensor | None:
        losses = [layer(batch).square().mean() for layer in self.layers]
        self.log("train_loss", losses[0])
        if self.automatic_optimization:
            return sum(losses)
        for optimizer, loss in zip(self.optimizers(), losses, strict=True):
            optimizer.zero_grad()
            self.manual_backward(loss)
            optimizer.step()
        return None

    def validation_step(self, batch: Tensor) -> None:
        self.object.update(self.VALUES[self.num_validations])
        value = self.object if self.axis == "object" else self.VALUES[self.num_validations]
        self.log(self.metric, value, on_step=False, on_epoch=True)
        self.log("val_other", float(self.num_validations))
        if self.axis == "epoch":
            self.log("step", float(self.current_epoch))

    def on_validation_epoch_end(self) -> None:
        self.num_validations += 1

    def test_step(self, batch: Tensor) -> None:
        self.log(self.metric.replace("valid", "test").replace("val", "test"), 0.875)

    def configure_optimizers(self) -> Any:
        optimizers = [torch.optim.SGD(layer.parameters(), lr=0.1) for layer in self.layers]
        return optimizers if self.axis == "two_optimizers" else torch.optim.SGD(self.parameters(), lr=0.1)


@pytest.mark.integrations
@pytest.mark.filterwarnings("ignore:.*does not have many workers", "ignore:The number of training batches")
@pytest.mark.parametrize("interval", ["1.0", "2"])
@pytest.mark.parametrize(
    ("metric", "axis"),
    [("val_f1", "lightning"), ("val/loss", "epoch"), ("valid/acc", "two_optimizers"), ("val_acc", "object")],
)
def test_the_best_is_found_by_any_name_and_step_axis(
    metric: str, axis: str, interval: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run, config = new_run(
        tmp_path / "runs" / "run", *pair(f"{HERE}.Wave", f"{HERE}.CompleteData"), f"+task.metric={metric}",
        f"+task.axis={axis}", f"objective={{metric: {metric}, mode: max}}", f"trainer.val_check_interval={interval}",
        "trainer.log_every_n_steps=1", f"trainer.max_epochs={3 if interval == '1.0' else 1}",
    )  # fmt: skip
    assert train_until(run, config, None)
    num_optimizers = 2 if axis == "two_optimizers" else 1
    validated = [step * num_optimizers for step in ((4, 8, 12) if interval == "1.0" else (2, 4))]
    rows = read_metrics(run.metrics)
    values = {row.step: row.value for row in rows if row.metric == metric}
    assert values == dict(zip(validated, Wave.VALUES[: len(validated)], strict=True))
    result = read_result(run)
    assert (result["objective"], result["best"]) == (0.75, {metric: 0.75, "val_other": 1.0})
    test_metric = metric.replace("valid", "test").replace("val", "test")
    assert result["last"][metric] == Wave.VALUES[len(validated) - 1]
    assert list(result["last"]) == [metric, "val_other"]
    assert result["test"] == {test_metric: 0.875}
    info = read_metric_table(run)[metric]
    assert (info.unit, info.mode, info.bounds) == (("%", "max", (0, 1)) if axis == "object" else ("", None, None))
    capsys.readouterr()
    assert compare.main([str(tmp_path / "runs"), "--format", "csv"]) in (0, None)
    (row,) = csv.DictReader(capsys.readouterr().out.splitlines())
    assert (float(row[f"{metric} mean"]), float(row[f"{test_metric} mean"])) == (0.75, 0.875)


class LogsAnotherLoss(Training):
    """Logs `loss` in training, where its last value is that of the last batch, and `val_loss` in validation."""

    def training_step(self, batch: Tensor) -> Tensor:
        loss = super().training_step(batch)
        self.log("loss", loss, on_step=True)
        return loss

    def validation_step(self, batch: Tensor) -> None:
        self.log("val_loss", super().training_step(batch))


def test_a_value_of_the_training_is_no_objective(tmp_path: Path) -> None:
    overrides = (
        *pair(f"{HERE}.LogsAnotherLoss", f"{HERE}.ValidationData"),
        "objective={metric: loss, mode: min}",
        "trainer.log_every_n_steps=1",
    )
    run, config = new_run(tmp_path / "run", *overrides)
    with pytest.raises(UserError, match=r"objective\.metric=loss: was not logged in validation; logged: val_loss"):
        train_until(run, config, None)


class TwoValidations(Complete):
    def validation_step(self, batch: Tensor, batch_idx: int, dataloader_idx: int = 0) -> None:
        self.log("val/acc", 0.5 + dataloader_idx / 4)


class TwoValidationsData(CompleteData):
    def val_dataloader(self) -> list[DataLoader[Tensor]]:
        return [self.train_dataloader(), self.train_dataloader()]


@pytest.mark.filterwarnings("ignore:.*does not have many workers", "ignore:The number of training batches")
def test_the_metric_of_one_of_two_validation_loaders_can_be_the_objective(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    overrides = (*pair(f"{HERE}.TwoValidations", f"{HERE}.TwoValidationsData"), "trainer.max_epochs=1")
    run, config = new_run(tmp_path / "a" / "run", *overrides, "objective={metric: val/acc, mode: max}")
    with pytest.raises(UserError, match=r"logged: val/acc/dataloader_idx_0, val/acc/dataloader_idx_1\. A resumed"):
        train_until(run, config, None)
    objective = "objective={metric: val/acc/dataloader_idx_1, mode: max}"
    run, config = new_run(tmp_path / "b" / "run", *overrides, objective)
    assert train_until(run, config, None)
    result = read_result(run)
    values = {"val/acc/dataloader_idx_0": 0.5, "val/acc/dataloader_idx_1": 0.75}
    assert (result["status"], result["objective"], result["best"]) == ("completed", 0.75, values)
    capsys.readouterr()
    assert compare.main([str(tmp_path / "b"), "--format", "csv"]) in (0, None)
    (row,) = csv.DictReader(capsys.readouterr().out.splitlines())
    assert float(row["val/acc/dataloader_idx_1 mean"]) == 0.75
