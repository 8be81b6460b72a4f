"""From directories to a comparison: what `litlab compare` shows, in whatever form."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from statistics import fmean

from litlab.compare.averaging import Seeds, Values, by_seed, counted, names, runs_are, summary
from litlab.compare.collect import collect
from litlab.compare.filters import filtered
from litlab.compare.grouping import Members, form
from litlab.compare.metric_values import BEST, check_at, choose_metric, mode_of, no_values, value_of
from litlab.compare.model import Comparison, Group, Mode, Run, Skipped
from litlab.compare.ranking import find_group, ranked, tied
from litlab.compare.statistics import advice, differences
from litlab.compare.table import caution
from litlab.errors import UserError
from litlab.runs.state import RunStatus
from litlab.runs.terminal import printable

_NUM_NAMED = 5  # directories in a sentence
_NUM_TOLD = 8  # groups that are said to be no different from the baseline, one by one


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
        sort: a column: a setting by its label or key, a metric of the table or of the test, `n`, `name`, `time`,
            `images/s` or `parameters`; by default the metric that is compared.
        baseline: name of the group that others are compared with, or a part that only one name has.

    Raises:
        UserError: if nothing is left to compare, or what is asked for doesn't fit the runs.
    """
    check_at(at)
    runs, skipped = collect(directories)
    if not runs:
        raise UserError("\n".join(["there is nothing to compare", *_said(skipped)]))
    formed = form(runs, group, lambda groups, known: filtered(groups, known, filters))
    kept = [run for members in formed.members for run in members.runs]
    objective = choose_metric(kept, metric)
    values = _values(kept, objective.metric, at)
    if not values:
        raise no_values(kept, objective.metric, at)
    members, not_counted = counted(formed.members, values)
    untested = _untested([run for each in members for run in each.runs if run.path in values], objective.metric)
    groups = [_group(each, values, objective.mode) for each in members]
    base = None if baseline is None else find_group(groups, baseline)
    told: list[str] = []
    if base is not None:
        seeds = {each.name: by_seed(each.parts, values) for each in members}
        groups, told = _against(base, groups, seeds, objective.metric)
    return Comparison(
        directories=tuple(directories),
        metric=objective.metric,
        mode=objective.mode,
        at=at,
        labels=tuple(formed.keys),
        keys=formed.keys,
        groups=tuple(ranked(groups, sort, objective, formed.keys)),
        baseline=base.name if base else None,
        ties=tied(groups, objective.mode),
        notes=(
            *formed.notes,
            *not_counted,
            *_not_averaged(kept, values, objective.metric, at),
            *untested,
            *caution(groups, objective.mode),
            *told,
        ),
        skipped=tuple(skipped),
        unfinished=tuple(run for run in runs if run.status != RunStatus.COMPLETED),
    )


def _said(skipped: Sequence[Skipped]) -> list[str]:
    lines = [printable(f"{each.path}: {each.why}") for each in skipped[:_NUM_NAMED]]
    return lines + [f"and {len(skipped) - _NUM_NAMED} more"] * (len(skipped) > _NUM_NAMED)


def _values(runs: Sequence[Run], metric: str, at: str) -> dict[Path, float]:
    found = {run.path: value_of(run, metric, at) for run in runs if run.status == RunStatus.COMPLETED}
    return {path: value for path, value in found.items() if value is not None}


def _group(members: Members, values: Values, mode: Mode) -> Group:
    done = sorted(
        (run for run in members.runs if run.status == RunStatus.COMPLETED),
        key=lambda run: (run.seed is None, run.seed or 0),
    )
    known = [run for run in done if run.path in values]  # the same stand in all columns
    tests: dict[str, dict[Path, float]] = {}
    for run in known:
        for name, value in run.test.items():
            tests.setdefault(name, {})[run.path] = value
    seconds = {run.path: run.training_seconds for run in known if run.training_seconds is not None}
    speeds = {run.path: run.images_per_second for run in known if run.images_per_second is not None}
    parameters = {run.parameters for run in done}
    return Group(
        name=members.name,
        settings=members.settings,
        runs=tuple(done),
        others=dict(Counter(run.status for run in members.runs if run.status != RunStatus.COMPLETED)),
        value=summary(members.parts, values, mode),
        test={
            name: found
            for name, tested in tests.items()
            if (found := summary(members.parts, tested, mode_of(name))) is not None
        },
        seconds=summary(members.parts, seconds, "min"),
        images_per_second=summary(members.parts, speeds, "max"),
        parameters=parameters.pop() if len(parameters) == 1 else None,
    )


def _against(
    base: Group, groups: Sequence[Group], seeds: dict[str, Seeds], metric: str
) -> tuple[list[Group], list[str]]:
    """The groups with their differences from one of them, and what is said where those can't be told from noise."""
    if base.value is None:
        raise UserError(f"--baseline {base.name}: none of its runs has a value of {metric}; choose another")
    if not seeds[base.name]:
        raise UserError(
            f"--baseline {base.name}: no seed has a finished run of all settings that --group puts together there, so "
            "nothing can be tested against it; leave --group out, or let it name more settings"
        )
    others = {each.name: _means(known) for each in groups if each.name != base.name and (known := seeds[each.name])}
    if len(groups) == 1:
        return [base], [f"{base.name} is the only group: there is nothing to compare with it"]
    found = differences(_means(seeds[base.name]), others)
    sentences = [said for name, each in found.items() if (said := advice(name, each, metric)) is not None]
    told = sentences[:_NUM_TOLD]
    if (num_more := len(sentences) - _NUM_TOLD) > 0:
        told.append(f"{num_more} more group{'s' * (num_more != 1)} can't be told from {base.name} either")
    return [replace(each, difference=found.get(each.name)) for each in groups], told


def _means(seeds: Seeds) -> dict[int | None, float]:
    """Seed -> value; of the runs without a seed their mean."""
    known: dict[int | None, list[float]] = {}
    for seed, value in seeds:
        known.setdefault(seed, []).append(value)
    return {seed: fmean(values) for seed, values in known.items()}


def _not_averaged(runs: Sequence[Run], values: Values, metric: str, at: str) -> list[str]:
    """What is counted only: runs that are not done, and those without the metric."""
    notes = []
    words: Counter[RunStatus] = Counter(run.status for run in runs if run.status != RunStatus.COMPLETED)
    if words:
        counts = ", ".join(f"{num} {word.label}" for word, num in words.items())
        notes.append(f"{runs_are(words.total())} not done and not averaged: {counts}")
    if without := [run for run in runs if run.status == RunStatus.COMPLETED and run.path not in values]:
        notes.append(f"{runs_are(len(without))} done, but without {metric} at {at}: {names(without)}")
    return notes


def _untested(runs: Sequence[Run], metric: str) -> list[str]:
    """Those that count, but lack the metric of the test that stands beside, if others have it."""
    tested = f"test/{metric.removeprefix('val/')}"
    without = [run for run in runs if tested not in run.test]
    if not without or len(without) == len(runs):
        return []
    have = "1 run has" if len(without) == 1 else f"{len(without)} runs have"
    return [f"{have} no {tested}, which is averaged over the others: {names(without)}"]
