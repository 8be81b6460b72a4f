"""What a multirun says while it runs: one live table on a terminal, else a line an event."""

import signal
import sys
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import mean
from typing import TYPE_CHECKING, Any, Self, cast

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from litlab.runs.directory import RunDirectory
from litlab.runs.progress import Progress, ProgressReader
from litlab.runs.redact import mask_command
from litlab.runs.state import RunStatus, read_state
from litlab.runs.terminal import FaultTolerantStream, display_path, format_clock, headline, printable
from litlab.sweep.backends.base import Job
from litlab.sweep.outcome import Outcome
from litlab.sweep.study import Study

if TYPE_CHECKING:
    from litlab.config.job_configs import ComposedJob


_TELLING = 0.05  # fraction of a job from which on its pace says something


def rest(seconds: float, before: float | None, fraction: float | None) -> float | None:
    """Seconds that a job needs if it goes on at its pace; None as long as that says nothing.

    Args:
        seconds: that it has run.
        before: fraction of it that was done when it was started, more than 0 if it was continued.
        fraction: that is done now.
    """
    if before is None or fraction is None or fraction - before < _TELLING:
        return None
    return seconds * (1 - fraction) / (fraction - before)


def seconds_left(
    finished: Sequence[float], running: Sequence[tuple[float, float | None]], num_waiting: int, num_places: int
) -> float | None:
    """Seconds until all jobs have ended; None as long as no job says anything about it.

    Args:
        finished: seconds that jobs took.
        running: for each job that runs, its seconds so far and its `rest`.
        num_waiting: jobs that have not started.
        num_places: how many jobs run at once.
    """
    known = [*finished, *(seconds + left for seconds, left in running if left is not None)]
    if not known:
        return None
    usual = mean(known)
    rests = [max(usual - seconds, 0.0) if left is None else left for seconds, left in running]
    return max([*rests, (sum(rests) + num_waiting * usual) / max(num_places, 1)])


NUM_BEST = 3
NUM_FAILURES = 10  # shown in full


def summary(
    path: Path,
    jobs: Sequence[Job],
    outcomes: Mapping[int, Outcome],
    *,
    received: int | None,
    retries_failures: bool = True,
) -> list[str]:
    """The end of a multirun, line by line.

    Args:
        path: of the study.
        jobs: all that were asked for.
        outcomes: number of a job -> how it came out; a job that is not in it has not started.
        received: the signal that stopped the multirun, if one came.
        retries_failures: whether the same command would start failed jobs again.
    """
    ended = [(job, outcomes[job.number]) for job in jobs if job.number in outcomes]
    lines = ["", _counts(len(jobs), [outcome for _, outcome in ended], received)]
    lines += _best(ended) + _failures(ended)
    where = display_path(path)
    lines += ["", f"study        {where}", f"jobs         litlab status {where}"]
    if sum(outcome.status == RunStatus.COMPLETED for _, outcome in ended) > 1:
        lines.append(f"compare      litlab compare {where}")
    if (
        received is not None
        or len(ended) < len(jobs)
        or any(
            outcome.status not in (RunStatus.COMPLETED, RunStatus.PRUNED)
            and (retries_failures or not outcome.is_failure)
            for _, outcome in ended
        )
    ):
        lines.append(f"continue     litlab resume {where}")
    return [*lines, f"TensorBoard  litlab tensorboard {where}"]


def number(metric: str, value: float) -> str:
    """A value of a metric as people read it."""
    return f"{100 * value:.2f} %" if "accuracy" in metric else f"{value:.4g}"


def _counts(num_jobs: int, outcomes: Sequence[Outcome], received: int | None) -> str:
    kinds = Counter(outcome.status for outcome in outcomes)
    parts = [
        f"{count} {kind.label}"
        for kind, count in sorted(kinds.items(), key=lambda item: item[0] != RunStatus.COMPLETED)
    ]
    if num_jobs > len(outcomes):
        parts.append(f"{num_jobs - len(outcomes)} not started")
    stopped = f"stopped by {signal.Signals(received).name}: " if received else ""
    if num_jobs == 0:
        return f"{stopped}no job was started"
    return f"{stopped}{num_jobs} job{'s' * (num_jobs != 1)}: {', '.join(parts)}"


