"""The metric against one setting: means with intervals, and the single runs; a line where others vary little."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from litlab.compare.model import Comparison, Group
from litlab.compare.plots.chosen import by_value
from litlab.compare.plots.dots import Dot, dot, draw_dots, draw_runs
from litlab.compare.plots.scales import Scale, frame, scale_of, set_scale
from litlab.compare.plots.style import (
    INTERVAL,
    Measure,
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
Others = tuple[tuple[str, str], ...]  # the other settings that vary


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
    series = _series(comparison, groups, label)
    dots: list[Dot] = []
    handles = []
    for index, (others, members) in enumerate(series.items()):
        offset = 0.0 if scale.is_numeric else _WIDTH * ((index + 0.5) / len(series) - 0.5)
        members = sorted(members, key=lambda group: scale.places[group.settings[label]])
        of_line = _dots(members, label, scale, offset, value)
        _draw_runs(axes, members, label, scale, offset, values, value.factor, look(index).colour)
        dashes = look(index).dashes if scale.is_numeric and others is not None else "none"
        handles.append(draw_dots(axes, of_line, look(index), dashes=dashes))
        dots += of_line
    set_scale(axes, scale)
    singles = [values[run.path] * value.factor for group in groups for run in group.runs if run.path in values]
    heights, lows, highs = [each.y for each in dots], [each.low for each in dots], [each.high for each in dots]
    is_cut = frame(axes, [*heights, *singles], lows, highs)
    names = [" ".join(f"{key}={text}" for key, text in others or ()) for others in series]
    if len(series) > 1:
        legend_below(figure, handles, names_of(names))
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


def _series(comparison: Comparison, groups: Sequence[Group], label: str) -> dict[Others | None, list[Group]]:
    """The other settings -> groups; all under None where that would be too many lines."""
    found: dict[Others | None, list[Group]] = {}
    labels = [each for each in comparison.labels if each != label]
    scales = {each: scale_of(group.settings[each] for group in groups if each in group.settings) for each in labels}
    places = {each: list(scale.places) for each, scale in scales.items()}
    for group in sorted(groups, key=lambda group: [_place(group.settings.get(each), places[each]) for each in labels]):
        others = tuple((each, group.settings[each]) for each in labels if each in group.settings)
        found.setdefault(others, []).append(group)
    return found if len(found) <= MOST_LINES else {None: list(groups)}


def _place(text: str | None, known: Sequence[str]) -> int:
    return -1 if text is None else known.index(text)


def _dots(groups: Sequence[Group], label: str, scale: Scale, offset: float, value: Measure) -> list[Dot]:
    return [
        dot(scale.places[group.settings[label]] + offset, group.value, value.factor)
        for group in groups
        if group.value is not None
    ]


def _draw_runs(
    axes: Any,
    groups: Sequence[Group],
    label: str,
    scale: Scale,
    offset: float,
    values: Mapping[Path, float],
    factor: float,
    colour: str,
) -> None:
    """Of groups of more than one, which would hide a single run."""
    found = [
        (scale.places[group.settings[label]] + offset, values[run.path] * factor)
        for group in groups
        if len(group.runs) > 1
        for run in group.runs
        if run.path in values
    ]
    if found:
        places, heights = zip(*found, strict=True)
        draw_runs(axes, places, heights, colour)
