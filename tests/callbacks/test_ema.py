"""The moving average against one computed by hand, and what it does to a real fit."""

import copy
from typing import Any

import pytest
import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.strategies import FSDPStrategy
from support.small_fit import Batches, Rows, make_task, make_trainer
from torch import Tensor, nn

from litlab.callbacks.ema import EMA
from litlab.errors import UserError
from litlab.tasks.image_classifier import ImageClassifier


class Recorder(Callback):
    """Records the weights after each optimizer step, and those of each validation."""

    def __init__(self) -> None:
        self.trained: list[dict[str, Tensor]] = []
        self.validated: list[dict[str, Tensor]] = []
        self.step = 0

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, *_: Any) -> None:
        if trainer.global_step > self.step:
            self.step = trainer.global_step
            self.trained.append(copy.deepcopy(pl_module.state_dict()))

    def on_validation_batch_start(self, trainer: Trainer, pl_module: LightningModule, *_: Any) -> None:
        self.validated.append(copy.deepcopy(pl_module.state_dict()))


def task_with_norm() -> ImageClassifier:
    task = make_task(lr=0.5)
    task.network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(144, 6))
    return task


def averaged(states: list[dict[str, Tensor]], *, decay: float, every_steps: int) -> dict[str, Tensor]:
    """Compute the average from its definition; `states` begins with the initial weights."""
    average = {name: value.double() for name, value in states[0].items()}
    for number, state in enumerate(states[every_steps::every_steps]):
        d = min(decay, (1 + number) / (10 + number))
        average = {name: d * value + (1 - d) * state[name].double() for name, value in average.items()}
    return average


@pytest.mark.parametrize(("decay", "every_steps", "accumulate"), [(0.3, 1, 1), (0.9, 2, 1), (0.15, 1, 2), (0.0, 1, 1)])
def test_average_is_validated(decay: float, every_steps: int, accumulate: int) -> None:
    task, recorder = task_with_norm(), Recorder()
    before = copy.deepcopy(task.state_dict())
    callbacks = [EMA(decay=decay, every_steps=every_steps), recorder]
    trainer = make_trainer([Rows()], callbacks, max_epochs=3, accumulate_grad_batches=accumulate)
    trainer.fit(task, Batches(40), Batches(8))
    assert len(recorder.trained) == 3 * -(-5 // accumulate)
    expected = averaged([before, *recorder.trained], decay=decay, every_steps=every_steps)
    for name, value in recorder.validated[-1].items():
        if value.is_floating_point():
            torch.testing.assert_close(value.double(), expected[name], rtol=1e-5, atol=1e-6)
        else:
            assert torch.equal(value, recorder.trained[-1][name])  # counts of batches are as they are
    for name, value in task.state_dict().items():  # and training continued with the weights themselves
        assert torch.equal(value, recorder.trained[-1][name])


def test_training_is_not_changed() -> None:
    weights = []
    for callbacks in ([], [EMA(decay=0.9, every_steps=1)]):
        task = make_task()
        make_trainer([Rows()], callbacks, max_epochs=2).fit(task, Batches(40), Batches(8))
        weights.append(task.state_dict())
    assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[0])


def test_a_checkpoint_holds_the_average_and_the_weights_under_the_same_names() -> None:
    task, recorder = task_with_norm(), Recorder()
    trainer = make_trainer([Rows()], [EMA(decay=0.5, every_steps=1), recorder], max_epochs=2)
    trainer.fit(task, Batches(40), Batches(8))
    checkpoint = trainer._checkpoint_connector.dump_checkpoint(weights_only=False)
    assert list(checkpoint["state_dict"]) == list(task.state_dict())
    for name, value in checkpoint["state_dict"].items():
        assert torch.equal(value, recorder.validated[-1][name])
    for name, value in checkpoint["litlab_ema"]["trained"].items():
        assert torch.equal(value, recorder.trained[-1][name])


def test_average_changes_under_bfloat16() -> None:
    """One hundredth of a difference is lost where the sum is rounded to bfloat16."""
    task, recorder = task_with_norm(), Recorder()
    before = copy.deepcopy(task.to(torch.bfloat16).state_dict())
    ema = EMA(decay=0.995, every_steps=1)
    ema._num_updates = 10**6  # long after the start
    trainer = make_trainer([Rows()], [ema, recorder], max_epochs=8, precision="bf16-true")
    trainer.fit(task, Batches(40), Batches(8))
    average = {name: value.float() for name, value in before.items()}
    for state in recorder.trained:
        average = {name: torch.lerp(value, state[name].float(), 0.005) for name, value in average.items()}
    for name, value in recorder.validated[-1].items():
        if value.is_floating_point():
            assert value.dtype == torch.bfloat16
            torch.testing.assert_close(value.float(), average[name], rtol=2**-8, atol=1e-5)


def test_sharded_weights_are_refused() -> None:
    trainer = make_trainer([], [])
    trainer.strategy.__class__ = FSDPStrategy
    with pytest.raises(UserError, match=r"callbacks\.ema: an average needs whole weights on each device, and FSDP"):
        EMA(decay=0.9, every_steps=1).setup(trainer, make_task(), "fit")
