"""State of a training run that Lightning's checkpoints lack, captured and restored for an exact resume."""

import copy
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal

import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.loops.loop import _Loop
from torch import Tensor, nn
from torchmetrics import Metric

from litlab.data.loss_table import LossTableState
from litlab.tasks.metrics import LossAndAccuracy
from litlab.training.loader_state import LoaderState
from litlab.training.log_state import get_log_state, set_log_state
from litlab.training.module_state import (
    ModuleState,
    ParameterGroups,
    get_module_state,
    get_parameter_groups,
    set_module_state,
)
from litlab.training.random_state import get_random_state, set_random_state
from litlab.training.stop_reason import describe_stop

Hook = Literal["on_train_batch_start", "on_validation_start", "on_fit_end"]
Progress = dict[str, Any]
MetricsState = dict[str, dict[str, Any]]


@dataclass
class TrainState:
    """State between two optimizer steps.

    Attributes:
        hook: Callback hook that the state was captured in.
        epoch: Number of completed epochs.
        batch: Number of completed batches in the epoch after those.
        step: Number of optimizer steps.
        progress: Counters of Lightning's loops.
        should_stop: `trainer.should_stop`, which takes effect only after `min_epochs`.
        stopped_by: Class of the callback or module that set it.
        stop_reason: Reason for which a callback or the module ended the training, also if it did so in the last epoch
            that the limits allow; None if none did, or it has not ended.
        accumulate_grad_batches: `trainer.accumulate_grad_batches`, which a callback may change from epoch to epoch.
        modules: State of the modules outside of their `state_dict`.
        groups: Names of the parameters in each group of each optimizer, which a callback may have added.
        sizes: Lengths of the append-only files in bytes, on rank zero.
        image_losses: Losses that training images are drawn by, of all ranks; None without such a draw.
        rank: State of this rank alone: random numbers, loaders, logged values, unfinished metrics, the gradients of a
            task with manual optimization, and the extra state of its modules if there are several ranks, since the
            checkpoint has that of rank zero.
    """

    hook: Hook
    epoch: int
    batch: int
    step: int
    progress: Progress
    should_stop: bool
    stopped_by: str | None
    stop_reason: str | None
    accumulate_grad_batches: int
    modules: ModuleState
    groups: ParameterGroups
    sizes: dict[str, int]
    image_losses: LossTableState | None
    rank: dict[str, Any]

    @classmethod
    def capture(
        cls,
        trainer: Trainer,
        task: LightningModule,
        hook: Hook,
        *,
        loaders: LoaderState,
        sizes: dict[str, int],
    ) -> "TrainState":
        """Copy the state of this rank in a hook."""
        rank = {
            "random": get_random_state(trainer.strategy.root_device),
            "loaders": loaders.random_states,
            "creation": loaders.creation(trainer),
            "log": get_log_state(trainer),
            "metrics": get_metrics_state(find_metrics(task)),
            "gradients": {}
            if task.automatic_optimization
            else {name: p.grad.detach().clone() for name, p in task.named_parameters() if p.grad is not None},
            "extra": _get_extra_states(task) if trainer.world_size > 1 else {},
        }
        return cls(
            hook=hook,
            epoch=trainer.current_epoch,
            batch=0 if hook == "on_fit_end" else trainer.fit_loop.epoch_loop.batch_progress.current.completed,
            step=trainer.global_step,
            progress=get_progress(trainer),
            should_stop=trainer.should_stop,
            stopped_by=getattr(trainer, "stopped_by", None),
            stop_reason=describe_stop(trainer) if hook == "on_fit_end" else None,
            accumulate_grad_batches=trainer.accumulate_grad_batches,
            modules=get_module_state(trainer, task),
            groups=get_parameter_groups(trainer, task),
            sizes=sizes,
            image_losses=loaders.losses(trainer),
            rank=rank,
        )

    def add_to(self, checkpoint: dict[str, Any], trainer: Trainer) -> dict[str, Any]:
        """Store the state of all ranks as `litlab` in a checkpoint of Lightning's. Every rank has to call this.

        Returns:
            The stored dict, to which callers may add.
        """
        validating = self.hook == "on_validation_start"
        checkpoint["loops"]["fit_loop"] = _at_validation_start(self.progress) if validating else self.progress
        saved = {"format": 2} | {name: value for name, value in vars(self).items() if name != "rank"}
        saved["ranks"] = [self.rank] * trainer.world_size
        if trainer.world_size > 1:
            torch.distributed.all_gather_object(saved["ranks"], self.rank)
        checkpoint["litlab"] = saved
        return saved


def restore_train_state(saved: dict[str, Any], trainer: Trainer, task: LightningModule) -> None:
    """Restore from `litlab` of the checkpoint what Lightning did not restore.

    To be called in the hook that the state was captured in; for a finished fit, in the first hook of those after it,
    after `restore_epoch_state` in `on_train_epoch_start`. The loaders start from its random state.
    """
    rank = state_of_rank(saved, trainer, task)
    set_metrics_state(find_metrics(task), rank["metrics"])
    parameters = dict(task.named_parameters())
    for name, gradient in rank["gradients"].items():
        parameters[name].grad = gradient.to(parameters[name].device)
    modules = dict(task.named_modules())
    for name, extra_state in rank["extra"].items():
        modules[name].set_extra_state(extra_state)
    if saved["hook"] == "on_fit_end":
        _clear_restarting(trainer)
    else:
        restore_epoch_state(saved, trainer, task)
        set_progress(trainer, saved["progress"])
        trainer.should_stop = saved["should_stop"]
        trainer.stopped_by = saved["stopped_by"]  # type: ignore[attr-defined]  # see litlab.training.stop_reason
        trainer.accumulate_grad_batches = saved["accumulate_grad_batches"]
        if rank["random"] is not None:
            set_random_state(rank["random"], trainer.strategy.root_device)


