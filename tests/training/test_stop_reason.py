"""Trainings that a callback, or the module, ends before their limits: what is said about it, and exact resumes."""

from pathlib import Path
from typing import Any

import pytest
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import EarlyStopping, LambdaCallback
from support.exact_resume import differences, new_run, outcome, stop_and_resume, train_until
from support.runs import TINY, Command, train_here

from litlab.runs.directory import RunDirectory
from litlab.runs.result import read_result
from litlab.runs.state import read_state
from litlab.tasks.image_classifier import ImageClassifier

HERE = "training.test_stop_reason"
# A rate that changes no prediction, so that no validation is better than the first.
FLAT = (*TINY, "data.num_train=88", "schedule=constant", "optimizer.lr=1e-12", "trainer.max_epochs=6")
EARLY = (*FLAT, "callbacks=early_stopping", "callbacks.early_stopping.patience=2")


def reason(run: RunDirectory) -> str:
    result = read_result(run)
    assert result["status"] == "completed"
    return str(result["stop_reason"])


def test_early_stopping_follows_the_objective_and_is_announced(tmp_path: Path, litlab: Command) -> None:
    run = RunDirectory(tmp_path / "run")
    done = litlab("train", *EARLY, f"hydra.run.dir={run.path}")
    assert done.returncode == 0, done.stderr
    best = read_result(run)["objective"]
    expected = f"early stopping at epoch 3: val/accuracy did not improve for 2 validations (best: {best:.4g})"
    assert reason(run) == expected
    assert (read_result(run)["epochs"], read_result(run)["steps"]) == (3, 9)
    assert f"note: {expected}\n" in done.stdout
    assert expected in run.log.read_text()
    status = litlab("status", str(run.path))
    assert expected[:40] in status.stdout
    assert read_state(run).message == expected


@pytest.mark.integrations
@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        (["objective={metric: val/loss, mode: min}", "callbacks.early_stopping.min_delta=0.1"],
         "early stopping at epoch 3: val/loss did not improve for 2 validations"),
        (["trainer.val_check_interval=1"], "early stopping at epoch 1: val/accuracy did not improve for 2 validations"),
        (["trainer.check_val_every_n_epoch=2"],
         "early stopping at epoch 6: val/accuracy did not improve for 2 validations"),
        (["callbacks.early_stopping.patience=1"],
         "early stopping at epoch 2: val/accuracy did not improve for 1 validation (best"),
        (["callbacks.early_stopping.check_on_train_epoch_end=true"],
         "early stopping at epoch 3: val/accuracy did not improve for 2 epochs"),
        (["+callbacks.early_stopping.stopping_threshold=0.0", "optimizer.lr=0.05"],
         "early stopping at epoch 1: Stopping threshold reached: val/accuracy = "),
        (["+trainer.min_epochs=5"], "early stopping at epoch 5: val/accuracy did not improve for 4 validations"),
    ],
)  # fmt: skip
def test_reasons_of_early_stopping_and_exact_resumes(settings: list[str], expected: str, tmp_path: Path) -> None:
    whole, config = new_run(tmp_path / "whole", *EARLY, *settings)
    looks = train_until(whole, config, None)
    assert looks is not None
    assert reason(whole).startswith(expected)
    stopped = stop_and_resume(tmp_path / "stopped", 3 * looks // 4, *EARLY, *settings)
    assert reason(stopped) == reason(whole)
    ends = [outcome(run) for run in (whole, stopped)]
    assert differences(*((end["rows"], end["result"], end["last"]["callbacks"]) for end in ends)) == []


def test_a_run_that_reaches_its_limits_has_a_reason_only_if_it_was_stopped_as_well(tmp_path: Path) -> None:
    """With a patience of one, early stopping ends the training after the second epoch, also if it is the last one."""
    impatient = (*EARLY, "callbacks.early_stopping.patience=1")
    runs = [train_here(tmp_path / f"{last}", *impatient, f"trainer.max_epochs={last}") for last in (1, 2)]
    assert read_result(runs[0])["stop_reason"] is None
    assert read_state(runs[0]).message == ""
    assert reason(runs[1]).startswith("early stopping at epoch 2: val/accuracy did not improve for 1 validation (best")


def test_more_epochs_do_not_continue_a_run_that_was_stopped(tmp_path: Path, litlab: Command) -> None:
    """A run with more epochs from the start would have stopped at the same step."""
    whole = train_here(tmp_path / "whole", *EARLY, "trainer.max_epochs=9")
    run = RunDirectory(tmp_path / "run")
    assert litlab("train", *EARLY, f"hydra.run.dir={run.path}").returncode == 0
    done = litlab("resume", str(run.path), "trainer.max_epochs=9")
    assert done.returncode == 0, done.stderr
    advice = "; with more epochs from the start it would have ended there, too: only the test is left"
    assert f"note: {reason(whole)}{advice}\n" in done.stdout
    assert reason(run) == reason(whole)
    assert read_result(run)["identity"] == read_result(whole)["identity"]
    assert outcome(run)["result"] == outcome(whole)["result"]
    assert outcome(run)["rows"] == outcome(whole)["rows"]


class Stops(Callback):
    """Ends the training at the first batch of the second epoch."""

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, *_: Any) -> None:
        trainer.should_stop = trainer.current_epoch == 1


