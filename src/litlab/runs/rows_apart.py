"""Where the rows of two runs' metrics.csv are not the same."""

import math
from collections.abc import Iterator
from dataclasses import dataclass

from litlab.runs.metric_rows import Rows


@dataclass(frozen=True)
class Apart:
    """A metric with a row that differs.

    Attributes:
        old, new: its last value in each run, or that of the last row that differs where the two end alike; None
            where there is no such row.
        note: how many rows differ, from where on, and by how much.
    """

    metric: str
    old: float | None
    new: float | None
    note: str


def rows_apart(old: dict[str, Rows], new: dict[str, Rows]) -> Iterator[Apart]:
    """The metrics with a row that differs, to the last bit."""
    for metric in {**old, **new}:
        ours, theirs = old.get(metric, {}), new.get(metric, {})
        everywhere = ours.keys() | theirs.keys()
        apart = [each for each in everywhere if repr(ours.get(each)) != repr(theirs.get(each))]
        if not apart:
            continue
        note = f"{len(apart)} of {len(everywhere)} rows, the first at step {min(step for _, step, _ in apart)}"
        before, after = (rows[max(rows)] if rows else None for rows in (ours, theirs))
        if repr(before) == repr(after):
            before, after = (rows.get(max(apart)) for rows in (ours, theirs))
            note += ", the last of them shown"
        gaps = [abs(ours[each] - theirs[each]) for each in apart if each in ours and each in theirs]
        note += f", by at most {max(gaps, key=_or_infinite):.3g}" if gaps else ""
        yield Apart(metric, before, after, note)


def _or_infinite(gap: float) -> float:
    """To a value that is not a number, there is no greater distance."""
    return math.inf if math.isnan(gap) else gap
