"""The sentences that say what the numbers of a table are."""

from collections import Counter
from collections.abc import Collection, Sequence
from typing import Literal

from litlab.compare.model import LEVEL, Comparison, Group, Summary
from litlab.runs.difference import shown
from litlab.sweep.summary import printable

TIED = "the best group, and groups whose interval for the mean reaches that of the best"
_AT = {"best": "where the objective was best", "last": "after the last epoch"}
_TESTS = {
    "paired": "paired by seed (t-test of the pairs; effect: Cohen's d of the pairs)",
    "welch": "unpaired (Welch's t-test; effect: Hedges' g)",
}


def caption(comparison: Comparison, summaries: Sequence[Summary | None], keys: Collection[str]) -> list[str]:
    """
    Args:
        summaries: that the table shows.
        keys: of the columns that it has.
    """
    better = "higher" if comparison.mode == "max" else "lower"
    at = _AT.get(comparison.at, f"at {shown(comparison.at)}")
    over = "seeds" if all(map(_has_seeds, comparison.groups)) else "runs"
    known = [each for each in summaries if each is not None]
    spread = " ± sample standard deviation" if any(each.deviation is not None for each in known) else ""
    best = f"; best: of the {over}" if "best" in keys else ""
    lines = [f"{shown(comparison.metric)} {at} ({better} is better): mean{spread} over n {over}{best}."]
    if any(each.low is not None for each in known):
        lines.append(f"Intervals: {100 * LEVEL:.0f} %, Student's t over {over}, for the mean.")
    lines += _of_differences(comparison, keys)
    words = sum((Counter(group.others) for group in comparison.groups), Counter[str]())
    if words and "not done" not in keys:
        counts = ", ".join(f"{num} {word}" for word, num in sorted(words.items()))
        lines.append(f"Runs that are not done are not averaged: {counts}.")
    return lines


def _of_differences(comparison: Comparison, keys: Collection[str]) -> list[str]:
    found = kinds(comparison)
    if comparison.baseline is None or not found:
        return []
    start = f"Differences: from {printable(comparison.baseline)}, {' or '.join(_TESTS[kind] for kind in found)}"
    if len(found) > 1 and "compared" not in keys:
        unpaired = [each.name for each in comparison.groups if each.difference and each.difference.kind == "welch"]
        start += f"; unpaired: {printable('; '.join(unpaired))}"
    num = sum(group.difference is not None and group.difference.p is not None for group in comparison.groups)
    if not num:
        return [f"{start}; nothing could be tested."]
    corrected = f"corrected by Holm for {num} comparison{'s' * (num != 1)}"
    return [f"{start}; p: two-sided, {corrected}; the intervals of differences are not corrected."]


def kinds(comparison: Comparison) -> list[Literal["paired", "welch"]]:
    """How groups are compared with the baseline."""
    return sorted({group.difference.kind for group in comparison.groups if group.difference})


def _has_seeds(group: Group) -> bool:
    return all(run.seed is not None for run in group.runs)
