"""The table that compares groups, as texts in columns, before it is in any format."""

import re
import statistics
from collections import Counter
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

from litlab.compare.model import LEVEL, Comparison, Difference, Group, Mode, Summary
from litlab.runs.diff import shown
from litlab.runs.state import RunStatus
from litlab.runs.terminal import format_duration, printable

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
    words = sum((Counter(group.others) for group in comparison.groups), Counter[RunStatus]())
    if words and "not done" not in keys:
        counts = ", ".join(f"{num} {word.label}" for word, num in sorted(words.items()))
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


DIGITS = 5
_MOST = 17  # a float has no more
_NUMBER = re.compile(r"(?<![^\[,])-?\d+(?:\.\d+)?(?:e[+-]?\d+)?(?![^\],])")  # a whole text, or an item of a list


def shortened(texts: Iterable[str | None]) -> dict[str, str]:
    """Text of a setting -> the same with five significant digits, or with as many as tell all of the texts apart.

    Integers keep all of theirs.
    """
    values = {each for each in texts if each is not None}
    for digits in range(DIGITS, _MOST):
        short = {value: _short(value, digits) for value in values}
        if len(set(short.values())) == len(values):
            return short
    return {value: value for value in values}


def _short(value: str, digits: int) -> str:
    is_list_or_number = value.startswith("[") or _NUMBER.fullmatch(value)
    return _NUMBER.sub(lambda found: _rounded(found[0], digits), value) if is_list_or_number else value


def _rounded(number: str, digits: int) -> str:
    """The shorter of the two: 123456.7 stays what it is."""
    if "." not in number:
        return number
    short = f"{float(number):.{digits}g}"
    return short if len(short) < len(number) else number


MEAN = "mean"
INTERVAL = f"{100 * LEVEL:.0f} % interval"
MOST_DECIMALS = 8
MOST_DECIMALS_OF_PERCENT = 4
LONGEST = 1e9  # from here on, numbers have an exponent
_COMPARED = {"paired": "paired", "welch": "unpaired"}


@dataclass(frozen=True)
class Column:
    """One column of the table.

    Attributes:
        cells: a text a group; empty where there is nothing to say.
        is_number: whether its cells are numbers of ours, to be aligned at the right; else they are names and values
            as the runs' files have them.
        marks: whether it shows which groups are tied with the best.
        told_once: whether it is told below the table where all groups have the same.
        over: what stands over it and its neighbours, of which it is a part.
        key: what it is left out by where there is too little room for it.
    """

    header: str
    cells: tuple[str, ...]
    is_number: bool = True
    marks: bool = False
    told_once: bool = False
    over: str = ""
    key: str = ""

    @property
    def name(self) -> str:
        """Its header where there is one line of them."""
        return self.over if self.header == MEAN else self.header


@dataclass(frozen=True)
class Table:
    """
    Attributes:
        name: of the directory that was compared, the first of several.
        ties: of each row, whether its group is the best or tied with it; none where there is only one, or where the
            best has no interval.
        caption: sentences that say what the numbers are.
        notes: what else a reader has to know, one a line.
    """

    name: str
    columns: tuple[Column, ...]
    ties: tuple[bool, ...]
    caption: tuple[str, ...]
    notes: tuple[str, ...]


def build(comparison: Comparison, left_out: Collection[str] = ()) -> Table:
    """The columns that have anything to say, but for those with these keys."""
    columns = [column for column in _columns(comparison) if any(column.cells) and column.key not in left_out]
    once = [column for column in columns if column.told_once and len(column.cells) > 1 and len(set(column.cells)) == 1]
    same = ", ".join(f"{column.header} {column.cells[0]}" for column in once)
    is_marked = len(comparison.groups) > 1 and has_interval(best_group(comparison.groups, comparison.mode))
    tested = test_metric(comparison.metric)
    summaries = [each for group in comparison.groups for each in (group.value, group.test.get(tested))]
    notes = [printable(note) for note in comparison.notes]
    notes += [printable(f"Skipped {each.path}: {each.why}") for each in comparison.skipped]
    return Table(
        name=comparison.directories[0].resolve().name if comparison.directories else "",
        columns=tuple(column for column in columns if column not in once),
        ties=tuple(is_marked and group.name in comparison.ties for group in comparison.groups),
        caption=(
            *caption(comparison, summaries, {column.key for column in columns}),
            *([f"The same in all groups: {same}."] if same else []),
        ),
        notes=tuple(notes),
    )


def test_metric(metric: str) -> str:
    """The metric of the test that stands beside one of the validation."""
    return f"test/{metric.removeprefix('val/')}"


def _columns(comparison: Comparison) -> list[Column]:
    groups = comparison.groups
    settings = [_setting(label, groups) for label in comparison.labels]
    num = Column("n", tuple(str(group.value.num) if group.value else "0" for group in groups))
    values = [group.value for group in groups]
    tested = test_metric(comparison.metric)
    on_test = [group.test.get(tested) for group in groups]
    metrics = [*_of_metric(comparison.metric, values, "value"), *_of_metric(tested, on_test, "test")[:2]]
    return [*settings, num, *metrics, *_differences(comparison), *_costs(groups)]


