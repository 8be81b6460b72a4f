"""Figure of learning curves: mean over the seeds of each group by epoch, with its interval."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from statistics import fmean
from typing import Any

from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from litlab.compare.data_model import Comparison, Group, Run, Summary
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


@dataclass(frozen=True)
class Curve:
    """Learning curve of a group.

    Attributes:
        epochs: Epochs that all of its runs have reached, counted from 1.
        values: Summary over the runs for each epoch; None if one of them has no finite number.
        num_without: Number of runs that have no such curve in their metrics.csv.
    """

    epochs: Sequence[int]
    values: Sequence[Summary | None]
    num_without: int

    def dots(self, scale: float) -> list[Dot]:
        """Return the mean with its interval for all epochs; NaN if there is none."""
        return [
            Dot(epoch, math.nan, math.nan, math.nan) if value is None else make_dot(epoch, value, scale)
            for epoch, value in zip(self.epochs, self.values, strict=True)
        ]


def draw_curves(comparison: Comparison, selected: Sequence[StyledGroup]) -> Figure | None:
    """Draw the curves of groups; None if no run has one."""
    metric = comparison.metric
    curves = [(group, style, curve_of(group, metric)) for group, style in selected]
    drawn = [(group, style, curve.dots(metric.scale)) for group, style, curve in curves if any(curve.values)]
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
    num_groups, num_without = len(comparison.groups), sum(curve.num_without for *_, curve in curves)
    add_note(
        figure,
        f"{len(drawn)} of {num_groups} groups" if len(drawn) < num_groups else "",
        INTERVAL.format("bands") if any(dot.low < dot.high for dot in finite) else "",
        "bands cut" if is_cut else "",
        f"left out: {num_without} runs without a curve" if num_without else "",
    )
    return figure


def curve_of(group: Group, metric: Metric) -> Curve:
    """Average over seeds as the table does: with `--group`, the value of a seed is its mean over the settings."""
    curves = [(run, curve) for run in group.runs if (curve := _read(run, metric))]
    epochs = sorted(set.intersection(*(set(curve) for _, curve in curves))) if curves else []
    by_seed: dict[object, list[dict[int, float]]] = {}
    for run, curve in curves:
        by_seed.setdefault(run.path if run.seed is None else run.seed, []).append(curve)
    # A group may have none because its seeds do not have the same settings.
    has_no_interval = group.value is not None and group.value.num > 1 and group.value.low is None
    summaries = []
    for epoch in epochs:
        values = [fmean(curve[epoch] for curve in members) for members in by_seed.values()]
        summary = summarize(values, metric) if all(map(math.isfinite, values)) else None
        summaries.append(replace(summary, low=None, high=None) if summary and has_no_interval else summary)
    return Curve([epoch + 1 for epoch in epochs], summaries, len(group.runs) - len(curves))


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
