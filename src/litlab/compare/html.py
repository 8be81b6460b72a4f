"""The table of the page: the texts of every other table, the values that it is sorted by, and intervals to be drawn."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby

from litlab.compare.caution import best_group, has_interval
from litlab.compare.model import Comparison, Group
from litlab.compare.table import INTERVAL, MEAN, Column, build, test_metric
from litlab.runs.difference import shown

Value = float | str | None


@dataclass(frozen=True)
class Cell:
    """`value` is what it is sorted by: a number in full precision, or a text; None where there is nothing."""

    text: str
    value: Value


@dataclass(frozen=True)
class Heading:
    text: str
    is_number: bool


@dataclass(frozen=True)
class Over:
    """What stands over so many neighbouring headings; empty where nothing does."""

    text: str
    width: int


@dataclass(frozen=True)
class Drawn:
    """Where a group's mean and its interval lie, in percent of the column's width; they may reach beyond it."""

    mean: float
    low: float | None
    high: float | None


@dataclass(frozen=True)
class Row:
    """
    Attributes:
        mark: `best`, `tie`, or empty.
        drawn: None for a group without a value.
    """

    mark: str
    cells: tuple[Cell, ...]
    drawn: Drawn | None


@dataclass(frozen=True)
class PageTable:
    """
    Attributes:
        rows: one a group, in the order of the comparison.
        over: of the headings and of the drawn intervals among them.
        place: of the column before which the intervals are drawn; None if there are none.
        limit: where the interval of the best group ends towards the others, in percent of the width.
    """

    over: tuple[Over, ...]
    headings: tuple[Heading, ...]
    rows: tuple[Row, ...]
    place: int | None
    limit: float | None
    caption: tuple[str, ...]


def page_table(comparison: Comparison) -> PageTable:
    """The columns that have anything to say, as in the terminal."""
    table = build(comparison)
    values = _values(comparison)
    columns = [_cells(column, values) for column in table.columns]
    best = best_group(comparison.groups, comparison.mode)
    is_told = has_interval(best) or len(comparison.groups) == 1
    drawn, limit = _drawn(comparison, best)
    rows = []
    for index, group in enumerate(comparison.groups):
        mark = "best" if group is best and is_told else "tie" if table.ties[index] else ""
        rows.append(Row(mark, tuple(column[index] for column in columns), drawn[index]))
    intervals = [place for place, column in enumerate(table.columns) if column.header == INTERVAL and column.is_number]
    place = intervals[0] + 1 if intervals else None
    return PageTable(
        over=tuple(_over(table.columns, place)),
        headings=tuple(Heading(column.header, _is_numeric(column)) for column in table.columns),
        rows=tuple(rows),
        place=place,
        limit=limit,
        caption=table.caption,
    )


def _over(columns: Sequence[Column], place: int | None) -> Iterator[Over]:
    """The drawn intervals stand below the same as the column before them."""
    names = [column.over for column in columns]
    if place is not None:
        names.insert(place, names[place - 1])
    for name, neighbours in groupby(names):
        yield Over(name, len(list(neighbours)))


def _is_numeric(column: Column) -> bool:
    """A setting is aligned like a number if it is one in every group that has it."""
    return column.is_number or all(_is_number(cell) for cell in column.cells if cell)


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def _values(comparison: Comparison) -> dict[tuple[str, str], Sequence[Value]]:
    """What stands over a column (without its unit) and at its head -> a value a group, behind its cells."""
    groups, metric, tested = comparison.groups, comparison.metric, test_metric(comparison.metric)
    summaries, of_test = [group.value for group in groups], [group.test.get(tested) for group in groups]
    differences = [group.difference for group in groups]
    return {
        ("", "n"): _each(summaries, "num"),
        (shown(metric), MEAN): _each(summaries, "mean"),
        (shown(metric), INTERVAL): _each(summaries, "low"),
        (shown(metric), "best"): _each(summaries, "best"),
        (shown(tested), MEAN): _each(of_test, "mean"),
        (shown(tested), INTERVAL): _each(of_test, "low"),
        ("difference", MEAN): _each(differences, "mean"),
        ("difference", INTERVAL): _each(differences, "low"),
        ("difference", "p"): _each(differences, "corrected"),
        ("difference", "effect"): _each(differences, "effect"),
        ("", "training time"): _each([group.seconds for group in groups], "mean"),
        ("", "images/s"): _each([group.images_per_second for group in groups], "mean"),
        ("", "parameters"): _each(groups, "parameters"),
    }


def _each(known: Sequence[object], name: str) -> Sequence[Value]:
    return [getattr(each, name, None) for each in known]


def _cells(column: Column, values: Mapping[tuple[str, str], Sequence[Value]]) -> list[Cell]:
    """A cell without a value of ours is sorted by what it shows."""
    known = values.get((column.over.partition(" (")[0], column.header)) if column.is_number else None
    return [Cell(text, value) for text, value in zip(column.cells, known or column.cells, strict=True)]


def _drawn(comparison: Comparison, best: Group | None) -> tuple[list[Drawn | None], float | None]:
    """On one scale: from the lowest mean to the highest, with room for the deviations."""
    values = [group.value for group in comparison.groups]
    known = [each for each in values if each]
    if not known or best is None or best.value is None:
        return [None] * len(values), None
    lowest = min(each.mean - 2 * (each.deviation or 0.0) for each in known)
    width = max(each.mean + 2 * (each.deviation or 0.0) for each in known) - lowest
    left, width = (lowest - 0.05 * width, 1.1 * width) if width > 0 else (lowest - 0.5, 1.0)

    def position(value: float | None) -> float | None:
        return None if value is None else round(min(max(100 * (value - left) / width, -10.0), 110.0), 2)

    drawn = [
        None if each is None else Drawn(position(each.mean) or 0.0, position(each.low), position(each.high))
        for each in values
    ]
    return drawn, position(best.value.low if comparison.mode == "max" else best.value.high)
