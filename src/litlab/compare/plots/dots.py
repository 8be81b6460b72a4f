"""Means with their intervals, and single runs, as they stand in several figures."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from litlab.compare.model import Summary
from litlab.compare.plots.style import Look

MOST_SHAPES = 300  # of a kind; more become pixels, also in svg and pdf, which would be large and slow otherwise


@dataclass(frozen=True)
class Dot:
    """A group's mean; `low` and `high` are the mean itself where there is no interval. In the unit of the axis."""

    x: float
    y: float
    low: float
    high: float


def dot(x: float, value: Summary, factor: float) -> Dot:
    low, high = (value.mean if end is None else end for end in (value.low, value.high))
    return Dot(x, value.mean * factor, low * factor, high * factor)


def draw_dots(axes: Any, dots: Sequence[Dot], look: Look, *, dashes: Any = "none", zorder: float = 3.0) -> Any:
    """Returns what stands for them in a legend; `dashes` is of the line that joins them."""
    is_many = len(dots) > MOST_SHAPES
    bars = [(each.x, end) for each in dots if each.low < each.high for end in (each.low, each.high, math.nan)]
    if bars:
        places, ends = zip(*bars, strict=True)
        axes.plot(places, ends, color=look.colour, linewidth=1.0, zorder=zorder, rasterized=is_many)
    (line,) = axes.plot(
        [each.x for each in dots],
        [each.y for each in dots],
        color=look.colour,
        linestyle=dashes,
        marker=look.marker,
        markersize=2.5 if is_many else 4,
        zorder=zorder,
        rasterized=is_many,
    )
    return line


def draw_runs(axes: Any, runs: Sequence[tuple[float, float]], look: Look) -> None:
    """Single runs, faintly, a little to the left of their mean."""
    from matplotlib.transforms import offset_copy

    axes.plot(
        [x for x, _ in runs],
        [y for _, y in runs],
        linestyle="none",
        marker="o",
        markersize=2.5,
        color=look.colour,
        alpha=0.5,
        markeredgewidth=0,
        zorder=2,
        transform=offset_copy(axes.transData, axes.figure, x=-5, units="points"),
        rasterized=len(runs) > MOST_SHAPES,
    )
