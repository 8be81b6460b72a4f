"""State of modules, data modules and loaders outside of checkpoints: restored if they save it, else named in a note."""

import random
import time
from collections import deque
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from lightning.pytorch import LightningModule
from support.exact_resume import differences, new_run, outcome, stop_and_resume, train_until
from support.foreign import Numbers, pair
from support.runs import TINY, train_here
from torch import Tensor, nn
from torch.utils.data import DataLoader, Sampler

from litlab.tasks.image_classifier import ImageClassifier
from litlab.training.unsaved_state import UnsavedState

HERE = "training.test_unsaved_state"
NUMBERS = "support.foreign.Numbers"  # 4 batches of training and 4 of validation in an epoch
NOTE = "changed in training, but not in checkpoints"
pytestmark = pytest.mark.filterwarnings("ignore:.*does not have many workers", "ignore:The number of training batches")


class Memory(nn.Module):
    """Adds a state that changes with each batch, and that no parameter or buffer holds."""

    def __init__(self) -> None:
        super().__init__()
        self.hidden = torch.zeros(4)

    def forward(self, batch: Tensor) -> Tensor:
        if self.training:
            self.hidden = (self.hidden + batch.mean(dim=0)) / 2
        return batch + self.hidden


class SavedMemory(Memory):
    def get_extra_state(self) -> dict[str, Tensor]:
        return {"hidden": self.hidden}

    def set_extra_state(self, state: dict[str, Tensor]) -> None:
        self.hidden = state["hidden"]


class Forgets(LightningModule):
    """Has a memory, and outputs that it keeps for the end of an epoch or validation."""

    memory_class = Memory

    def __init__(self) -> None:
        super().__init__()
        self.layer, self.memory = nn.Linear(4, 1), self.memory_class()
        self.parameter_list = list(self.parameters())
        self.outputs: list[Tensor] = []

    def training_step(self, batch: Tensor) -> Tensor:
        return self.layer(self.memory(batch)).square().mean()

    def validation_step(self, batch: Tensor) -> None:
        self.outputs.append(self.training_step(batch))
        self.log("val/loss", self.outputs[-1])

    def on_validation_epoch_end(self) -> None:
        self.outputs.clear()

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=0.1)


class Remembers(Forgets):
    memory_class = SavedMemory


class RemembersByHooks(Forgets):
    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        checkpoint["hidden"] = self.memory.hidden

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        self.memory.hidden = checkpoint["hidden"]


class CountsEpochs(Sampler[int]):
    """Gives the rows in an order that depends on how often it has been iterated over."""

    def __init__(self) -> None:
        self.epoch = 0

    def __len__(self) -> int:
        return 8

    def __iter__(self) -> Iterator[int]:
        self.epoch += 1
        yield from torch.randperm(8, generator=torch.Generator().manual_seed(self.epoch)).tolist()


class CountingData(Numbers):
    def train_dataloader(self) -> DataLoader[Tensor]:
        return DataLoader(super().train_dataloader().dataset, batch_size=2, sampler=CountsEpochs())


class SavedCountingData(CountingData):
    """Saves what the sampler had counted when the epoch began."""

    def train_dataloader(self) -> DataLoader[Tensor]:
        loader = super().train_dataloader()
        self.sampler = loader.sampler
        self.sampler.epoch = getattr(self, "started", 0)
        return loader

    def state_dict(self) -> dict[str, Any]:
        return {"started": self.sampler.epoch - 1}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.started = state_dict["started"]


class GeneratorData(Numbers):
    """Shuffles by a generator of its own."""

    def train_dataloader(self) -> DataLoader[Tensor]:
        generator = torch.Generator().manual_seed(3)
        return DataLoader(super().train_dataloader().dataset, batch_size=2, shuffle=True, generator=generator)


def overrides(task: str, data: str = NUMBERS) -> tuple[str, ...]:
    return (
        *pair(f"{HERE}.{task}", data), "objective={metric: val/loss, mode: min}", "trainer.max_epochs=2",
    )  # fmt: skip


def test_state_outside_of_checkpoints_is_named_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run, config = new_run(tmp_path / "run", *overrides("Forgets", f"{HERE}.CountingData"))
    train_until(run, config, None)
    assert [line for line in capsys.readouterr().out.splitlines() if NOTE in line] == [
        f"note: task.memory.hidden, train_dataloader.sampler.epoch: {NOTE}, so a stopped and resumed run would end "
        "differently; save such state by get_extra_state and set_extra_state of the module, or by state_dict and "
        "load_state_dict of the data module (docs/resuming.md, State of your own)"
    ]


