"""A point of a run that it can be continued from, bit for bit."""

from dataclasses import dataclass
from typing import Any, Literal

import torch
from lightning.pytorch import LightningModule, Trainer

from litlab.resuming.gather import gather
from litlab.resuming.metrics_state import merged, metrics_of, metrics_state, set_metrics_state
from litlab.resuming.progress import Progress, progress, set_progress, uninterrupted, within_validation
from litlab.resuming.random_state import State, random_state, set_random_state

Loaders = dict[str, State] | None
At = Literal["batch", "validation", "end"]


@dataclass
class Point:
    """What a checkpoint holds besides what Lightning puts there.

    Attributes:
        at: before a training batch, before a validation, or at the end of the fit.
        epoch, batch: how many epochs are done, and batches of the one after them.
        step: optimizer steps done.
        progress: Lightning's counters.
        random: of this rank.
        loaders: random states of this epoch's loaders, see `Position`.
        metrics: in flight, of this rank.
        gradients: in flight, of this rank, by parameter; only where the task steps by itself (manual optimization).
        should_stop: whether training is to end, once it has been for `min_epochs`.
    """

    at: At
    epoch: int
    batch: int
    step: int
    progress: Progress
    random: State
    loaders: Loaders
    metrics: dict[str, Any]
    gradients: dict[str, torch.Tensor]
    should_stop: bool

    @classmethod
    def here(cls, trainer: Trainer, task: LightningModule, at: At, loaders: Loaders) -> "Point":
        """The point that the run is at, to be called in the hook that `at` names."""
        counted = trainer.fit_loop.epoch_loop.batch_progress.current
        return cls(
            at=at,
            epoch=trainer.current_epoch,
            batch=0 if at == "end" else counted.completed,
            step=trainer.global_step,
            progress=progress(trainer),
            random=random_state(trainer.strategy.root_device),
            loaders=loaders,
            metrics=metrics_state(metrics_of(task)),
            gradients={} if task.automatic_optimization else _gradients(task),
            should_stop=trainer.should_stop,
        )

    def add_to(self, trainer: Trainer, checkpoint: dict[str, Any]) -> dict[str, Any]:
        """Put it into Lightning's checkpoint, as `litlab`; every rank has to call it. Returns that part."""
        own = {"random": self.random, "loaders": self.loaders, "metrics": self.metrics}
        own["gradients"] = self.gradients
        part: dict[str, Any] = {"format": 1, "at": self.at, "epoch": self.epoch, "batch": self.batch, "step": self.step}
        part["progress"], part["should_stop"] = self.progress, self.should_stop
        part["ranks"] = gather(trainer, own)
        part["callback_metrics"] = {name: float(value) for name, value in trainer.callback_metrics.items()}
        inside = self.at == "validation"
        checkpoint["loops"]["fit_loop"] = within_validation(self.progress) if inside else self.progress
        checkpoint["litlab"] = part
        return part


def own_part(part: dict[str, Any], trainer: Trainer, task: LightningModule) -> dict[str, Any]:
    """This rank's share of a checkpoint's `ranks`; with another number of ranks, the first takes what was summed up."""
    ranks: list[dict[str, Any]] = part["ranks"]
    if len(ranks) == trainer.world_size:
        return ranks[trainer.global_rank]
    rank = trainer.global_rank
    known = ranks[rank] if rank < len(ranks) else {"random": None, "loaders": ranks[0]["loaders"]}
    metrics = merged([each["metrics"] for each in ranks], metrics_of(task)) if rank == 0 else {}
    return known | {"metrics": metrics, "gradients": {}}


def _gradients(task: LightningModule) -> dict[str, torch.Tensor]:
    return {name: each.grad.detach().clone() for name, each in task.named_parameters() if each.grad is not None}


def arrive(part: dict[str, Any], trainer: Trainer, task: LightningModule) -> None:
    """Set everything that Lightning did not, in the hook that the checkpoint was saved in (or after)."""
    own = own_part(part, trainer, task)
    device = trainer.strategy.root_device
    set_metrics_state(metrics_of(task), own["metrics"])
    values = {name: torch.tensor(value, device=device) for name, value in part["callback_metrics"].items()}
    trainer._logger_connector._callback_metrics.update(values)
    parameters = dict(task.named_parameters())
    for name, gradient in own["gradients"].items():
        parameters[name].grad = gradient.to(parameters[name].device)
    if part["at"] == "end":
        uninterrupted(trainer)
    else:
        set_progress(trainer, part["progress"])
        trainer.should_stop = part["should_stop"]
    if own["random"] is not None:
        set_random_state(own["random"], device)
