"""The figures of a comparison, as they go into a paper: drawn by matplotlib, without pyplot and its global state."""

import re
from collections.abc import Container
from pathlib import Path
from typing import TYPE_CHECKING

from litlab.compare.metric_values import value_of
from litlab.compare.model import Comparison
from litlab.compare.plots import files as writing

if TYPE_CHECKING:
    from matplotlib.figure import Figure


MOST_SETTINGS = 12  # that have a figure of their own
_NAMES = ("curves", "heatmap", "parallel", "importance", "pareto", "time")
_LONGEST = 60  # characters of a figure's name
save = writing.save
svg = writing.svg


def figures(comparison: Comparison) -> dict[str, "Figure"]:
    """Name -> figure, in the order to be shown; only those that the comparison has something for.

    `curves`; one for each setting that varies, by its label; `heatmap`, `parallel`; `time`, or of searches `importance`
    and `pareto`. What a figure shows stands in its `get_label()`.
    """
    from litlab.compare.plots.style import styled

    with styled():
        return _drawn(comparison)


def _drawn(comparison: Comparison) -> dict[str, "Figure"]:
    from litlab.compare.plots.cost import TIME, draw_cost
    from litlab.compare.plots.curves import draw_curves
    from litlab.compare.plots.heatmap import draw_heatmap
    from litlab.compare.plots.parallel import draw_parallel
    from litlab.compare.plots.searches import cost_of, draw_importance, searches_of
    from litlab.compare.plots.setting import draw_setting
    from litlab.compare.plots.style import choose

    chosen, searches = choose(comparison), searches_of(comparison)
    values = _values(comparison)
    found: dict[str, Figure | None] = {"curves": draw_curves(comparison, chosen)}
    for label in comparison.labels[:MOST_SETTINGS]:
        found[_name(label, found)] = draw_setting(comparison, label, values)
    found["heatmap"] = draw_heatmap(comparison)
    found["parallel"] = draw_parallel(comparison)
    if searches:
        found["importance"] = draw_importance(comparison, searches)
        found["pareto"] = draw_cost(comparison, cost_of(comparison, searches), None)
    else:
        found["time"] = draw_cost(comparison, TIME, chosen)
    return {name: figure for name, figure in found.items() if figure is not None}


def _values(comparison: Comparison) -> dict[Path, float]:
    """Of all single runs."""
    from litlab.compare.plots.style import is_drawable

    runs = [run for group in comparison.groups for run in group.runs]
    found = {run.path: value_of(run, comparison.metric, comparison.at) for run in runs}
    return {path: value for path, value in found.items() if value is not None and is_drawable(value)}


def _name(label: str, taken: Container[str]) -> str:
    """Of a figure, as a part of a file name: labels are a stranger's, and may be called as other figures are."""
    name = re.sub(r"[^\w.-]+", "_", label).strip("._")[:_LONGEST] or "setting"
    number, free = 1, name
    while free in taken or free in _NAMES:
        number += 1
        free = f"{name}_{number}"
    return free
