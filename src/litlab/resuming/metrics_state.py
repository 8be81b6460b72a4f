"""Metrics in flight: what torchmetrics objects have summed up since their last reset, on this rank."""

from typing import Any

import torch
from torch import Tensor, nn
from torchmetrics import Metric

from litlab.metrics import LossAndAccuracy

State = dict[str, dict[str, Any]]


def metrics_of(module: nn.Module) -> dict[str, Metric]:
    """All metrics within a module, by name."""
    return {name: each for name, each in module.named_modules() if isinstance(each, Metric)}


def metrics_state(metrics: dict[str, Metric]) -> State:
    """Copies of the states of those metrics that have been updated."""
    for metric in metrics.values():
        if isinstance(metric, LossAndAccuracy):
            metric.add_up()
    return {
        name: {
            "updates": metric._update_count,
            "values": {key: _copy(getattr(metric, key)) for key in metric._defaults},
        }
        for name, metric in metrics.items()
        if metric._update_count
    }


def set_metrics_state(metrics: dict[str, Metric], state: State) -> None:
    """Go on where `metrics_state` was called; a metric that is not in it starts anew."""
    for name, metric in metrics.items():
        metric.reset()
        if name in state:
            for key, value in state[name]["values"].items():
                setattr(metric, key, _to(value, metric.device))
            metric._update_count = state[name]["updates"]


def merged(states: list[State], metrics: dict[str, Metric]) -> State:
    """What several ranks have summed up, as one rank would have; metrics that are no plain sums are left out."""
    names = [name for name in dict.fromkeys(name for state in states for name in state) if name in metrics]
    total: State = {}
    for name in names:
        if not all(map(_is_sum, metrics[name]._reductions.values())):
            continue
        parts = [state[name] for state in states if name in state]
        values = {key: torch.stack([part["values"][key] for part in parts]).sum(dim=0) for key in parts[0]["values"]}
        total[name] = {"updates": max(part["updates"] for part in parts), "values": values}
    return total


def _is_sum(reduction: Any) -> bool:
    return getattr(reduction, "__name__", "") == "dim_zero_sum"


def _copy(value: Tensor | list[Tensor]) -> Tensor | list[Tensor]:
    return [each.detach().clone() for each in value] if isinstance(value, list) else value.detach().clone()


def _to(value: Tensor | list[Tensor], device: torch.device) -> Tensor | list[Tensor]:
    return [each.to(device) for each in value] if isinstance(value, list) else value.to(device, copy=True)
