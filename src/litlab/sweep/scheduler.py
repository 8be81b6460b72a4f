"""Scheduler of a multirun: starts jobs while there is capacity, polls, retries or prunes them; handles signals."""

import os
import signal
import sys
import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import FrameType
from typing import Protocol

from litlab.errors import InUseError, UserError
from litlab.process.controller import RunStopped
from litlab.process.signals import STOP_SIGNALS, Stopped, StopRequest
from litlab.runs.lock import directory_lock
from litlab.runs.result import is_completed
from litlab.runs.state import RunStatus
from litlab.sweep.backends.base import Backend, Config, ExitCause, Job, JobExit
from litlab.sweep.display import Display
from litlab.sweep.outcome import Outcome, determine_outcome
from litlab.sweep.snapshot import record_snapshot

POLL_SECONDS = 0.25
DETACH_SECONDS = 5.0  # for a second Ctrl-C, which cancels jobs that would otherwise outlive the command
MAX_LOSSES = 5  # of a job in a row without a new checkpoint: it may bring down the nodes itself
_NOT_RETRIED = (RunStatus.REFUSED, RunStatus.DIVERGED)  # they would end in the same way


class JobSource(Protocol):
    """Supply of jobs for the scheduler.

    Attributes:
        is_adaptive: True if a job depends on the results of earlier ones, so that few are handed out at a time.
    """

    is_adaptive: bool

    @property
    def total(self) -> int:
        """Number of jobs in all, as far as is known."""

    def next_job(self, has_capacity: Callable[[Config], bool]) -> Job | None:
        """Return a job to start now; None if there is none, or no capacity for it.

        Raises:
            UserError: If the study can't continue.
        """

    def is_exhausted(self) -> bool:
        """Return True if no more jobs will come."""

    def jobs_to_prune(self, running: Sequence[Job]) -> list[Job]:
        """Return the running jobs to prune."""

    def job_ended(self, job: Job, outcome: Outcome) -> None:
        """Take note of the outcome of a job.

        Raises:
            UserError: If the study can't continue.
        """


