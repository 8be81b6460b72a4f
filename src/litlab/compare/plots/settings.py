"""Figures of the metric by settings: one on an axis, two in a heat map, many in parallel coordinates."""

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from litlab.compare.data_model import Comparison, Group
from litlab.compare.plots.style import (
    COLOR_MAP,
    INTERVAL,
    MAX_SHAPES,
    Dot,
    Interval,
    Scale,
    add_legend,
    add_note,
    axis_label,
    draw_dots,
    draw_runs,
    drawable_groups,
    drawable_text,
    legend_names,
    line_style,
    make_dot,
    new_figure,
    scale_of,
    set_x_scale,
    set_y_limits,
)
from litlab.compare.table import decimals, fixed

MAX_LINES = 6  # in the figure of one setting
MAX_NAMES = 20  # of a setting that is not a number
_NAME_WIDTH = 0.6  # of the distance between two names
_MIN_FILLED = 0.75  # share of cells with a group
_MAX_CELLS = 40  # a side
_MAX_WRITTEN = 8  # columns of a heat map with room for a number
_MIN_AXES, _MAX_AXES = 3, 8  # of parallel coordinates
_MAX_TICKS = 8  # of such an axis
Means = np.ndarray[Any, np.dtype[np.float64]]  # [rows, columns], in the unit of the axis; NaN without a group


def draw_setting(
    comparison: Comparison, label: str, values: Mapping[Path, float], searched: Mapping[str, Interval]
) -> Figure | None:
    """Draw means with intervals, and the single runs, against a setting; None if fewer than two values have results.

    Args:
        comparison: Comparison to draw.
        label: Label of the setting.
        values: Directory of a run -> its value of the metric.
        searched: Label -> interval, of the settings that a search draws from one; lines would join unrelated trials.
    """
    metric = comparison.metric
    groups = [group for group in drawable_groups(comparison) if label in group.settings]
    texts = list(dict.fromkeys(group.settings[label] for group in groups))
    if texts and not scale_of(texts).is_numeric:  # more names could not be read
        groups = [group for group in groups if group.settings[label] in texts[:MAX_NAMES]]
    scale = scale_of((group.settings[label] for group in groups), searched.get(label))
    if len(scale.positions) < 2:
        return None
    name = drawable_text(label)
    figure = new_figure(f"{axis_label(metric)} against {name}")
    axes = figure.add_subplot(xlabel=name, ylabel=axis_label(metric))
    others = [other for other in comparison.labels if other != label and other not in searched]
    all_series = _series(groups, label, others)
    is_joined = scale.is_numeric and not searched and len(all_series) <= MAX_LINES
    if len(all_series) > MAX_LINES:
        all_series = [sorted(groups, key=lambda group: scale.positions[group.settings[label]])]
    handles: list[Any] = []
    dots: list[Dot] = []
    heights: list[float] = []
    for index, (members, positions) in enumerate(zip(all_series, _positions(all_series, label, scale), strict=True)):
        style = line_style(index)
        runs: list[tuple[float, float]] = []
        means: list[Dot] = []
        for x, group in zip(positions, members, strict=True):
            if len(group.runs) > 1:  # the mean would hide a single run
                runs += [(x, values[run.path] * metric.scale) for run in group.runs if run.path in values]
            if group.value is not None:
                means.append(make_dot(x, group.value, metric.scale))
        draw_runs(axes, runs, style)
        handles.append(draw_dots(axes, means, style, dashes=style.dashes if is_joined else "none"))
        dots += means
        heights += [y for _, y in runs]
    set_x_scale(axes, scale)
    is_cut = set_y_limits(axes, dots, heights)
    if len(all_series) > 1:
        names = [
            {other: text for other, text in members[0].settings.items() if other in others} for members in all_series
        ]
        add_legend(figure, handles, legend_names(names, "no other setting"))
    add_note(
        figure,
        f"{len(scale.positions)} of {len(texts)} values" if len(scale.positions) < len(texts) else "",
        INTERVAL.format("bars") if any(dot.low < dot.high for dot in dots) else "",
        "bars cut" if is_cut else "",
    )
    return figure


