"""Display of a running multirun, with the estimated time left: a live table on a terminal, else a line an event.

Without a terminal there is also a line when the time left can be estimated for the first time.
"""

import sys
import time
from collections import Counter
from collections.abc import Sequence
from functools import cached_property
from statistics import mean
from typing import Any, Self, cast

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from litlab.runs.metrics import Metric, read_metric_table
from litlab.runs.state import ProgressReader, RunStatus
from litlab.runs.terminal import FaultTolerantStream, format_clock, headline, printable
from litlab.sweep.backends.base import Job
from litlab.sweep.outcome import Outcome

REFRESH_SECONDS = 0.25
_BAR_WIDTHS = ((100, 30), (80, 14))  # of the terminal, at least; of the progress bar
_MIN_FRACTION = 0.01  # of a job that has to be done before its pace is meaningful
_OTHER_LINES = 5  # besides those of the jobs: two of counts, the header, "and N more", the cursor's


class _RunningJob:
    def __init__(self, job: Job) -> None:
        self.job = job
        self.reader = ProgressReader(job.run, job.config)
        self.reader.read()
        self.start_fraction = self.reader.progress.fraction  # of the job that was done before
        self.started = time.monotonic()

    @property
    def seconds(self) -> float:
        return time.monotonic() - self.started

    @cached_property
    def metric(self) -> Metric:
        """Metric of the objective; known once there is a value of it."""
        return _objective_metric(self.job)


class Display:
    """Shows the progress of a multirun.

    Args:
        title: Name of the study.
        total: Number of jobs, as far as is known.
        num_ended: Number of those that had ended before this command.
    """

    def __init__(self, title: str, total: int, *, num_ended: int = 0) -> None:
        self._title, self._total, self._num_ended_before = title, total, num_ended
        self._ended: Counter[RunStatus] = Counter()
        self._durations: list[float] = []  # seconds
        self._running: dict[int, _RunningJob] = {}
        self._num_slots = 0
        self._queue_reasons: Counter[str] = Counter()
        self._has_estimated = False
        self._started = self._drawn = time.monotonic()
        output = cast(Any, FaultTolerantStream(sys.stdout))
        self._console = Console(file=output, highlight=False, markup=False, emoji=False, soft_wrap=True)
        self._live = Live(console=self._console, auto_refresh=False, transient=True)

    def __enter__(self) -> Self:
        before = f", {self._num_ended_before} of them before" if self._num_ended_before else ""
        self.print(f"{self._title}: {self._total} job{'s' * (self._total != 1)}{before}")
        if self._console.is_terminal:
            self._live.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._live.stop()

    def job_started(self, job: Job) -> None:
        """Add a job to the table."""
        self._running[job.number] = _RunningJob(job)
        self._num_slots = max(self._num_slots, len(self._running))
        if not self._console.is_terminal:
            self.print(f"{job.name}: started")

    def job_waits(self, job: Job, reason: str) -> None:
        """Print what a job waits for that could not start at once; on a terminal the table says it."""
        if not self._console.is_terminal:
            self.print(f"{job.name}: waits: {reason}")

    def job_queued(self, job: Job) -> None:
        """Remove a job from the table that has returned to the queue of a cluster."""
        self._running.pop(job.number, None)
        if not self._console.is_terminal:
            self.print(f"{job.name}: queued again")

    def job_ended(self, job: Job, outcome: Outcome, *, will_retry: bool) -> None:
        """Remove a job from the table; print a failure."""
        self._running.pop(job.number, None)
        if not will_retry:
            self._ended[outcome.status] += 1
        if outcome.is_success:
            self._durations.append(outcome.seconds)
        if outcome.is_failure or not self._console.is_terminal:
            retry = "; it is tried again" if will_retry else ""
            counts = "" if self._console.is_terminal else f"  {self._progress(self._eta())}"
            self.print(f"{job.name}: {_describe(job, outcome)}{retry}{counts}")

    def update(self, total: int, reasons: Sequence[str] = ()) -> None:
        """Redraw the table, unless it was just redrawn; without a terminal, print the first estimate.

        Args:
            total: Number of jobs, as far as is known.
            reasons: Why jobs wait in the queue of a cluster, or for a device; empty texts where that is not known.
        """
        self._total, self._queue_reasons = total, Counter(filter(None, reasons))
        if time.monotonic() - self._drawn < REFRESH_SECONDS:
            return
        self._drawn = time.monotonic()
        if self._live.is_started:
            self._live.update(self._render(), refresh=True)
        elif not self._has_estimated and not self._console.is_terminal and (eta := self._eta()) is not None:
            self.print(self._progress(eta))

    def print(self, text: str) -> None:
        """Print lines above the table."""
        self._console.print("\n".join(map(printable, text.splitlines())))

    @property
    def _num_queued(self) -> int:
        return max(self._total - self._num_ended_before - self._ended.total() - len(self._running), 0)

    def _counts(self) -> str:
        num_diverged = self._ended[RunStatus.DIVERGED]
        counts = {
            "before": self._num_ended_before,
            "completed": self._ended[RunStatus.COMPLETED],
            "failed": sum(count for status, count in self._ended.items() if status.is_failure) - num_diverged,
            "diverged": num_diverged,
            "pruned": self._ended[RunStatus.PRUNED],
            "interrupted": self._ended[RunStatus.INTERRUPTED],
            "cancelled": self._ended[RunStatus.CANCELLED],
            "running": len(self._running),
            "queued": self._num_queued,
        }
        parts = [f"{count} {name}" for name, count in counts.items() if count or name == "completed"]
        if self._queue_reasons and counts["queued"]:
            parts[-1] += f" ({', '.join(reason for reason, _ in self._queue_reasons.most_common(2))})"
        return f"{', '.join(parts)} of {self._total}"

    def _progress(self, eta: float | None) -> str:
        self._has_estimated = self._has_estimated or eta is not None
        return f"[{self._counts()}; {self._times(eta)}]"

    def _times(self, eta: float | None) -> str:
        return f"{format_clock(time.monotonic() - self._started)}, {format_clock(eta)} left"

    def _eta(self) -> float | None:
        for running in self._running.values():
            running.reader.read()
        jobs = [
            (job.seconds, job_eta(job.seconds, job.start_fraction, job.reader.progress.fraction))
            for job in self._running.values()
        ]
        return multirun_eta(self._durations, jobs, self._num_queued, self._num_slots)

    def _render(self) -> RenderableType:
        head = [Text(line, no_wrap=True, overflow="ellipsis") for line in (self._counts(), self._times(self._eta()))]
        if not self._running:
            return Group(*head)
        running = list(self._running.values())
        width, height = self._console.size
        bar_width = next((bar_width for min_width, bar_width in _BAR_WIDTHS if width >= min_width), None)
        objective = running[0].job.config.get("objective")
        table = Table(box=None, pad_edge=False, header_style="dim")
        table.add_column("job")  # only names of jobs are cut if the terminal is narrow
        if bar_width:
            table.add_column("", no_wrap=True)
        for title in ("epoch", *([objective["metric"]] if objective else []), "time"):
            table.add_column(Text(title), justify="right", no_wrap=True)
        num_shown = max(height - _OTHER_LINES, 1)
        for job in running[:num_shown]:
            table.add_row(*_row(job, bar_width, has_objective=bool(objective)))
        more = len(running) - num_shown
        return Group(*head, table, *([Text(f"and {more} more")] if more > 0 else []))


