"""Which group is best, and what is to be said where that may be chance."""

from collections.abc import Sequence

from litlab.compare.model import Group, Mode


def best_group(groups: Sequence[Group], mode: Mode) -> Group | None:
    """By the metric, in whatever order the groups stand; None if no group has a value."""
    known = [(group.value.mean, group) for group in groups if group.value]
    choose = max if mode == "max" else min
    return choose(known, key=lambda each: each[0])[1] if known else None


def has_interval(group: Group | None) -> bool:
    """Whether anything tells how far its value is chance."""
    return group is not None and group.value is not None and group.value.low is not None


def caution(groups: Sequence[Group], mode: Mode) -> list[str]:
    """A sentence where the best of several groups has no interval."""
    known = [group for group in groups if group.value]
    best = best_group(known, mode)
    if len(known) < 2 or best is None or best.value is None or has_interval(best):
        return []
    if all(group.value and group.value.num == 1 for group in known):
        return ["one seed a group: no spread is known, so the order may be chance; run more seeds"]
    why = "has one seed" if best.value.num == 1 else "has no interval"
    return [f"{best.name} {why}: no spread is known, so that it comes first may be chance; run more seeds"]
