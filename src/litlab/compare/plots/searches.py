"""Figures of searches: the importance of settings, and the cost that a second objective measures.

Optuna computes the importances. Its matplotlib figures are not used: they change pyplot's global style
(`plt.style.use`) and leave figures open there, and have neither these fonts and colors nor reproducible bytes.
"""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from litlab.compare.metric_values import metric_table
from litlab.compare.model import Comparison, Group, Run, Summary
from litlab.compare.plots.axes import scale_of
from litlab.compare.plots.cost import TIME, Cost
from litlab.compare.plots.style import COLORS, add_note, axis_label, drawable_groups, drawable_text, new_figure
from litlab.compare.statistics import summarize
from litlab.errors import UserError
from litlab.runs.files import open_regular
from litlab.runs.metrics import Metric, Mode, split_of
from litlab.sweep.study import STUDY_FILE, Plan

_MIN_TRIALS = 10
_QUANTILE = 0.25  # of the best trials, which PED-ANOVA tells from all
_MAX_BARS = 20
_QUANTITIES: dict[str, tuple[str, Callable[[Run], float | None]]] = {  # objectives that are not metrics
    "seconds.training": (TIME.label, lambda run: run.training_seconds),
    "parameters": ("parameters", lambda run: run.parameters),
    "images_per_second": ("images per second of training", lambda run: run.images_per_second),
}


def searches_of(comparison: Comparison) -> dict[Path, Plan]:
    """Return the plans of the studies that are searches, without damaged ones."""
    studies = {run.study for group in comparison.groups for run in group.runs if run.study is not None}
    plans = {study: _read_plan(study / STUDY_FILE) for study in sorted(studies)}
    return {study: plan for study, plan in plans.items() if plan is not None and plan.kind == "search"}


def _read_plan(file: Path) -> Plan | None:
    try:
        with open_regular(file) as opened:
            return Plan.from_yaml(file, opened.read())
    except (OSError, UserError):
        return None


def cost_of(comparison: Comparison, plans: Mapping[Path, Plan]) -> Cost:
    """Return the first other objective of the searches that is not measured on the test split, or else the time."""
    for plan in plans.values():
        for objective in plan.search.get("objectives") or ():
            entry: dict[str, Any] = objective if isinstance(objective, dict) else {}
            name, mode = entry.get("metric"), entry.get("mode")
            is_other = isinstance(name, str) and name != comparison.metric.name and split_of(name) != "test"
            if is_other and mode in ("max", "min"):
                return _cost(comparison, str(name), mode)
    return TIME


def _cost(comparison: Comparison, name: str, mode: Mode) -> Cost:
    table = metric_table([run for group in comparison.groups for run in group.runs])
    metric = Metric(name, mode=mode) if name in _QUANTITIES else table[name]
    label, value = _QUANTITIES.get(name, (axis_label(metric), lambda run: run.best.get(name)))

    def of(group: Group) -> Summary | None:
        values = [number for run in group.runs if (number := value(run)) is not None]
        return summarize(values, metric) if values else None

    return Cost(label, mode, of, metric.scale)


def draw_importance(comparison: Comparison, studies: Mapping[Path, Plan]) -> Figure | None:
    """Draw the share of each setting in telling the best quarter of the trials from all; None for too few trials."""
    groups = [group for group in drawable_groups(comparison) if any(run.study in studies for run in group.runs)]
    shares = importances(groups, comparison.labels, comparison.mode)
    if not shares:
        return None
    names = sorted(shares, key=lambda name: shares[name])[-_MAX_BARS:]
    figure = new_figure(
        f"importance of settings for {axis_label(comparison.metric)}", height=max(1.6, 0.9 + 0.24 * len(names))
    )
    axes = figure.add_subplot(xlabel="importance (share)")
    axes.bar_label(
        axes.barh(range(len(names)), [shares[name] for name in names], height=0.6, color=COLORS[0]),
        fmt="%.2f",
        padding=3,
    )
    axes.set_yticks(range(len(names)), [drawable_text(name, 30) for name in names])
    axes.grid(visible=False, axis="y")
    axes.tick_params("y", length=0)
    axes.set_xlim(0, 1.12 * max(shares.values()))
    add_note(figure, f"PED-ANOVA: the best quarter of {len(groups)} trials against all")
    return figure


def importances(groups: Sequence[Group], labels: Sequence[str], mode: Mode) -> dict[str, float]:
    """Compute label -> share for the settings that all groups have; {} if the groups are too few or all alike.

    It is PED-ANOVA (Watanabe, Bansal, Hutter 2023) of Optuna on trials made of the groups: the database of the search,
    which may be untrusted, is not opened.
    """
    import optuna

    values = [group.value.mean for group in groups if group.value is not None]
    scales = {
        label: scale
        for label in labels
        if all(label in group.settings for group in groups)
        and len((scale := scale_of(group.settings[label] for group in groups)).positions) > 1
    }
    if len(groups) < _MIN_TRIALS or len(set(values)) < 2 or len(scales) < 2:
        return {}
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    study = optuna.create_study(direction="maximize" if mode == "max" else "minimize")
    distributions: dict[str, Any] = {}
    for label, scale in scales.items():
        positions = list(scale.positions.values())
        distributions[label] = (
            optuna.distributions.FloatDistribution(min(positions), max(positions), log=scale.is_log)
            if scale.is_numeric
            else optuna.distributions.CategoricalDistribution(tuple(scale.positions))
        )
    for group, value in zip(groups, values, strict=True):
        params: dict[str, Any] = {
            label: scale.positions[group.settings[label]] if scale.is_numeric else group.settings[label]
            for label, scale in scales.items()
        }
        study.add_trial(optuna.trial.create_trial(params=params, distributions=distributions, value=value))
    evaluator = optuna.importance.PedAnovaImportanceEvaluator(target_quantile=_QUANTILE)
    return dict(optuna.importance.get_param_importances(study, evaluator=evaluator))