class Scheduler:
    """Runs the jobs of a source on a backend.

    Args:
        source: Supply of jobs.
        backend: Backend that runs them.
        display: Shows what happens.
        retries: Number of times that a failed job is started again.
        stop: Signals that stop the multirun.
        pause: Called between two polls; blocks while the user has paused the multirun.
        snapshot: Copy of the project's sources that submitted jobs use; None to use the project itself.

    Attributes:
        outcomes: Outcome of each job that has ended, by number.
        is_detached: True if the jobs were left to the backend when a signal came.
    """

    def __init__(
        self,
        source: JobSource,
        backend: Backend,
        display: Display,
        retries: int,
        stop: StopRequest,
        pause: Callable[[], None] | None = None,
        snapshot: Path | None = None,
    ) -> None:
        self.stop = stop
        self.outcomes: dict[int, Outcome] = {}
        self._source, self._backend, self._display = source, backend, display
        self._retries, self._pause, self._snapshot = retries, pause, snapshot
        self.is_detached = False
        self._running: dict[int, Job] = {}  # submitted
        self._shown: set[int] = set()  # numbers of those that the display shows as running
        self._retry_queue: deque[Job] = deque()
        self._num_attempts: Counter[int] = Counter()
        self._losses: dict[int, tuple[int, int]] = {}  # number -> time of the newest checkpoint, losses since then
        self._cancelled: dict[int, tuple[RunStatus, float]] = {}  # number -> status asked for, time of the SIGKILL
        self._cancels_all = False  # also jobs that could outlive the command
        self._error: Exception | None = None
        self._give_up_at = float("inf")  # after an error: for a backend that reports no end of the jobs it has to kill

    def run(self) -> None:
        """Run until the source is exhausted or a signal has come, and all running jobs have ended.

        Raises:
            UserError: If the study can't continue, after all running jobs have saved and stopped.
            OSError: As UserError.
            Stopped: At a second signal.
        """
        try:
            while not self._is_over():
                if self._pause is not None:
                    self._pause()
                if self._may_detach() and self.stop.pending() and self._detach():
                    break
                if not self._is_stopping():
                    self._attempt(self._start_jobs)
                self._attempt(self._poll)
                if self._backend.detaches and self._source.is_exhausted() and not self._is_stopping():
                    self.is_detached = True
                    break
                self._attempt(self._cancel_jobs)
                with suppress(UserError, OSError):  # of a file that the display reads: no reason to stop
                    self._update_display()
        except Stopped:
            for job in self._running.values():
                self._attempt(partial(self._backend.cancel, job, signal.SIGKILL))
            raise
        if self._error is not None:
            raise self._error

    def _attempt(self, action: Callable[[], None]) -> None:
        """Run an action; its first error stops all jobs, and is raised when they have ended."""
        try:
            action()
        except (UserError, OSError) as error:
            if self._error is None:
                self._error, self._give_up_at = error, time.monotonic() + 2 * self._backend.grace_seconds
                self._display.print(f"stopping: {error}")

    def _is_over(self) -> bool:
        if self._running:
            return time.monotonic() > self._give_up_at
        return self._is_stopping() or (self._source.is_exhausted() and not self._retry_queue)

    def _is_stopping(self) -> bool:
        return self._error is not None or bool(self.stop.pending())

    def _may_detach(self) -> bool:
        return self._backend.outlives_command and self._error is None and not self._cancels_all

    def _detach(self) -> bool:
        """Leave the jobs to the backend, unless Ctrl-C is pressed again within seconds; return False then."""
        is_again = threading.Event()
        before = signal.signal(signal.SIGINT, lambda signum, frame: is_again.set())
        try:
            if self.stop.pending() == signal.SIGINT and sys.stdin.isatty():
                self._display.print(f"the jobs go on; Ctrl-C again within {DETACH_SECONDS:.0f} s cancels them, saved")
                is_again.wait(DETACH_SECONDS)
        finally:
            signal.signal(signal.SIGINT, before)
        self._cancels_all = is_again.is_set()
        self.is_detached = not self._cancels_all
        return self.is_detached

    def _update_display(self) -> None:
        """Show the progress, and which jobs have left the queue or returned to it."""
        queued = self._backend.queued()
        for number, job in self._running.items():
            if number in queued and number in self._shown:
                self._shown.remove(number)
                self._display.job_queued(job)
            elif number not in queued and number not in self._shown:
                self._shown.add(number)
                self._display.job_started(job)
        self._display.update(self._source.total, list(queued.values()))

    def _start_jobs(self) -> None:
        """Start jobs while there is capacity: those to retry first."""
        has_capacity = self._backend.has_capacity
        limit = self._backend.max_parallel if self._source.is_adaptive else None
        while not self.stop.pending() and (limit is None or len(self._running) < limit):
            if self._retry_queue and has_capacity(self._retry_queue[0].config):
                job: Job | None = self._retry_queue.popleft()
            else:
                job = self._source.next_job(has_capacity)
            if job is None:
                return
            if self._backend.is_alive(job):  # an earlier command has submitted it
                self._backend.attach(job)
            elif _remove_result(job):
                if self._snapshot is not None:
                    record_snapshot(job.run, self._snapshot)
                self._backend.submit(job)
            else:
                self._skip_completed(job)
                continue
            self._num_attempts[job.number] += 1
            self._running[job.number] = job
            if not self._backend.outlives_command:
                self._show_start(job)

    def _show_start(self, job: Job) -> None:
        """Show that a job started at once, or what it waits for."""
        reason = self._backend.queued().get(job.number)
        if reason is None:
            self._shown.add(job.number)
            self._display.job_started(job)
        else:
            self._display.job_waits(job, reason)

    def _skip_completed(self, job: Job) -> None:
        """Take a job that another process has completed for one that has ended."""
        outcome = determine_outcome(JobExit(job, 0, 0.0))
        self._display.job_ended(job, outcome, will_retry=False)
        self.outcomes[job.number] = outcome
        self._source.job_ended(job, outcome)

    def _poll(self) -> None:
        """Finish the jobs that have ended.

        Raises:
            UserError: If the backend fails.
            OSError: If the backend fails.
        """
        try:
            exits = self._backend.poll(POLL_SECONDS)
        except (UserError, OSError):
            time.sleep(POLL_SECONDS)  # it may fail at once, and again
            raise
        for job_exit in exits:
            self._attempt(partial(self._finish, job_exit))

    def _finish(self, job_exit: JobExit) -> None:
        job = self._running.pop(job_exit.job.number)
        self._shown.discard(job.number)
        requested, _ = self._cancelled.pop(job.number, (None, 0.0))
        outcome = determine_outcome(job_exit, requested=requested)
        if outcome.status == RunStatus.LOST and (num_losses := self._count_loss(job)) >= MAX_LOSSES:
            outcome = replace(outcome, message=f"{outcome.message}, {num_losses} times without a new checkpoint")
        will_retry = requested is None and self._may_retry(job_exit, outcome) and not self._is_stopping()
        self._display.job_ended(job, outcome, will_retry=will_retry)
        self.outcomes[job.number] = outcome
        if will_retry:
            self._retry_queue.append(job)
        else:
            self._source.job_ended(job, outcome)

    def _may_retry(self, job_exit: JobExit, outcome: Outcome) -> bool:
        if outcome.is_success or outcome.status in _NOT_RETRIED or job_exit.cause is ExitCause.CANCELLED:
            return False
        number = job_exit.job.number
        if outcome.status == RunStatus.LOST:
            self._num_attempts[number] -= 1
            return self._losses[number][1] < MAX_LOSSES
        if outcome.status == RunStatus.INTERRUPTED:  # from outside, or with the process that starts all jobs
            return self._num_attempts[number] <= max(self._retries, 1)
        return outcome.is_failure and self._num_attempts[number] <= self._retries

    def _count_loss(self, job: Job) -> int:
        """Return how often a job was lost since its newest checkpoint."""
        saved = job.run.last.stat().st_mtime_ns if job.run.last.exists() else 0
        saved_before, num_losses = self._losses.get(job.number, (saved, 0))
        self._losses[job.number] = (saved, num_losses + 1 if saved == saved_before else 1)
        return self._losses[job.number][1]

    def _cancel_jobs(self) -> None:
        """Prune unpromising jobs, stop all jobs if needed, kill cancelled ones that do not end in time."""
        running = list(self._running.values())
        if self._may_detach() and self.stop.pending():
            return
        if self._is_stopping():
            self._cancel(running, RunStatus.INTERRUPTED, self.stop.pending() or signal.SIGTERM)
        else:
            self._cancel(self._source.jobs_to_prune(running), RunStatus.PRUNED, signal.SIGTERM)
        for number, (status, kill_at) in list(self._cancelled.items()):
            if time.monotonic() > kill_at:
                self._cancelled[number] = (status, float("inf"))
                self._attempt(partial(self._backend.cancel, self._running[number], signal.SIGKILL))

    def _cancel(self, jobs: Sequence[Job], status: RunStatus, signum: int) -> None:
        for job in jobs:
            if job.number not in self._cancelled:
                self._cancelled[job.number] = (status, time.monotonic() + self._backend.grace_seconds)
                self._attempt(partial(self._backend.cancel, job, signum))


