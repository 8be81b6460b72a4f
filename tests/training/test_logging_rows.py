"""Between two rows of the log, nothing in a default run waits for the device."""

import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from support.runs import TINY, train_here
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

from litlab.training import run as training

# What brings numbers from a device to Python, or has a shape that depends on them.
OPERATORS = ("_local_scalar_dense", "equal", "is_nonzero", "masked_select", "nonzero", "unique", "_unique2", "bincount")
METHODS = ("__bool__", "__float__", "__index__", "__int__", "cpu", "item", "numpy", "tolist")
LOG_EVERY = 4


class Waits:
    """Where the device was waited for in training steps, but for what belongs to a row or a picture."""

    def __init__(self) -> None:
        self.trainer: Trainer | None = None
        self.found: list[str] = []
        self.num_due = 0

    def note(self, name: str) -> None:
        if self.trainer is None or not self.trainer.training:
            return
        batches = self.trainer.fit_loop.epoch_loop.batch_progress.current
        first = self.trainer.global_step == 0 and batches.started == 0  # train/images
        row = batches.processed == batches.ready and (
            self.trainer.global_step % LOG_EVERY == 0 or self.trainer.is_last_batch
        )
        if first or row:
            self.num_due += 1
        else:
            self.found.append(f"{name}\n{''.join(traceback.format_stack(limit=12))}")


class Watching(Callback):
    """From an epoch's first batch to its last."""

    def __init__(self, waits: Waits) -> None:
        self.waits = waits

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        self.waits.trainer = trainer

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, *rest: Any) -> None:
        if trainer.is_last_batch:
            self.waits.trainer = None


@contextmanager
def watched(waits: Waits) -> Iterator[None]:
    class Operators(TorchDispatchMode):
        def __torch_dispatch__(self, operator: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            if operator.overloadpacket.__name__ in OPERATORS:
                waits.note(str(operator))
            return operator(*args, **(kwargs or {}))

    class Methods(TorchFunctionMode):
        def __torch_function__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            if getattr(function, "__name__", "") in METHODS:
                waits.note(str(function))
            return function(*args, **(kwargs or {}))

    with Operators(), Methods():
        yield


def train_watched(directory: Path, monkeypatch: pytest.MonkeyPatch, *overrides: str) -> Waits:
    """A default run with 10 steps an epoch; the watching callback comes first and last."""
    waits = Waits()
    build = training.build_callbacks
    monkeypatch.setattr(training, "build_callbacks", lambda config, info: [*build(config, info), Watching(waits)])
    fit = Trainer.fit

    def watched_fit(*arguments: Any, **named: Any) -> None:
        with watched(waits):
            fit(*arguments, **named)

    monkeypatch.setattr(Trainer, "fit", watched_fit)
    train_here(directory, *TINY, f"trainer.log_every_n_steps={LOG_EVERY}", *overrides)
    return waits


def test_nothing_waits_for_the_device_between_two_rows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    waits = train_watched(tmp_path / "run", monkeypatch)
    assert waits.num_due  # it can see
    assert not waits.found, waits.found[0]


class Asks(Callback):
    """What a callback should not do."""

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        torch.isfinite(outputs["loss"]).item()


def test_a_callback_that_waits_is_seen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    waits = train_watched(tmp_path / "run", monkeypatch, "+callbacks.asks._target_=stepping.test_waiting.Asks")
    assert waits.found
    assert all("Asks" in each or "on_train_batch_end" in each for each in waits.found)