def restore_epoch_state(saved: dict[str, Any], trainer: Trainer, task: LightningModule) -> None:
    """Restore what hooks at the start of an epoch change: what is frozen, and what has been logged."""
    set_module_state(saved["modules"], trainer, task)
    set_log_state(state_of_rank(saved, trainer, task)["log"], trainer, find_metrics(task))


def state_of_rank(saved: dict[str, Any], trainer: Trainer, task: LightningModule) -> dict[str, Any]:
    """Select this rank's state; for another number of ranks, rank zero gets the merged metrics, without logged sums."""
    ranks: list[dict[str, Any]] = saved["ranks"]
    number = trainer.global_rank
    if len(ranks) == trainer.world_size:
        return ranks[number]
    state = ranks[number] if number < len(ranks) else ranks[0] | {"random": None}
    metrics = merge_metrics_states([rank["metrics"] for rank in ranks], find_metrics(task)) if number == 0 else {}
    log = state["log"] | {"train": {}, "val": {}}
    return state | {"metrics": metrics, "gradients": {}, "extra": {}, "log": log}


def get_progress(trainer: Trainer) -> Progress:
    """Copy all counters of the fit loop and of the loops in it."""
    return trainer.fit_loop.state_dict()


def set_progress(trainer: Trainer, progress: Progress) -> None:
    """Set the counters, and make Lightning continue as in a run without interruption."""
    for prefix, loop in _loops(trainer.fit_loop, ""):
        loop._load_from_state_dict(copy.deepcopy(progress), prefix)
    _clear_restarting(trainer)


def _clear_restarting(trainer: Trainer) -> None:
    for _, loop in _loops(trainer.fit_loop, ""):
        loop.on_iteration_done()


def _at_validation_start(progress: Progress) -> Progress:
    """Change counters so that Lightning starts with the validation that was about to start."""
    unfinished = {"ready": 1, "started": 1, "processed": 0, "completed": 0}
    counters = {"total": dict(unfinished), "current": dict(unfinished), "is_last_batch": False}
    return copy.deepcopy(progress) | {"epoch_loop.val_loop.batch_progress": counters}


def _loops(loop: _Loop, prefix: str) -> Iterator[tuple[str, _Loop]]:
    yield prefix, loop
    for name, child in vars(loop).items():
        if isinstance(child, _Loop):
            yield from _loops(child, f"{prefix}{name}.")


def _get_extra_states(task: LightningModule) -> dict[str, Any]:
    """Copy the states that modules save by `get_extra_state`, by name."""
    return {
        name: copy.deepcopy(module.get_extra_state())
        for name, module in task.named_modules()
        if type(module).get_extra_state is not nn.Module.get_extra_state
    }


def find_metrics(module: nn.Module) -> dict[str, Metric]:
    """Find all torchmetrics objects within a module, by name."""
    return {name: child for name, child in module.named_modules() if isinstance(child, Metric)}


def get_metrics_state(metrics: dict[str, Metric]) -> MetricsState:
    """Copy the states of those metrics that have been updated."""
    for metric in metrics.values():
        if isinstance(metric, LossAndAccuracy):
            metric.flush()
    return {
        name: {
            "updates": metric._update_count,
            "values": {key: _copy(getattr(metric, key)) for key in metric._defaults},
        }
        for name, metric in metrics.items()
        if metric._update_count
    }


def set_metrics_state(metrics: dict[str, Metric], state: MetricsState) -> None:
    """Set the states of metrics; reset those that the state lacks."""
    for name, metric in metrics.items():
        metric.reset()
        if name in state:
            for key, value in state[name]["values"].items():
                setattr(metric, key, _to(value, metric.device))
            metric._update_count = state[name]["updates"]


def merge_metrics_states(states: list[MetricsState], metrics: dict[str, Metric]) -> MetricsState:
    """Add up the states of several ranks; metrics that are not plain sums are left out."""
    names = [name for name in dict.fromkeys(name for state in states for name in state) if name in metrics]
    total: MetricsState = {}
    for name in names:
        if not all(getattr(reduce, "__name__", "") == "dim_zero_sum" for reduce in metrics[name]._reductions.values()):
            continue
        parts = [state[name] for state in states if name in state]
        values = {key: torch.stack([part["values"][key] for part in parts]).sum(dim=0) for key in parts[0]["values"]}
        total[name] = {"updates": max(part["updates"] for part in parts), "values": values}
    return total


def _copy(value: Tensor | list[Tensor]) -> Tensor | list[Tensor]:
    return [item.detach().clone() for item in value] if isinstance(value, list) else value.detach().clone()


def _to(value: Tensor | list[Tensor], device: torch.device) -> Tensor | list[Tensor]:
    return [item.to(device) for item in value] if isinstance(value, list) else value.to(device, copy=True)
