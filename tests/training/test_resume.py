"""Exact resumes of runs with averaged weights, other precisions and compiled networks."""

import math
import os
import shutil
from pathlib import Path

import pytest
import torch
import torch._inductor.config
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.plugins.precision import MixedPrecision
from reliability.runs import BATCHES, SMALL
from support.exact_resume import differences, new_run, outcome, stop_and_resume, train_until
from support.small_fit import Batches, Rows, make_task, make_trainer
from torch import nn
from torch._dynamo.utils import counters

from litlab.errors import UserError
from litlab.runs.directory import RunDirectory
from litlab.training.checkpoint_io import read_checkpoint
from litlab.training.resume import ResumeState

EMA = ("callbacks=ema", "callbacks.ema.decay=0.8")
TOGETHER = {
    "averages, accumulation, bf16-true, channels last, flips": (
        *EMA, "callbacks.ema.every_steps=2", "trainer.accumulate_grad_batches=2", "trainer.val_check_interval=3",
        "trainer.precision=bf16-true", "task.channels_last=true", "task.test_time_flip=true", "task.test_time_shift=1",
    ),
    "averages, bf16-mixed, channels last, a metric of one's own": (
        *EMA, "trainer.precision=bf16-mixed", "task.channels_last=true",
        "+task.metrics.f1._target_=torchmetrics.classification.MulticlassF1Score",
    ),
    "LBFGS, which evaluates a batch several times": (
        "~optimizer", "+optimizer={_target_: torch.optim.LBFGS, lr: 0.1, max_iter: 3}", "schedule=constant",
    ),
    "a stop that waits for min_epochs": (
        "+callbacks.early._target_=training.test_resume.StopsInTheFirstEpoch", "+trainer.min_epochs=2",
        "trainer.max_epochs=3",
    ),
}  # fmt: skip
needs_compiler = pytest.mark.skipif(
    shutil.which(os.environ.get("CXX", "g++")) is None, reason="torch.compile needs g++"
)


class StopsInTheFirstEpoch(Callback):
    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        trainer.should_stop = trainer.should_stop or trainer.current_epoch == 0


@pytest.mark.parametrize("switched", TOGETHER)
def test_a_stop_and_resumption_changes_nothing(switched: str, tmp_path: Path) -> None:
    overrides = (*SMALL, *TOGETHER[switched])
    whole, config = new_run(tmp_path / "whole", *overrides)
    looks = train_until(whole, config, None)
    assert looks is not None
    for number in (4, looks // 2 + 2):
        run = stop_and_resume(tmp_path / f"stopped-{number}", number, *overrides)
        assert differences(outcome(whole), outcome(run)) == []


def test_a_run_is_not_resumed_on_other_data(tmp_path: Path) -> None:
    run, config = new_run(tmp_path / "run", *SMALL)
    assert train_until(run, config, 4) is None
    before = run.last.read_bytes(), run.metrics.read_bytes()
    other = config | {"data": config["data"] | {"num_train": 61}}
    with pytest.raises(UserError, match="was trained on other data so far"):
        train_until(run, other, None)
    assert (run.last.read_bytes(), run.metrics.read_bytes()) == before


def test_the_checkpoint_that_is_resumed_from_replaces_a_damaged_last_one(tmp_path: Path) -> None:
    """Else the next save would keep the damaged one as the previous one."""
    run = RunDirectory(tmp_path)
    run.checkpoints.mkdir()
    run.last.write_bytes(b"damaged")
    run.previous.write_bytes(b"intact")
    ResumeState(run.previous, {"sizes": {}, "best": None, "step": 4}, []).restore_files(run)
    assert [path.read_bytes() for path in (run.last, run.previous)] == [b"intact", b"intact"]


def test_training_cannot_end_before_the_epoch_that_has_begun(tmp_path: Path) -> None:
    run, data = RunDirectory(tmp_path), "fingerprint"
    state = ResumeState(run.last, {"data": data, "epoch": 2, "batch": 1}, [])
    for accepted in (3, -1, None):
        state.check(run, {"max_epochs": accepted}, data)
    with pytest.raises(UserError, match=r"max_epochs=2: \S+ has been trained for longer than that"):
        state.check(run, {"max_epochs": 2}, data)


def test_the_best_of_a_repeated_validation_is_saved_before_the_weights_change(tmp_path: Path) -> None:
    run, config = new_run(tmp_path / "run", *SMALL)
    for number in (BATCHES + 1, 4):  # within the first validation; at the second batch after it
        assert train_until(run, config, number) is None
    assert [read_checkpoint(path)["global_step"] for path in (run.best, run.last)] == [BATCHES, BATCHES + 1]


def test_a_longer_training_continues_with_the_weights_instead_of_their_average(tmp_path: Path) -> None:
    overrides = (*SMALL, *EMA, "schedule=constant", "trainer.val_check_interval=1.0")
    whole, config = new_run(tmp_path / "whole", *overrides, "trainer.max_epochs=3")
    train_until(whole, config, None)
    run, shorter = new_run(tmp_path / "run", *overrides, "trainer.max_epochs=2")
    train_until(run, shorter, None)
    train_until(run, config, None)
    left, right = read_checkpoint(whole.last), read_checkpoint(run.last)
    assert differences(left["state_dict"] | left["litlab_ema"], right["state_dict"] | right["litlab_ema"]) == []


def test_the_state_of_a_gradient_scaler_is_in_a_checkpoint() -> None:
    """16-mixed needs a GPU, so this takes torch's scaler for the CPU."""
    scaler = torch.amp.GradScaler("cpu", init_scale=64.0, growth_interval=3)
    precision = MixedPrecision("16-mixed", "cpu", scaler)
    trainer = make_trainer([Rows()], [], plugins=[precision], max_epochs=2)
    trainer.fit(make_task(), Batches(40))
    saved = trainer._checkpoint_connector.dump_checkpoint(weights_only=False)["MixedPrecision"]
    assert saved == scaler.state_dict()
    assert (saved["scale"], saved["_growth_tracker"]) == (64.0 * 2**3, 1)  # ten steps


class OneLayer(nn.Sequential):
    """Compiled in seconds."""

    def __init__(self, *, num_classes: int, image_shape: tuple[int, int, int], dropout: float) -> None:
        super().__init__(nn.Flatten(), nn.Dropout(dropout), nn.Linear(math.prod(image_shape), num_classes))


# The compiler as it is, but without a trial of each instruction set, helper processes and precompiled headers.
QUICK_COMPILER = {"cpp.vec_isa_ok": True, "compile_threads": 1, "cpp_cache_precompile_headers": False}


@pytest.mark.integrations
@needs_compiler
@torch._inductor.config.patch(QUICK_COMPILER)
def test_compiled_training_resumes_exactly(tmp_path: Path) -> None:
    """Resume before the last batch of an epoch, which is smaller, so that the compiler sees its shape first."""
    network = ("model._target_=training.test_resume.OneLayer", "~model.widths", "~model.hidden", "+model.dropout=0.3")
    kept = [setting for setting in SMALL if "model" not in setting]
    overrides = (*kept, *network, "task.compile=true", "data.num_train=58", "checkpoint.every_steps=null")
    whole, config = new_run(tmp_path / "whole", *overrides)
    torch._dynamo.reset()
    counters.clear()
    train_until(whole, config, None)
    assert counters["stats"]["unique_graphs"] == 2
    run, _ = new_run(tmp_path / "run", *overrides)
    assert train_until(run, config, 6) is None
    assert read_checkpoint(run.last)["global_step"] == 5
    torch._dynamo.reset()
    train_until(run, config, None)
    assert differences(outcome(whole), outcome(run)) == []
