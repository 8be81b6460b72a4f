"""litlab's loop does what Lightning's does: each hook, each counter, each bit, in a part of the calls."""

import sys
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from support.exact_resume import differences
from support.hook_recording import Recorded, fit
from support.small_fit import Batches, make_task, make_trainer

from litlab.errors import UserError
from litlab.training.loop import EpochLoop, NoProfiler

pytestmark = [
    pytest.mark.filterwarnings("ignore:.*`training_step` returned `None`"),
    pytest.mark.filterwarnings("ignore:The number of training batches"),
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


@pytest.mark.parametrize("case", CASES)
def test_every_hook_counter_and_bit_is_as_in_lightnings_loop(case: str) -> None:
    of_module, of_trainer = CASES[case]
    theirs, ours = (fit(Recorded(**of_module), ours=ours, **of_trainer) for ours in (False, True))
    assert [name for name, _ in ours["events"]] == [name for name, _ in theirs["events"]]
    assert sum(name == "training_step" for name, _ in ours["events"]) >= 6
    found = differences(theirs, ours)
    assert not found, "\n".join(found[:20])


class StopsAt(Callback):
    """Ends the training in an epoch's third batch; adds another callback in its second."""

    def __init__(self) -> None:
        self.added: list[int] = []

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        if batch_idx == 1:
            trainer.callbacks.append(Counts(self.added))
        trainer.should_stop = batch_idx == 2


class Counts(Callback):
    def __init__(self, seen: list[int]) -> None:
        self.seen = seen

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        self.seen.append(batch_idx)


def test_callbacks_can_stop_it_and_add_others_to_it() -> None:
    ended = {}
    for ours in (False, True):
        stops = StopsAt()
        end = fit(Recorded(), ours=ours, callbacks=[stops])
        ended[ours] = [end["step"], stops.added[-1], end["weights"]]
    assert ended[True][:2] == [3, 2]
    assert not differences(ended[False], ended[True])


class WithOwnStep(Recorded):
    """Overrides what Lightning wraps around the optimizer."""

    def optimizer_step(self, epoch: int, batch_idx: int, optimizer: Any, optimizer_closure: Any = None) -> None:
        super().optimizer_step(epoch, batch_idx, optimizer, optimizer_closure)
        self.events.append(("optimizer_step", {"lightnings": type(optimizer).__name__}))


def test_what_wraps_the_optimizer_is_left_to_lightning() -> None:
    theirs, ours = (fit(WithOwnStep(), ours=ours) for ours in (False, True))
    assert ("optimizer_step", {"lightnings": "LightningSGD"}) in ours["events"]
    assert not differences(theirs, ours)


def test_an_optimizer_that_ignores_its_closure_is_named() -> None:
    class Careless(torch.optim.SGD):
        def step(self, closure: Any = None) -> None:  # type: ignore[override]
            super().step()

    class Task(Recorded):
        def configure_optimizers(self) -> Any:
            return Careless(self.parameters(), lr=0.1)

    with pytest.raises(UserError, match=r"Careless.step\(closure\) did not call the closure"):
        fit(Task(), ours=True)


class Calls(Callback):
    """Counts calls of Python functions in the second epoch, but for those of torch."""

    def __init__(self) -> None:
        self.count = 0

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if trainer.current_epoch == 1:
            sys.setprofile(self._see)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        sys.setprofile(None)

    def _see(self, frame: Any, event: str, argument: object) -> None:
        self.count += event == "call" and "/torch/" not in frame.f_code.co_filename


def test_a_step_takes_a_small_part_of_lightnings_calls() -> None:
    """Which a clock can't tell on a machine that does something else, too."""
    counts = []
    for ours in (False, True):
        calls = Calls()
        trainer = make_trainer([], [calls], max_epochs=2, profiler=NoProfiler())
        if ours:
            EpochLoop.install(trainer)
        trainer.fit(make_task(), Batches(800), Batches(8))
        counts.append(calls.count / 100)
    assert counts[1] < counts[0] / 5, counts
