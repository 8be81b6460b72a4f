"""Runs whose weights, loss or objective become NaN or infinite."""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from support.exact_resume import differences, new_run, outcome, stop_and_resume, train_until
from support.runs import TINY, call_litlab
from torch import Tensor
from training.test_foreign_module import HERE as FOREIGN
from training.test_foreign_module import Complete, pair

from litlab.callbacks.divergence import Divergence
from litlab.cli import compare, resume, status
from litlab.errors import UserError
from litlab.process.failure import FIRST_LOSS
from litlab.runs.directory import RunDirectory
from litlab.runs.metrics import read_metrics
from litlab.runs.result import read_result
from litlab.runs.signature import sign
from litlab.training.checkpoint_io import read_checkpoint

HERE = "training.test_divergence"
DIVERGING = (*TINY, "optimizer.lr=1e12", "objective={metric: val/loss, mode: min}", "trainer.max_epochs=5")


def test_weights_that_are_not_finite_end_the_run_as_diverged(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run, config = new_run(tmp_path / "run", *DIVERGING, "+trainer.min_epochs=3")
    assert train_until(run, config, None)
    result = read_result(run)
    assert (result["status"], result["epochs"], result["steps"]) == ("diverged", 1, 10)
    assert result["error"].startswith("NaN or infinity in the weights after 10 steps (network.")
    assert (result["objective"], result["best"], result["test"]) == (None, {}, {})
    assert "val/loss" in result["last"], "what was measured is kept"
    assert run.last.exists()
    assert not run.best.exists()
    sign(run)
    capsys.readouterr()
    status.main([str(tmp_path)])
    shown = capsys.readouterr().out
    assert "1 job: 1 diverged" in shown
    assert "NaN or infinity in the weights after 10 steps" in shown
    with pytest.raises(UserError, match=r"1 diverged"):
        compare.main([str(tmp_path)])
    with pytest.raises(UserError, match=r"diverged: NaN or infinity in the weights.*\nstart a new run"):
        resume.main([str(run.path)])


class Poison(Callback):
    """Makes a weight NaN in the second epoch."""

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if trainer.current_epoch == 1:
            with torch.no_grad():
                next(pl_module.parameters()).view(-1)[0] = math.nan


def test_the_best_of_before_is_kept_and_tested(tmp_path: Path) -> None:
    run, config = new_run(
        tmp_path / "run", *TINY, "trainer.max_epochs=4", f"+callbacks.poison._target_={HERE}.Poison"
    )  # fmt: skip
    assert train_until(run, config, None)
    result = read_result(run)
    assert (result["status"], result["epochs"]) == ("diverged", 2)
    rows = {row.step: row.value for row in read_metrics(run.metrics) if row.metric == "val/accuracy"}
    assert result["objective"] == rows[10]
    assert read_checkpoint(run.best)["global_step"] == 10
    assert 0 <= result["test"]["test/accuracy"] <= 1


class Loss(Complete):
    """Has a loss that is infinite at some steps, and gradients that are not."""

    def __init__(self, infinite_at: list[int]) -> None:
        super().__init__()
        self.infinite_at = infinite_at

    def training_step(self, batch: Tensor) -> Tensor:
        loss = super().training_step(batch)
        return loss + math.inf if self.trainer.training and self.global_step in self.infinite_at else loss


class NoNumber(Complete):
    """Has an objective that is never a number, and an infinite one in the last validation."""

    def __init__(self, values: list[float]) -> None:
        super().__init__()
        self.values = values

    def validation_step(self, batch: Tensor) -> None:
        self.log("val/loss", self.values[self.current_epoch])


NOTHING = "val/loss was never a finite number"


@pytest.mark.filterwarnings("ignore:.*does not have many workers", "ignore:The number of training batches")
@pytest.mark.parametrize(
    ("task", "argument", "error"),
    [
        ("Loss", "infinite_at=[1,4]", None),
        ("Loss", "infinite_at=[7]", "NaN or infinity as the loss of the last step"),
        ("Loss", "infinite_at=[0,7]", "NaN or infinity as the loss of the last step" + FIRST_LOSS),
        ("NoNumber", "values=[nan,inf]", NOTHING),
        ("NoNumber", "values=[inf,nan]", NOTHING),
        ("NoNumber", "values=[0.5,inf]", None),
    ],
)
def test_what_counts_as_diverged(task: str, argument: str, error: str | None, tmp_path: Path) -> None:
    overrides = (*pair(f"{HERE}.{task}", f"{FOREIGN}.CompleteData"), "objective={metric: val/loss, mode: max}")
    run, config = new_run(tmp_path / "run", *overrides, "trainer.max_epochs=2", f"+task.{argument}")
    assert train_until(run, config, None)
    result = read_result(run)
    assert (result["status"], result["error"]) == ("diverged" if error else "completed", error)
    assert (result["objective"] is None) == (error == NOTHING)


LOSS = (
    *pair(f"{HERE}.Loss", f"{FOREIGN}.CompleteData"),
    "objective={metric: val/loss, mode: max}",
    "trainer.max_epochs=2",
)


@pytest.mark.integrations
@pytest.mark.filterwarnings("ignore:.*does not have many workers", "ignore:The number of training batches")
@pytest.mark.parametrize(
    ("number", "overrides"), [(13, DIVERGING), (16, (*LOSS, "+task.infinite_at=[0,7]"))], ids=["weights", "loss"]
)
def test_a_run_that_is_stopped_in_its_last_validation_ends_as_diverged(
    number: int, overrides: Sequence[str], tmp_path: Path
) -> None:
    whole, config = new_run(tmp_path / "whole", *overrides)
    train_until(whole, config, None)
    resumed = stop_and_resume(tmp_path / "resumed", number, *overrides)
    assert read_checkpoint(resumed.previous)["litlab"]["hook"] == "on_validation_start"
    left, right = ({key: outcome(run)[key] for key in ("rows", "result")} for run in (resumed, whole))
    assert differences(left, right) == [], "with the hash of the weights, which may be NaN"
    assert (read_result(resumed)["status"], read_result(resumed)["error"]) == ("diverged", read_result(whole)["error"])


@pytest.mark.integrations
def test_a_study_counts_diverged_jobs_and_has_nothing_to_resume(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    sweep = ("optimizer.lr=0.05,1e12", "trainer.max_epochs=1", "study.name=s")
    done = call_litlab(tmp_path, "train", "-m", *DIVERGING, *sweep)
    assert done.returncode == 1, done.stdout + done.stderr
    assert "2 jobs: 1 completed, 1 diverged" in done.stdout
    assert "NaN or infinity in the weights" in done.stdout
    assert "litlab resume" not in done.stdout
    monkeypatch.chdir(tmp_path)
    resume.main(["outputs/s"])
    assert capsys.readouterr().out == "outputs/s holds 2 jobs, all completed or diverged; nothing to resume\n"


def test_a_single_run_says_that_it_diverged(tmp_path: Path) -> None:
    done = call_litlab(tmp_path, "train", *DIVERGING, "hydra.run.dir=run")
    assert done.returncode == 1
    assert done.stderr.startswith("litlab: the run diverged: NaN or infinity in the weights after 10 steps")
    assert "gradient_clip_val" in done.stderr
    facts: dict[str, Any] = read_result(RunDirectory(tmp_path / "run"))
    assert facts["status"] == "diverged"


def test_a_loss_of_several_elements_is_kept_as_their_sum() -> None:
    """Under manual optimization a step may return one."""
    divergence = Divergence()
    for loss, kept in ((torch.tensor([1.0, 2.0]), 3.0), (torch.tensor([1.0, math.inf]), math.inf)):
        divergence.on_train_batch_end(Trainer(logger=False), LightningModule(), {"loss": loss}, None, 0)
        assert divergence.state() == {"first": 3.0, "last": kept}