class Impatient(EarlyStopping):
    """An early stopping of a user's own."""

    def __init__(self) -> None:
        super().__init__("val/accuracy", mode="max", patience=1)


class StopsItself(ImageClassifier):
    def on_train_epoch_end(self) -> None:
        self.trainer.should_stop = True


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ([f"+callbacks.mine._target_={HERE}.Stops"], "stopped at epoch 2 by Stops"),
        (
            [f"+callbacks.mine._target_={HERE}.Impatient"],
            "early stopping at epoch 2: val/accuracy did not improve for 1 epoch (best: ",
        ),
        ([f"task._target_={HERE}.StopsItself"], "stopped at epoch 1 by StopsItself"),
        (
            ["trainer.max_time=00:00:00:01", "trainer.max_epochs=-1"],
            "stopped at epoch ",
        ),
    ],
)
def test_whatever_stops_the_training_is_named(settings: list[str], expected: str, tmp_path: Path) -> None:
    run = train_here(tmp_path / "run", *FLAT, *settings)
    assert reason(run).startswith(expected)
    if "max_time" in settings[0]:
        assert reason(run).endswith(": the time limit was reached (trainer.max_time, or the callback Timer)")


def test_the_summary_of_the_network_is_in_the_log_alone(tmp_path: Path, litlab: Command) -> None:
    run = RunDirectory(tmp_path / "run")
    done = litlab("train", *FLAT, "callbacks=model_summary", "trainer.max_epochs=1", f"hydra.run.dir={run.path}")
    assert done.returncode == 0, done.stderr
    for line in ("| Name ", "Trainable params", "Total params"):
        assert line in run.log.read_text()
        assert line not in done.stdout + done.stderr


REFUSED = {
    "a second progress bar": (
        ["+callbacks.bar={_target_: lightning.pytorch.callbacks.RichProgressBar}"],
        "callbacks.bar._target_: ProgressBar is a second progress bar, beside that of litlab: leave it out, as litlab "
        "shows the progress on a terminal, and prints lines where the output is none",
    ),
    "an unknown metric": (
        ["callbacks=early_stopping", "callbacks.early_stopping.monitor=val/los"],
        "callbacks.early_stopping.monitor=val/los: is not measured in validation; did you mean val/loss; known: ",
    ),
    "a metric of the test": (
        ["callbacks=early_stopping", "callbacks.early_stopping.monitor=test/loss"],
        "callbacks.early_stopping.monitor=test/loss: nothing is ever selected on the test split",
    ),
    "no patience": (
        ["callbacks=early_stopping", "callbacks.early_stopping.patience=0"],
        "callbacks.early_stopping.patience=0: expected greater than or equal to 1",
    ),
    "no objective": (["callbacks=early_stopping", "objective=null"], "callbacks.early_stopping.monitor"),
    "no validation": (
        ["callbacks=early_stopping", "data.val_size=0"],
        "callbacks.early_stopping.monitor=val/accuracy: there is no validation, since data.val_size=0; ",
    ),
    "no batch of validation": (
        ["callbacks=early_stopping", "trainer.limit_val_batches=0"],
        "callbacks.early_stopping.monitor=val/accuracy: there is no validation, since trainer.limit_val_batches=0; ",
    ),
    "a direction that is missing": (
        ["+callbacks.es={_target_: lightning.pytorch.callbacks.EarlyStopping, monitor: val/accuracy}"],
        "callbacks.es.mode: a value is missing; set callbacks.es.mode=...",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_a_wrong_callback_is_refused_before_anything_is_written(name: str, tmp_path: Path, litlab: Command) -> None:
    overrides, message = REFUSED[name]
    done = litlab("train", *TINY, *overrides)
    assert done.returncode == 1
    assert done.stderr.startswith(f"litlab: {message}"), done.stderr
    assert "Traceback" not in done.stderr
    assert list((tmp_path / "project").iterdir()) == []


def test_a_callback_without_self_is_not_named(tmp_path: Path) -> None:
    settings = f"+callbacks.mine={{_target_: {HERE}.make_lambda}}"
    run = train_here(tmp_path / "run", *FLAT, settings)
    assert reason(run) == "stopped at epoch 1 by a callback or the module"


def make_lambda() -> Callback:
    return LambdaCallback(on_train_epoch_end=lambda trainer, pl_module: setattr(trainer, "should_stop", True))