def _setting(label: str, groups: Sequence[Group]) -> Column:
    short = shortened(group.settings.get(label) for group in groups)
    texts = (group.settings.get(label) for group in groups)
    return Column(shown(label), tuple("" if each is None else shown(short[each]) for each in texts), is_number=False)


def _of_metric(metric: str, summaries: Sequence[Summary | None], what: str) -> list[Column]:
    """Mean with deviation, interval, best; with the same decimals in all of them."""
    scale, unit = (100, " (%)") if "accuracy" in metric else (1, "")
    places = decimals(metric, summaries)
    means, intervals, bests = [], [], []
    for each in summaries:
        means.append("" if each is None else fixed(scale * each.mean, places))
        if each is not None and each.deviation is not None:
            means[-1] += f" ± {fixed(scale * each.deviation, places)}"
        intervals.append(_interval(each, scale, places))
        bests.append("" if each is None else fixed(scale * each.best, places))
    over = f"{shown(metric)}{unit}"
    return [
        Column(MEAN, tuple(means), marks=what == "value", over=over),
        Column(INTERVAL, tuple(intervals), over=over, key=f"{what} interval"),
        Column("best", tuple(bests), over=over, key="best"),
    ]


def _interval(each: Summary | Difference | None, scale: float, places: int, sign: str = "") -> str:
    if each is None or each.low is None or each.high is None:
        return ""
    return f"[{fixed(scale * each.low, places, sign)}, {fixed(scale * each.high, places, sign)}]"


def decimals(metric: str, summaries: Iterable[Summary | None]) -> int:
    """How many a column has: two significant digits of the deviation in its middle group; without one, as is usual."""
    known = [each for each in summaries if each is not None]
    scale, most = (100, MOST_DECIMALS_OF_PERCENT) if "accuracy" in metric else (1, MOST_DECIMALS)
    spreads = [scale * each.deviation for each in known if each.deviation]
    if spreads:
        wanted = 1 - _exponent(statistics.median_low(spreads))
    elif scale == 100 or not any(each.mean for each in known):
        wanted = 2
    else:
        wanted = 3 - _exponent(max(abs(each.mean) for each in known))
    return min(max(wanted, 0), most)


def _exponent(value: float) -> int:
    """Of the first of its digits, once it is rounded to two."""
    return int(f"{value:.1e}".partition("e")[2])


def fixed(value: float, places: int, sign: str = "") -> str:
    """A number with so many decimals; never -0.00."""
    return f"{value:{sign}z.{places}f}" if abs(value) < LONGEST else f"{value:{sign}.4g}"


def _differences(comparison: Comparison) -> list[Column]:
    if comparison.baseline is None:
        return []
    scale, unit = (100, " (points)") if "accuracy" in comparison.metric else (1, "")
    places = decimals(comparison.metric, (group.value for group in comparison.groups))
    found = [group.difference for group in comparison.groups]
    means = [
        "baseline" if group.name == comparison.baseline else _signed(group.difference, scale, places)
        for group in comparison.groups
    ]
    over = f"difference{unit}"
    columns = [
        Column(MEAN, tuple(means), over=over),
        Column(INTERVAL, tuple(_interval(each, scale, places, "+") for each in found), over=over),
        Column("p", tuple("" if each is None else _p(each.corrected) for each in found), over=over),
        Column("effect", tuple(_effect(each) for each in found), over=over),
    ]
    if len(kinds(comparison)) > 1:
        how = tuple("" if each is None else _COMPARED[each.kind] for each in found)
        columns.append(Column("compared", how, is_number=False, over=over, key="compared"))
    return columns


def _signed(difference: Difference | None, scale: float, places: int) -> str:
    return "" if difference is None else fixed(scale * difference.mean, places, "+")


def _p(p: float | None) -> str:
    if p is None:
        return ""
    return "< 0.001" if p < 0.001 else f"{p:.3f}"


def _effect(difference: Difference | None) -> str:
    return "" if difference is None or difference.effect is None else fixed(difference.effect, 2, "+")


def _costs(groups: Sequence[Group]) -> list[Column]:
    seconds = tuple("" if group.seconds is None else format_duration(group.seconds.mean) for group in groups)
    images = tuple("" if group.images_per_second is None else f"{group.images_per_second.mean:.0f}" for group in groups)
    parameters = tuple("" if group.parameters is None else f"{group.parameters:,}" for group in groups)
    return [
        Column("training time", seconds, told_once=True, key="training time"),
        Column("images/s", images, told_once=True, key="images/s"),
        Column("parameters", parameters, told_once=True, key="parameters"),
        Column("not done", tuple(not_done(group) for group in groups), is_number=False, key="not done"),
    ]


def not_done(group: Group) -> str:
    """`failed 1, pruned 2`."""
    return ", ".join(f"{status.label} {group.others[status]}" for status in RunStatus if group.others.get(status))
