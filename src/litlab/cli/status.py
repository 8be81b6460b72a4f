"""Show the status of the jobs of a study, or of the runs below a directory, from their files alone."""

import os
import sys
import time
from argparse import ArgumentParser
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from shutil import get_terminal_size
from typing import Any, NamedTuple

from litlab.cli.arguments import new_parser
from litlab.errors import UserError
from litlab.runs.directory import RunDirectory
from litlab.runs.lock import is_locked
from litlab.runs.metrics import Metric, read_metric_table
from litlab.runs.state import RunState, RunStatus, read_state
from litlab.runs.terminal import format_clock, format_value, headline, printable
from litlab.sweep.backends import make_backend
from litlab.sweep.backends.waiting_jobs import read_waiting_jobs
from litlab.sweep.discover import discover, runs_at
from litlab.sweep.study import DECISION_FILE, STUDY_FILE, Study

INTERVAL = 2.0  # seconds between two updates
_QUEUES = ("slurm", "ray")  # backends whose jobs wait
NOTES = """\
The status is read from the files of the runs, so it works from any terminal, during the runs and afterwards.

  queued       not started; with the reason why it waits, in the queue of a cluster or for a device of another command
  running      its process is alive
  completed    trained and tested
  failed       ended with an error, or its process died: killed, crashed, timed out
  diverged     trained, but its weights, loss or objective are NaN or infinite; checkpoints and results are kept
  refused      rejected before training, by its config or data
  interrupted  stopped, or its process is gone; litlab resume continues it
  lost         its heartbeat from another machine stopped
  cancelled    withdrawn from the queue of a cluster by somebody; litlab resume submits it again
  pruned       stopped by the search, since other trials were better

Of a study by hydra/sweeper=decide, the answer so far follows.

examples:
  litlab status outputs/lr_by_seed
  litlab status outputs/lr_by_seed --watch
"""


class Job(NamedTuple):
    """A run with its display name and its state."""

    name: str
    run: RunDirectory
    state: RunState


def main(arguments: list[str]) -> None:
    """Print a line for each job; with --watch, update until no job runs or Ctrl-C.

    Raises:
        UserError: If the directory holds no runs.
    """
    options = make_parser().parse_args(arguments)
    if not options.watch:
        jobs = read_jobs(options.directory)
        print("\n".join([_counts(options.directory, jobs), *table(jobs), *_answer(options.directory)]))
        return
    try:
        (_watch_on_terminal if sys.stdout.isatty() else _watch_as_lines)(options.directory)
    except KeyboardInterrupt:
        print()


def make_parser() -> ArgumentParser:
    """Create the parser of the command line."""
    parser = new_parser("status", "Show the status of the jobs of a study.", NOTES)
    parser.add_argument("directory", metavar="DIR", type=Path, help="a study, a run, or a folder of runs: outputs/NAME")
    parser.add_argument("--watch", action="store_true", help="update until no job runs, or Ctrl-C")
    return parser


def _answer(directory: Path) -> list[str]:
    """Format the answer of a decide study so far; nothing for other directories."""
    if not os.path.lexists(directory / DECISION_FILE):
        return []
    from litlab.sweep.decide.answer import format_answer, read_answer  # slow to import

    try:
        answer = read_answer(directory)
    except UserError as error:
        print(f"litlab: {error}", file=sys.stderr)
        return []
    return [] if answer is None else format_answer(answer)


def read_jobs(directory: Path) -> list[Job]:
    """Read the states of the runs of a directory: itself, the jobs of a study, or runs in subdirectories.

    Raises:
        UserError: If there are none.
    """
    if not directory.is_dir():
        raise UserError(f"{directory}: no such directory; name a study, a run, or a folder with runs: outputs/NAME")
    runs = [discovered.run for path in discover(directory) for discovered in runs_at(path)]
    if not runs and not (directory / STUDY_FILE).exists():
        raise UserError(f"{directory} holds no runs; name a study, a run, or a folder with runs: outputs/NAME")
    prefix = str(directory)
    names = (str(run.path).removeprefix(prefix).lstrip("/") or run.path.name for run in runs)
    reasons = _queued_runs(directory)
    return [Job(name, run, _state(run, reasons)) for name, run in zip(names, runs, strict=True)]


def _queued_runs(directory: Path) -> dict[Path, str]:
    """Return the runs of a study that wait in a queue or for a device, with the reason, as far as that is known."""
    try:
        study = Study.load(directory) if (directory / STUDY_FILE).exists() else None
        if study is None or study.plan is None or study.plan.launcher.get("backend") not in _QUEUES:
            return read_waiting_jobs(directory)
        if (problem := study.signature_problem()) is not None:  # its settings say who gets the user's token
            raise UserError(f"the queue of {directory} is not asked, since the study is not signed by you: {problem}")
        return make_backend(study.plan.launcher, directory).queued_runs()
    except UserError as error:
        print(f"litlab: {error}", file=sys.stderr)
        return {}


