"""A comparison for other programs: CSV with a row a group, JSON with all there is; numbers in full precision."""

import csv
import io
import json
import math
from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from typing import Any, get_args

from litlab.compare.model import LEVEL, Comparison, Difference, Group, Summary
from litlab.compare.table import test_metric
from litlab.sweep.states import Word
from litlab.sweep.summary import printable

Row = list[tuple[str, object]]  # name of the column, value


def to_csv(comparison: Comparison) -> str:
    """A row a group and a column a value; accuracies are fractions, times are in seconds."""
    rows = [_row(comparison, group) for group in comparison.groups]
    file = io.StringIO()
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow([name for name, _ in rows[0]] if rows else [])
    writer.writerows([value for _, value in row] for row in rows)
    return file.getvalue()


def _row(comparison: Comparison, group: Group) -> Row:
    tested = test_metric(comparison.metric)
    row: Row = [("group", printable(group.name))]
    row += [(printable(label), printable(group.settings.get(label, ""))) for label in comparison.labels]
    row += _of_summary(comparison.metric, group.value)
    row += [("tied with the best", int(group.name in comparison.ties))]
    row += _of_summary(tested, group.test.get(tested))
    if comparison.baseline is not None:
        row += [(f"difference {each.name}", getattr(group.difference, each.name, None)) for each in fields(Difference)]
    row += [
        ("training seconds mean", group.seconds.mean if group.seconds else None),
        ("images per second mean", group.images_per_second.mean if group.images_per_second else None),
        ("parameters", group.parameters),
    ]
    words: tuple[Word, ...] = get_args(Word)
    return row + [(word, group.others.get(word, 0)) for word in words if word != "done"]


def _of_summary(metric: str, summary: Summary | None) -> Row:
    row: Row = [("num", summary.num if summary else 0)]
    row += [(name, getattr(summary, name, None)) for name in ("mean", "deviation", "low", "high", "best")]
    return [(f"{printable(metric)} {name}", value) for name, value in row]


def to_json(comparison: Comparison) -> str:
    """All that a comparison holds, with its runs; nothing but ASCII, and neither NaN nor infinity."""
    whole = {"format": 1, "level": LEVEL} | _plain(comparison)
    return json.dumps(whole, indent=2, allow_nan=False) + "\n"


def _plain(value: Any) -> Any:
    """What JSON has."""
    if is_dataclass(value):
        return {each.name: _plain(getattr(value, each.name)) for each in fields(value)}
    if isinstance(value, Mapping):
        return {str(key): _plain(each) for key, each in sorted(value.items())}
    if isinstance(value, frozenset):
        return sorted(value)
    if isinstance(value, list | tuple):
        return [_plain(each) for each in value]
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    return value if value is None or isinstance(value, str | int | bool) else str(value)
