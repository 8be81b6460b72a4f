"""The compared metric: its choice, its direction, and its value in a run at the best, the last or a given epoch."""

import math
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from difflib import get_close_matches

from litlab.compare.data_model import Objective, Run
from litlab.errors import UserError
from litlab.runs.directory import RunDirectory
from litlab.runs.metrics import Metric, MetricTable, Mode, iterate_rows, read_metric_table
from litlab.runs.terminal import format_value, headline

BEST, LAST = "best", "last"
_EPOCH = re.compile(r"epoch=([1-9]\d{0,8})")
_NUM_NAMED = 12


def choose_metric(runs: Sequence[Run], name: str | None, mode: Mode | None, table: MetricTable) -> Metric:
    """Return the metric that was named, or else the objective of the runs, with its direction if known.

    Args:
        runs: Runs to compare.
        name: Name that was given with `--metric`.
        mode: Direction that was named with `--mode`.
        table: Metrics of the runs by name.

    Raises:
        UserError: If it is a test metric, or if the runs have several objectives or none.
    """
    if name is None:
        objective = _shared_objective(runs)
        return replace(table[objective.metric], mode=mode or objective.mode)
    metric = table[name]
    if metric.split == "test":
        raise UserError(
            f"--metric {format_value(name)}: nothing is selected on the test split; choose a validation metric, "
            "and the test metrics stand beside it"
        )
    modes = {run.objective.mode for run in runs if run.objective and run.objective.metric == name}
    mode = mode or (modes.pop() if len(modes) == 1 else metric.mode)
    return replace(metric, mode=mode)


def _shared_objective(runs: Sequence[Run]) -> Objective:
    objectives = {run.objective for run in runs if run.objective}
    if not objectives:
        raise UserError(f"the runs have no objective; choose a metric with --metric: {_metric_names(runs)}")
    if len(objectives) > 1:
        several = ", ".join(sorted(f"{objective.metric} ({objective.mode})" for objective in objectives)[:_NUM_NAMED])
        raise UserError(f"the runs have several objectives: {several}; choose one with --metric: {_metric_names(runs)}")
    return objectives.pop()


def metric_table(runs: Sequence[Run]) -> MetricTable:
    """Return the metrics of runs by name, with units, directions and bounds as one run of each kind recorded them.

    Runs of a study with the same metrics are one kind. What no run recorded has neither unit, direction nor bounds.
    """
    kinds = {(run.study, tuple(run.best), tuple(run.test)): run for run in runs if run.is_completed}
    table = MetricTable()
    for run in kinds.values():
        for name, metric in read_metric_table(RunDirectory(run.path)).items():
            table.setdefault(name, metric)
    for run in kinds.values():
        table.update({name: table[name] for name in (*run.best, *run.last, *run.test)})
    return table


def test_counterpart(metric: Metric, table: MetricTable) -> Metric:
    """Return the metric of the test split for the same quantity: `test_acc` for `val_acc`."""
    matches = [other for other in table.values() if other.split == "test" and other.quantity == metric.quantity]
    test = matches[0] if matches else Metric(f"test/{metric.quantity}")
    is_known = bool(test.unit or test.mode or test.bounds)
    return test if is_known else replace(test, unit=metric.unit, mode=metric.mode, bounds=metric.bounds)


def check_at(at: str) -> None:
    """Raise a UserError if `--at` names no place in a run."""
    if at not in (BEST, LAST) and not _EPOCH.fullmatch(at):
        raise UserError(f"--at {format_value(at)}: expected best, last or epoch=N, with epochs counted from 1")


def value_of(run: Run, metric: str, at: str) -> float | None:
    """Return the value of a metric in a completed run; None if it has none there.

    Metrics that result.json does not have, such as those of the training, are read from metrics.csv: for `best`, the
    last value up to the validation at which the objective was best.
    """
    recorded = {BEST: run.best, LAST: run.last}.get(at, {})
    if metric in recorded:
        return recorded[metric]
    value = _value_at_best(run, metric) if at == BEST else _last_value(run, metric, _EPOCH.fullmatch(at))
    return value if value is not None and math.isfinite(value) else None


def _last_value(run: Run, metric: str, epoch: re.Match[str] | None) -> float | None:
    """Return the last value of the run or of an epoch counted from 1; rows count epochs from 0."""
    value = None
    for row in iterate_rows(RunDirectory(run.path).metrics, [metric]):
        if epoch is not None and row.epoch >= int(epoch[1]):
            break
        if epoch is None or row.epoch == int(epoch[1]) - 1:
            value = row.value
    return value


def _value_at_best(run: Run, metric: str) -> float | None:
    if run.objective is None:
        return None
    sign = 1 if run.objective.mode == "max" else -1
    best, latest, value_at_best = -math.inf, None, None
    for row in iterate_rows(RunDirectory(run.path).metrics, [metric, run.objective.metric]):
        if row.metric == metric:
            latest = row.value
        elif sign * row.value > best:
            best, value_at_best = sign * row.value, latest
    return value_at_best


def no_values_error(runs: Sequence[Run], metric: str, at: str) -> UserError:
    """Describe why no completed run has a value."""
    if not any(run.is_completed for run in runs):
        statuses = Counter(run.status.label for run in runs)
        counts = ", ".join(f"{num} {status}" for status, num in statuses.items())
        first = {run.status: run for run in reversed(runs) if run.message}  # of each status
        lines = [f"{status.label}: {format_value(run.name)}: {headline(run.message)}" for status, run in first.items()]
        lines = [f"No completed runs to compare ({counts}).", *reversed(lines), "litlab status DIR says more"]
        return UserError("\n".join(lines))
    names = _names(runs)
    if at == BEST and not any(run.objective for run in runs):
        return UserError("the runs have no objective, so no epoch is the best one; choose --at last or --at epoch=N")
    if metric in names:
        return UserError(
            f"no run has a value of {format_value(metric)} at {at}; "
            f"the longest has {max(run.epochs for run in runs)} epochs"
        )
    nearest = get_close_matches(metric, names, n=1)
    hint = f"did you mean {nearest[0]}? " if nearest else ""
    return UserError(f"no run has the metric {format_value(metric)}; {hint}known: {_metric_names(runs)}")


def _names(runs: Sequence[Run]) -> list[str]:
    return sorted({name for run in runs for name in (*run.best, *run.last)})


def _metric_names(runs: Sequence[Run]) -> str:
    names = _names(runs)
    return ", ".join(names[:_NUM_NAMED]) + ", ..." * (len(names) > _NUM_NAMED) or "none, since no run is completed"
