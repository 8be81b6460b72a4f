"""The epoch loop: equal to Lightning's in each hook, counter and bit, with fewer calls and no waits for the device."""

import sys
import traceback
import weakref
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import LambdaCallback
from support.exact_resume import differences
from support.hook_recording import Recorded, fit
from support.runs import TINY, train_here
from support.small_fit import Batches, make_task, make_trainer
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

from litlab.errors import UserError
from litlab.training import run as run_module
from litlab.training.epoch_loop import EpochLoop, NoProfiler, TrainingStep

pytestmark = [
    pytest.mark.filterwarnings("ignore:.*`training_step` returned `None`"),
    pytest.mark.filterwarnings("ignore:train_dataloader yielded None"),
]


class WithGaps(Batches):
    """Has nothing for every third batch."""

    def __iter__(self) -> Iterator[Any]:
        return (None if number % 3 == 2 else batch for number, batch in enumerate(super().__iter__()))


CASES: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "as by default": ({}, {}),
    "accumulation": ({}, {"accumulate_grad_batches": 2}),
    "clipping": ({}, {"gradient_clip_val": 0.01}),
    "validation within the epoch": ({}, {"val_check_interval": 2}),
    "validation over epochs": ({}, {"val_check_interval": 3, "check_val_every_n_epoch": None}),
    "validation every other epoch": ({}, {"check_val_every_n_epoch": 2}),
    "max_steps": ({}, {"max_steps": 7, "max_epochs": -1}),
    "few batches": ({}, {"limit_train_batches": 3}),
    "bfloat16": ({}, {"precision": "bf16-true"}),
    "autocast": ({}, {"precision": "bf16-mixed"}),
    "schedule by epoch": ({"interval": "epoch"}, {}),
    "schedule by metric": ({"interval": "plateau"}, {}),
    "a mapping for a loss": ({"output": "mapping"}, {"accumulate_grad_batches": 3}),
    "steps without a loss": ({"output": "none"}, {}),
    "batches that are None": ({}, {"data": WithGaps(60), "accumulate_grad_batches": 2}),
    "no index": ({"takes_index": False}, {}),
}


@pytest.mark.integrations
@pytest.mark.parametrize("case", CASES)
def test_every_hook_counter_and_bit_is_as_in_lightnings_loop(case: str) -> None:
    of_module, of_trainer = CASES[case]
    lightning, litlab = (fit(Recorded(**of_module), replaced=replaced, **of_trainer) for replaced in (False, True))
    assert [name for name, _ in litlab["events"]] == [name for name, _ in lightning["events"]]
    assert sum(name == "training_step" for name, _ in litlab["events"]) >= 6
    different = differences(lightning, litlab)
    assert not different, "\n".join(different[:20])


class StopsAt(Callback):
    """Ends the training in an epoch's third batch; adds another callback in its second."""

    def __init__(self) -> None:
        self.added: list[int] = []

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        if batch_idx == 1:
            end = LambdaCallback(on_train_batch_end=lambda *arguments: self.added.append(arguments[-1]))
            trainer.callbacks.append(end)
        trainer.should_stop = batch_idx == 2


def test_callbacks_can_stop_it_and_add_others_to_it() -> None:
    ends = []
    for replaced in (False, True):
        stops = StopsAt()
        end = fit(Recorded(), replaced=replaced, callbacks=[stops])
        ends.append([end["step"], stops.added[-1], end["weights"]])
    assert ends[1][:2] == [3, 2]
    assert not differences(*ends)


class WithOwnStep(Recorded):
    """Overrides what Lightning wraps around the optimizer."""

    def optimizer_step(self, epoch: int, batch_idx: int, optimizer: Any, optimizer_closure: Any = None) -> None:
        super().optimizer_step(epoch, batch_idx, optimizer, optimizer_closure)
        self.events.append(("optimizer_step", {"class": type(optimizer).__name__}))


def test_what_wraps_the_optimizer_is_left_to_lightning() -> None:
    lightning, litlab = (fit(WithOwnStep(), replaced=replaced) for replaced in (False, True))
    assert ("optimizer_step", {"class": "LightningSGD"}) in litlab["events"]
    assert not differences(lightning, litlab)