@pytest.mark.parametrize(
    ("task", "data", "callbacks"),
    [("Remembers", "GeneratorData", "ema"), ("RemembersByHooks", "SavedCountingData", "default")],
)
def test_state_that_is_saved_is_restored_and_not_named(
    task: str, data: str, callbacks: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    settings = (*overrides(task, f"{HERE}.{data}"), f"callbacks={callbacks}")
    whole, config = new_run(tmp_path / "whole", *settings)
    train_until(whole, config, None)
    run = stop_and_resume(tmp_path / "run", 11, *settings)  # in the second epoch
    assert differences(outcome(whole), outcome(run)) == []
    if data == "GeneratorData":
        longer, shorter = new_run(tmp_path / "longer", *settings, "trainer.max_epochs=1")
        train_until(longer, shorter, None)
        train_until(longer, config, None)
        assert outcome(whole)["result"] == outcome(longer)["result"]
    assert NOTE not in capsys.readouterr().out


class Environment:
    def __init__(self) -> None:
        self.position, self.rng = 0, random.Random(0)


class Unreadable:
    """Raises whatever is asked of it, as proxies of web frameworks do out of context."""

    def __getattribute__(self, name: str) -> Any:
        raise RuntimeError("out of context")

    def __eq__(self, other: object) -> bool:
        raise RuntimeError("out of context")

    __len__ = __iter__ = __bool__ = __hash__ = __eq__  # type: ignore[assignment]


def _watch(task: LightningModule) -> Any:
    """Return a Trainer that has what the comparison reads."""
    return SimpleNamespace(datamodule=None, fit_loop=SimpleNamespace(_combined_loader=None))


class Subclass(ImageClassifier):
    """litlab's task, with what it sets itself, in a class of a user's own."""


def test_what_our_task_sets_in_a_subclass_is_not_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    train_here(tmp_path / "run", *TINY, f"task._target_={HERE}.Subclass")
    assert NOTE not in capsys.readouterr().out


def test_values_of_many_types_are_compared() -> None:
    task = Forgets()
    task.count, task.nan, task.buffer, task.big = 0, float("nan"), deque(range(100), maxlen=100), list(range(100))
    task.table, task.array, task.env = {"a": 1}, np.zeros(1000), Environment()
    task.generator, task.rng, task.np_rng = torch.Generator(), random.Random(0), np.random.default_rng(0)
    task.cache, task.made, task.same = None, None, torch.zeros(3)
    task.env.proxy, task.env.proxies = Unreadable(), [Unreadable()]
    trainer, unsaved = _watch(task), UnsavedState()
    unsaved.start_step(trainer, task)
    task.cache, task.made = torch.ones(2), 1
    unsaved.start_step(trainer, task)
    unsaved.update(trainer, task)
    assert unsaved.changed == [], "attributes that the first step makes are made again after a resume"
    task.count, task.table["a"] = 1, 2
    task.buffer.append(1)
    task.big[-1] = 0
    task.array[:] += 1
    task.env.position += 1
    task.env.rng.random(), task.rng.random(), task.np_rng.random()
    torch.rand(1, generator=task.generator)
    task.made, task.cache = 2, task.cache + 1
    task.same.add_(1)
    unsaved.update(trainer, task)
    names = "count buffer big table array env.position env.rng generator rng np_rng cache made same"
    assert sorted(unsaved.changed) == sorted(f"task.{name}" for name in names.split())


def test_a_comparison_takes_as_long_for_long_containers_as_for_empty_ones() -> None:
    """A step can't afford to read all of a replay buffer: about 1 ms for this task, whatever it holds."""
    task = Forgets()
    task.blocks = nn.ModuleList(SavedMemory() for _ in range(20)).extend(nn.Linear(2, 2) for _ in range(150))
    task.memories = nn.ModuleList(Memory() for _ in range(50))
    trainer = _watch(task)

    empty = (deque(maxlen=100_000), [])
    full = (deque(range(100_000), maxlen=100_000), list(range(100_000)))
    seconds: dict[bool, list[float]] = {True: [], False: []}
    for number in range(60):  # in turn, since the speed of the machine varies
        task.buffer, task.samples = full if number % 2 else empty
        unsaved = UnsavedState()
        unsaved.start_step(trainer, task)
        unsaved.start_step(trainer, task)
        began = time.thread_time()
        unsaved.update(trainer, task)
        seconds[number % 2 == 1].append(time.thread_time() - began)
    assert min(seconds[True]) < 1.5 * min(seconds[False])
