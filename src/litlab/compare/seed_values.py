"""One value for each seed of a group: repetitions count once, settings that are averaged over count together."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from statistics import fmean

from litlab.compare.data_model import Run, Summary
from litlab.compare.grouping import GroupSpec, Subgroup
from litlab.compare.setting_names import listed
from litlab.compare.statistics import summarize
from litlab.runs.directory import RunDirectory
from litlab.runs.metrics import Metric
from litlab.runs.terminal import format_value

_NUM_LISTED = 5  # runs or groups in a message
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
    partial: list[Run] = []
    unmatched: list[str] = []
    for group in kept:
        seeds = {seed for seed, _ in values_by_seed(group.subgroups, values)}
        valued = [run for run in group.runs if run.path in values]
        if seeds:
            partial += [run for run in valued if run.seed not in seeds]
        elif valued:
            unmatched.append(group.name)
    notes = []
    if old:
        notes.append(f"{runs_are(old)} not averaged, as a newer one has the same settings and seed: {run_names(old)}")
    if partial:
        reason = "as not all settings that --group averages over have a completed one with the same seed"
        notes.append(f"{runs_are(partial)} not averaged, {reason}: {run_names(partial)}")
    if unmatched:
        names = listed(unmatched, _NUM_LISTED)
        notes.append(f"{names}: no seed has all settings that --group averages over, so no interval")
    return [_without(group, partial) for group in kept], notes


def _superseded(runs: Sequence[Run], values: Values) -> list[Run]:
    """Return all but the newest of the completed runs with the same seed; those with a value come before others."""
    by_seed: dict[int, list[Run]] = {}
    for run in runs:
        if run.is_completed and run.seed is not None:
            by_seed.setdefault(run.seed, []).append(run)

    def order(run: Run) -> tuple[bool, float]:
        return run.path in values, RunDirectory(run.path).result.stat().st_mtime

    return [run for same in by_seed.values() if len(same) > 1 for run in sorted(same, key=order)[:-1]]


def _without(group: GroupSpec, runs: Sequence[Run]) -> GroupSpec:
    paths = {run.path for run in runs}
    parts = (replace(part, runs=tuple(run for run in part.runs if run.path not in paths)) for part in group.subgroups)
    return replace(group, subgroups=tuple(parts))


def values_by_seed(subgroups: Sequence[Subgroup], values: Values) -> SeedValues:
    """Return the value of each seed; with several subgroups, its mean over all of them, if they share any seed."""
    pairs = [[(run.seed, values[run.path]) for run in part.runs if run.path in values] for part in subgroups]
    pairs = list(filter(None, pairs))
    if len(pairs) < 2:
        return pairs[0] if pairs else []
    by_seed = [dict(part) for part in pairs]
    shared = set.intersection(*map(set, by_seed)) - {None}
    return [(seed, fmean(part[seed] for part in by_seed)) for seed in sorted(shared, key=lambda seed: seed or 0)]


def summarize_group(subgroups: Sequence[Subgroup], values: Values, metric: Metric) -> Summary | None:
    """Summarize values over seeds, with the best value of a single run.

    If no seed is in all subgroups, the summary is over runs and has no interval. None without any value.
    """
    of_runs = [values[run.path] for part in subgroups for run in part.runs if run.path in values]
    if not of_runs:
        return None
    over_runs, by_seed = summarize(of_runs, metric), values_by_seed(subgroups, values)
    if not by_seed:
        return replace(over_runs, low=None, high=None)
    return replace(summarize([value for _, value in by_seed], metric), best=over_runs.best)


def seed_means(seeds: SeedValues) -> dict[int | None, float]:
    """Return seed -> value; runs without a seed are averaged."""
    by_seed: dict[int | None, list[float]] = {}
    for seed, value in seeds:
        by_seed.setdefault(seed, []).append(value)
    return {seed: fmean(values) for seed, values in by_seed.items()}


def runs_are(runs: Sequence[Run]) -> str:
    """Begin a sentence about runs: `1 run is`, `2 runs are`."""
    return "1 run is" if len(runs) == 1 else f"{len(runs)} runs are"


def run_names(runs: Sequence[Run]) -> str:
    """List the names of runs, the first few of many."""
    return listed([format_value(run.name) for run in runs], _NUM_LISTED)
