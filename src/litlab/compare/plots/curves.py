"""Figure of learning curves: mean over the seeds of each group by epoch, with its interval."""

import math
from collections.abc import Sequence
from dataclasses import replace
from statistics import fmean
from typing import Any

from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from litlab.compare.data_model import Comparison, Group, Run
from litlab.compare.plots.style import (
    INTERVAL,
    Dot,
    LineStyle,
    StyledGroup,
    add_legend,
    add_note,
    axis_label,
    is_drawable,
    legend_names,
    make_dot,
    new_figure,
    set_y_limits,
)
from litlab.compare.statistics import summarize
from litlab.runs.directory import RunDirectory
from litlab.runs.metrics import Metric, iterate_rows

_MANY = 5  # bands, from which on they are fainter


def draw_curves(comparison: Comparison, selected: Sequence[StyledGroup]) -> Figure | None:
    """Draw the curves of groups; None if no run has one."""
    metric = comparison.metric
    curves = [(group, style, *_curve(group, metric)) for group, style in selected]
    drawn = [(group, style, dots) for group, style, dots, _ in curves if any(math.isfinite(dot.y) for dot in dots)]
    if not drawn:
        return None
    figure = new_figure(f"{axis_label(metric)} against epoch")
    axes = figure.add_subplot(xlabel="epoch", ylabel=axis_label(metric))
    alpha = 0.15 if len(drawn) < _MANY else 0.08
    handles = [_draw(axes, dots, style, alpha) for _, style, dots in drawn]
    finite = [dot for *_, dots in drawn for dot in dots if math.isfinite(dot.y)]
    is_cut = set_y_limits(axes, finite)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    longest = max(dots[-1].x for *_, dots in drawn)
    axes.set_xlim(1 - 0.03 * longest, 1.03 * longest)
    add_legend(figure, handles, legend_names(group.settings for group, *_ in drawn))
    num_groups, num_without = len(comparison.groups), sum(num for *_, num in curves)
    add_note(
        figure,
        f"{len(drawn)} of {num_groups} groups" if len(drawn) < num_groups else "",
        INTERVAL.format("bands") if any(dot.low < dot.high for dot in finite) else "",
        "bands cut" if is_cut else "",
        f"left out: {num_without} runs without a curve" if num_without else "",
    )
    return figure


def _curve(group: Group, metric: Metric) -> tuple[list[Dot], int]:
    """Average over seeds as the table does: with `--group`, the value of a seed is its mean over the settings.

    Returns:
        Dots for the epochs that all runs have reached, NaN where a run has no finite number; and the number of runs
        without a curve in their metrics.csv.
    """
    curves = [(run, curve) for run in group.runs if (curve := _read(run, metric))]
    epochs = sorted(set.intersection(*(set(curve) for _, curve in curves))) if curves else []
    by_seed: dict[object, list[dict[int, float]]] = {}
    for run, curve in curves:
        by_seed.setdefault(run.path if run.seed is None else run.seed, []).append(curve)
    # A group may have none because its seeds do not have the same settings.
    has_no_interval = group.value is not None and group.value.num > 1 and group.value.low is None
    dots = []
    for epoch in epochs:
        values = [fmean(curve[epoch] for curve in members) for members in by_seed.values()]
        if not all(map(math.isfinite, values)):
            dots.append(Dot(epoch + 1, math.nan, math.nan, math.nan))
            continue
        summary = summarize(values, metric)
        summary = replace(summary, low=None, high=None) if has_no_interval else summary
        dots.append(make_dot(epoch + 1, summary, metric.scale))
    return dots, len(group.runs) - len(curves)


def _read(run: Run, metric: Metric) -> dict[int, float]:
    """Read epoch, from 0 -> last value in it."""
    rows = iterate_rows(RunDirectory(run.path).metrics, [metric.name])
    return {row.epoch: row.value if is_drawable(row.value) else math.nan for row in rows}


def _draw(axes: Any, dots: Sequence[Dot], style: LineStyle, alpha: float) -> Any:
    """Draw a curve with its band; return the handle for the legend."""
    epochs, means, lows, highs = zip(*dots, strict=True)
    if any(dot.low < dot.high for dot in dots):
        axes.fill_between(epochs, lows, highs, color=style.color, alpha=alpha, linewidth=0)
    (line,) = axes.plot(
        epochs,
        means,
        color=style.color,
        linestyle=style.dashes,
        marker=style.marker,
        markevery=max(1, len(dots) // 8),
    )
    return line