def _remove_result(job: Job) -> bool:
    """Remove the result of an earlier attempt, which would be taken for that of the next one if it dies early.

    Returns:
        False if the run is completed by now, and keeps its result.
    """
    if job.run.result.exists():
        with suppress(InUseError), directory_lock(job.run.path, timeout=0.0):  # who holds the run makes the job fail
            if is_completed(job.run):
                return False
            job.run.result.unlink(missing_ok=True)
    return True


@contextmanager
def handle_signals(study: Path, backend: Backend) -> Iterator[tuple[StopRequest, Callable[[], None] | None]]:
    """Handle signals: the first one lets the jobs save and stop, a second one ends them; Ctrl-Z pauses them.

    Yields:
        The request to stop, and the function that pauses if that was requested. Outside of the main thread no signal
        is handled, and the function is None.

    Raises:
        RunStopped: At a second signal.
    """
    stop = StopRequest()
    if threading.current_thread() is not threading.main_thread():
        yield stop, None
        return
    pause = _Pause(backend)
    handlers = {signum: signal.getsignal(signum) for signum in (*STOP_SIGNALS, signal.SIGTSTP)}
    unraisablehook = sys.unraisablehook
    stop.install()
    signal.signal(signal.SIGTSTP, pause.request)
    try:
        with stop.deferred():
            yield stop, pause
    except Stopped as stopped:
        signal.alarm(0)
        name = signal.Signals(stopped.signum).name
        print(f"litlab: stopped at once by {name}; the study is in {study}", file=sys.stderr)
        raise RunStopped(stopped.exit_code) from None
    finally:
        sys.unraisablehook = unraisablehook
        for signum, handler in handlers.items():
            signal.signal(signum, handler)


class _Pause:
    """Stops all jobs and this process, once no other call to the backend is in progress, until it is continued."""

    def __init__(self, backend: Backend) -> None:
        self._backend = backend
        self._is_requested = False

    def request(self, signum: int, frame: FrameType | None) -> None:
        self._is_requested = True

    def __call__(self) -> None:
        if not self._is_requested:
            return
        self._is_requested = False
        self._backend.pause()
        handler = signal.signal(signal.SIGTSTP, signal.SIG_DFL)
        os.kill(os.getpid(), signal.SIGTSTP)
        signal.signal(signal.SIGTSTP, handler)
        self._backend.resume()
