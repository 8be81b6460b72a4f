"""Averages of a group in which each seed counts once, despite repeated runs and settings that are averaged over."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from statistics import fmean

from litlab.compare.grouping import GroupSpec, Subgroup
from litlab.compare.model import Run, Summary
from litlab.compare.statistics import summarize
from litlab.runs.directory import RunDirectory
from litlab.runs.metrics import Metric
from litlab.runs.terminal import format_value

_NUM_NAMED = 5  # runs or groups in a sentence
Values = Mapping[Path, float]  # directory of a run -> its value
SeedValues = list[tuple[int | None, float]]  # None: a run without a seed


def exclude_runs(groups: Sequence[GroupSpec], values: Values) -> tuple[list[GroupSpec], list[str]]:
    """Remove completed runs that may not count, and describe them in notes.

    Of runs with the same settings and seed the newest counts: copies and repetitions must not narrow an interval. With
    `--group`, a seed counts only if it has a completed run in all settings that are averaged over: otherwise its mean
    would be one over other settings.
    """
    old = [run for group in groups for part in group.subgroups for run in _superseded(part.runs, values)]
    kept = [_without(group, old) for group in groups]
    partial = [run for group in kept for run in _of_partial_seeds(group.subgroups, values)]
    notes = []
    if old:
        notes.append(f"{runs_are(len(old))} not averaged, as a newer one has the same settings and seed: {names(old)}")
    if partial:
        reason = "as not all settings that --group averages over have a completed one with the same seed"
        notes.append(f"{runs_are(len(partial))} not averaged, {reason}: {names(partial)}")
    unmatched = [
        group.name
        for group in kept
        if not values_by_seed(group.subgroups, values) and _with_value(group.subgroups, values)
    ]
    if unmatched:
        notes.append(f"{_listed(unmatched)}: no seed has all settings that --group averages over, so no interval")
    return [_without(group, partial) for group in kept], notes


def values_by_seed(subgroups: Sequence[Subgroup], values: Values) -> SeedValues:
    """Return the value of each seed; with several subgroups, its mean over all of them.

    It is empty if there are several subgroups and no seed is in all of them.
    """
    known = [
        pairs
        for part in subgroups
        if (pairs := [(run.seed, values[run.path]) for run in part.runs if run.path in values])
    ]
    if len(known) < 2:
        return known[0] if known else []
    by_seed = [dict(pairs) for pairs in known]
    shared = set.intersection(*map(set, by_seed)) - {None}
    return [(seed, fmean(part[seed] for part in by_seed)) for seed in sorted(shared, key=lambda seed: seed or 0)]


def summarize_group(subgroups: Sequence[Subgroup], values: Values, metric: Metric) -> Summary | None:
    """Summarize values over seeds, with the best value of a single run.

    If no seed is in all subgroups, the summary is over runs and has no interval. None without any value.
    """
    known = [values[run.path] for run in _with_value(subgroups, values)]
    if not known:
        return None
    over_runs, by_seed = summarize(known, metric), values_by_seed(subgroups, values)
    if not by_seed:
        return replace(over_runs, low=None, high=None)
    return replace(summarize([value for _, value in by_seed], metric), best=over_runs.best)


def _with_value(subgroups: Sequence[Subgroup], values: Values) -> list[Run]:
    return [run for part in subgroups for run in part.runs if run.path in values]


def _superseded(runs: Sequence[Run], values: Values) -> list[Run]:
    """Return all but the newest of the completed runs with the same seed; those with a value come before others."""
    by_seed: dict[int, list[Run]] = {}
    for run in runs:
        if run.is_completed and run.seed is not None:
            by_seed.setdefault(run.seed, []).append(run)
    repeated = [same for same in by_seed.values() if len(same) > 1]
    return [run for same in repeated for run in sorted(same, key=lambda run: (run.path in values, _end_time(run)))[:-1]]


def _of_partial_seeds(subgroups: Sequence[Subgroup], values: Values) -> list[Run]:
    """Return the runs of seeds that are not in all subgroups, if other seeds are."""
    seeds = {seed for seed, _ in values_by_seed(subgroups, values)}
    return [run for run in _with_value(subgroups, values) if run.seed not in seeds] if seeds else []


def _end_time(run: Run) -> float:
    return RunDirectory(run.path).result.stat().st_mtime


def _without(group: GroupSpec, runs: Sequence[Run]) -> GroupSpec:
    paths = {run.path for run in runs}
    parts = (replace(part, runs=tuple(run for run in part.runs if run.path not in paths)) for part in group.subgroups)
    return replace(group, subgroups=tuple(parts))


def runs_are(num: int) -> str:
    """Return the beginning of a sentence: `1 run is`, `2 runs are`."""
    return "1 run is" if num == 1 else f"{num} runs are"


def names(runs: Sequence[Run]) -> str:
    """Return the names of the first few runs."""
    return _listed([format_value(run.name) for run in runs])


def _listed(texts: Sequence[str]) -> str:
    return ", ".join(texts[:_NUM_NAMED]) + f" and {len(texts) - _NUM_NAMED} more" * (len(texts) > _NUM_NAMED)
