"""What is averaged in a group: each seed counts once, whatever was run twice or put together."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from statistics import fmean

from litlab.compare.grouping import Members, Part
from litlab.compare.model import Mode, Run, Summary
from litlab.compare.statistics import summarize
from litlab.runs.diff import shown
from litlab.runs.directory import RunDirectory
from litlab.runs.state import RunStatus

_NUM_NAMED = 5  # runs or groups in a sentence
Values = Mapping[Path, float]  # directory of a run -> its value
Seeds = list[tuple[int | None, float]]  # None: a run without a seed


def counted(members: Sequence[Members], values: Values) -> tuple[list[Members], list[str]]:
    """The groups without the finished runs that may not count, and notes that name these.

    Of runs with the same settings and seed the newest counts: copies and repetitions must not make an interval
    narrower. Where settings are put together, seeds count that have all of them: of others the mean would be one of
    other settings.
    """
    old = [run for each in members for part in each.parts for run in _repeated(part.runs, values)]
    kept = [_without(each, old) for each in members]
    partial = [run for each in kept for run in _of_partial_seeds(each.parts, values)]
    notes = []
    if old:
        notes.append(f"{runs_are(len(old))} not averaged, as a newer one has the same settings and seed: {names(old)}")
    if partial:
        why = "as not all settings that --group puts together have a finished one with the same seed"
        notes.append(f"{runs_are(len(partial))} not averaged, {why}: {names(partial)}")
    if mixed := [each.name for each in kept if not by_seed(each.parts, values) and _with_value(each.parts, values)]:
        notes.append(f"{_listed(mixed)}: no seed has all settings that --group puts together, so there is no interval")
    return [_without(each, partial) for each in kept], notes


def by_seed(parts: Sequence[Part], values: Values) -> Seeds:
    """The value of each seed; where settings are put together, the mean over all of them.

    Settings are chosen and seeds are drawn: an interval is one over seeds. It is empty where settings are put together
    of which no seed has all.
    """
    found = [
        known for part in parts if (known := [(run.seed, values[run.path]) for run in part.runs if run.path in values])
    ]
    if len(found) < 2:
        return found[0] if found else []
    each = [dict(known) for known in found]
    shared = set.intersection(*map(set, each)) - {None}
    return [(seed, fmean(known[seed] for known in each)) for seed in sorted(shared, key=lambda seed: seed or 0)]


def summary(parts: Sequence[Part], values: Values, mode: Mode) -> Summary | None:
    """Over seeds, but for the best, which is that of a run; over runs and without an interval, where no seed has all
    of the settings that are put together; None without any value."""
    known = [values[run.path] for run in _with_value(parts, values)]
    if not known:
        return None
    of_runs, seeds = summarize(known, mode), by_seed(parts, values)
    if not seeds:
        return replace(of_runs, low=None, high=None)
    return replace(summarize([value for _, value in seeds], mode), best=of_runs.best)


def _with_value(parts: Sequence[Part], values: Values) -> list[Run]:
    return [run for part in parts for run in part.runs if run.path in values]


def _repeated(runs: Sequence[Run], values: Values) -> list[Run]:
    """All but the newest of the finished runs with the same seed, which has a value if one of them has."""
    seeds: dict[int, list[Run]] = {}
    for run in runs:
        if run.status == RunStatus.COMPLETED and run.seed is not None:
            seeds.setdefault(run.seed, []).append(run)
    repeated = [found for found in seeds.values() if len(found) > 1]
    return [run for found in repeated for run in sorted(found, key=lambda run: (run.path in values, _ended(run)))[:-1]]


def _of_partial_seeds(parts: Sequence[Part], values: Values) -> list[Run]:
    """The runs of seeds that not all settings have, if others have all."""
    seeds = {seed for seed, _ in by_seed(parts, values)}
    return [run for run in _with_value(parts, values) if run.seed not in seeds] if seeds else []


def _ended(run: Run) -> float:
    """When its result was written, in seconds since 1970."""
    return RunDirectory(run.path).result.stat().st_mtime


def _without(members: Members, runs: Sequence[Run]) -> Members:
    paths = {run.path for run in runs}
    parts = (replace(part, runs=tuple(run for run in part.runs if run.path not in paths)) for part in members.parts)
    return replace(members, parts=tuple(parts))


def runs_are(num: int) -> str:
    """The beginning of a sentence."""
    return "1 run is" if num == 1 else f"{num} runs are"


def names(runs: Sequence[Run]) -> str:
    """The first few."""
    return _listed([shown(run.name) for run in runs])


def _listed(said: Sequence[str]) -> str:
    return ", ".join(said[:_NUM_NAMED]) + f" and {len(said) - _NUM_NAMED} more" * (len(said) > _NUM_NAMED)
