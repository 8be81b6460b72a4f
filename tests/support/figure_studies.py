"""Studies for figures, and access to the lines of a figure."""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

RATES, WIDTHS, SEEDS = [0.01, 0.1, 1.0], [[2, 4], [4, 8], [16, 32]], [0, 1, 2]


def accuracy(point: Mapping[str, Any]) -> float:
    """Return an accuracy that is best at a rate of 0.1 and the widest network; seeds are 1 % apart."""
    return (
        0.7
        - 0.1 * (math.log10(point.get("optimizer.lr", 0.1)) + 0.95) ** 2
        + 0.004 * point.get("model.widths", [0])[0]
        + 0.01 * point.get("seed", 0)
    )


def curve(point: Mapping[str, Any], epoch: int) -> float:
    return accuracy(point) * (epoch + 1) / 4


def lines(figure: Any) -> dict[str, Any]:
    """Return name in the legend -> line."""
    (legend,) = figure.legends
    by_look = {(line.get_color(), line.get_marker()): line for line in figure.axes[0].lines}
    return {
        text.get_text(): by_look[handle.get_color(), handle.get_marker()]
        for text, handle in zip(legend.get_texts(), legend.legend_handles, strict=True)
    }


def write_plan(study: Path, **changes: Any) -> None:
    plan = yaml.safe_load((study / "study.yaml").read_text())
    (study / "study.yaml").write_text(yaml.safe_dump(plan | changes))
