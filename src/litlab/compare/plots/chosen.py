"""The groups that are told apart in figures: the best, and the baseline. They look the same in all of them."""

from collections.abc import Sequence
from dataclasses import dataclass

from litlab.compare.model import Comparison, Group
from litlab.compare.plots.style import BASELINE, MOST, Look, is_drawable, look


@dataclass(frozen=True)
class Chosen:
    group: Group
    look: Look


def choose(comparison: Comparison) -> list[Chosen]:
    """The best that have a value, as many as one can tell apart; the baseline besides."""
    ranked = by_value(comparison)
    kept = [group for place, group in enumerate(ranked) if place < MOST or group.name == comparison.baseline]
    return with_looks(kept, comparison.baseline)


def with_looks(groups: Sequence[Group], baseline: str | None) -> list[Chosen]:
    others = [group for group in groups if group.name != baseline]
    return [Chosen(group, BASELINE if group.name == baseline else look(others.index(group))) for group in groups]


def by_value(comparison: Comparison) -> list[Group]:
    """The groups that have a value which can be drawn, the best first, in whatever order the table has them."""
    sign = -1 if comparison.mode == "max" else 1
    means = [(group.value.mean, group) for group in comparison.groups if group.value is not None]
    known = [(sign * mean, group) for mean, group in means if is_drawable(mean)]
    return [group for _, group in sorted(known, key=lambda each: each[0])]
