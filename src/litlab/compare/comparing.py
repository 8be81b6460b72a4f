"""From directories to a comparison: what `litlab compare` shows, in whatever form."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from statistics import fmean

from litlab.compare.collect import collect
from litlab.compare.forming import Members, form
from litlab.compare.model import Comparison, Group, Mode, Run, Skipped, Summary
from litlab.compare.ranking import find_group, ranked, tied
from litlab.compare.statistics import advice, differences, summarize
from litlab.compare.values import BEST, check_at, choose_metric, mode_of, no_values, value_of
from litlab.errors import UserError
from litlab.runs.difference import shown
from litlab.runs.directory import RunDirectory
from litlab.sweep.states import Word

_NUM_NAMED = 5  # runs or directories in a sentence
_NUM_TOLD = 8  # groups that are said to be no different from the baseline, one by one
Values = Mapping[Path, float]  # directory of a run -> its value of the metric that is compared


def compare(
    directories: Sequence[Path],
    *,
    metric: str | None = None,
    at: str = BEST,
    filters: Sequence[str] = (),
    group: Sequence[str] | None = None,
    sort: str | None = None,
    baseline: str | None = None,
) -> Comparison:
    """Collect the runs at or below directories, group them by their configs without the seed, and rank the groups.

    Args:
        directories: studies, runs, or folders of them.
        metric: by which groups are compared; by default the objective of the runs.
        at: `best`: where the objective was best; `last`; or `epoch=N`, counted from 1.
        filters: conditions on settings, all of which hold for a run that counts: `optimizer.lr<0.1`.
        group: settings that alone tell groups apart; all else is averaged over.
        sort: `name`, `time`, a label, or a metric; by default the metric that is compared.
        baseline: name of the group that others are compared with, or a part that only one name has.

    Raises:
        UserError: if nothing is left to compare, or what is asked for doesn't fit the runs.
    """
    check_at(at)
    runs, skipped = collect(directories)
    if not runs:
        raise UserError("\n".join(["there is nothing to compare", *_said(skipped)]))
    formed = form(runs, filters, group)
    kept = [run for members in formed.members for run in members.runs]
    objective = choose_metric(kept, metric)
    values = _values(kept, objective.metric, at)
    if not values:
        raise no_values(kept, objective.metric, at)
    members, repeated = (formed.members, []) if group is not None else _one_a_seed(formed.members)
    groups = [_group(each, values, objective.mode) for each in members]
    base = None if baseline is None else find_group(groups, baseline)
    told: list[str] = []
    if base is not None:
        groups, told = _against(base, groups, values, objective.metric)
    return Comparison(
        directories=tuple(directories),
        metric=objective.metric,
        mode=objective.mode,
        at=at,
        labels=tuple(formed.keys),
        keys=formed.keys,
        groups=tuple(ranked(groups, sort, objective, tuple(formed.keys))),
        baseline=base.name if base else None,
        ties=tied(groups, objective.mode),
        notes=(*formed.notes, *repeated, *_not_averaged(kept, values, objective.metric, at), *told),
        skipped=tuple(skipped),
    )


def _said(skipped: Sequence[Skipped]) -> list[str]:
    lines = [f"{each.path}: {each.why}" for each in skipped[:_NUM_NAMED]]
    return lines + [f"and {len(skipped) - _NUM_NAMED} more"] * (len(skipped) > _NUM_NAMED)


def _values(runs: Sequence[Run], metric: str, at: str) -> dict[Path, float]:
    found = {run.path: value_of(run, metric, at) for run in runs if run.word == "done"}
    return {path: value for path, value in found.items() if value is not None}


def _one_a_seed(members: Sequence[Members]) -> tuple[list[Members], list[str]]:
    """Of finished runs with one seed the newest: copies and repetitions must not make an interval narrower."""
    kept: list[Members] = []
    left_out: list[Run] = []
    for each in members:
        by_seed: dict[int, list[Run]] = {}
        for run in each.runs:
            if run.word == "done" and run.seed is not None:
                by_seed.setdefault(run.seed, []).append(run)
        old = [run for runs in by_seed.values() if len(runs) > 1 for run in sorted(runs, key=_ended)[:-1]]
        paths = {run.path for run in old}
        kept.append(replace(each, runs=tuple(run for run in each.runs if run.path not in paths)))
        left_out += old
    if not left_out:
        return kept, []
    return kept, [
        f"{_runs(len(left_out))} not averaged, as a newer one has the same settings and seed: {_names(left_out)}"
    ]


def _ended(run: Run) -> float:
    """When its result was written, in seconds since 1970."""
    return RunDirectory(run.path).result.stat().st_mtime


def _group(members: Members, values: Values, mode: Mode) -> Group:
    done = sorted(
        (run for run in members.runs if run.word == "done"), key=lambda run: (run.seed is None, run.seed or 0)
    )
    tests: dict[str, list[float]] = {}
    for run in done:
        for name, value in run.test.items():
            tests.setdefault(name, []).append(value)
    parameters = {run.parameters for run in done}
    return Group(
        name=members.name,
        settings=members.settings,
        runs=tuple(done),
        others=dict(Counter(run.word for run in members.runs if run.word != "done")),
        value=_summary([values[run.path] for run in done if run.path in values], mode),
        test={name: summarize(found, mode_of(name)) for name, found in tests.items()},
        seconds=_summary([run.training_seconds for run in done], "min"),
        images_per_second=_summary([run.images_per_second for run in done], "max"),
        parameters=parameters.pop() if len(parameters) == 1 else None,
    )


def _summary(values: Sequence[float | None], mode: Mode) -> Summary | None:
    known = [value for value in values if value is not None]
    return summarize(known, mode) if known else None


def _against(base: Group, groups: Sequence[Group], values: Values, metric: str) -> tuple[list[Group], list[str]]:
    """The groups with their differences from one of them, and what is said where those can't be told from noise."""
    if base.value is None:
        raise UserError(f"--baseline {base.name}: none of its runs has a value of {metric}; choose another")
    others = {each.name: _by_seed(each, values) for each in groups if each.name != base.name and each.value}
    found = differences(_by_seed(base, values), others)
    sentences = [said for name, each in found.items() if (said := advice(name, each, metric)) is not None]
    told = sentences[:_NUM_TOLD]
    if len(sentences) > _NUM_TOLD:
        told.append(f"{len(sentences) - _NUM_TOLD} more groups can't be told from {base.name} either")
    return [replace(each, difference=found.get(each.name)) for each in groups], told


