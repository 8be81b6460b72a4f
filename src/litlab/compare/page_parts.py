"""What the page shows of groups and their runs, as texts, before it is HTML."""

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from itertools import islice, takewhile
from typing import Any

from litlab.compare.digits import shortened
from litlab.compare.model import Comparison, Group, Run
from litlab.compare.settings import text
from litlab.compare.table import decimals, fixed, not_done, test_metric
from litlab.compare.values import value_of
from litlab.compare.wording import on_one_line
from litlab.sweep.summary import headline

MOST_GROUPS = 50  # whose configs and runs are shown
MOST_RUNS = 200  # of a group, and of those that are not done
MOST_LINES = 400  # of a config
_WORST_FIRST = ("failed", "refused", "interrupted", "pruned", "running", "waiting", "done")


@dataclass(frozen=True)
class Line:
    """Of a config; `differs` if it is of a setting that varies between the groups."""

    text: str
    differs: bool


@dataclass(frozen=True)
class RunRow:
    """A run that is done; values as texts."""

    name: str
    seed: str
    value: str
    test: str
    word: str


@dataclass(frozen=True)
class GroupPart:
    """
    Attributes:
        said: its value, and what is not done.
        settings: that vary, label -> value.
        config: that all of its runs share; empty for a group without runs that are done.
        num_left_out: runs that are not listed.
    """

    name: str
    said: str
    settings: Mapping[str, str]
    config: tuple[Line, ...]
    runs: tuple[RunRow, ...]
    num_left_out: int


def group_parts(comparison: Comparison) -> list[GroupPart]:
    """The first groups of the comparison."""
    short = {label: shortened(group.settings.get(label) for group in comparison.groups) for label in comparison.labels}
    return [_part(comparison, group, short) for group in comparison.groups[:MOST_GROUPS]]


def _part(comparison: Comparison, group: Group, short: Mapping[str, Mapping[str, str]]) -> GroupPart:
    tested = test_metric(comparison.metric)
    places = decimals(comparison.metric, (each.value for each in comparison.groups))
    of_test = decimals(tested, (each.test.get(tested) for each in comparison.groups))
    rows = [
        RunRow(
            name=on_one_line(run.name),
            seed="" if run.seed is None else str(run.seed),
            value=_number(comparison.metric, value_of(run, comparison.metric, comparison.at), places),
            test=_number(tested, run.test.get(tested), of_test),
            word=run.word,
        )
        for run in group.runs[:MOST_RUNS]
    ]
    value = _number(comparison.metric, group.value.mean if group.value else None, places)
    keys = [comparison.keys[label] for label in group.settings if label in comparison.keys]
    return GroupPart(
        name=on_one_line(group.name),
        said=", ".join(filter(None, [value, f"n = {len(group.runs)}", not_done(group)])),
        settings={on_one_line(label): on_one_line(short[label][setting]) for label, setting in group.settings.items()},
        config=tuple(_config(group.runs[0], keys)) if group.runs else (),
        runs=tuple(rows),
        num_left_out=len(group.runs) - len(rows),
    )


def _number(metric: str, value: float | None, places: int) -> str:
    if value is None:
        return ""
    return f"{fixed(100 * value, places)} %" if "accuracy" in metric else fixed(value, places)


def _config(run: Run, keys: Collection[str]) -> list[Line]:
    lines = list(islice(_outline(run.settings, keys), MOST_LINES + 1))
    return lines if len(lines) <= MOST_LINES else [*lines[:MOST_LINES], Line("… and more", False)]


def _outline(settings: Mapping[str, Any], keys: Collection[str]) -> Iterator[Line]:
    """Settings like YAML: a name a line, indented below the one that it belongs to."""
    before: list[str] = []
    for key, value in settings.items():
        *parents, last = key.split(".")
        num_shared = sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], zip(parents, before, strict=False)))
        for depth in range(num_shared, len(parents)):
            yield Line(f"{'  ' * depth}{on_one_line(parents[depth])}:", False)
        differs = any(key == each or key.startswith(f"{each}.") for each in keys)
        yield Line(f"{'  ' * len(parents)}{on_one_line(last)}: {on_one_line(text(value))}", differs)
        before = parents


@dataclass(frozen=True)
class Unfinished:
    """A run that is not done; `why` is one line."""

    name: str
    word: str
    why: str


@dataclass(frozen=True)
class UnfinishedPart:
    """
    Attributes:
        runs: those that are listed, the failed first.
        num_left_out: more that are not listed.
        num_outside: how many of all are in no group, since they were filtered out.
    """

    runs: tuple[Unfinished, ...]
    num_left_out: int
    num_outside: int


def unfinished_part(comparison: Comparison) -> UnfinishedPart:
    """The runs in the directories that are not done."""
    runs = sorted(comparison.unfinished, key=lambda run: _WORST_FIRST.index(run.word))
    listed = [
        Unfinished(on_one_line(run.name), run.word, on_one_line(headline(run.message))) for run in runs[:MOST_RUNS]
    ]
    num_inside = sum(sum(group.others.values()) for group in comparison.groups)
    return UnfinishedPart(tuple(listed), len(runs) - len(listed), max(len(runs) - num_inside, 0))
