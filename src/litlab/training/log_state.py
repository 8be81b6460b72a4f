"""Values that `self.log` has collected, captured and restored for an exact resume.

Lightning keeps them in memory alone: the sums of an epoch that has not ended, the newest value of each name, and the
order of the names, which is that of the rows.
"""

from collections.abc import Callable, Mapping
from numbers import Real
from typing import Any

import torch
from lightning.pytorch import Trainer
from lightning.pytorch.trainer.connectors.logger_connector.result import (
    _Metadata,
    _ResultCollection,
    _ResultMetric,
    _Sync,
)
from torch import Tensor
from torchmetrics import Metric

LogState = dict[str, Any]
_ARGUMENTS = (  # of `self.log`
    "fx", "name", "prog_bar", "logger", "on_step", "on_epoch", "enable_graph", "add_dataloader_idx", "dataloader_idx",
    "metric_attribute",
)  # fmt: skip
_REDUCTIONS: dict[str, Callable[..., Any]] = {
    "mean": torch.mean, "sum": torch.sum, "min": torch.min, "max": torch.max,
    "builtin sum": sum, "builtin min": min, "builtin max": max,
}  # fmt: skip
_NEWEST = ("_callback_metrics", "_logged_metrics", "_progress_bar_metrics")  # attributes of the logger connector


def get_log_state(trainer: Trainer) -> LogState:
    """Copy what this rank has logged."""
    loop, connector = trainer.fit_loop.epoch_loop, trainer._logger_connector
    return {
        "distributed": trainer._accelerator_connector.is_distributed,
        "train": _get_results(loop._results),
        "val": _get_results(loop.val_loop._results),
        "num_val_batches": dict(loop.val_loop._seen_batches_per_dataloader),
        "newest": {name: _plain(getattr(connector, name)) for name in _NEWEST},
        "first_batch": connector._first_loop_iter,
        "hook": connector._current_fx,
    }


def set_log_state(state: LogState, trainer: Trainer, metrics: Mapping[str, Metric]) -> None:
    """Replace what this process has logged.

    The sums of an epoch are lost if the run was distributed and is not any more, or the reverse: Lightning compares the
    arguments of each `self.log` with those of the first one, and `sync_dist` is among them.

    Args:
        state: State of this rank.
        trainer: Trainer that resumes.
        metrics: Metrics within the task by name, of which some may have been logged as objects.
    """
    loop, connector = trainer.fit_loop.epoch_loop, trainer._logger_connector
    is_same = state["distributed"] == trainer._accelerator_connector.is_distributed
    for results, saved in ((loop._results, state["train"]), (loop.val_loop._results, state["val"])):
        results.clear()
        if is_same:
            results.update(_restore_results(saved, trainer, metrics))
    loop.val_loop._seen_batches_per_dataloader.update(state["num_val_batches"])
    device = trainer.strategy.root_device
    for name, values in state["newest"].items():
        newest = getattr(connector, name)
        newest.clear()
        newest.update({key: _copy(value, device) for key, value in values.items()})
    connector._first_loop_iter, connector._current_fx = state["first_batch"], state["hook"]


def _get_results(results: _ResultCollection) -> dict[str, dict[str, Any]]:
    # A process group cannot be saved, so values with one of their own are left out.
    return {key: _get_result(result) for key, result in results.items() if result.meta.sync.group is None}


def _get_result(result: _ResultMetric) -> dict[str, Any]:
    meta = result.meta
    saved = {name: getattr(meta, name) for name in _ARGUMENTS}
    saved |= {
        "reduce": next(name for name, function in _REDUCTIONS.items() if function is meta.reduce_fx),
        "sync": meta.sync.should,
        "rank_zero_only": meta.sync.rank_zero_only,
        "is_reset": result.has_reset,
        "updates": result._update_count,
        "newest": _copy(result._forward_cache),
    }
    if result.is_tensor:
        saved["values"] = {name: _copy(getattr(result, name)) for name in result._defaults}
    return saved


def _restore_results(
    saved: dict[str, dict[str, Any]], trainer: Trainer, metrics: Mapping[str, Metric]
) -> dict[str, _ResultMetric]:
    results = {}
    device = trainer.strategy.root_device
    for key, entry in saved.items():
        meta = _Metadata(**{name: entry[name] for name in _ARGUMENTS}, reduce_fx=_REDUCTIONS[entry["reduce"]])
        meta.sync = _Sync(fn=trainer.strategy.reduce, _should=entry["sync"], rank_zero_only=entry["rank_zero_only"])
        result = _ResultMetric(meta, is_tensor="values" in entry)
        if result.is_tensor:
            for name, value in entry["values"].items():
                setattr(result, name, _copy(value, device))
        elif (metric := metrics.get(meta.metric_attribute or "")) is not None:
            result.value = metric
        else:
            continue
        result._forward_cache = _copy(entry["newest"], device)
        result._update_count, result.has_reset = entry["updates"], entry["is_reset"]
        results[key] = result
    return results


def _plain(values: Mapping[str, Any]) -> dict[str, Any]:
    """Copy values that a checkpoint can hold: users put numbers of other kinds among Lightning's metrics."""
    numbers = {key: value for key, value in values.items() if isinstance(value, Tensor | Real)}
    return {key: _copy(value) if isinstance(value, Tensor) else float(value) for key, value in numbers.items()}


def _copy(value: Any, device: torch.device | None = None) -> Any:
    return value.detach().as_subclass(Tensor).clone().to(device) if isinstance(value, Tensor) else value
