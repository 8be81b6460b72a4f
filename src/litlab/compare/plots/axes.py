"""What an axis is like: numbers or names, evenly spaced or by factors, where its ticks are and how far it reaches."""

import math
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from statistics import fmean, pstdev
from typing import Any

from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter, NullLocator

from litlab.compare.plots.style import is_drawable, printed

_FACTOR = 4.0  # from the smallest to the largest value, below which a logarithm changes little
_FACTOR_OF_TWO = 10.0  # where there are two values only
_MOST_TICKS = 8  # one at each value
_DIVERGED = 1000.0
_CLOSEST = 0.07  # of the axis, between two of these


@dataclass(frozen=True)
class Scale:
    """Of a setting.

    Attributes:
        places: the value as a text -> where it is on the axis; of names, 0, 1, 2, ...
        is_numeric: whether all of its values are numbers.
        is_log: whether the axis is one of factors.
    """

    places: dict[str, float]
    is_numeric: bool
    is_log: bool


def scale_of(texts: Iterable[str]) -> Scale:
    known = sorted(set(texts), key=_natural)
    values = [_number(text) for text in known]
    numbers = [value for value in values if value is not None]
    if len(numbers) < len(known):
        return Scale({text: float(place) for place, text in enumerate(known)}, False, False)
    places = sorted(zip(known, numbers, strict=True), key=lambda each: each[1])
    return Scale(dict(places), True, is_by_factors(numbers))


def is_by_factors(values: Iterable[float]) -> bool:
    """Whether numbers are spaced more evenly by their logarithms: 0.01, 0.1, 1 or 16, 32, 64, not 1, 2, 3, ..., 10."""
    known = sorted(set(values))
    if len(known) < 2 or known[0] <= 0:
        return False
    if len(known) == 2:
        return known[1] / known[0] >= _FACTOR_OF_TWO
    return known[-1] / known[0] >= _FACTOR and _unevenness(map(math.log, known)) < _unevenness(known)


def set_scale(axes: Any, scale: Scale) -> None:
    """Make the x axis one of a setting."""
    places = list(scale.places.values())
    if not scale.is_numeric:
        names = [printed(text, 24) for text in scale.places]
        is_long = sum(map(len, names)) > 60
        axes.set_xticks(places, names, rotation=30 if is_long else 0, ha="right" if is_long else "center")
        axes.set_xlim(-0.6, len(places) - 0.4)
        return
    if scale.is_log:
        by_factors(axes.xaxis, places)
    inner = sorted(map(math.log, places) if scale.is_log else places)
    closest = min((right - left for left, right in pairwise(inner)), default=0.0)
    if len(places) <= _MOST_TICKS and closest >= _CLOSEST * (inner[-1] - inner[0]) > 0:
        axes.set_xticks(places, [f"{place:g}" for place in places])
        axes.xaxis.set_minor_locator(NullLocator())


def by_factors(axis: Any, values: Sequence[float]) -> None:
    """Make an axis logarithmic, with plain numbers at its ticks: 0.01, not a power of ten."""
    axis.axes.set(**{f"{axis.axis_name}scale": "log"})
    is_short = max(values) / min(values) < 100
    axis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0) if is_short else (1.0,), numticks=9))
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axis.set_minor_formatter(NullFormatter())


def frame(axes: Any, centres: Sequence[float], lows: Sequence[float], highs: Sequence[float]) -> bool:
    """Set how far the y axis reaches: all centres are in, and of intervals no more than leaves these a third of it.

    Where the largest is a thousand times the smallest, as where a loss diverged in some runs, the axis is logarithmic.

    Returns:
        whether an interval reaches beyond.
    """
    least, most = min(centres), max(centres)
    if least > 0 and most / least >= _DIVERGED:
        by_factors(axes.yaxis, centres)
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
    """Of sorted numbers: the deviation of their distances, in their mean."""
    known = list(values)
    distances = [right - left for left, right in pairwise(known)]
    return pstdev(distances) / fmean(distances)


def _number(text: str) -> float | None:
    try:
        value = float(text)
    except ValueError:
        return None
    return value if is_drawable(value) and "_" not in text else None


def _natural(text: str) -> list[tuple[float, str]]:
    """[6,16] before [16,32]."""
    parts = re.split(r"(\d{1,15})", text)
    return [(float(part), "") if part.isdigit() and part.isascii() else (-1.0, part) for part in parts]
