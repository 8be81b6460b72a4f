"""Axes of figures: numbers or names, linear or logarithmic, with their ticks and limits."""

import math
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from statistics import fmean, pstdev
from typing import Any

from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter, NullLocator

from litlab.compare.plots.style import drawable_text, is_drawable

_MIN_RATIO = 4.0  # of the largest to the smallest value; below it a logarithm changes little
_MIN_RATIO_OF_TWO = 10.0  # if there are only two values
_MAX_TICKS = 8  # with one at each value
_DIVERGED = 1000.0  # ratio of the largest to the smallest mean
_MIN_DISTANCE = 0.07  # of the axis, between two ticks


@dataclass(frozen=True)
class Scale:
    """Scale of a setting.

    Attributes:
        positions: Text of a value -> position on the axis; names have 0, 1, 2, ...
        is_numeric: True if all values are numbers.
        is_log: True if the axis is logarithmic.
    """

    positions: dict[str, float]
    is_numeric: bool
    is_log: bool


def scale_of(texts: Iterable[str]) -> Scale:
    """Choose the scale for the values of a setting."""
    values = sorted(set(texts), key=_natural_order)
    numbers = [number for text in values if (number := _number(text)) is not None]
    if len(numbers) < len(values):
        return Scale({text: float(position) for position, text in enumerate(values)}, False, False)
    positions = sorted(zip(values, numbers, strict=True), key=lambda pair: pair[1])
    return Scale(dict(positions), True, is_geometric(numbers))


def is_geometric(values: Iterable[float]) -> bool:
    """Return True if the logarithms are spaced more evenly: 0.01, 0.1, 1 or 16, 32, 64, but not 1, 2, 3, ..., 10."""
    known = sorted(set(values))
    if len(known) < 2 or known[0] <= 0:
        return False
    if len(known) == 2:
        return known[1] / known[0] >= _MIN_RATIO_OF_TWO
    return known[-1] / known[0] >= _MIN_RATIO and _unevenness(map(math.log, known)) < _unevenness(known)


def set_x_scale(axes: Any, scale: Scale) -> None:
    """Apply the scale of a setting to the x axis."""
    positions = list(scale.positions.values())
    if not scale.is_numeric:
        names = [drawable_text(text, 24) for text in scale.positions]
        is_long = sum(map(len, names)) > 60
        axes.set_xticks(positions, names, rotation=30 if is_long else 0, ha="right" if is_long else "center")
        axes.set_xlim(-0.6, len(positions) - 0.4)
        return
    if scale.is_log:
        set_log(axes.xaxis, positions)
    inner = sorted(map(math.log, positions) if scale.is_log else positions)
    closest = min((right - left for left, right in pairwise(inner)), default=0.0)
    if len(positions) <= _MAX_TICKS and closest >= _MIN_DISTANCE * (inner[-1] - inner[0]) > 0:
        axes.set_xticks(positions, [f"{position:g}" for position in positions])
        axes.xaxis.set_minor_locator(NullLocator())


def set_log(axis: Any, values: Sequence[float]) -> None:
    """Make an axis logarithmic, with plain numbers at its ticks: 0.01 instead of a power of ten."""
    axis.axes.set(**{f"{axis.axis_name}scale": "log"})
    is_short = max(values) / min(values) < 100
    axis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0) if is_short else (1.0,), numticks=9))
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axis.set_minor_formatter(NullFormatter())


def set_y_limits(axes: Any, means: Sequence[float], lows: Sequence[float], highs: Sequence[float]) -> bool:
    """Limit the y axis by the means, which take at least a third of it; intervals beyond are cut.

    If the largest mean is a thousand times the smallest, for example because a loss diverged in some runs, the axis is
    logarithmic.

    Returns:
        True if an interval is cut.
    """
    least, most = min(means), max(means)
    if least > 0 and most / least >= _DIVERGED:
        set_log(axes.yaxis, means)
        axes.set_ylim(least / 2, most * 2)
        return min(lows) < least / 2 or max(highs) > most * 2
    span = most - least or max((high - low for low, high in zip(lows, highs, strict=True)), default=0.0)
    span = span or abs(most) / 10 or 1.0
    low, high = min([least, *lows]), max([most, *highs])
    bottom, top = max(low, least - span), min(high, most + span)
    margin = 0.06 * (top - bottom or span)
    axes.set_ylim(bottom - margin, top + margin)
    return bottom > low or top < high


def _unevenness(values: Iterable[float]) -> float:
    """Return the deviation of the distances between sorted numbers, relative to their mean."""
    known = list(values)
    distances = [right - left for left, right in pairwise(known)]
    return pstdev(distances) / fmean(distances)


def _number(text: str) -> float | None:
    try:
        value = float(text)
    except ValueError:
        return None
    return value if is_drawable(value) and "_" not in text else None


def _natural_order(text: str) -> list[tuple[float, str]]:
    """Sort [6,16] before [16,32]."""
    parts = re.split(r"(\d{1,15})", text)
    return [(float(part), "") if part.isdigit() and part.isascii() else (-1.0, part) for part in parts]
