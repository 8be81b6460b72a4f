"""Show the status of the jobs of a study, or of the runs below a directory, from their files alone."""

import sys
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from shutil import get_terminal_size
from typing import Any

from litlab.cli.arguments import new_parser
from litlab.errors import UserError
from litlab.runs.directory import RunDirectory
from litlab.runs.lock import is_locked
from litlab.runs.metrics import Metric, read_metric_table
from litlab.runs.state import RunState, RunStatus, read_state
from litlab.runs.terminal import format_clock, format_value, headline, printable
from litlab.sweep.discover import discover, runs_at
from litlab.sweep.study import STUDY_FILE

INTERVAL = 2.0  # seconds between two updates
NOTES = """\
The status is read from the files of the runs, so it works from any terminal, during the runs and afterwards.

  queued       not started
  running      its process is alive
  completed    trained and tested
  failed       ended with an error, or its process died: killed, crashed, timed out
  refused      rejected before training, by its config or data
  interrupted  stopped, or its process is gone; litlab resume continues it
  lost         its heartbeat from another machine stopped
  pruned       stopped by the search, since other trials were better

examples:
  litlab status outputs/lr_by_seed
  litlab status outputs/lr_by_seed --watch
"""
Runs = list[tuple[str, RunDirectory]]


def main(arguments: list[str]) -> None:
    """Print a line for each job; with --watch, update until no job runs or Ctrl-C.

    Raises:
        UserError: If the directory holds no runs.
    """
    parser = new_parser("status", "Show the status of the jobs of a study.", NOTES)
    parser.add_argument("directory", metavar="DIR", type=Path, help="a study, a run, or a folder of runs: outputs/NAME")
    parser.add_argument("--watch", action="store_true", help="update until no job runs, or Ctrl-C")
    options = parser.parse_args(arguments)
    runs = runs_in(options.directory)
    if not options.watch:
        print("\n".join(table(options.directory, runs, _states(runs))))
        return
    try:
        (_watch_on_terminal if sys.stdout.isatty() else _watch_as_lines)(options.directory)
    except KeyboardInterrupt:
        print()


def runs_in(directory: Path) -> Runs:
    """Find the runs of a directory: itself, the jobs of a study, or runs in subdirectories.

    Returns:
        Pairs of a display name and a run.

    Raises:
        UserError: If there are none.
    """
    if not directory.is_dir():
        raise UserError(f"{directory}: no such directory; name a study, a run, or a folder with runs: outputs/NAME")
    runs = [discovered.run for path in discover(directory) for discovered in runs_at(path)]
    if not runs and not (directory / STUDY_FILE).exists():
        raise UserError(f"{directory} holds no runs; name a study, a run, or a folder with runs: outputs/NAME")
    prefix = str(directory)
    return [(str(run.path).removeprefix(prefix).lstrip("/") or run.path.name, run) for run in runs]


def _states(runs: Runs) -> list[RunState]:
    return [read_state(run) for _, run in runs]


def table(directory: Path, runs: Runs, states: Sequence[RunState]) -> list[str]:
    """Format a line with counts, then a line for each run."""
    lines = [_counts(directory, states)]
    if not runs:
        return lines
    metric = _metric(runs, states)
    rows: list[tuple[str, ...]] = [("job", "state", "epoch", "time", metric.name, "")]
    rows += [_row(name, state, metric) for (name, _), state in zip(runs, states, strict=True)]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        job, status, *numbers, message = (cell.ljust(width) for cell, width in zip(row, widths, strict=True))
        aligned = (cell.strip().rjust(len(cell)) for cell in numbers)
        lines.append("  ".join([job, status, *aligned, message]).rstrip())
    return lines


def _counts(directory: Path, states: Sequence[RunState]) -> str:
    counts = Counter(state.status for state in states)
    parts = ", ".join(f"{counts[status]} {status.label}" for status in sorted(counts, key=_completed_first))
    return f"{printable(str(directory))}: {len(states)} job{'s' * (len(states) != 1)}{': ' * bool(parts)}{parts}"