def test_an_optimizer_that_ignores_its_closure_is_named() -> None:
    class Careless(torch.optim.SGD):
        def step(self, closure: Any = None) -> None:  # type: ignore[override]
            super().step()

    class Task(Recorded):
        def configure_optimizers(self) -> Any:
            return Careless(self.parameters(), lr=0.1)

    with pytest.raises(UserError, match=r"Careless.step\(closure\) did not call the closure"):
        fit(Task(), replaced=True)


class Calls(Callback):
    """Counts calls of Python functions in the second epoch, but for those of torch."""

    def __init__(self) -> None:
        self.count = 0

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if trainer.current_epoch == 1:
            sys.setprofile(self._count)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        sys.setprofile(None)

    def _count(self, frame: Any, event: str, argument: object) -> None:
        self.count += event == "call" and "/torch/" not in frame.f_code.co_filename


def test_a_step_takes_a_small_part_of_lightnings_calls() -> None:
    """Calls are counted, since times vary on a busy machine."""
    counts = []
    for replaced in (False, True):
        calls = Calls()
        trainer = make_trainer([], [calls], max_epochs=2, profiler=NoProfiler())
        if replaced:
            EpochLoop.install(trainer)
        trainer.fit(make_task(), Batches(800), Batches(8))
        counts.append(calls.count / 100)
    assert counts[1] < counts[0] / 5, counts


# Operations that bring numbers from a device to Python, or have a shape that depends on them.
OPERATORS = ("_local_scalar_dense", "equal", "is_nonzero", "masked_select", "nonzero", "unique", "_unique2", "bincount")
METHODS = ("__bool__", "__float__", "__index__", "__int__", "cpu", "item", "numpy", "tolist")
LOG_EVERY = 4


class Waits(Callback):
    """Recorder of waits for the device, from an epoch's first batch to its last.

    Attributes:
        stacks: Stack of each wait in a training step, but for those that belong to a row or a picture.
        num_due: Number of waits that do.
    """

    def __init__(self) -> None:
        self.trainer: Trainer | None = None
        self.stacks: list[str] = []
        self.num_due = 0

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        self.trainer = trainer

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, *rest: Any) -> None:
        if trainer.is_last_batch:
            self.trainer = None

    def record(self, name: str) -> None:
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
            self.stacks.append(f"{name}\n{''.join(traceback.format_stack(limit=12))}")


def test_nothing_waits_for_the_device_between_two_rows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Train a default run with 10 steps an epoch; the recorder is the last callback."""
    waits = Waits()

    class Operators(TorchDispatchMode):
        def __torch_dispatch__(self, operator: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            if operator.overloadpacket.__name__ in OPERATORS:
                waits.record(str(operator))
            return operator(*args, **(kwargs or {}))

    class Methods(TorchFunctionMode):
        def __torch_function__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            if getattr(function, "__name__", "") in METHODS:
                waits.record(str(function))
            return function(*args, **(kwargs or {}))

    build, fit = run_module.build_callbacks, Trainer.fit

    def recorded_fit(*arguments: Any, **named: Any) -> None:
        with Operators(), Methods():
            fit(*arguments, **named)

    monkeypatch.setattr(run_module, "build_callbacks", lambda config, info: [*build(config, info), waits])
    monkeypatch.setattr(Trainer, "fit", recorded_fit)
    train_here(tmp_path / "run", *TINY, f"trainer.log_every_n_steps={LOG_EVERY}")
    assert waits.num_due, "nothing was recorded"
    assert not waits.stacks, waits.stacks[0]


def test_a_batch_is_freed_before_the_next_one_is_prepared(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    prepare, batches, num_alive = TrainingStep.prepare, [], []

    def prepare_recorded(step: TrainingStep, batch: Any) -> Any:
        num_alive.append(sum(images() is not None for images in batches))
        prepared = prepare(step, batch)
        batches.append(weakref.ref(prepared.images))
        return prepared

    monkeypatch.setattr(TrainingStep, "prepare", prepare_recorded)
    train_here(tmp_path / "run", *TINY)
    assert len(num_alive) > 10
    assert not any(num_alive)
