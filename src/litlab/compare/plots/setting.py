"""Figure of the metric against one setting: means with intervals, and the single runs."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from matplotlib.figure import Figure

from litlab.compare.model import Comparison, Group
from litlab.compare.plots.axes import Scale, scale_of, set_x_scale, set_y_limits
from litlab.compare.plots.style import (
    INTERVAL,
    Dot,
    LineStyle,
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
)

MAX_LINES = 6
MAX_NAMES = 20  # of a setting that is not a number
_WIDTH = 0.6  # of a name's place on the axis


@dataclass(frozen=True)
class Series:
    """Groups that differ in the setting alone; or all groups, if that would be too many lines.

    Attributes:
        others: Other settings that vary.
        positions: Position of each group on the axis of the setting.
    """

    others: Mapping[str, str]
    groups: Sequence[Group]
    positions: Sequence[float]
    style: LineStyle
    is_joined: bool


def draw_setting(comparison: Comparison, label: str, values: Mapping[Path, float]) -> Figure | None:
    """Draw the metric against a setting; None if fewer than two of its values have results.

    Args:
        comparison: Comparison to draw.
        label: Label of the setting.
        values: Directory of a run -> its value of the metric.
    """
    metric = comparison.metric
    groups, num_values = _readable([group for group in drawable_groups(comparison) if label in group.settings], label)
    scale = scale_of(group.settings[label] for group in groups)
    if len(scale.positions) < 2:
        return None
    name = drawable_text(label)
    figure = new_figure(f"{axis_label(metric)} against {name}")
    axes = figure.add_subplot(xlabel=name, ylabel=axis_label(metric))
    all_series, handles = _series(comparison, groups, label, scale), []
    dots: list[Dot] = []
    heights: list[float] = []
    for series in all_series:
        runs: list[tuple[float, float]] = []
        means: list[Dot] = []
        for x, group in zip(series.positions, series.groups, strict=True):
            if len(group.runs) > 1:  # the mean would hide a single run
                runs += [(x, values[run.path] * metric.scale) for run in group.runs if run.path in values]
            if group.value is not None:
                means.append(make_dot(x, group.value, metric.scale))
        draw_runs(axes, runs, series.style)
        handles.append(draw_dots(axes, means, series.style, dashes=series.style.dashes if series.is_joined else "none"))
        dots += means
        heights += [y for _, y in runs]
    set_x_scale(axes, scale)
    lows, highs = [dot.low for dot in dots], [dot.high for dot in dots]
    is_cut = set_y_limits(axes, [*heights, *(dot.y for dot in dots)], lows, highs)
    if len(all_series) > 1:
        add_legend(figure, handles, legend_names([series.others for series in all_series], "no other setting"))
    add_note(
        figure,
        f"{len(scale.positions)} of {num_values} values" if len(scale.positions) < num_values else "",
        INTERVAL.format("bars") if any(dot.low < dot.high for dot in dots) else "",
        "bars cut" if is_cut else "",
    )
    return figure


def _readable(groups: Sequence[Group], label: str) -> tuple[list[Group], int]:
    """Return the groups whose names can be read on the axis, the best first, and the number of all values."""
    texts = list(dict.fromkeys(group.settings[label] for group in groups))
    if not texts or scale_of(texts).is_numeric:
        return list(groups), len(texts)
    kept = set(texts[:MAX_NAMES])
    return [group for group in groups if group.settings[label] in kept], len(texts)


def _series(comparison: Comparison, groups: Sequence[Group], label: str, scale: Scale) -> list[Series]:
    """Return the series in the order of the other settings, with their groups in the order of the axis."""
    labels = [other for other in comparison.labels if other != label]
    orders = {other: list(scale_of(group.settings.get(other, "") for group in groups).positions) for other in labels}
    ordered = sorted(groups, key=lambda group: scale.positions[group.settings[label]])
    by_others: dict[tuple[int, ...], list[Group]] = {}
    for group in ordered:
        key = tuple(orders[other].index(group.settings.get(other, "")) for other in labels)
        by_others.setdefault(key, []).append(group)
    if len(by_others) > MAX_LINES:
        return [Series({}, ordered, _spread(ordered, label, scale), line_style(0), is_joined=False)]
    return [
        Series(
            {other: members[0].settings[other] for other in labels if other in members[0].settings},
            members,
            [scale.positions[group.settings[label]] + _offset(scale, index, len(by_others)) for group in members],
            line_style(index),
            is_joined=scale.is_numeric,
        )
        for index, (_, members) in enumerate(sorted(by_others.items()))
    ]


def _spread(groups: Sequence[Group], label: str, scale: Scale) -> list[float]:
    """Place groups with the same name side by side; numbers stay at their position."""
    counts, positions = Counter(group.settings[label] for group in groups), []
    num_placed: Counter[str] = Counter()
    for group in groups:
        text = group.settings[label]
        positions.append(scale.positions[text] + _offset(scale, num_placed[text], counts[text]))
        num_placed[text] += 1
    return positions


def _offset(scale: Scale, index: int, num: int) -> float:
    return 0.0 if scale.is_numeric else _WIDTH * ((index + 0.5) / num - 0.5)
