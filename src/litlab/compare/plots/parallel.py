"""Figure of many settings in parallel coordinates: a line for each group, colored by the metric."""

import math
from collections.abc import Sequence
from typing import Any

from matplotlib.figure import Figure

from litlab.compare.model import Comparison, Group
from litlab.compare.plots.axes import Scale, scale_of
from litlab.compare.plots.style import (
    COLOR_MAP,
    MAX_SHAPES,
    add_note,
    axis_label,
    drawable_groups,
    drawable_text,
    new_figure,
)

MAX_AXES = 8
_MAX_TICKS = 8
_MIN_AXES = 3


def draw_parallel(comparison: Comparison) -> Figure | None:
    """Draw the settings that vary; None if there are fewer than three."""
    groups = drawable_groups(comparison)
    scales = {
        label: scale_of(group.settings[label] for group in groups if label in group.settings)
        for label in comparison.labels
    }
    varying = {label: scale for label, scale in scales.items() if len(scale.positions) > 1}
    if len(varying) < _MIN_AXES or len(groups) < 2:
        return None
    drawn_scales = dict(list(varying.items())[:MAX_AXES])
    label = axis_label(comparison.metric)
    figure = new_figure(f"{label} of {len(groups)} groups by {len(drawn_scales)} settings")
    axes = figure.add_subplot()
    axes.grid(visible=False)
    axes.spines[:].set_visible(False)
    axes.set(xlim=(-0.25, len(drawn_scales) - 0.75), ylim=(-0.04, 1.04), yticks=[])
    axes.set_xticks(range(len(drawn_scales)), [drawable_text(name, 18) for name in drawn_scales])
    axes.tick_params("x", length=0, pad=6)
    if sum(min(len(name), 18) for name in drawn_scales) > 60:
        axes.tick_params("x", rotation=20)
    for x, scale in enumerate(drawn_scales.values()):
        _draw_axis(axes, x, scale)
    drawn = groups[:: math.ceil(len(groups) / MAX_SHAPES)]
    lines = _draw_lines(axes, drawn, drawn_scales, comparison)
    figure.colorbar(lines, ax=axes, label=label, pad=0.01).outline.set_visible(False)
    add_note(
        figure,
        f"{len(drawn_scales)} of {len(varying)} settings" if len(drawn_scales) < len(varying) else "",
        f"{len(drawn)} of {len(groups)} groups, evenly by their rank" if len(drawn) < len(groups) else "",
        "the best in the thickest line",
    )
    return figure


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
    axes.plot([x, x], [0, 1], color="#444444", linewidth=0.8, zorder=3)
    for text in _ticks(scale):
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


def _ticks(scale: Scale) -> list[str]:
    """Return all values if they are few and apart, else some of them with the ends."""
    texts = sorted(scale.positions, key=lambda text: scale.positions[text])
    kept = texts[:1]
    for text in texts[1:-1]:
        below, above = _height(scale, kept[-1]), _height(scale, texts[-1])
        if min(_height(scale, text) - below, above - _height(scale, text)) >= 1 / _MAX_TICKS:
            kept.append(text)
    return [*kept, texts[-1]]
