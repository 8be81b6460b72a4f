"""What only searches have: how much each setting mattered, and several objectives."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from matplotlib.figure import Figure

from litlab.compare.model import Comparison, Group, Mode, Run, Summary
from litlab.compare.plots.axes import scale_of
from litlab.compare.plots.cost import TIME, Cost
from litlab.compare.plots.style import COLOURS, by_value, measure, new_figure, note, printed
from litlab.compare.statistics import summarize
from litlab.errors import UserError
from litlab.runs.directory import open_regular
from litlab.sweep.study import STUDY_FILE, Plan

if TYPE_CHECKING:
    import optuna


_LEAST = 10  # trials, of which a quarter is to be told from the rest
_QUARTER = 0.25
_MOST_BARS = 20


def searches_of(comparison: Comparison) -> dict[Path, Plan]:
    """The studies among those compared which are searches; one whose plan is damaged is none."""
    studies = {run.study for group in comparison.groups for run in group.runs if run.study is not None}
    plans = {study: _plan(study / STUDY_FILE) for study in sorted(studies)}
    return {study: plan for study, plan in plans.items() if plan is not None and plan.kind == "search"}


def _plan(file: Path) -> Plan | None:
    try:
        with open_regular(file) as opened:
            return Plan.from_yaml(file, opened.read())
    except (OSError, UserError):
        return None


def cost_of(comparison: Comparison, plans: Mapping[Path, Plan]) -> Cost:
    """What a search weighs against the metric: the first other objective, or else the time."""
    for plan in plans.values():
        for each in plan.search.get("objectives") or ():
            metric, mode = (each.get("metric"), each.get("mode")) if isinstance(each, dict) else (None, None)
            if isinstance(metric, str) and metric != comparison.metric and mode in ("max", "min"):
                return _cost(metric, mode)
    return TIME


def _cost(metric: str, mode: Mode) -> Cost:
    known = {
        "seconds.training": TIME.label,
        "parameters": "parameters",
        "images_per_second": "images per second of training",
    }
    value = measure(metric)

    def of(group: Group) -> Summary | None:
        found = [each for run in group.runs if (each := _value(run, metric)) is not None]
        return summarize(found, mode) if found else None

    return Cost(known[metric], mode, of) if metric in known else Cost(value.label, mode, of, value.factor)


def _value(run: Run, metric: str) -> float | None:
    of_run = {
        "seconds.training": run.training_seconds,
        "parameters": run.parameters,
        "images_per_second": run.images_per_second,
    }
    return of_run[metric] if metric in of_run else run.best.get(metric)


def draw_importance(comparison: Comparison, studies: Mapping[Path, Plan]) -> Figure | None:
    """How much each setting told the best quarter of the trials from all; None if there are too few."""
    groups = [group for group in by_value(comparison) if any(run.study in studies for run in group.runs)]
    found = importances(groups, comparison.labels, comparison.mode)
    if not found:
        return None
    names = sorted(found, key=lambda name: found[name])[-_MOST_BARS:]
    label = "importance (share)"
    figure = new_figure(
        f"importance of settings for {measure(comparison.metric).label}", height=max(1.6, 0.9 + 0.24 * len(names))
    )
    axes = figure.add_subplot(xlabel=label)
    axes.barh(range(len(names)), [found[name] for name in names], height=0.6, color=COLOURS[0])
    axes.set_yticks(range(len(names)), [printed(name, 30) for name in names])
    axes.grid(visible=False, axis="y")
    axes.tick_params("y", length=0)
    for place, name in enumerate(names):
        axes.annotate(
            f"{found[name]:.2f}", (found[name], place), xytext=(3, 0), textcoords="offset points", va="center"
        )
    axes.set_xlim(0, 1.12 * max(found.values()))
    note(figure, f"PED-ANOVA: what tells the best quarter of {len(groups)} trials from all")
    return figure


def importances(groups: Sequence[Group], labels: Sequence[str], mode: Mode) -> dict[str, float]:
    """Label -> share, of the settings that all groups have; {} if the groups are too few or all alike.

    By PED-ANOVA (Watanabe, Bansal, Hutter 2023) as Optuna has it, on trials made of the groups: the database of the
    search, which may be a stranger's, is not opened.
    """
    values = [group.value.mean for group in groups if group.value is not None]
    scales = {
        label: scale
        for label in labels
        if all(label in group.settings for group in groups)
        and len((scale := scale_of(group.settings[label] for group in groups)).places) > 1
    }
    if len(groups) < _LEAST or len(set(values)) < 2 or len(scales) < 2:
        return {}
    import optuna

    study = _study(mode)
    distributions: dict[str, Any] = {}
    for label, scale in scales.items():
        places = list(scale.places.values())
        distributions[label] = (
            optuna.distributions.FloatDistribution(min(places), max(places), log=scale.is_log)
            if scale.is_numeric
            else optuna.distributions.CategoricalDistribution(tuple(scale.places))
        )
    for group, value in zip(groups, values, strict=True):
        params: dict[str, Any] = {
            label: scale.places[group.settings[label]] if scale.is_numeric else group.settings[label]
            for label, scale in scales.items()
        }
        study.add_trial(optuna.trial.create_trial(params=params, distributions=distributions, value=value))
    evaluator = optuna.importance.PedAnovaImportanceEvaluator(target_quantile=_QUARTER)
    return dict(optuna.importance.get_param_importances(study, evaluator=evaluator))


def _study(mode: Mode) -> "optuna.Study":
    import optuna

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    return optuna.create_study(direction="maximize" if mode == "max" else "minimize")
