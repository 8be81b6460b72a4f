"""Ranking of groups: the best one, groups tied with it, and the group that a name means."""

from collections.abc import Sequence
from math import inf

from litlab.compare.model import Group, Summary
from litlab.errors import UserError
from litlab.runs.metrics import Mode
from litlab.runs.terminal import format_value

_NUM_NAMED = 12  # groups in a message


def rank_groups(groups: Sequence[Group], mode: Mode) -> list[Group]:
    """Sort groups by the mean of the compared metric, the best first and those without a value last."""
    sign = -1 if mode == "max" else 1
    return sorted(groups, key=lambda group: (sign * group.value.mean if group.value else inf, group.name))


def best_group(groups: Sequence[Group], mode: Mode) -> Group | None:
    """Return the group with the best mean; None if no group has a value."""
    known = [(group.value.mean, group) for group in groups if group.value]
    choose = max if mode == "max" else min
    return choose(known, key=lambda pair: pair[0])[1] if known else None


def has_interval(group: Group | None) -> bool:
    """Return True if the mean of a group has a confidence interval."""
    return group is not None and group.value is not None and group.value.low is not None


def tied_groups(groups: Sequence[Group], mode: Mode) -> frozenset[str]:
    """Return the names of the best group and of those whose interval overlaps that of the best.

    The value of a single run stands for its interval. The rule is simple and conservative: intervals that do not
    overlap mean a difference well below p = 0.05; a test (`--baseline`) may tell groups with overlapping ones apart.
    """
    best = best_group(groups, mode)
    if best is None or best.value is None:
        return frozenset()
    low, high = _interval(best.value)
    intervals = {group.name: _interval(group.value) for group in groups if group.value is not None}
    return frozenset(name for name, (lower, upper) in intervals.items() if lower <= high and upper >= low)


def _interval(summary: Summary) -> tuple[float, float]:
    if summary.low is None or summary.high is None:
        return summary.mean, summary.mean
    return summary.low, summary.high


def find_group(groups: Sequence[Group], name: str) -> Group:
    """Return the group with a name, or the only one with these settings (`lr=0.1`), or with this text in its name.

    Raises:
        UserError: If there is none, or several.
    """
    wanted = set(name.split())
    matches: list[Group] = []
    for fits in (
        lambda group: group.name == name,
        lambda group: wanted <= {f"{label}={value}" for label, value in group.settings.items()},
        lambda group: name in group.name,
    ):
        matches = [group for group in groups if fits(group)]
        if len(matches) == 1:
            return matches[0]
        if matches:
            break
    problem = "is a part of several names" if matches else "is not a group"
    candidates = matches or groups
    names = [f"  {group.name}" for group in candidates[:_NUM_NAMED]]
    more = len(candidates) - _NUM_NAMED
    lines = [f"--baseline {format_value(name)}: {problem}; name one of", *names, *[f"  and {more} more"] * (more > 0)]
    raise UserError("\n".join(lines))