def _by_seed(group: Group, values: Values) -> dict[int | None, float]:
    """Seed -> value; where --group has put several settings together, their mean."""
    by_seed: dict[int | None, list[float]] = {}
    for run in group.runs:
        if run.path in values:
            by_seed.setdefault(run.seed, []).append(values[run.path])
    return {seed: fmean(found) for seed, found in by_seed.items()}


def _not_averaged(runs: Sequence[Run], values: Values, metric: str, at: str) -> list[str]:
    """What is counted only: runs that are not done, and those without the metric."""
    notes = []
    words: Counter[Word] = Counter(run.word for run in runs if run.word != "done")
    if words:
        counts = ", ".join(f"{num} {word}" for word, num in words.items())
        notes.append(f"{_runs(words.total())} not done and not averaged: {counts}")
    if without := [run for run in runs if run.word == "done" and run.path not in values]:
        notes.append(f"{_runs(len(without))} done, but without {metric} at {at}: {_names(without)}")
    return notes


def _runs(num: int) -> str:
    return "1 run is" if num == 1 else f"{num} runs are"


def _names(runs: Sequence[Run]) -> str:
    names = ", ".join(shown(run.name) for run in runs[:_NUM_NAMED])
    return names + f" and {len(runs) - _NUM_NAMED} more" * (len(runs) > _NUM_NAMED)
