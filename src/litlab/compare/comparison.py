"""The comparison that `litlab compare` shows: runs of directories, grouped, averaged, tested and sorted."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from statistics import fmean

from litlab.compare.averaging import SeedValues, Values, exclude_runs, names, runs_are, summarize_group, values_by_seed
from litlab.compare.collect import collect
from litlab.compare.conclusion import advice, caution
from litlab.compare.filters import filter_runs
from litlab.compare.grouping import GroupSpec, define_groups, group_by_settings
from litlab.compare.metric_values import (
    BEST,
    check_at,
    choose_metric,
    metric_table,
    no_values_error,
    test_counterpart,
    unknown_direction_error,
    value_of,
)
from litlab.compare.model import Comparison, Group, Run, Skipped
from litlab.compare.ranking import find_group, rank_groups, tied_groups
from litlab.compare.statistics import differences
from litlab.compare.table import sort_groups
from litlab.errors import UserError
from litlab.runs.metrics import Metric, MetricTable, Mode
from litlab.runs.terminal import printable

_NUM_DIRECTORIES = 5  # directories in a message
_NUM_ADVICE = 8  # groups for which it is said one by one that they do not differ from the baseline
_SPEED = Metric("images/s", mode="max")
_SECONDS = Metric("seconds", "s", mode="min")


def compare(
    directories: Sequence[Path],
    *,
    metric: str | None = None,
    mode: Mode | None = None,
    at: str = BEST,
    filters: Sequence[str] = (),
    group: Sequence[str] | None = None,
    sort: str | None = None,
    baseline: str | None = None,
) -> Comparison:
    """Collect the runs at or below directories, group them by their configs without the seed, and rank the groups.

    Args:
        directories: Studies, runs, or folders of them.
        metric: Validation metric that groups are compared by; by default the objective of the runs.
        mode: Direction of the metric; by default that of the objective or of the metric's class.
        at: `best`: where the objective was best; `last`; or `epoch=N`, counted from 1.
        filters: Conditions on settings: `optimizer.lr<0.1`. A run counts if all of them hold.
        group: Settings that alone tell groups apart; all others are averaged over.
        sort: Column to sort by: a setting by its label or key, a metric, or another column; by default the metric.
        baseline: Name of the group that others are compared with, or a part that only one name has.

    Raises:
        UserError: If no run is left to compare, or if an argument does not fit the runs.
    """
    check_at(at)
    runs, skipped = collect(directories)
    if not runs:
        raise UserError("\n".join(["there is nothing to compare", *_describe_skipped(skipped)]))
    all_groups = group_by_settings(runs)
    run_groups = filter_runs(all_groups, filters)
    grouping = define_groups(run_groups, group, all_groups)
    kept = [run for spec in grouping.groups for run in spec.runs]
    table = metric_table(kept)
    chosen = choose_metric(kept, metric, mode, table)
    test = test_counterpart(chosen, table)
    table[test.name] = test
    values = _values(kept, chosen.name, at)
    if not values:
        raise no_values_error(kept, chosen.name, at)
    if chosen.mode is None:
        raise unknown_direction_error(chosen.name)
    specs, notes = exclude_runs(grouping.groups, values)
    notes += _not_averaged(kept, values, chosen.name, at)
    notes += _without_test(specs, values, test.name)
    groups = [_group(spec, values, chosen, table) for spec in specs]
    notes += caution(groups, chosen.mode)
    base = None if baseline is None else find_group(groups, baseline)
    if base is not None:
        by_seed = {spec.name: values_by_seed(spec.subgroups, values) for spec in specs}
        groups, remarks = _against(base, groups, by_seed, chosen)
        notes += remarks
    num_filtered = len(runs) - len(kept)
    comparison = Comparison(
        directories=tuple(directories),
        metric=chosen,
        test_metric=test,
        at=at,
        labels=tuple(grouping.keys),
        keys=grouping.keys,
        groups=tuple(rank_groups(groups, chosen.mode)),
        baseline=base.name if base else None,
        ties=tied_groups(groups, chosen.mode),
        notes=(
            *[f"--filter leaves out {num_filtered} of {len(runs)} runs"] * (num_filtered > 0),
            *grouping.notes,
            *notes,
        ),
        skipped=tuple(skipped),
        unfinished=tuple(run for run in runs if not run.is_completed),
    )
    return comparison if sort is None else replace(comparison, groups=sort_groups(comparison, sort, table))


def _describe_skipped(skipped: Sequence[Skipped]) -> list[str]:
    lines = [printable(f"{entry.path}: {entry.reason}") for entry in skipped[:_NUM_DIRECTORIES]]
    return lines + [f"and {len(skipped) - _NUM_DIRECTORIES} more"] * (len(skipped) > _NUM_DIRECTORIES)


def _values(runs: Sequence[Run], metric: str, at: str) -> dict[Path, float]:
    values = {run.path: value_of(run, metric, at) for run in runs if run.is_completed}
    return {path: value for path, value in values.items() if value is not None}


def _group(spec: GroupSpec, values: Values, metric: Metric, table: MetricTable) -> Group:
    completed = sorted(
        (run for run in spec.runs if run.is_completed), key=lambda run: (run.seed is None, run.seed or 0)
    )
    counted = [run for run in completed if run.path in values]  # the same runs in all columns
    test: dict[str, dict[Path, float]] = {}
    for run in counted:
        for name, value in run.test.items():
            test.setdefault(name, {})[run.path] = value
    seconds = {run.path: run.training_seconds for run in counted if run.training_seconds is not None}
    speeds = {run.path: run.images_per_second for run in counted if run.images_per_second is not None}
    parameters = {run.parameters for run in completed}
    summaries = {name: summarize_group(spec.subgroups, known, table[name]) for name, known in test.items()}
    return Group(
        name=spec.name,
        settings=spec.settings,
        runs=tuple(completed),
        others=dict(Counter(run.status for run in spec.runs if not run.is_completed)),
        value=summarize_group(spec.subgroups, values, metric),
        test={name: summary for name, summary in summaries.items() if summary is not None},
        seconds=summarize_group(spec.subgroups, seconds, _SECONDS),
        images_per_second=summarize_group(spec.subgroups, speeds, _SPEED),
        parameters=parameters.pop() if len(parameters) == 1 else None,
    )


def _against(
    base: Group, groups: Sequence[Group], seeds: dict[str, SeedValues], metric: Metric
) -> tuple[list[Group], list[str]]:
    """Add differences from the baseline to the groups, and describe those that cannot be told from noise."""
    if base.value is None:
        raise UserError(f"--baseline {base.name}: none of its runs has a value of {metric.name}; choose another")
    if not seeds[base.name]:
        raise UserError(
            f"--baseline {base.name}: no seed has a completed run of all settings that --group averages over there, so "
            "nothing can be tested against it; leave --group out, or let it name more settings"
        )
    others = {
        group.name: _seed_means(known) for group in groups if group.name != base.name and (known := seeds[group.name])
    }
    if len(groups) == 1:
        return [base], [f"{base.name} is the only group: there is nothing to compare with it"]
    tested = differences(_seed_means(seeds[base.name]), others)
    sentences = [
        sentence for name, difference in tested.items() if (sentence := advice(name, difference, metric)) is not None
    ]
    remarks = sentences[:_NUM_ADVICE]
    if (num_more := len(sentences) - _NUM_ADVICE) > 0:
        remarks.append(f"{num_more} more group{'s' * (num_more != 1)} can't be told from {base.name} either")
    return [replace(group, difference=tested.get(group.name)) for group in groups], remarks


def _seed_means(seeds: SeedValues) -> dict[int | None, float]:
    """Return seed -> value; runs without a seed are averaged."""
    by_seed: dict[int | None, list[float]] = {}
    for seed, value in seeds:
        by_seed.setdefault(seed, []).append(value)
    return {seed: fmean(values) for seed, values in by_seed.items()}


def _not_averaged(runs: Sequence[Run], values: Values, metric: str, at: str) -> list[str]:
    """Describe runs that are counted only: those that are not completed, and those without the metric."""
    notes = []
    statuses = Counter(run.status for run in runs if not run.is_completed)
    if statuses:
        counts = ", ".join(f"{num} {status.label}" for status, num in statuses.items())
        notes.append(f"{runs_are(statuses.total())} not completed and not averaged: {counts}")
    if without := [run for run in runs if run.is_completed and run.path not in values]:
        notes.append(f"{runs_are(len(without))} completed, but without {metric} at {at}: {names(without)}")
    return notes


def _without_test(specs: Sequence[GroupSpec], values: Values, test_metric: str) -> list[str]:
    """Describe runs that count, but lack the test metric, if others have it."""
    runs = [run for spec in specs for run in spec.runs if run.path in values]
    without = [run for run in runs if test_metric not in run.test]
    if not without or len(without) == len(runs):
        return []
    have = "1 run has" if len(without) == 1 else f"{len(without)} runs have"
    return [f"{have} no {test_metric}, which is averaged over the others: {names(without)}"]
