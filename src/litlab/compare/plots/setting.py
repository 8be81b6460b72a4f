"""The metric against one setting: means with intervals, and the single runs; a line where others vary little."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from matplotlib.figure import Figure

from litlab.compare.model import Comparison, Group
from litlab.compare.plots.axes import Scale, frame, scale_of, set_scale
from litlab.compare.plots.style import (
    INTERVAL,
    Dot,
    Look,
    by_value,
    dot,
    draw_dots,
    draw_runs,
    legend_below,
    look,
    measure,
    names_of,
    new_figure,
    note,
    printed,
)

MOST_LINES = 6
MOST_NAMES = 20  # of a setting that is no number
_WIDTH = 0.6  # of a name's place on the axis


@dataclass(frozen=True)
class Series:
    """Groups that differ in the setting alone; or all, where that would be too many lines.

    Attributes:
        others: the other settings that vary.
        places: on the axis of the setting, one a group.
    """

    others: Mapping[str, str]
    groups: Sequence[Group]
    places: Sequence[float]
    look: Look
    is_joined: bool


def draw_setting(comparison: Comparison, label: str, values: Mapping[Path, float]) -> Figure | None:
    """None if fewer than two values of the setting have results.

    Args:
        values: directory of a run -> its value of the metric.
    """
    groups, num_values = _shown([group for group in by_value(comparison) if label in group.settings], label)
    scale = scale_of(group.settings[label] for group in groups)
    if len(scale.places) < 2:
        return None
    value = measure(comparison.metric)
    figure = new_figure(f"{value.label} against {printed(label)}")
    axes = figure.add_subplot(xlabel=printed(label), ylabel=value.label)
    series, handles = series_of(comparison, groups, label, scale), []
    dots: list[Dot] = []
    runs: list[float] = []
    for each in series:
        singles, means = _runs(each, values, value.factor), _means(each, value.factor)
        draw_runs(axes, singles, each.look)
        handles.append(draw_dots(axes, means, each.look, dashes=each.look.dashes if each.is_joined else "none"))
        dots += means
        runs += [height for _, height in singles]
    set_scale(axes, scale)
    lows, highs = [each.low for each in dots], [each.high for each in dots]
    is_cut = frame(axes, [*runs, *(each.y for each in dots)], lows, highs)
    if len(series) > 1:
        legend_below(figure, handles, names_of([each.others for each in series], otherwise="no other setting"))
    note(
        figure,
        f"{len(scale.places)} of {num_values} values" if len(scale.places) < num_values else "",
        INTERVAL.format("bars") if any(each.low < each.high for each in dots) else "",
        "bars cut" if is_cut else "",
    )
    return figure


def _shown(groups: Sequence[Group], label: str) -> tuple[list[Group], int]:
    """Of names no more than can be read, those of the best groups; and how many values there are."""
    texts = list(dict.fromkeys(group.settings[label] for group in groups))
    if not texts or scale_of(texts).is_numeric:
        return list(groups), len(texts)
    kept = set(texts[:MOST_NAMES])
    return [group for group in groups if group.settings[label] in kept], len(texts)


def series_of(comparison: Comparison, groups: Sequence[Group], label: str, scale: Scale) -> list[Series]:
    """What is drawn as one, in the order of the other settings; within each the groups as they stand on the axis."""
    labels = [each for each in comparison.labels if each != label]
    orders = {each: list(scale_of(group.settings.get(each, "") for group in groups).places) for each in labels}
    found: dict[tuple[int, ...], list[Group]] = {}
    for group in sorted(groups, key=lambda group: scale.places[group.settings[label]]):
        found.setdefault(tuple(orders[each].index(group.settings.get(each, "")) for each in labels), []).append(group)
    if len(found) > MOST_LINES:
        members = sorted(groups, key=lambda group: scale.places[group.settings[label]])
        return [Series({}, members, _spread(members, label, scale), look(0), is_joined=False)]
    return [
        Series(
            {each: members[0].settings[each] for each in labels if each in members[0].settings},
            members,
            [scale.places[group.settings[label]] + _offset(scale, place, len(found)) for group in members],
            look(place),
            is_joined=scale.is_numeric,
        )
        for place, (_, members) in enumerate(sorted(found.items()))
    ]


def _spread(groups: Sequence[Group], label: str, scale: Scale) -> list[float]:
    """Places side by side of groups that have the same name; on an axis of numbers each is where it is."""
    counts, places = Counter(group.settings[label] for group in groups), []
    taken: Counter[str] = Counter()
    for group in groups:
        text = group.settings[label]
        places.append(scale.places[text] + _offset(scale, taken[text], counts[text]))
        taken[text] += 1
    return places


def _offset(scale: Scale, place: int, num: int) -> float:
    return 0.0 if scale.is_numeric else _WIDTH * ((place + 0.5) / num - 0.5)


def _means(series: Series, factor: float) -> list[Dot]:
    return [
        dot(place, group.value, factor)
        for place, group in zip(series.places, series.groups, strict=True)
        if group.value is not None
    ]


def _runs(series: Series, values: Mapping[Path, float], factor: float) -> list[tuple[float, float]]:
    """Of groups of more than one, whose mean would hide a single run."""
    return [
        (place, values[run.path] * factor)
        for place, group in zip(series.places, series.groups, strict=True)
        if len(group.runs) > 1
        for run in group.runs
        if run.path in values
    ]
