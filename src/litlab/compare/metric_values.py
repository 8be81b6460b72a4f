"""The metric that runs are compared by, and its value in a run: where it was best, at last, or after an epoch."""

import math
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from difflib import get_close_matches

from litlab.compare.model import Mode, Objective, Run
from litlab.errors import UserError
from litlab.runs.diff import shown
from litlab.runs.directory import RunDirectory, open_regular
from litlab.runs.metrics import Row
from litlab.runs.state import RunStatus
from litlab.runs.terminal import headline

BEST, LAST = "best", "last"
_EPOCH = re.compile(r"epoch=([1-9]\d{0,8})")
_LONGEST_LINE = 1000  # bytes; of ours, under a hundred
_NUM_NAMED = 12
_LESS_IS_BETTER = ("loss", "error")


def choose_metric(runs: Sequence[Run], asked: str | None) -> Objective:
    """The metric that was asked for, or else the objective of the runs; never one of the test.

    Raises:
        UserError: if it is one of the test, if no run has it, or if the runs have several objectives or none.
    """
    if asked is None:
        return _shared_objective(runs)
    if asked.startswith("test/"):
        raise UserError(
            f"--metric {shown(asked)}: nothing is selected on the test split; choose a metric of the validation, "
            "and the test metrics stand beside it"
        )
    modes = {run.objective.mode for run in runs if run.objective and run.objective.metric == asked}
    return Objective(asked, modes.pop() if len(modes) == 1 else mode_of(asked))


def _shared_objective(runs: Sequence[Run]) -> Objective:
    objectives = {run.objective for run in runs if run.objective}
    if len(objectives) == 1:
        return objectives.pop()
    if not objectives:
        raise UserError(f"the runs have no objective; say what to compare with --metric: {_known(runs)}")
    several = ", ".join(sorted(f"{each.metric} ({each.mode})" for each in objectives)[:_NUM_NAMED])
    raise UserError(f"the runs have several objectives: {several}; say which metric with --metric: {_known(runs)}")


def mode_of(metric: str) -> Mode:
    """By the name, for a metric that is nobody's objective."""
    return "min" if any(word in metric for word in _LESS_IS_BETTER) else "max"


def check_at(at: str) -> None:
    """
    Raises:
        UserError: if it is no place in a run.
    """
    if at not in (BEST, LAST) and not _EPOCH.fullmatch(at):
        raise UserError(f"--at {shown(at)}: expected best, last or epoch=N, with epochs counted from 1")


def value_of(run: Run, metric: str, at: str) -> float | None:
    """Of a run that is done; None if it has none there.

    What result.json has not, such as metrics of the training, is looked up in metrics.csv: for `best`, the last value
    up to the validation at which the objective was best.
    """
    known = {BEST: run.best, LAST: run.last}.get(at, {})
    if metric in known:
        return known[metric]
    epoch = _EPOCH.fullmatch(at)
    value = _at_best(run, metric) if at == BEST else _at_end(run, metric, int(epoch[1]) if epoch else None)
    return value if value is not None and math.isfinite(value) else None


def _at_end(run: Run, metric: str, epoch: int | None) -> float | None:
    """The last value, of the run or of an epoch counted from 1; the rows count from 0."""
    value = None
    for row in rows_of(run, [metric]):
        if epoch is not None and row.epoch + 1 > epoch:
            break
        if epoch is None or row.epoch + 1 == epoch:
            value = row.value
    return value


def _at_best(run: Run, metric: str) -> float | None:
    if run.objective is None:
        return None
    sign = 1 if run.objective.mode == "max" else -1
    best, now, then = -math.inf, None, None
    for row in rows_of(run, [metric, run.objective.metric]):
        if row.metric == metric:
            now = row.value
        elif sign * row.value > best:
            best, then = sign * row.value, now
    return then


def rows_of(run: Run, metrics: Sequence[str]) -> Iterator[Row]:
    """Rows of some metrics from metrics.csv, one after the other; lines that are none of ours are left out."""
    names = [metric.encode() for metric in metrics]
    try:
        with open_regular(RunDirectory(run.path).metrics) as file:
            while line := file.readline(_LONGEST_LINE):
                parts = line.split(b",", 4)
                if len(parts) == 4 and parts[2] in names and line.endswith(b"\n"):
                    try:
                        yield Row(int(parts[0]), int(parts[1]), parts[2].decode(), float(parts[3]))
                    except ValueError:
                        continue
    except OSError:  # not there, or none of ours
        return


def no_values(runs: Sequence[Run], metric: str, at: str) -> UserError:
    """What to say where no run that is done has a value."""
    if not any(run.status == RunStatus.COMPLETED for run in runs):
        return UserError("\n".join(["no run is done, and only those that are can be compared", *_not_done(runs)]))
    names = _metrics(runs)
    if at == BEST and not any(run.objective for run in runs):
        return UserError("the runs have no objective, so none was best anywhere; choose --at last or epoch=N")
    if metric in names:
        return UserError(
            f"no run has a value of {shown(metric)} at {at}; the longest has {max(run.epochs for run in runs)} epochs"
        )
    nearest = get_close_matches(metric, names, n=1)
    hint = f"did you mean {nearest[0]}? " if nearest else ""
    return UserError(f"no run has the metric {shown(metric)}; {hint}known: {_known(runs)}")


def _not_done(runs: Sequence[Run]) -> list[str]:
    """How many there are in each state, and why the first that says it is in that."""
    counts = Counter(run.status for run in runs)
    lines = [", ".join(f"{num} {word.label}" for word, num in counts.items())]
    first = {run.status: run for run in reversed(runs)}
    why = [
        f"{word.label}: {shown(first[word].name)}: {headline(first[word].message)}"
        for word in counts
        if first[word].message
    ]
    return [*lines, *why, "litlab status DIR says more"]


def _metrics(runs: Sequence[Run]) -> list[str]:
    return sorted({name for run in runs for name in (*run.best, *run.last)})


def _known(runs: Sequence[Run]) -> str:
    names = _metrics(runs)
    return ", ".join(names[:_NUM_NAMED]) + ", ..." * (len(names) > _NUM_NAMED) or "none, since no run is done"