def _state(run: RunDirectory, reasons: Mapping[Path, str]) -> RunState:
    """Return the state of a run. One that waits in a queue may have been started, saved and returned there."""
    state, reason = read_state(run), reasons.get(run.path.absolute())
    if reason is None or state.status in (RunStatus.RUNNING, RunStatus.COMPLETED):
        return state
    return replace(state, status=RunStatus.QUEUED, message=reason)


def table(jobs: Sequence[Job]) -> list[str]:
    """Format a header and a line for each job; nothing if there are none."""
    if not jobs:
        return []
    metric = _metric(jobs)
    rows = [("job", "state", "epoch", "time", metric.name, ""), *(_row(job, metric) for job in jobs)]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = []
    for row in rows:
        name, status, *numbers, message = (cell.ljust(width) for cell, width in zip(row, widths, strict=True))
        aligned = (cell.strip().rjust(len(cell)) for cell in numbers)
        lines.append("  ".join([name, status, *aligned, message]).rstrip())
    return lines


def _counts(directory: Path, jobs: Sequence[Job]) -> str:
    counts = Counter(job.state.status for job in jobs)
    parts = ", ".join(f"{counts[status]} {status.label}" for status in sorted(counts, key=_completed_first))
    return f"{printable(str(directory))}: {len(jobs)} job{'s' * (len(jobs) != 1)}{': ' * bool(parts)}{parts}"


def _completed_first(status: RunStatus) -> tuple[bool, int]:
    return status is not RunStatus.COMPLETED, list(RunStatus).index(status)


def _row(job: Job, metric: Metric) -> tuple[str, ...]:
    state, progress = job.state, job.state.progress
    epoch = ""
    if progress is not None and progress.epoch is not None:
        epoch = f"{progress.epoch}/{progress.num_epochs}" if progress.num_epochs else str(progress.epoch)
    value = "" if state.objective is None else metric.format(state.objective)
    taken = "" if state.seconds is None else format_clock(state.seconds)
    return format_value(job.name), state.status.label, epoch, taken, value, format_value(headline(state.message))


def _metric(jobs: Sequence[Job]) -> Metric:
    """Return the metric of the objective, by the first runs: those of a study have the same."""
    for job in jobs[:3]:
        try:
            objective: Any = job.run.read_config().get("objective")
        except UserError:
            continue
        if isinstance(objective, dict) and isinstance(objective.get("metric"), str):
            measured = (other.run for other in jobs if other.state.objective is not None)
            metric = read_metric_table(next(measured, job.run))[objective["metric"]]
            return replace(metric, name=format_value(metric.name))
    return Metric("objective")


def _is_finished(directory: Path, jobs: Sequence[Job]) -> bool:
    """Return True if no job runs and no controller would start more."""
    return not any(job.state.status == RunStatus.RUNNING for job in jobs) and not is_locked(directory)


def _watch_on_terminal(directory: Path) -> None:
    """Redraw the table in place."""
    from rich.console import Console
    from rich.live import Live
    from rich.text import Text

    jobs = read_jobs(directory)
    with Live(console=Console(highlight=False), auto_refresh=False) as live:
        while True:
            lines = [_counts(directory, jobs), *table(_fit_screen(jobs))]
            live.update(Text("\n".join(lines), no_wrap=True, overflow="ellipsis"), refresh=True)
            if _is_finished(directory, jobs):
                return
            time.sleep(INTERVAL)
            jobs = read_jobs(directory)


def _fit_screen(jobs: Sequence[Job]) -> list[Job]:
    """Choose as many jobs as the screen has lines: running and failed ones before completed ones."""
    room = max(get_terminal_size().lines - 3, 1)
    by_priority = sorted(range(len(jobs)), key=lambda index: _priority(jobs[index].state.status))
    return [jobs[index] for index in sorted(by_priority[:room])]


def _priority(status: RunStatus) -> tuple[bool, ...]:
    """Sort key: running, failed, interrupted or unknown, queued, others."""
    is_open = status in (RunStatus.INTERRUPTED, RunStatus.UNKNOWN)
    return status is not RunStatus.RUNNING, not status.is_failure, not is_open, status.is_final


def _watch_as_lines(directory: Path) -> None:
    """Print the table once, then a line for each change of a status."""
    before: dict[str, RunStatus] = {}
    while True:
        jobs = read_jobs(directory)
        if not before:
            print("\n".join([_counts(directory, jobs), *table(jobs)]), flush=True)
        else:
            _print_changes(directory, jobs, before)
        before = {job.name: job.state.status for job in jobs}
        if _is_finished(directory, jobs):
            return
        time.sleep(INTERVAL)


def _print_changes(directory: Path, jobs: Sequence[Job], before: Mapping[str, RunStatus]) -> None:
    metric = _metric(jobs)
    for job in jobs:
        if before.get(job.name) != job.state.status:
            cells = " ".join(filter(None, _row(job, metric)))
            print(f"{cells}  [{_counts(directory, jobs)}]", flush=True)
