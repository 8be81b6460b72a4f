"""Forest plots of an ablation: differences from the full recipe, and interactions of pairs, with their intervals."""

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

from matplotlib.figure import Figure

from litlab.compare.ablation import ALL, FULL, pair_name
from litlab.compare.data_model import Comparison, Difference, Group, overrides_of
from litlab.compare.plots.style import COLORS, add_note, drawable_text, is_drawable, new_figure
from litlab.compare.table import decimals, fixed, unit_of_differences
from litlab.statistics.student_t import CONFIDENCE

MAX_ROWS = 40
_MAX_NAME, _MAX_DETAIL = 28, 32  # characters
_MAX_LINES = 3  # of overrides
_NAME, _DETAIL, _SPACE, _MARGIN = 0.13, 0.1, 0.14, 0.8  # inches: height of a line, between rows, of the axis with label
_MAX_WIDTH = 3.0  # of the shown part of an interval, relative to the range of the means: that of two seeds is huge


class Row(NamedTuple):
    """A row of a forest plot: its name with lines of details below, and the difference that is drawn beside.

    Attributes:
        is_apart: True if more space is above it.
    """

    name: str
    details: Sequence[str]
    difference: Difference
    is_apart: bool = False

    @property
    def height(self) -> float:
        """Height of its texts in inches."""
        return _NAME + _DETAIL * len(self.details)


def draw_ablation(comparison: Comparison) -> Figure | None:
    """Draw the difference of each change from the full recipe, the most harmful on top; None if there is none."""
    rows = [
        Row(group.name, _details(group), group.difference, is_apart=group.name == ALL)
        for group in comparison.groups
        if group.difference is not None and group.name != FULL
    ]
    return _draw(comparison, rows, f"difference in {_label(comparison)} from the full recipe")


def draw_interactions(comparison: Comparison) -> Figure | None:
    """Draw the interaction of each pair of changes; None if there is none."""
    rows = [
        Row(pair_name(pair), (), pair.interaction.difference)
        for pair in comparison.pairs
        if pair.interaction is not None
    ]
    return _draw(comparison, rows, f"interaction in {_label(comparison)}")


def _details(group: Group) -> list[str]:
    """Return the overrides of a change, one a line, as many as have room."""
    overrides = [] if group.name == ALL else overrides_of(group.runs)
    num_shown = _MAX_LINES if len(overrides) <= _MAX_LINES else _MAX_LINES - 1
    more = [f"and {len(overrides) - num_shown} more"] * (len(overrides) > num_shown)
    return [*(drawable_text(line, _MAX_DETAIL) for line in overrides[:num_shown]), *more]


def _label(comparison: Comparison) -> str:
    return drawable_text(comparison.metric.label)


def _draw(comparison: Comparison, rows: Sequence[Row], label: str) -> Figure | None:
    rows = [row for row in rows if is_drawable(row.difference.mean)]
    shown = rows[:MAX_ROWS]
    if not shown:
        return None
    metric = comparison.metric
    unit = unit_of_differences(metric)
    heights = _heights(shown)  # in inches, which are the unit of the axis
    bottom = heights[-1] - shown[-1].height / 2 - _SPACE
    figure = new_figure(label, height=_MARGIN - bottom)
    axes = figure.add_subplot()
    figure.supxlabel(label + (f" ({unit})" if unit else ""), fontsize=9)  # it may be wider than the axes
    axes.axvline(0, color="#444444", linewidth=0.8, zorder=1)
    means = [0.0, *(metric.scale * row.difference.mean for row in shown)]
    room = _MAX_WIDTH * (max(means) - min(means)) or math.inf
    places = decimals(metric, (group.value for group in comparison.groups))
    cut = [_draw_row(axes, row, height, metric.scale, places, room) for row, height in zip(shown, heights, strict=True)]
    axes.set_ylim(bottom, 0.0)
    axes.set_yticks([])
    axes.spines["left"].set_visible(False)
    has_intervals = any(row.difference.low is not None for row in shown)
    add_note(
        figure,
        f"bars: {100 * CONFIDENCE:.0f} % intervals" if has_intervals else "",
        f"filled: corrected p < {1 - CONFIDENCE:.2g}" if any(row.difference.p is not None for row in shown) else "",
        "bars cut" if any(cut) else "",
        f"{len(rows) - MAX_ROWS} more are not shown" if len(rows) > MAX_ROWS else "",
    )
    return figure


def _draw_row(axes: Any, row: Row, height: float, scale: float, places: int, room: float) -> bool:
    """Draw a difference with its interval, its name and its numbers; return True if the interval is cut."""
    difference, mean = row.difference, scale * row.difference.mean
    is_found = difference.corrected is not None and difference.corrected < 1 - CONFIDENCE
    color = COLORS[0] if is_found else "#777777"
    text, is_cut = fixed(mean, places, "+"), False
    if difference.low is not None and difference.high is not None:
        low, high = scale * difference.low, scale * difference.high
        text += f"  [{fixed(low, places, '+')}, {fixed(high, places, '+')}]"
        ends = [max(low, mean - room), min(high, mean + room)]
        is_cut = ends != [low, high]
        axes.plot(ends, [height, height], color=color, zorder=2)
    fill = color if is_found else "white"
    axes.plot([mean], [height], marker="o", markersize=5, color=color, markerfacecolor=fill, zorder=3)
    beside: Any = {"xycoords": ("axes fraction", "data"), "va": "center", "annotation_clip": False}
    axes.annotate(text.replace("-", "\N{MINUS SIGN}"), (1.02, height), fontsize=7, **beside)
    top = height + row.height / 2
    axes.annotate(drawable_text(row.name, _MAX_NAME), (-0.02, top - _NAME / 2), fontsize=8, ha="right", **beside)
    for number, detail in enumerate(row.details):
        place = -0.02, top - _NAME - _DETAIL * (number + 0.5)
        axes.annotate(detail, place, fontsize=6, ha="right", color="#777777", **beside)
    return is_cut


def _heights(rows: Sequence[Row]) -> list[float]:
    """Return the vertical centers of the rows, from 0 downwards."""
    heights: list[float] = []
    bottom = 0.0
    for row in rows:
        bottom -= _SPACE * (2 if row.is_apart and heights else 1) + row.height
        heights.append(bottom + row.height / 2)
    return heights
