"""Figure of the importance of settings in a search.

Optuna computes the importances. Its matplotlib figures are not used: they change pyplot's global style
(`plt.style.use`) and leave figures open there, and have neither these fonts and colors nor reproducible bytes.
"""

from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from litlab.compare.data_model import Comparison, Group
from litlab.compare.plots.style import (
    COLORS,
    Interval,
    Scale,
    add_note,
    axis_label,
    drawable_groups,
    drawable_text,
    new_figure,
    scale_of,
)
from litlab.runs.metrics import Mode

_MIN_TRIALS = 10
_QUANTILE = 0.25  # of the best trials, which PED-ANOVA tells from all
_MAX_BARS = 20


def draw_importance(
    comparison: Comparison, searches: Collection[Path], searched: Mapping[str, Interval]
) -> Figure | None:
    """Draw the share of each setting in telling the best quarter of the trials from all; None if it is unknown."""
    if importance_problem(comparison, searches) is not None:
        return None
    groups = _trials(comparison, searches)
    shares = _importances(groups, _scales(groups, comparison.labels, searched), comparison.mode)
    names = sorted(shares, key=lambda name: (shares[name], name))[-_MAX_BARS:]
    label = f"importance of settings for {axis_label(comparison.metric)}"
    figure = new_figure(label, height=max(1.6, 0.9 + 0.24 * len(names)))
    axes = figure.add_subplot(xlabel="importance (share)")
    bars = axes.barh(range(len(names)), [shares[name] for name in names], height=0.6, color=COLORS[0])
    axes.bar_label(bars, fmt="%.2f", padding=3)
    axes.set_yticks(range(len(names)), [drawable_text(name, 30) for name in names])
    axes.grid(visible=False, axis="y")
    axes.tick_params("y", length=0)
    axes.set_xlim(0, 1.12 * max(shares.values()))
    add_note(figure, f"PED-ANOVA: the best quarter of {len(groups)} trials against all")
    return figure


def importance_problem(comparison: Comparison, searches: Collection[Path]) -> str | None:
    """Return why the importance of the settings of a search is unknown; None if it is known."""
    groups = _trials(comparison, searches)
    if len(groups) < _MIN_TRIALS:
        return f"it needs at least {_MIN_TRIALS} trials with a value, and there are {len(groups)}"
    if len({group.value.mean for group in groups if group.value is not None}) < 2:
        return "all trials have the same value"
    if len(_scales(groups, comparison.labels, {})) < 2:
        return "it needs at least two settings that vary and that all trials have"
    return None


def _trials(comparison: Comparison, searches: Collection[Path]) -> list[Group]:
    return [group for group in drawable_groups(comparison) if any(run.study in searches for run in group.runs)]


def _scales(groups: Sequence[Group], labels: Sequence[str], searched: Mapping[str, Interval]) -> dict[str, Scale]:
    """Return the scales of the settings that vary and that all groups have."""
    return {
        label: scale
        for label in labels
        if all(label in group.settings for group in groups)
        and len((scale := scale_of((group.settings[label] for group in groups), searched.get(label))).positions) > 1
    }


def _importances(groups: Sequence[Group], scales: Mapping[str, Scale], mode: Mode) -> dict[str, float]:
    """Compute label -> share.

    It is PED-ANOVA (Watanabe, Bansal, Hutter 2023) of Optuna on trials made of the groups: the database of the search,
    which may be untrusted, is not opened.
    """
    import optuna

    values = [group.value.mean for group in groups if group.value is not None]
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
