"""Metrics in flight: what torchmetrics objects have summed up since their last reset, on this rank."""

from typing import Any

import torch
from torch import Tensor, nn
from torchmetrics import Metric

State = dict[str, dict[str, Any]]


def metrics_state(module: nn.Module) -> State:
    """Copies of the states of all metrics within a module that have been updated, by the metric's name."""
    found = {}
    for name, metric in module.named_modules():
        if isinstance(metric, Metric) and metric._update_count:
            values = {key: _copy(getattr(metric, key)) for key in metric._defaults}
            found[name] = {"updates": metric._update_count, "values": values}
    return found


def set_metrics_state(module: nn.Module, state: State) -> None:
    """Go on where `metrics_state` was called; a metric that is not in it starts anew."""
    for name, metric in module.named_modules():
        if not isinstance(metric, Metric):
            continue
        metric.reset()
        if name in state:
            for key, value in state[name]["values"].items():
                setattr(metric, key, _to(value, metric.device))
            metric._update_count = state[name]["updates"]


def merged(states: list[State], module: nn.Module) -> State:
    """What several ranks have summed up, as one rank would have; metrics that are no plain sums are left out."""
    metrics = {name: each for name, each in module.named_modules() if isinstance(each, Metric)}
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
