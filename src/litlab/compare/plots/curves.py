"""Figure of learning curves: mean over seeds or folds of each group by epoch, with interval; pruned runs faintly."""

import math
from collections.abc import Sequence
from dataclasses import replace
from statistics import fmean
from typing import Any

from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from litlab.compare.data_model import Comparison, Group, Run
from litlab.compare.plots.style import (
    FAINT,
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
from litlab.compare.summaries import summarize
from litlab.runs.directory import RunDirectory
from litlab.runs.metrics import Metric, iterate_rows

_MANY = 5  # bands, from which on they are fainter
_MAX_PRUNED = 100  # pruned runs with a curve


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
    names = legend_names(group.settings for group, *_ in drawn)
    finite = [dot for *_, dots in drawn for dot in dots if math.isfinite(dot.y)]
    pruned = [curve for run in comparison.pruned[:_MAX_PRUNED] if (curve := _read(run, metric))]
    if pruned:
        handles.append(_draw_pruned(axes, pruned, metric.scale))
        names.append(f"{len(pruned)} pruned")
    is_cut = set_y_limits(axes, finite, _near([dot.y for dot in finite], pruned, metric.scale))
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    longest = max(dots[-1].x for *_, dots in drawn)
    axes.set_xlim(1 - 0.03 * longest, 1.03 * longest)
    add_legend(figure, handles, names)
    num_groups, num_without = len(comparison.groups), sum(num for *_, num in curves)
    add_note(
        figure,
        f"{len(drawn)} of {num_groups} groups" if len(drawn) < num_groups else "",
        INTERVAL.format("bands") if any(dot.low < dot.high for dot in finite) else "",
        "bands cut" if is_cut else "",
        f"left out: {num_without} runs without a curve" if num_without else "",
        f"{_MAX_PRUNED} of {len(comparison.pruned)} pruned runs" if len(comparison.pruned) > _MAX_PRUNED else "",
    )
    return figure


def _curve(group: Group, metric: Metric) -> tuple[list[Dot], int]:
    """Average over seeds or folds as the table does: the value of one is its mean over what `--group` averages over.

    Returns:
        Dots for the epochs that all runs have reached, NaN where a run has no finite number; and the number of runs
        without a curve in their metrics.csv.
    """
    curves = [(run, curve) for run in group.runs if (curve := _read(run, metric))]
    epochs = sorted(set.intersection(*(set(curve) for _, curve in curves))) if curves else []
    by_unit: dict[object, list[dict[int, float]]] = {}
    for run, curve in curves:
        by_unit.setdefault(run.path if run.unit is None else run.unit, []).append(curve)
    # A group may have none because its seeds do not have the same settings.
    has_no_interval = group.value is not None and group.value.num > 1 and group.value.low is None
    dots = []
    for epoch in epochs:
        values = [fmean(curve[epoch] for curve in members) for members in by_unit.values()]
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


def _draw_pruned(axes: Any, curves: Sequence[dict[int, float]], scale: float) -> Any:
    """Draw curves below all others; return the handle for the legend."""
    for curve in curves:
        epochs, values = [epoch + 1 for epoch in curve], [value * scale for value in curve.values()]
        marker = "." if len(curve) == 1 else ""
        (line,) = axes.plot(epochs, values, color=FAINT, linewidth=0.7, marker=marker, alpha=0.6, zorder=1)
    return line


def _near(means: Sequence[float], curves: Sequence[dict[int, float]], scale: float) -> list[float]:
    """Return the values of curves that are at most as far from the means as these are from one another."""
    low, high = min(means), max(means)
    room = high - low or abs(high)
    values = (value * scale for curve in curves for value in curve.values())
    return [value for value in values if low - room <= value <= high + room]


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
