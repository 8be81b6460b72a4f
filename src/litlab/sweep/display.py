"""What a multirun says while it runs: one live table on a terminal, else a line an event."""

import sys
import time
from collections import Counter
from dataclasses import dataclass
from typing import Any, Self, cast

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from litlab.sweep.backend import Job
from litlab.sweep.follow import Follower, Progress
from litlab.sweep.outcome import Kind, Outcome
from litlab.sweep.remaining import clock, rest, seconds_left
from litlab.sweep.summary import headline, number, printable, summary
from litlab.terminal import LastingOutput

__all__ = ["Display", "summary"]
REFRESH = 0.25  # seconds between two drawings of the table
_BARS = ((100, 30), (80, 14))  # columns of a terminal from which on there is room for a bar of so many
_AROUND = 5  # lines besides those of the jobs: two of counts, the header, "and N more", the cursor's


@dataclass
class _Running:
    job: Job
    follower: Follower
    since: float
    before: float | None  # fraction that was done when it started

    @classmethod
    def of(cls, job: Job) -> Self:
        follower = Follower(job.run, job.config)
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
        self._ended: Counter[Kind] = Counter()
        self._seconds: list[float] = []  # that jobs took
        self._running: dict[int, _Running] = {}
        self._num_places = 0
        self._began = self._drawn = time.monotonic()
        output = cast(Any, LastingOutput(sys.stdout))
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
            self._ended[outcome.kind] += 1
        if outcome.kind in ("done", "pruned"):
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
        failed = sum(count for kind, count in self._ended.items() if kind not in ("done", "pruned", "interrupted"))
        counts = {"before": self._known, "done": self._ended["done"], "failed": failed}
        counts |= {kind: self._ended[kind] for kind in ("pruned", "interrupted")}
        counts |= {"running": len(self._running), "waiting": self._num_waiting}
        shown = [f"{count} {what}" for what, count in counts.items() if count or what == "done"]
        return f"{', '.join(shown)} of {self._total}"

    def _times(self) -> str:
        for each in self._running.values():
            each.follower.read()
        running = [(each.seconds, each.rest) for each in self._running.values()]
        left = seconds_left(self._seconds, running, self._num_waiting, self._num_places)
        return f"{clock(time.monotonic() - self._began)}, {clock(left)} left"

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
    return [*row, clock(each.seconds)]


def _told(job: Job, outcome: Outcome) -> str:
    """How a job came out, on one line."""
    objective = job.config.get("objective")
    if outcome.is_failure or outcome.kind == "interrupted":
        said = headline(outcome.message)
        return f"{outcome.kind}: {said}" if said else outcome.kind
    if objective and outcome.objective is not None:
        return f"{outcome.kind}: {objective['metric']} {number(objective['metric'], outcome.objective)}"
    return outcome.kind