def _best(ended: Sequence[tuple[Job, Outcome]]) -> list[str]:
    """The best by the objective, which is never of the test; of one job there is no best."""
    done = [
        (outcome.objective, job.name, job.config["objective"])
        for job, outcome in ended
        if outcome.status == RunStatus.COMPLETED and outcome.objective is not None and job.config.get("objective")
    ]
    if len(done) < 2:
        return []
    metric, mode = done[0][2]["metric"], done[0][2]["mode"]
    best = sorted(done, key=lambda each: each[0], reverse=mode == "max")[:NUM_BEST]
    values = [number(metric, value) for value, _, _ in best]
    widest = max(map(len, values))
    shown = [f"  {value.rjust(widest)}  {name}" for value, (_, name, _) in zip(values, best, strict=True)]
    return ["", f"best by {metric} ({mode})", *shown]


def _failures(ended: Sequence[tuple[Job, Outcome]]) -> list[str]:
    failed = [(job, outcome) for job, outcome in ended if outcome.is_failure]
    lines: list[str] = []
    for job, outcome in failed[:NUM_FAILURES]:
        lines += ["", f"{job.name}: {outcome.status.label}"]
        lines += [f"  {printable(line)}" for line in outcome.message.splitlines()]
        lines += [f"  | {printable(line)}" for line in outcome.log]
    if len(failed) > NUM_FAILURES:
        names = ", ".join(job.name for job, _ in failed[NUM_FAILURES : NUM_FAILURES + 5])
        lines += ["", f"and {len(failed) - NUM_FAILURES} more: {names}{', ...' * (len(failed) > NUM_FAILURES + 5)}"]
    return lines


__all__ = ["Display", "summary"]
REFRESH = 0.25  # seconds between two drawings of the table
_BARS = ((100, 30), (80, 14))  # columns of a terminal from which on there is room for a bar of so many
_AROUND = 5  # lines besides those of the jobs: two of counts, the header, "and N more", the cursor's


@dataclass
class _Running:
    job: Job
    follower: ProgressReader
    since: float
    before: float | None  # fraction that was done when it started

    @classmethod
    def of(cls, job: Job) -> Self:
        follower = ProgressReader(job.run, job.config)
        follower.read()
        return cls(job, follower, time.monotonic(), follower.progress.fraction)

    @property
    def seconds(self) -> float:
        return time.monotonic() - self.since

    @property
    def progress(self) -> Progress:
        return self.follower.progress

    @property
    def rest(self) -> float | None:
        return rest(self.seconds, self.before, self.progress.fraction)


class Display:
    """Reads how far the jobs are from their files, as `litlab status` does from another terminal."""

    def __init__(self, title: str, total: int, *, known: int = 0) -> None:
        """
        Args:
            title: the name of the study.
            total: jobs in all, as far as is known.
            known: those of them that had ended before this command.
        """
        self._title, self._total, self._known = title, total, known
        self._ended: Counter[RunStatus] = Counter()
        self._seconds: list[float] = []  # that jobs took
        self._running: dict[int, _Running] = {}
        self._num_places = 0
        self._began = self._drawn = time.monotonic()
        output = cast(Any, FaultTolerantStream(sys.stdout))
        self._console = Console(file=output, highlight=False, markup=False, emoji=False, soft_wrap=True)
        self._live = Live(console=self._console, auto_refresh=False, transient=True)

    def __enter__(self) -> Self:
        before = f", {self._known} of them before" if self._known else ""
        self.say(f"{self._title}: {self._total} job{'s' * (self._total != 1)}{before}")
        if self._console.is_terminal:
            self._live.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._live.stop()

    def started(self, job: Job) -> None:
        self._running[job.number] = _Running.of(job)
        self._num_places = max(self._num_places, len(self._running))
        if not self._console.is_terminal:
            self.say(f"{job.name}: started")

    def ended(self, job: Job, outcome: Outcome, *, again: bool) -> None:
        """`again`: it failed, and will be started once more."""
        self._running.pop(job.number, None)
        if not again:
            self._ended[outcome.status] += 1
        if outcome.status in (RunStatus.COMPLETED, RunStatus.PRUNED):
            self._seconds.append(outcome.seconds)
        if outcome.is_failure or not self._console.is_terminal:
            self.say(f"{job.name}: {_told(job, outcome)}{'; it is tried again' * again}{self._aside()}")

    def update(self, total: int) -> None:
        """Draw the table anew, unless it has just been drawn."""
        self._total = total
        if self._live.is_started and time.monotonic() - self._drawn >= REFRESH:
            self._drawn = time.monotonic()
            self._live.update(self._table(), refresh=True)

    def say(self, line: str) -> None:
        """A line above the table."""
        self._console.print("\n".join(map(printable, line.splitlines())))

    def _aside(self) -> str:
        """Where nothing else shows how far the study is."""
        return "" if self._console.is_terminal else f"  [{self._counts()}; {self._times()}]"

    def _counts(self) -> str:
        failed = sum(
            count
            for kind, count in self._ended.items()
            if kind not in (RunStatus.COMPLETED, RunStatus.PRUNED, RunStatus.INTERRUPTED)
        )
        counts = {
            "before": self._known,
            RunStatus.COMPLETED: self._ended[RunStatus.COMPLETED],
            RunStatus.FAILED: failed,
        }
        counts |= {kind: self._ended[kind] for kind in (RunStatus.PRUNED, RunStatus.INTERRUPTED)}
        counts |= {RunStatus.RUNNING: len(self._running), RunStatus.QUEUED: self._num_waiting}
        shown = [f"{count} {what}" for what, count in counts.items() if count or what == RunStatus.COMPLETED]
        return f"{', '.join(shown)} of {self._total}"

    def _times(self) -> str:
        for each in self._running.values():
            each.follower.read()
        running = [(each.seconds, each.rest) for each in self._running.values()]
        left = seconds_left(self._seconds, running, self._num_waiting, self._num_places)
        return f"{format_clock(time.monotonic() - self._began)}, {format_clock(left)} left"

    @property
    def _num_waiting(self) -> int:
        return max(self._total - self._known - self._ended.total() - len(self._running), 0)

    def _table(self) -> RenderableType:
        head = [Text(line, no_wrap=True, overflow="ellipsis") for line in (self._counts(), self._times())]
        if not self._running:
            return Group(*head)
        running = list(self._running.values())
        width, height = self._console.size
        bar = next((columns for wide, columns in _BARS if width >= wide), None)
        objective = running[0].job.config.get("objective")
        table = _columns(bar, objective["metric"] if objective else None)
        shown = running[: max(height - _AROUND, 1)]
        for each in shown:
            table.add_row(*_row(each, bar, objective))
        more = len(running) - len(shown)
        return Group(*head, table, *([Text(f"and {more} more")] if more else []))