def _series(groups: Sequence[Group], label: str, others: Sequence[str]) -> list[list[Group]]:
    """Return groups that are equal in the other settings, in the order of these, each in the order of the axis."""
    orders = {
        name: list(scale_of(group.settings.get(name, "") for group in groups).positions) for name in (label, *others)
    }

    def position(group: Group, label: str) -> int:
        return orders[label].index(group.settings.get(label, ""))

    series: dict[tuple[int, ...], list[Group]] = {}
    for group in sorted(groups, key=lambda group: position(group, label)):
        key = tuple(position(group, other) for other in others)
        series.setdefault(key, []).append(group)
    return [members for _, members in sorted(series.items())]


def _positions(all_series: Sequence[Sequence[Group]], label: str, scale: Scale) -> list[list[float]]:
    """Return the position of each group: series, or the groups of the only one, side by side if they have names."""
    counts = Counter(group.settings[label] for group in all_series[0])
    num_placed: Counter[str] = Counter()
    positions: list[list[float]] = [[] for _ in all_series]
    for index, members in enumerate(all_series):
        for group in members:
            text = group.settings[label]
            part, num = (index, len(all_series)) if len(all_series) > 1 else (num_placed[text], counts[text])
            num_placed[text] += 1
            offset = 0.0 if scale.is_numeric else _NAME_WIDTH * ((part + 0.5) / num - 0.5)
            positions[index].append(scale.positions[text] + offset)
    return positions


def draw_heatmap(comparison: Comparison) -> Figure | None:
    """Draw the grid of two settings; None unless exactly two vary and their grid is nearly full."""
    grid = _grid(comparison) if len(comparison.labels) == 2 else None
    if grid is None:
        return None
    columns, rows, means = grid
    across, up = map(drawable_text, comparison.labels)
    label = axis_label(comparison.metric)
    figure = new_figure(f"{label} by {across} and {up}", height=min(4.6, max(2.7, 0.9 + 0.42 * len(rows))))
    axes = figure.add_subplot(xlabel=across, ylabel=up)
    axes.grid(visible=False)
    axes.spines[:].set_visible(False)
    axes.set_facecolor("#eeeeee")  # of cells without a group
    cells = axes.pcolormesh(means, cmap=COLOR_MAP, edgecolors="white", linewidth=1)
    figure.colorbar(cells, ax=axes, label=label).outline.set_visible(False)
    axes.set_xticks(np.arange(len(columns)) + 0.5, [drawable_text(text, 16) for text in columns])
    axes.set_yticks(np.arange(len(rows)) + 0.5, [drawable_text(text, 24) for text in rows])
    axes.tick_params(length=0)
    if max(map(len, columns)) * len(columns) > 50:
        axes.tick_params("x", rotation=40)
    if len(columns) <= _MAX_WRITTEN and len(rows) <= 2 * _MAX_WRITTEN:
        _write_means(cells, means, decimals(comparison.metric, [group.value for group in comparison.groups]))
    num_empty = np.isnan(means).sum()
    add_note(figure, "means over runs", f"{num_empty} cells without a result" if num_empty else "")
    return figure


def _grid(comparison: Comparison) -> tuple[Sequence[str], Sequence[str], Means] | None:
    """Return columns, rows and means; None if there are too few or many cells, many empty ones, or a shared one."""
    across, up = comparison.labels
    groups = [group for group in drawable_groups(comparison) if across in group.settings and up in group.settings]
    columns, rows = ([*scale_of(group.settings[label] for group in groups).positions] for label in (across, up))
    if min(len(columns), len(rows)) < 2 or max(len(columns), len(rows)) > _MAX_CELLS:
        return None
    means = np.full((len(rows), len(columns)), np.nan)
    for group in groups:
        assert group.value is not None
        cell = rows.index(group.settings[up]), columns.index(group.settings[across])
        if not np.isnan(means[cell]):
            return None
        means[cell] = group.value.mean * comparison.metric.scale
    return (columns, rows, means) if len(groups) >= _MIN_FILLED * means.size else None


def _write_means(cells: Any, means: Means, places: int) -> None:
    """Write the mean into each cell, in black on light ones."""
    for (row, column), mean in np.ndenumerate(means):
        if np.isfinite(mean):
            red, green, blue, _ = cells.to_rgba(mean)
            color = "black" if 0.299 * red + 0.587 * green + 0.114 * blue > 0.5 else "white"
            cells.axes.text(column + 0.5, row + 0.5, fixed(float(mean), places), ha="center", va="center", color=color)


