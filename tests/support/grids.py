"""Comparisons that tests make: a grid of two settings with three seeds, and comparisons by hand."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import yaml
from support.studies import make_run

from litlab.compare.data_model import Comparison, Group, Summary
from litlab.runs.metrics import Metric

VAL = Metric("val/accuracy", "%", "max", (0.0, 1.0))
TEST = replace(VAL, name="test/accuracy")
LR, WIDTHS, SEED = "optimizer.lr", "model.widths", "seed"
RESNET = {"_target_": "litlab.models.resnet.ResNet", "depth": 8}


def accuracy(point: dict[str, Any]) -> float:
    """Return an accuracy that is best at 0.1; seeds are 0.01 apart."""
    return {0.01: 0.3, 0.05: 0.6, 0.1: 0.8}.get(point.get(LR), 0.5) + 0.01 * point.get(SEED, 0)


def names(comparison: Comparison) -> list[str]:
    return [group.name for group in comparison.groups]


def remarks(comparison: Comparison) -> tuple[str, ...]:
    """Return the notes without that on the selection of the best group."""
    return tuple(note for note in comparison.notes if ": the best of " not in note)


def put(path: Path, config: dict[str, Any], value: float = 0.5) -> None:
    """Write a run with another config."""
    run = make_run(path, {SEED: config[SEED]}, value)
    run.config.write_text(yaml.dump(config))


def summary(mean: float, deviation: float | None = None) -> Summary:
    low, high = (None, None) if deviation is None else (mean - 2 * deviation, mean + 2 * deviation)
    return Summary(3 if deviation else 1, mean, deviation, low, high, mean)


def by_hand(*groups: Group, **changes: Any) -> Comparison:
    made = Comparison((Path("outputs/s"),), VAL, TEST, "best", ("lr",), {"lr": "optimizer.lr"}, groups)
    return replace(made, **changes)


def group(name: str, value: Summary | None, **changes: Any) -> Group:
    return replace(Group(name, {"lr": name}, (), {}, value, {}), **changes)
