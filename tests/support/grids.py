"""A grid of two settings with three seeds, and runs beside it."""

from pathlib import Path
from typing import Any

import yaml
from support.studies import make_run

from litlab.compare.model import Comparison

LR, WIDTHS, SEED = "optimizer.lr", "model.widths", "seed"
RESNET = {"_target_": "litlab.models.resnet.ResNet", "depth": 8}


def accuracy(point: dict[str, Any]) -> float:
    """Best at 0.1; between seeds, a spread of 0.01."""
    return {0.01: 0.3, 0.05: 0.6, 0.1: 0.8}.get(point.get(LR), 0.5) + 0.01 * point.get(SEED, 0)


def names(comparison: Comparison) -> list[str]:
    return [group.name for group in comparison.groups]


def put(path: Path, config: dict[str, Any], value: float = 0.5) -> None:
    """A run with a config of its own."""
    run = make_run(path, {SEED: config[SEED]}, value)
    run.config.write_text(yaml.dump(config))