def _completed_first(status: RunStatus) -> tuple[bool, int]:
    return status is not RunStatus.COMPLETED, list(RunStatus).index(status)


def _row(name: str, state: RunState, metric: Metric) -> tuple[str, ...]:
    progress = state.progress
    epoch = "" if progress is None or progress.epoch is None else str(progress.epoch)
    if epoch and progress is not None and progress.num_epochs:
        epoch += f"/{progress.num_epochs}"
    value = "" if state.objective is None else metric.format(state.objective)
    taken = "" if state.seconds is None else format_clock(state.seconds)
    return format_value(name), state.status.label, epoch, taken, value, format_value(headline(state.message))


def _metric(runs: Runs, states: Sequence[RunState]) -> Metric:
    """Return the metric of the objective, by the first runs: those of a study have the same."""
    for _, run in runs[:3]:
        try:
            objective: Any = run.read_config().get("objective")
        except UserError:
            continue
        if isinstance(objective, dict) and isinstance(objective.get("metric"), str):
            measured = (run for (_, run), state in zip(runs, states, strict=True) if state.objective is not None)
            metric = read_metric_table(next(measured, run))[objective["metric"]]
            return replace(metric, name=format_value(metric.name))
    return Metric("objective")


def _is_finished(directory: Path, states: Sequence[RunState]) -> bool:
    """Return True if no job runs and no controller would start more."""
    return not any(state.status == RunStatus.RUNNING for state in states) and not is_locked(directory)


def _watch_on_terminal(directory: Path) -> None:
    """Redraw the table in place."""
    from rich.console import Console
    from rich.live import Live
    from rich.text import Text

    with Live(console=Console(highlight=False), auto_refresh=False) as live:
        while True:
            runs = runs_in(directory)
            states = _states(runs)
            lines = table(directory, *_fit_screen(runs, states))
            lines[0] = _counts(directory, states)
            live.update(Text("\n".join(lines), no_wrap=True, overflow="ellipsis"), refresh=True)
            if _is_finished(directory, states):
                return
            time.sleep(INTERVAL)


def _fit_screen(runs: Runs, states: Sequence[RunState]) -> tuple[Runs, list[RunState]]:
    """Choose as many runs as the screen has lines: running and failed ones before completed ones."""
    room = max(get_terminal_size().lines - 3, 1)
    by_priority = sorted(range(len(runs)), key=lambda index: _priority(states[index].status))
    chosen = sorted(by_priority[:room])
    return [runs[index] for index in chosen], [states[index] for index in chosen]


def _priority(status: RunStatus) -> tuple[bool, ...]:
    """Sort key: running, failed, interrupted or unknown, queued, others."""
    is_open = status in (RunStatus.INTERRUPTED, RunStatus.UNKNOWN)
    return status is not RunStatus.RUNNING, not status.is_failure, not is_open, status.is_final


def _watch_as_lines(directory: Path) -> None:
    """Print the table once, then a line for each change of a status."""
    before: dict[str, RunState] = {}
    while True:
        runs = runs_in(directory)
        states = _states(runs)
        if not before:
            print("\n".join(table(directory, runs, states)), flush=True)
        else:
            _print_changes(directory, runs, states, before)
        before = {name: state for (name, _), state in zip(runs, states, strict=True)}
        if _is_finished(directory, states):
            return
        time.sleep(INTERVAL)


def _print_changes(directory: Path, runs: Runs, states: Sequence[RunState], before: dict[str, RunState]) -> None:
    metric = _metric(runs, states)
    for (name, _), state in zip(runs, states, strict=True):
        if name not in before or before[name].status != state.status:
            cells = " ".join(filter(None, _row(name, state, metric)))
            print(f"{cells}  [{_counts(directory, states)}]", flush=True)
