"""What a training step changes before the optimizer does, so that a failed one can be undone."""

from operator import attrgetter
from typing import Any

import torch
from lightning.pytorch import LightningModule, Trainer

from litlab.tasks.metrics import LossAndAccuracy
from litlab.training.state import (
    Loaders,
    Point,
    RandomState,
    metrics_of,
    metrics_state,
    random_state,
    set_metrics_state,
    set_random_state,
)

_VERSION = attrgetter("_version")


def weights_print(task: LightningModule) -> torch.Tensor:
    """The norm of each floating-point parameter, to see changes. Not of buffers: DDP takes rank zero's to validate."""
    tensors = [each.detach() for each in task.parameters() if each.is_floating_point()]
    return torch.stack([norm.double() for norm in torch._foreach_norm(tensors)]) if tensors else torch.zeros(0)


class StepStart:
    """Notes the start of each optimizer step, cheaply: it is called at every one.

    Python's and NumPy's generators are slow to read. They are taken to stand still, as they do in litlab's own classes;
    where they don't, a failed step cannot be undone.
    """

    def __init__(self, trainer: Trainer, task: LightningModule) -> None:
        self._device = trainer.strategy.root_device
        self._task, metrics = task, metrics_of(task)
        self._collecting = [each for each in metrics.values() if isinstance(each, LossAndAccuracy)]
        self._others = {name: each for name, each in metrics.items() if not isinstance(each, LossAndAccuracy)}
        self._parameters = list(task.parameters())
        self._buffers = list(task.buffers())
        self._saved_buffers = [buffer.clone() for buffer in self._buffers]
        self._still = random_state(self._device)
        self._versions: int | None = None

    def note(self) -> None:
        """A step starts here."""
        self._torch = torch.get_rng_state()
        self._cuda = torch.cuda.get_rng_state(self._device) if self._device.type == "cuda" else None
        self._marks = [metric.mark() for metric in self._collecting]
        self._metrics = metrics_state(self._others)
        if self._buffers:
            torch._foreach_copy_(self._saved_buffers, self._buffers)
        self._versions = self._changes()

    def forget(self) -> None:
        """The step is done."""
        self._versions = None

    def undo(self, trainer: Trainer, loaders: Loaders) -> Point | None:
        """Go back to the start of the step that failed, and give that point; None if it has gone too far."""
        if self._versions is None or self._versions != self._changes():
            return None
        if not _stood_still(self._still, random_state(self._device)):
            return None
        if self._buffers:
            torch._foreach_copy_(self._buffers, self._saved_buffers)
        state = self._still | {"torch": self._torch} | ({"cuda": self._cuda} if self._cuda is not None else {})
        set_random_state(state, self._device)
        set_metrics_state(self._others, self._metrics)
        for metric, mark in zip(self._collecting, self._marks, strict=True):
            metric.go_back(mark)
        point = Point.here(trainer, self._task, "batch", loaders)
        point.progress = _before_the_batch(point.progress)
        return point

    def _changes(self) -> int:
        """Grows with every change of a parameter in place, as optimizers make them."""
        return sum(map(_VERSION, self._parameters))


def _stood_still(before: RandomState, now: RandomState) -> bool:
    pairs = [(before["python"]["words"], now["python"]["words"]), (before["numpy"]["keys"], now["numpy"]["keys"])]
    return before["numpy"]["position"] == now["numpy"]["position"] and all(torch.equal(a, b) for a, b in pairs)


def _before_the_batch(progress: dict[str, Any]) -> dict[str, Any]:
    """Counters as they were in `on_train_batch_start` of a batch that has failed since."""
    inside = {name: value for name, value in progress.items() if name != "epoch_progress"}  # the epoch goes on
    batches = "epoch_loop.batch_progress"
    return progress | {name: _undone(value, ready_stays=name == batches) for name, value in inside.items()}


def _undone(value: Any, *, ready_stays: bool) -> Any:
    if not isinstance(value, dict):
        return value
    if "completed" in value:
        return {key: item if key == "ready" and ready_stays else value["completed"] for key, item in value.items()}
    return {key: _undone(item, ready_stays=ready_stays) for key, item in value.items()}
