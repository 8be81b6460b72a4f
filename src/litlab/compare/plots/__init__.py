"""Figures of a comparison for papers, drawn by matplotlib without pyplot and its global state."""

import re
from collections.abc import Container
from pathlib import Path
from typing import TYPE_CHECKING

from litlab.compare.metric_values import value_of
from litlab.compare.model import Comparison

if TYPE_CHECKING:
    from matplotlib.figure import Figure

MAX_SETTINGS = 12  # that have a figure of their own
_NAMES = ("curves", "heatmap", "parallel", "importance", "pareto", "time")
_MAX_NAME = 60  # characters of a figure's name


def figures(comparison: Comparison) -> dict[str, "Figure"]:
    """Draw the figures that the comparison has data for.

    Returns:
        Name -> figure in display order: `curves`; one for each setting that varies, by its label; `heatmap`,
        `parallel`; `time`, or for searches `importance` and `pareto`. `get_label()` of a figure is its caption.
    """
    from litlab.compare.plots.cost import TIME, draw_cost
    from litlab.compare.plots.curves import draw_curves
    from litlab.compare.plots.heatmap import draw_heatmap
    from litlab.compare.plots.parallel import draw_parallel
    from litlab.compare.plots.searches import cost_of, draw_importance, searches_of
    from litlab.compare.plots.setting import draw_setting
    from litlab.compare.plots.style import select_groups, styled

    with styled():
        selected, searches = select_groups(comparison), searches_of(comparison)
        values = _values(comparison)
        drawn: dict[str, Figure | None] = {"curves": draw_curves(comparison, selected)}
        for label in comparison.labels[:MAX_SETTINGS]:
            drawn[_name(label, drawn)] = draw_setting(comparison, label, values)
        drawn["heatmap"] = draw_heatmap(comparison)
        drawn["parallel"] = draw_parallel(comparison)
        if searches:
            drawn["importance"] = draw_importance(comparison, searches)
            drawn["pareto"] = draw_cost(comparison, cost_of(comparison, searches), None)
        else:
            drawn["time"] = draw_cost(comparison, TIME, selected)
    return {name: figure for name, figure in drawn.items() if figure is not None}


def _values(comparison: Comparison) -> dict[Path, float]:
    """Return the values of single runs that can be drawn."""
    from litlab.compare.plots.style import is_drawable

    runs = [run for group in comparison.groups for run in group.runs]
    values = {run.path: value_of(run, comparison.metric.name, comparison.at) for run in runs}
    return {path: value for path, value in values.items() if value is not None and is_drawable(value)}


def _name(label: str, taken: Container[str]) -> str:
    """Return a file name part for a figure: labels are untrusted, and may be names of other figures."""
    name = re.sub(r"[^\w.-]+", "_", label).strip("._")[:_MAX_NAME] or "setting"
    number, free = 1, name
    while free in taken or free in _NAMES:
        number += 1
        free = f"{name}_{number}"
    return free
