"""Rows of values that a LightningModule logs by `self.log`, after a stop and a resume."""

from pathlib import Path

import numpy as np
import pytest
import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from reliability.runs import events
from support.exact_resume import differences, new_run, outcome, stop_and_resume, train_until
from support.foreign import pair
from torch import Tensor
from torchmetrics import MeanMetric

from litlab.runs.directory import RunDirectory
from litlab.runs.metrics import read_metrics

HERE = "training.test_log_state"
NUMBERS = "support.foreign.Numbers"  # 4 batches of training and 4 of validation
OVERRIDES = (
    *pair(f"{HERE}.Logs", NUMBERS), "+callbacks.norm._target_=training.test_log_state.LogsNorm",
    "objective={metric: val_loss, mode: min}", "trainer.max_epochs=2", "trainer.val_check_interval=2",
    "trainer.log_every_n_steps=1",
)  # fmt: skip
pytestmark = pytest.mark.filterwarnings("ignore:.*does not have many workers", "ignore:The number of training batches")


class Logs(LightningModule):
    """Logs in all the ways that `self.log` has."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = torch.nn.Linear(4, 1)
        self.mean = MeanMetric()

    def on_train_start(self) -> None:
        self.log("at_start", 1.0)

    def on_train_epoch_start(self) -> None:
        self.log("train/epoch", float(self.current_epoch))

    def training_step(self, batch: Tensor, batch_idx: int) -> Tensor:
        loss = self.layer(batch).square().mean()
        self.log("train/loss", loss, on_step=True, on_epoch=True, prog_bar=True)
        self.log("train/highest", loss, on_step=False, on_epoch=True, reduce_fx=max)
        self.log("train/sum", loss.double(), on_step=False, on_epoch=True, reduce_fx="sum")
        self.mean(loss)
        self.log("train/mean", self.mean, on_step=True, on_epoch=True)
        if batch_idx % 2 == 0:  # the row of the next step repeats it
            self.log("train/even", loss, on_step=True)
        return loss

    def validation_step(self, batch: Tensor) -> None:
        self.log("val_loss", self.layer(batch).square().mean(), on_step=True, on_epoch=True)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=0.1)


class LogsNorm(Callback):
    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, *arguments: object) -> None:
        pl_module.log("norm", pl_module.layer.weight.norm(), on_step=False, on_epoch=True)
        trainer.callback_metrics["score"] = np.float64(0.5)  # as some do for EarlyStopping; a checkpoint can't hold it


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> RunDirectory:
    run, config = new_run(tmp_path_factory.mktemp("whole") / "run", *OVERRIDES)
    assert train_until(run, config, None) == 2 * (4 + 2 * 4)
    return run


def test_rows_of_an_epoch_and_of_each_validation_batch(whole: RunDirectory) -> None:
    rows = read_metrics(whole.metrics)
    assert [row.step for row in rows if row.metric == "train/loss"] == [4, 8]
    assert [row.step for row in rows if row.metric == "val_loss_step"] == [2] * 4 + [4] * 4 + [6] * 4 + [8] * 4
    assert sorted(step for tag, step in events(whole.path) if tag == "val_loss_step") == list(range(16))


@pytest.mark.integrations
@pytest.mark.parametrize("number", [8, 9, 17])  # in an epoch; after its last step, before its validation; within one
def test_rows_of_a_resumed_run_equal_those_of_an_undisturbed_one(
    number: int, whole: RunDirectory, tmp_path: Path
) -> None:
    run = stop_and_resume(tmp_path / "run", number, *OVERRIDES)
    assert differences(outcome(whole), outcome(run)) == []
    assert differences(events(whole.path), events(run.path)) == []


def test_rows_of_a_longer_training_equal_those_of_an_undisturbed_one(whole: RunDirectory, tmp_path: Path) -> None:
    run, config = new_run(tmp_path / "run", *OVERRIDES)
    config["trainer"]["max_epochs"] = 1
    train_until(run, config, None)
    config["trainer"]["max_epochs"] = 2
    train_until(run, config, None)
    assert outcome(whole)["rows"] == outcome(run)["rows"]
