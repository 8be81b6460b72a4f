"""One value for each seed or fold of a group.

Repetitions count once. Settings that `--group` averages over count together, and so do the seeds of a fold.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from statistics import fmean

from litlab.compare.data_model import Fold, Run, Summary, Unit, unit_name
from litlab.compare.grouping import GroupSpec, Subgroup, Value
from litlab.compare.setting_names import listed
from litlab.compare.summaries import summarize
from litlab.runs.metrics import Metric
from litlab.runs.terminal import format_value

_NUM_LISTED = 5  # runs or groups in a message
Values = Mapping[Path, float]  # directory of a run -> its value
UnitValues = list[tuple[Unit, float]]  # None: a run without a seed


def exclude_runs(groups: Sequence[GroupSpec], values: Values) -> tuple[list[GroupSpec], list[str]]:
    """Remove completed runs that may not count, and describe them in notes.

    Of runs with the same settings and seed (and fold) the newest counts: copies and repetitions must not narrow an
    interval. With `--group`, a seed counts only if it has a completed run in all settings that are averaged over:
    otherwise its mean would be one over other settings. So does a fold that several seeds were trained on; seeds that
    would take more runs of other ones away than they add are left out (`_with_shared_seeds`).
    """
    old = [run for group in groups for part in group.subgroups for run in _superseded(part.runs, values)]
    groups = [_without(group, old) for group in groups]
    kept = [_with_shared_seeds(group, values) for group in groups]
    paths = {run.path for group in kept for run in group.runs}
    of_seeds = [run for group in groups for run in group.runs if run.path in values and run.path not in paths]
    partial: list[Run] = []
    unmatched: list[str] = []
    for group in kept:
        units = {unit for unit, _ in values_by_unit(group.subgroups, values)}
        valued = [run for run in group.runs if run.path in values]
        if units:
            partial += [run for run in valued if run.unit not in units]
        elif valued:
            unmatched.append(group.name)
    notes = []
    if old:
        same = "settings, seed and fold" if unit_name(old) == "fold" else "settings and seed"
        notes.append(f"{runs_are(old)} not averaged, as a newer one has the same {same}: {run_names(old)}")
    if partial:
        reason = "as not all settings that --group averages over have a completed one with the same seed"
        if unit_name(partial) == "fold":
            reason = "as not all seeds and settings that are averaged over have a completed one on the same fold"
        notes.append(f"{runs_are(partial)} not averaged, {reason}: {run_names(partial)}")
    if of_seeds:
        reason = (
            "as their seeds were not completed on all folds that are averaged: a mean over more runs leaves them out"
        )
        notes.append(f"{runs_are(of_seeds)} not averaged, {reason}: {run_names(of_seeds)}")
    if unmatched:
        names = listed(unmatched, _NUM_LISTED)
        folds = any(run.fold is not None for group in kept if group.name in unmatched for run in group.runs)
        lacking = "fold has all seeds and settings that are" if folds else "seed has all settings that --group averages"
        notes.append(f"{names}: no {lacking}{' averaged' * folds} over, so no interval")
    return [_without(group, partial) for group in kept], notes


def _superseded(runs: Sequence[Run], values: Values) -> list[Run]:
    """Return all but the newest of the completed runs of the same unit; those with a value come before others."""
    by_unit: dict[int | Fold, list[Run]] = {}
    for run in runs:
        if run.is_completed and run.unit is not None:
            by_unit.setdefault(run.unit, []).append(run)

    def order(run: Run) -> tuple[bool, float]:
        return run.path in values, run.ended

    return [run for same in by_unit.values() if len(same) > 1 for run in sorted(same, key=order)[:-1]]


def _without(group: GroupSpec, runs: Sequence[Run]) -> GroupSpec:
    paths = {run.path for run in runs}
    parts = (replace(part, runs=tuple(run for run in part.runs if run.path not in paths)) for part in group.subgroups)
    return replace(group, subgroups=tuple(parts))


def _with_shared_seeds(group: GroupSpec, values: Values) -> GroupSpec:
    """Choose the seeds of folds whose values are averaged: those of the largest complete crossing of seeds and folds.

    Where each seed was used on one fold only, as by `seed=${data.fold}`, all of them count, each on its fold.
    """
    by_seed: dict[Value, list[Subgroup]] = {}
    for part in group.subgroups:
        if any(run.fold is not None and run.path in values for run in part.runs):
            by_seed.setdefault(part.settings[-1], []).append(part)
    if len(by_seed) < 2:
        return group
    if all(len(_valued_folds(parts, values)[1]) == 1 for parts in by_seed.values()):
        merged: dict[tuple[Value, ...], tuple[Run, ...]] = {}
        for part in group.subgroups:
            merged[part.settings[:-1]] = merged.get(part.settings[:-1], ()) + part.runs
        return replace(group, subgroups=tuple(Subgroup((*rest, None), runs) for rest, runs in merged.items()))
    num_settings = len({part.settings[:-1] for parts in by_seed.values() for part in parts})
    folds = {
        seed: _valued_folds(parts, values)[0] if len(parts) == num_settings else frozenset[Fold]()
        for seed, parts in by_seed.items()
    }
    shared = max(
        dict.fromkeys([one & other for one in folds.values() for other in folds.values()])
        | {frozenset.intersection(*folds.values()): None},
        key=lambda part: (len(part) * sum(part <= each for each in folds.values()), len(part)),
    )
    if not shared:
        return group
    dropped = {seed for seed, each in folds.items() if not shared <= each}
    return replace(group, subgroups=tuple(part for part in group.subgroups if part.settings[-1] not in dropped))


def _valued_folds(parts: Sequence[Subgroup], values: Values) -> tuple[frozenset[Fold], frozenset[Fold]]:
    """Return the folds that have a value in all subgroups, and those that have one in any."""
    folds = [frozenset(run.fold for run in part.runs if run.fold is not None and run.path in values) for part in parts]
    return frozenset.intersection(*folds), frozenset.union(*folds)


def values_by_unit(subgroups: Sequence[Subgroup], values: Values) -> UnitValues:
    """Return the value of each seed or fold; with several subgroups, its mean over all of them, if they share any."""
    pairs = [[(run.unit, values[run.path]) for run in part.runs if run.path in values] for part in subgroups]
    pairs = [_means_of_folds(part) for part in pairs if part]
    if len(pairs) < 2:
        return pairs[0] if pairs else []
    by_unit = [dict(part) for part in pairs]
    shared = [unit for unit in by_unit[0] if unit is not None and all(unit in part for part in by_unit)]
    return [(unit, fmean(part[unit] for part in by_unit)) for unit in shared]


def _means_of_folds(pairs: UnitValues) -> UnitValues:
    """Average the values of each fold; other units stay as they are, also several runs without a seed."""
    of_folds: dict[Fold, list[float]] = {}
    for unit, value in pairs:
        if isinstance(unit, Fold):
            of_folds.setdefault(unit, []).append(value)
    means: UnitValues = [(fold, fmean(values)) for fold, values in of_folds.items()]
    return means + [pair for pair in pairs if not isinstance(pair[0], Fold)]


def summarize_group(subgroups: Sequence[Subgroup], values: Values, metric: Metric) -> Summary | None:
    """Summarize values over seeds or folds, with the best value of a single run.

    If none is in all subgroups, the summary is over runs and has no interval. None without any value.
    """
    of_runs = [values[run.path] for part in subgroups for run in part.runs if run.path in values]
    if not of_runs:
        return None
    over_runs, by_unit = summarize(of_runs, metric), values_by_unit(subgroups, values)
    if not by_unit:
        return replace(over_runs, low=None, high=None)
    return replace(summarize([value for _, value in by_unit], metric), best=over_runs.best)


def unit_means(units: UnitValues) -> dict[Unit, float]:
    """Return seed or fold -> value; runs without a seed are averaged."""
    by_unit: dict[Unit, list[float]] = {}
    for unit, value in units:
        by_unit.setdefault(unit, []).append(value)
    return {unit: fmean(values) for unit, values in by_unit.items()}


def unit_end_times(runs: Iterable[Run]) -> dict[Unit, float]:
    """Return seed or fold -> the time at which the last of its runs ended."""
    times: dict[Unit, float] = {}
    for run in runs:
        times[run.unit] = max(times.get(run.unit, 0.0), run.ended)
    return times


def runs_are(runs: Sequence[Run]) -> str:
    """Begin a sentence about runs: `1 run is`, `2 runs are`."""
    return "1 run is" if len(runs) == 1 else f"{len(runs)} runs are"


def run_names(runs: Sequence[Run]) -> str:
    """List the names of runs, the first few of many."""
    return listed([format_value(run.name) for run in runs], _NUM_LISTED)
