"""Rows of training values against plain PyTorch, and other LightningModules."""

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import EarlyStopping
from lightning.pytorch.demos.boring_classes import BoringModel
from support.small_fit import CLASS_NAMES, NORMALIZATION, Batches, Loader, Rows, make_task, make_trainer
from torch import Tensor

from litlab.callbacks.confusion_matrix import ConfusionMatrix
from litlab.callbacks.images import TrainingImages, WorstMistakes
from litlab.callbacks.training_log import TrainingLog
from litlab.data.loader import Batch


class StepRecorder(Callback):
    """Records each step's loss, recomputed, and learning rate."""

    def __init__(self) -> None:
        self.losses: list[Tensor] = []
        self.rates: list[float] = []

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Batch, batch_idx: int) -> None:
        with torch.no_grad():
            self.losses.append(F.cross_entropy(pl_module(batch.images), batch.labels, reduction="none"))
        self.rates.append(trainer.optimizers[0].param_groups[0]["lr"])


def test_training_rows_are_means_since_the_row_before() -> None:
    rows, recorder, task = Rows(), StepRecorder(), make_task()
    trainer = make_trainer([rows], [TrainingLog(), recorder], max_epochs=2, log_every_n_steps=3)
    trainer.fit(task, Batches(37), Batches(9))  # five batches an epoch: four of 8 images and one of 5
    losses = rows.values("train/loss")
    ends = [3, 5, 6, 9, 10]
    assert list(losses) == ends
    for start, end in zip([0, *ends], ends, strict=False):
        expected = [loss if step % 5 < 4 else loss[:5] for step, loss in enumerate(recorder.losses)][start:end]
        assert losses[end] == pytest.approx(torch.cat(expected).mean().item(), rel=1e-6)
        assert rows.values("lr")[end] == recorder.rates[end - 1]
    assert all(0 <= value <= 1 for value in rows.values("train/accuracy").values())
    assert all(value > 0 for value in rows.values("throughput/images_per_second").values())
    assert list(rows.values("val/accuracy")) == [5, 10]
    assert task.latest["train/loss"] == losses[10]
    (tested,) = trainer.test(task, Batches(9), verbose=False)
    assert rows.values("test/loss") == {10: tested["test/loss"]}


def test_throughput_counts_images_of_all_ranks_but_not_the_time_of_validation(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]
    monkeypatch.setattr("time.perf_counter", lambda: now[0])

    class Passing(Callback):
        def on_train_batch_end(self, *args: Any) -> None:
            now[0] += 2.0

        def on_validation_batch_end(self, *args: Any) -> None:
            now[0] += 1000.0

    rows = Rows()
    trainer = make_trainer(
        [rows], [Passing(), TrainingLog()], max_epochs=2, log_every_n_steps=100, val_check_interval=2
    )
    trainer.fit(make_task(), Batches(32), Batches(9))
    assert rows.values("throughput/images_per_second") == {4: 4.0, 8: 4.0}


@pytest.mark.parametrize(
    ("settings", "steps"),
    [
        ({"max_epochs": 1, "log_every_n_steps": 1, "accumulate_grad_batches": 2}, [1, 2, 3]),
        ({"max_steps": 4, "log_every_n_steps": 3}, [3, 4]),  # it stops in mid-epoch
    ],
)
def test_steps_with_a_row(settings: dict[str, int], steps: list[int]) -> None:
    rows = Rows()
    make_trainer([rows], [TrainingLog()], **settings).fit(make_task(), Batches(40))
    assert list(rows.values("train/loss")) == steps


def test_other_modules_and_loggers_work() -> None:
    rows = Rows()
    callbacks = [
        TrainingLog(),
        TrainingImages(num_images=4, **NORMALIZATION),
        WorstMistakes(num_images=4, **NORMALIZATION),
        ConfusionMatrix(class_names=CLASS_NAMES),
    ]
    trainer = make_trainer([rows], callbacks, max_epochs=1, log_every_n_steps=1, limit_train_batches=2)
    model = BoringModel()
    loader = [torch.randn(2, 32)]
    trainer.fit(model, Loader(loader * 2), Loader(loader))
    trainer.test(model, Loader(loader), verbose=False)
    assert rows.values("lr") == {1: 0.1, 2: 0.1}
    assert rows.values("train/loss") == {}


class Monitor(EarlyStopping):
    """Records what a callback that monitors training values finds at the end of each epoch."""

    def __init__(self) -> None:
        super().__init__("train/loss", patience=100, check_on_train_epoch_end=True, verbose=False)
        self.seen: list[dict[str, float]] = []

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        super().on_train_epoch_end(trainer, pl_module)
        self.seen.append({name: float(trainer.callback_metrics[name]) for name in ("train/loss", "train/accuracy")})


@pytest.mark.parametrize("has_rows", [True, False])
def test_callbacks_can_monitor_the_means_of_the_epoch(has_rows: bool) -> None:
    monitor, recorder, task = Monitor(), StepRecorder(), make_task()
    callbacks = [*([TrainingLog()] if has_rows else []), monitor, recorder]
    trainer = make_trainer([Rows()], callbacks, max_epochs=2, log_every_n_steps=3)
    trainer.fit(task, Batches(37), Batches(9))
    for epoch, values in enumerate(monitor.seen):
        losses = [
            loss if step < 4 else loss[:5] for step, loss in enumerate(recorder.losses[5 * epoch : 5 * epoch + 5])
        ]
        assert values["train/loss"] == pytest.approx(torch.cat(losses).mean().item(), rel=1e-6)
        assert 37 * values["train/accuracy"] == pytest.approx(round(37 * values["train/accuracy"]), abs=1e-4)
    assert len(monitor.seen) == 2
    assert float(monitor.best_score) == min(values["train/loss"] for values in monitor.seen)
