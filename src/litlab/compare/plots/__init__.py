"""Figures of a comparison for papers, drawn by matplotlib without pyplot and its global state."""

import re
from collections.abc import Container
from pathlib import Path
from typing import TYPE_CHECKING

from litlab.compare.data_model import Comparison
from litlab.compare.metric_values import value_of
from litlab.errors import UserError
from litlab.runs.files import open_regular
from litlab.sweep.study import STUDY_FILE, Plan

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
    from litlab.compare.plots.cost import TIME, draw_cost, search_cost
    from litlab.compare.plots.curves import draw_curves
    from litlab.compare.plots.importance import draw_importance
    from litlab.compare.plots.settings import draw_heatmap, draw_parallel, draw_setting
    from litlab.compare.plots.style import is_drawable, select_groups, styled

    runs = [run for group in comparison.groups for run in group.runs]
    values = {
        run.path: value
        for run in runs
        if (value := value_of(run, comparison.metric.name, comparison.at)) is not None and is_drawable(value)
    }
    plans = {study: _read_plan(study / STUDY_FILE) for study in sorted({run.study for run in runs if run.study})}
    searches = {study: plan for study, plan in plans.items() if plan is not None and plan.kind == "search"}
    texts = [comparison.metric.label, *comparison.labels]
    texts += [text for group in comparison.groups for text in group.settings.values()]
    with styled(texts):
        selected = select_groups(comparison)
        drawn: dict[str, Figure | None] = {"curves": draw_curves(comparison, selected)}
        for label in comparison.labels[:MAX_SETTINGS]:
            drawn[_name(label, drawn)] = draw_setting(comparison, label, values)
        drawn["heatmap"] = draw_heatmap(comparison)
        drawn["parallel"] = draw_parallel(comparison)
        if searches:
            drawn["importance"] = draw_importance(comparison, searches)
            drawn["pareto"] = draw_cost(comparison, search_cost(comparison, searches.values()), None)
        else:
            drawn["time"] = draw_cost(comparison, TIME, selected)
    return {name: figure for name, figure in drawn.items() if figure is not None}


def _read_plan(file: Path) -> Plan | None:
    """Read the plan of a study; None if it is damaged."""
    try:
        with open_regular(file) as opened:
            return Plan.from_yaml(file, opened.read())
    except (OSError, UserError):
        return None


def _name(label: str, taken: Container[str]) -> str:
    """Return a file name part for a figure: labels are untrusted, and may be names of other figures."""
    name = re.sub(r"[^\w.-]+", "_", label).strip("._")[:_MAX_NAME] or "setting"
    number, free = 1, name
    while free in taken or free in _NAMES:
        number += 1
        free = f"{name}_{number}"
    return free