def _row(running: _RunningJob, bar_width: int | None, *, has_objective: bool) -> list[RenderableType]:
    progress = running.reader.progress
    row: list[RenderableType] = [Text(printable(running.job.name), no_wrap=True, overflow="ellipsis")]
    if bar_width:
        row.append(ProgressBar(total=1.0, completed=progress.fraction or 0.0, width=bar_width))
    if progress.epoch is None:
        row.append("-")
    else:
        row.append(f"{progress.epoch}/{progress.num_epochs}" if progress.num_epochs else str(progress.epoch))
    if has_objective:
        row.append("" if progress.objective is None else running.metric.format(progress.objective))
    return [*row, format_clock(running.seconds)]


def _describe(job: Job, outcome: Outcome) -> str:
    """Describe the outcome of a job on one line."""
    status = outcome.status.label
    if not outcome.is_success:
        reason = headline(outcome.message)
        return f"{status}: {reason}" if reason else status
    if job.config.get("objective") and outcome.objective is not None:
        metric = _objective_metric(job)
        return f"{status}: {metric.name} {metric.format(outcome.objective)}"
    return status


def _objective_metric(job: Job) -> Metric:
    return read_metric_table(job.run)[job.config["objective"]["metric"]]


def job_eta(seconds: float, start_fraction: float | None, fraction: float | None) -> float | None:
    """Estimate the remaining seconds of a job from its pace; None as long as that is not known.

    Args:
        seconds: Seconds that it has run.
        start_fraction: Fraction of the job that was done when it was started, more than 0 for a resumed one.
        fraction: Fraction that is done now.
    """
    if start_fraction is None or fraction is None or fraction - start_fraction < _MIN_FRACTION:
        return None
    return seconds * (1 - fraction) / (fraction - start_fraction)


def multirun_eta(
    durations: Sequence[float], running: Sequence[tuple[float, float | None]], num_queued: int, num_slots: int
) -> float | None:
    """Estimate the seconds until all jobs have ended; None as long as the duration of no job is known.

    Args:
        durations: Seconds that the finished jobs took.
        running: Seconds so far and `job_eta` of each running job.
        num_queued: Number of jobs that have not started.
        num_slots: Number of jobs that run at once.
    """
    totals = [*durations, *(seconds + remaining for seconds, remaining in running if remaining is not None)]
    if not totals:
        return None
    average = mean(totals)
    etas = [max(average - seconds, 0.0) if remaining is None else remaining for seconds, remaining in running]
    return max([*etas, (sum(etas) + num_queued * average) / max(num_slots, 1)])