def draw_parallel(comparison: Comparison, searched: Mapping[str, Interval]) -> Figure | None:
    """Draw a line for each group over the settings that vary, colored by the metric; None if fewer than three vary."""
    groups = drawable_groups(comparison)
    varying = {
        label: scale
        for label in comparison.labels
        if len((scale := scale_of(_texts(groups, label), searched.get(label))).positions) > 1
    }
    if len(varying) < _MIN_AXES or len(groups) < 2:
        return None
    scales = dict(list(varying.items())[:_MAX_AXES])
    label = axis_label(comparison.metric)
    figure = new_figure(f"{label} of {len(groups)} groups by {len(scales)} settings")
    axes = figure.add_subplot()
    axes.grid(visible=False)
    axes.spines[:].set_visible(False)
    axes.set(xlim=(-0.25, len(scales) - 0.75), ylim=(-0.04, 1.04), yticks=[])
    axes.set_xticks(range(len(scales)), [drawable_text(name, 18) for name in scales])
    axes.tick_params("x", length=0, pad=6)
    if sum(min(len(name), 18) for name in scales) > 60:
        axes.tick_params("x", rotation=20)
    for x, scale in enumerate(scales.values()):
        _draw_axis(axes, x, scale)
    drawn = groups[:: math.ceil(len(groups) / MAX_SHAPES)]
    lines = _draw_lines(axes, drawn, scales, comparison)
    figure.colorbar(lines, ax=axes, label=label, pad=0.01).outline.set_visible(False)
    add_note(
        figure,
        f"{len(scales)} of {len(varying)} settings" if len(scales) < len(varying) else "",
        f"{len(drawn)} of {len(groups)} groups, evenly by their rank" if len(drawn) < len(groups) else "",
        "the best in the thickest line",
    )
    return figure


def _texts(groups: Sequence[Group], label: str) -> list[str]:
    return [group.settings[label] for group in groups if label in group.settings]


def _draw_lines(axes: Any, groups: Sequence[Group], scales: dict[str, Scale], comparison: Comparison) -> Any:
    """Draw the best group last, above the others, and darkest, since the page is white."""
    from matplotlib.collections import LineCollection

    drawn = groups[::-1]
    paths = [
        [
            (x, _height(scale, group.settings[label]) if label in group.settings else math.nan)
            for x, (label, scale) in enumerate(scales.items())
        ]
        for group in drawn
    ]
    lines = LineCollection(
        paths,
        array=[group.value.mean * comparison.metric.scale for group in drawn if group.value is not None],
        cmap=f"{COLOR_MAP}_r" if comparison.mode == "max" else COLOR_MAP,
        linewidths=[0.9] * (len(drawn) - 1) + [2.6],
    )
    return axes.add_collection(lines, autolim=False)


def _height(scale: Scale, text: str) -> float:
    """Return the position of a value on its axis, from 0 to 1."""
    heights = {value: math.log(position) if scale.is_log else position for value, position in scale.positions.items()}
    low, high = min(heights.values()), max(heights.values())
    return (heights[text] - low) / (high - low)


def _draw_axis(axes: Any, x: int, scale: Scale) -> None:
    """Draw an axis with all values at it if they are few and apart, else some of them with the ends."""
    axes.plot([x, x], [0, 1], color="#444444", linewidth=0.8, zorder=3)
    *texts, last = sorted(scale.positions, key=lambda text: scale.positions[text])
    ticks = texts[:1]
    for text in texts[1:]:
        height = _height(scale, text)
        if min(height - _height(scale, ticks[-1]), _height(scale, last) - height) >= 1 / _MAX_TICKS:
            ticks.append(text)
    for text in (*ticks, last):
        axes.annotate(
            f"{scale.positions[text]:.3g}" if scale.is_numeric else drawable_text(text, 16),
            (x, _height(scale, text)),
            xytext=(-3, 0),
            textcoords="offset points",
            ha="right",
            va="center",
            fontsize=7,
            zorder=4,
            bbox={"facecolor": "white", "alpha": 0.75, "edgecolor": "none", "pad": 0.6},
        )
