"""The rows of a run's metrics.csv by metric, to hold those of one run against those of another."""

import csv
from collections import Counter

from litlab.errors import UserError
from litlab.runs.directory import RunDirectory
from litlab.runs.metrics import read_metrics

TIMED = "throughput/"  # metrics that measure the machine, not the experiment
Rows = dict[tuple[int, int, int], float]  # (epoch, step, how many rows before it had the same two) -> value


def rows_by_metric(run: RunDirectory) -> dict[str, Rows]:
    """All rows of metrics.csv but those that measure the machine.

    Raises:
        UserError: if it is missing or damaged.
    """
    if not run.metrics.exists():
        raise UserError(f"{run.metrics} is missing")
    if not run.metrics.is_file():  # at a pipe, one would wait forever
        raise UserError(f"{run.metrics} is damaged: it is no regular file")
    try:
        rows = read_metrics(run.metrics)
    except (OSError, ValueError, csv.Error) as error:
        raise UserError(f"{run.metrics} is damaged: {error}") from error
    before: Counter[tuple[int, int, str]] = Counter()
    metrics: dict[str, Rows] = {}
    for row in rows:
        if not row.metric.startswith(TIMED):
            place = (row.epoch, row.step, row.metric)
            metrics.setdefault(row.metric, {})[row.epoch, row.step, before[place]] = row.value
            before[place] += 1
    return metrics
