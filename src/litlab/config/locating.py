"""Which job of a study stands at a point already: its number is known before its config is composed."""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import replace

from litlab.config.jobs import Point


def located(points: Sequence[Point], known: Mapping[int, Sequence[str]], axes: Collection[str]) -> list[Point]:
    """The points with the numbers of the known jobs that have the same values of all axes.

    Args:
        known: number -> overrides, of the jobs that the study has.
        axes: that it has ever had; what was fixed may have become one.
    """
    keys = {*axes, *(key for point in points for key in point.swept)}
    numbers = {_values(overrides, keys): number for number, overrides in known.items()}
    return [replace(point, number=numbers.get(_values(point.overrides, keys))) for point in points]


def _values(overrides: Iterable[str], keys: Collection[str]) -> frozenset[tuple[str, str]]:
    return frozenset(Point.of(overrides, keys).swept.items())
