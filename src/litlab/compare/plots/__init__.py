"""Figures of a comparison for papers, drawn by matplotlib without pyplot and its global state."""

import re
from collections.abc import Container, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from litlab.compare.data_model import Comparison
from litlab.compare.metric_values import value_of
from litlab.config.tree import config_key
from litlab.errors import UserError
from litlab.runs.files import open_regular
from litlab.sweep.study import STUDY_FILE, Plan

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from litlab.compare.plots.style import Interval

MAX_SETTINGS = 12  # that have a figure of their own
_NAMES = ("curves", "heatmap", "parallel", "importance", "pareto", "time")
_MAX_NAME = 60  # characters of a figure's name
_INTERVAL = re.compile(r"tag\(log|interval\(")


def figures(comparison: Comparison) -> dict[str, "Figure"]:
    """Draw the figures that the comparison has data for.

    Returns:
        Name -> figure in display order: `curves`; one for each setting that varies, by its label; `heatmap`,
        `parallel`; `time`, or for searches `importance` and `pareto`. An ablation has `ablation` and `interactions`
        instead. `get_label()` of a figure is its caption.
    """
    from litlab.compare.plots.ablation import draw_ablation, draw_interactions
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
    searches = _searches(comparison)
    searched = _searched(comparison, searches)
    texts = [comparison.metric.label, *comparison.labels]
    texts += [text for group in comparison.groups for text in group.settings.values()]
    if comparison.is_ablation:
        with styled(texts):
            forests = {"ablation": draw_ablation(comparison), "interactions": draw_interactions(comparison)}
        return {name: figure for name, figure in forests.items() if figure is not None}
    with styled(texts):
        selected = select_groups(comparison)
        drawn: dict[str, Figure | None] = {"curves": draw_curves(comparison, selected)}
        for label in comparison.labels[:MAX_SETTINGS]:
            drawn[_name(label, drawn)] = draw_setting(comparison, label, values, searched)
        drawn["heatmap"] = draw_heatmap(comparison)
        drawn["parallel"] = draw_parallel(comparison, searched)
        if searches:
            drawn["importance"] = draw_importance(comparison, searches, searched)
            drawn["pareto"] = draw_cost(comparison, search_cost(comparison, searches.values()), None)
        else:
            drawn["time"] = draw_cost(comparison, TIME, selected)
    return {name: figure for name, figure in drawn.items() if figure is not None}


def missing_figures(comparison: Comparison) -> list[str]:
    """Return a sentence for each figure of a search that there are no data for."""
    from litlab.compare.plots.importance import importance_problem

    searches = _searches(comparison)
    problem = importance_problem(comparison, searches) if searches else None
    return [] if problem is None else [f"The importance of the settings is not drawn: {problem}."]


def _searches(comparison: Comparison) -> dict[Path, Plan]:
    """Return the plans of the studies that are searches."""
    studies = sorted({run.study for group in comparison.groups for run in group.runs if run.study})
    plans = ((study, _read_plan(study / STUDY_FILE)) for study in studies)
    return {study: plan for study, plan in plans if plan is not None and plan.kind == "search"}


def _searched(comparison: Comparison, searches: Mapping[Path, Plan]) -> dict[str, "Interval"]:
    """Return label -> interval of the settings that a search draws from one."""
    intervals: dict[str, Interval] = {}
    for plan in searches.values():
        for name, expressions in plan.axes.items():
            if match := _INTERVAL.search("".join(expressions).replace(" ", "")):
                key = config_key(name.partition(" (")[0])  # a key may have an interval for each condition
                intervals[key] = "log" if match[0] == "tag(log" else "linear"
    return {label: intervals[key] for label, key in comparison.keys.items() if key in intervals}


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
