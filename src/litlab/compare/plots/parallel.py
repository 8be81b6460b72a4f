"""Many settings at once: a line a group, across an axis for each setting, coloured by the metric."""

import math
from collections.abc import Sequence
from typing import Any

from matplotlib.figure import Figure

from litlab.compare.model import Comparison, Group
from litlab.compare.plots.axes import Scale, scale_of
from litlab.compare.plots.style import COLOUR_MAP, MOST_SHAPES, by_value, measure, new_figure, note, printed

MOST_AXES = 8
_MOST_TICKS = 8
_LEAST_LABELS = 3


def draw_parallel(comparison: Comparison) -> Figure | None:
    """None unless three settings or more vary."""
    groups = by_value(comparison)
    scales = {
        label: scale_of(group.settings[label] for group in groups if label in group.settings)
        for label in comparison.labels
    }
    varying = {label: scale for label, scale in scales.items() if len(scale.places) > 1}
    if len(varying) < _LEAST_LABELS or len(groups) < 2:
        return None
    shown = dict(list(varying.items())[:MOST_AXES])
    value = measure(comparison.metric)
    figure = new_figure(f"{value.label} of {len(groups)} groups by {len(shown)} settings")
    axes = figure.add_subplot()
    axes.grid(visible=False)
    axes.spines[:].set_visible(False)
    axes.set(xlim=(-0.25, len(shown) - 0.75), ylim=(-0.04, 1.04), yticks=[])
    axes.set_xticks(range(len(shown)), [printed(label, 18) for label in shown])
    axes.tick_params("x", length=0, pad=6)
    if sum(min(len(label), 18) for label in shown) > 60:
        axes.tick_params("x", rotation=20)
    for place, scale in enumerate(shown.values()):
        _draw_axis(axes, place, scale)
    drawn = groups[:: math.ceil(len(groups) / MOST_SHAPES)]
    lines = _draw_lines(axes, drawn, shown, comparison)
    figure.colorbar(lines, ax=axes, label=value.label, pad=0.01).outline.set_visible(False)
    note(
        figure,
        f"{len(shown)} of {len(varying)} settings" if len(shown) < len(varying) else "",
        f"{len(drawn)} of {len(groups)} groups, evenly by their rank" if len(drawn) < len(groups) else "",
        "the best in the thickest line",
    )
    return figure


def _draw_lines(axes: Any, groups: Sequence[Group], shown: dict[str, Scale], comparison: Comparison) -> Any:
    """The best last, above the others, and the darkest, since the page is white."""
    from matplotlib.collections import LineCollection

    drawn, factor = groups[::-1], measure(comparison.metric).factor
    paths = [
        [
            (place, height(scale, group.settings[label]) if label in group.settings else math.nan)
            for place, (label, scale) in enumerate(shown.items())
        ]
        for group in drawn
    ]
    lines = LineCollection(
        paths,
        array=[group.value.mean * factor for group in drawn if group.value is not None],
        cmap=f"{COLOUR_MAP}_r" if comparison.mode == "max" else COLOUR_MAP,
        linewidths=[0.9] * (len(drawn) - 1) + [2.6],
    )
    return axes.add_collection(lines, autolim=False)


def height(scale: Scale, text: str) -> float:
    """Where a value is on its axis, from 0 to 1."""
    bent = {each: math.log(place) if scale.is_log else place for each, place in scale.places.items()}
    low, high = min(bent.values()), max(bent.values())
    return (bent[text] - low) / (high - low)


def _draw_axis(axes: Any, place: int, scale: Scale) -> None:
    axes.plot([place, place], [0, 1], color="#444444", linewidth=0.8, zorder=3)
    for text in _ticks(scale):
        axes.annotate(
            f"{scale.places[text]:.3g}" if scale.is_numeric else printed(text, 16),
            (place, height(scale, text)),
            xytext=(-3, 0),
            textcoords="offset points",
            ha="right",
            va="center",
            fontsize=7,
            zorder=4,
            bbox={"facecolor": "white", "alpha": 0.75, "edgecolor": "none", "pad": 0.6},
        )


def _ticks(scale: Scale) -> list[str]:
    """All values if they are few and apart, else some of them, the ends included."""
    texts = sorted(scale.places, key=lambda text: scale.places[text])
    kept = texts[:1]
    for text in texts[1:-1]:
        near, far = height(scale, kept[-1]), height(scale, texts[-1])
        if min(height(scale, text) - near, far - height(scale, text)) >= 1 / _MOST_TICKS:
            kept.append(text)
    return [*kept, texts[-1]]