def _columns(bar: int | None, metric: str | None) -> Table:
    """Of the names alone is cut what doesn't fit."""
    table = Table(box=None, pad_edge=False, header_style="dim")
    table.add_column("job")
    if bar:
        table.add_column("", no_wrap=True)
    for title in ("epoch", metric, "time"):
        if title:
            table.add_column(Text(title), justify="right", no_wrap=True)
    return table


def _row(each: _Running, bar: int | None, objective: dict[str, str] | None) -> list[RenderableType]:
    of = each.progress
    row: list[RenderableType] = [Text(printable(each.job.name), no_wrap=True, overflow="ellipsis")]
    if bar:
        row.append(ProgressBar(total=1.0, completed=of.fraction or 0.0, width=bar))
    row.append("-" if of.epoch is None else f"{of.epoch}/{of.num_epochs}" if of.num_epochs else str(of.epoch))
    if objective:
        row.append("" if of.objective is None else number(objective["metric"], of.objective))
    return [*row, format_clock(each.seconds)]


def _told(job: Job, outcome: Outcome) -> str:
    """How a job came out, on one line."""
    objective = job.config.get("objective")
    if outcome.is_failure or outcome.status == RunStatus.INTERRUPTED:
        said = headline(outcome.message)
        return f"{outcome.status.label}: {said}" if said else outcome.status.label
    if objective and outcome.objective is not None:
        return f"{outcome.status.label}: {objective['metric']} {number(objective['metric'], outcome.objective)}"
    return outcome.status.label


def table(study: Study, jobs: Sequence["ComposedJob"]) -> list[str]:
    """A line a job: its directory, which begins with its number; its state; what varies. Then the counts."""
    words = [_word(study, job) for job in jobs]
    wide = max((len(job.directory) for job in jobs), default=0)
    lines = [
        f"{job.directory:{wide}}  {word:11}  {_varied(job)}".rstrip() for job, word in zip(jobs, words, strict=True)
    ]
    counts = ", ".join(f"{count} {word}" for word, count in Counter(words).items())
    return [*lines, "", f"{len(jobs)} jobs ({counts}) in {display_path(study.path)}; nothing was started or written"]


def _word(study: Study, job: "ComposedJob") -> str:
    return (
        read_state(RunDirectory(study.path / job.directory)).status.label if job.identity in study.known_jobs else "new"
    )


def _varied(job: "ComposedJob") -> str:
    return " ".join(mask_command([f"{key}={value}" for key, value in job.point.items()]))
