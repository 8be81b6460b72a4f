"""The one loop of a multirun: jobs start where there is room, are looked at, and end; a signal stops all, saved."""

import os
import signal
import sys
import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from types import FrameType
from typing import Protocol

from litlab.errors import UserError
from litlab.process.controller import RunStopped
from litlab.process.signals import STOP_SIGNALS, Stopped, StopRequest
from litlab.runs.lock import directory_lock
from litlab.runs.state import RunStatus
from litlab.sweep.backends.base import Backend, Config, Job, JobExit
from litlab.sweep.display import Display
from litlab.sweep.outcome import Outcome, settle

POLL = 0.25  # seconds between two looks at what runs
GRACE = 8.0  # seconds for a job to save and end in, once asked


class Source(Protocol):
    """Where the jobs come from.

    Attributes:
        total: how many there will be in all, as far as is known.
    """

    @property
    def total(self) -> int: ...

    def next(self, has_room: Callable[[Config], bool]) -> Job | None:
        """A job to start now; None if there is none, or no room for it.

        Raises:
            UserError: if the study can't go on.
        """

    def is_exhausted(self) -> bool:
        """Whether nothing will come any more."""

    def look(self, running: Sequence[Job]) -> list[Job]:
        """Those of the running jobs that are hopeless."""

    def ended(self, job: Job, outcome: Outcome) -> None:
        """Take note of how a job came out.

        Raises:
            UserError: if the study can't go on.
        """


@dataclass
class Loop:
    """One pass over a source.

    Attributes:
        pause: called between two looks; holds everything as long as the user wants.
        outcomes: number of a job -> how it came out, for those that ended.
    """

    source: Source
    backend: Backend
    display: Display
    retries: int
    stop: StopRequest
    pause: Callable[[], None] | None = None
    outcomes: dict[int, Outcome] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._running: dict[int, Job] = {}
        self._again: deque[Job] = deque()
        self._tries: Counter[int] = Counter()
        self._asked: dict[int, tuple[RunStatus, float]] = {}  # number -> what for, and when it is killed
        self._error: Exception | None = None

    def run(self) -> None:
        """Until the source is exhausted or a signal has come, and all that ran has ended.

        Raises:
            UserError: what made it impossible to go on; everything that ran has been stopped, saved.
        """
        try:
            while self._running or not (self._is_stopping() or (self.source.is_exhausted() and not self._again)):
                if self.pause is not None:
                    self.pause()
                if not self._is_stopping():
                    self._try(self._start_what_fits)
                for ended in self.backend.poll(POLL):
                    self._try(partial(self._settle, ended))
                self._try(self._look)
                with suppress(OSError):  # of a file that it reads: what is shown is no reason to end
                    self.display.update(self.source.total)
        except Stopped:  # a second signal
            for job in self._running.values():
                self.backend.cancel(job, signal.SIGKILL)
            raise
        if self._error is not None:
            raise self._error

    def _try(self, action: Callable[[], None]) -> None:
        """The first error stops everything, and is raised when all has ended: the other jobs are still to be saved."""
        try:
            action()
        except (UserError, OSError) as error:
            if self._error is None:
                self._error = error
                self.display.say(f"stopping: {error}")

    def _is_stopping(self) -> bool:
        return self._error is not None or bool(self.stop.pending())

    def _start_what_fits(self) -> None:
        while not self.stop.pending():
            if self._again and self.backend.has_capacity(self._again[0].config):
                job = self._again.popleft()
            elif (found := self.source.next(self.backend.has_capacity)) is not None:
                job = found
            else:
                return
            _forget_end(job)
            self.backend.submit(job)
            self._tries[job.number] += 1
            self._running[job.number] = job
            self.display.started(job)

    def _settle(self, ended: JobExit) -> None:
        job = self._running.pop(ended.job.number)
        asked, _ = self._asked.pop(job.number, (None, 0.0))
        outcome = settle(ended, asked=asked)
        again = self._is_worth_a_try(job, outcome, asked) and not self._is_stopping()
        self.display.ended(job, outcome, again=again)
        self.outcomes[job.number] = outcome
        if again:
            self._again.append(job)
        else:
            self.source.ended(job, outcome)

    def _is_worth_a_try(self, job: Job, outcome: Outcome, asked: RunStatus | None) -> bool:
        """Whether it was lost and may be started again from its checkpoint; once more if it only was interrupted."""
        if asked is not None or outcome.status == RunStatus.REFUSED:
            return False
        if outcome.status == RunStatus.INTERRUPTED:  # by somebody else, or with the process that starts all jobs
            return self._tries[job.number] <= max(self.retries, 1)
        return outcome.is_failure and self._tries[job.number] <= self.retries

    def _look(self) -> None:
        """Prune what is hopeless; stop everything if it is time; kill what was asked and does not end."""
        if self._is_stopping():
            self._ask(list(self._running.values()), RunStatus.INTERRUPTED, self.stop.pending() or signal.SIGTERM)
        else:
            self._ask(self.source.look(list(self._running.values())), RunStatus.PRUNED, signal.SIGTERM)
        for number, (kind, deadline) in list(self._asked.items()):
            if time.monotonic() > deadline:
                self._asked[number] = (kind, float("inf"))
                self.backend.cancel(self._running[number], signal.SIGKILL)

    def _ask(self, jobs: Sequence[Job], kind: RunStatus, signum: int) -> None:
        for job in jobs:
            if job.number not in self._asked:
                self._asked[job.number] = (kind, time.monotonic() + GRACE)
                self.backend.cancel(job, signum)


def _forget_end(job: Job) -> None:
    """Should the next process not get far, what an earlier one wrote would be taken for its end."""
    if not job.run.result.exists():
        return
    with suppress(UserError), directory_lock(job.run.path, timeout=0.0):  # or somebody is at work on it, who says so
        job.run.result.unlink(missing_ok=True)


@contextmanager
def attended(study: Path, backend: Backend) -> Iterator[tuple[StopRequest, Callable[[], None] | None]]:
    """The first signal stops the jobs, saved; a second one ends them; Ctrl-Z pauses them.

    Outside of the main thread there are no signals.

    Raises:
        RunStopped: at a second signal.
    """
    stop = StopRequest()
    if threading.current_thread() is not threading.main_thread():
        yield stop, None
        return
    pause = Pause(backend)
    before = {signum: signal.getsignal(signum) for signum in (*STOP_SIGNALS, signal.SIGTSTP)}
    stop.install()
    signal.signal(signal.SIGTSTP, pause.ask)
    try:
        with stop.deferred():
            yield stop, pause
    except Stopped as stopped:
        signal.alarm(0)
        name = signal.Signals(stopped.signum).name
        print(f"litlab: stopped at once by {name}; the study is in {study}", file=sys.stderr)
        raise RunStopped(stopped.exit_code) from None
    finally:
        for signum, handler in before.items():
            signal.signal(signum, handler)


class Pause:
    """Ctrl-Z stops this process, and all jobs with it, until it is continued."""

    def __init__(self, backend: Backend) -> None:
        self._backend = backend
        self._asked = False

    def ask(self, signum: int, frame: FrameType | None) -> None:
        """The handler of the signal; what follows has to wait until nobody is talking to the backend."""
        self._asked = True

    def __call__(self) -> None:
        if not self._asked:
            return
        self._asked = False
        self._backend.pause()
        handler = signal.signal(signal.SIGTSTP, signal.SIG_DFL)
        os.kill(os.getpid(), signal.SIGTSTP)
        signal.signal(signal.SIGTSTP, handler)
        self._backend.resume()
