"""Tests of the scheduler with a backend whose jobs end as a test says."""

import os
import signal
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from litlab.errors import UserError
from litlab.process.signals import StopRequest
from litlab.runs.directory import RunDirectory
from litlab.runs.result import Result, read_result, write_result
from litlab.runs.state import RunStatus
from litlab.sweep import outcome as outcome_module
from litlab.sweep.backends.base import Config, ExitCause, Job, JobExit
from litlab.sweep.display import Display
from litlab.sweep.multirun import JobQueue
from litlab.sweep.scheduler import Scheduler

CONFIG: Config = {"format": 2, "name": "x", "seed": 0, "logger": {}, "trainer": {}, "objective": None}
End = tuple[RunStatus | None, int, ExitCause | None]  # status that the worker reports, exit code, cause
COMPLETED: End = (RunStatus.COMPLETED, 0, None)
FAILED: End = (RunStatus.FAILED, 1, None)
STOPPED: End = (RunStatus.INTERRUPTED, 143, None)
LOST: End = (None, -9, ExitCause.LOST)
LOST_AFTER_A_RANK: End = (RunStatus.FAILED, 1, ExitCause.LOST)
CANCELLED: End = (RunStatus.INTERRUPTED, 143, ExitCause.CANCELLED)


class ScriptedBackend:
    """Backend for two jobs at once; each attempt of job n ends as the next entry of `ends[n]` says.

    Attributes:
        submitted: Number of each submitted job.
        cancelled: Number of each cancelled job, with the signal.
        broken: Calls that raise an error from now on.
    """

    outlives_command, detaches, grace_seconds = False, False, 0.4
    max_parallel: int | None = None

    def __init__(self, ends: dict[int, list[End]]) -> None:
        self.submitted: list[int] = []
        self.cancelled: list[tuple[int, int]] = []
        self.running: dict[int, Job] = {}
        self.ends = ends
        self.broken: dict[str, Exception] = {}

    def _use(self, call: str) -> None:
        if call in self.broken:
            raise self.broken[call]

    def start(self) -> None: ...

    def queued(self) -> dict[int, str]:
        return {}

    def queued_runs(self) -> dict[Path, str]:
        return {}

    def how_to_cancel(self) -> str:
        return ""

    def check(self, configs: Sequence[Config], *, dry_run: bool = False) -> None: ...

    def pause(self) -> None: ...

    def resume(self) -> None: ...

    def close(self) -> None: ...

    def attach(self, job: Job) -> None: ...

    def threads(self, config: Config, num_jobs: int) -> int | None:
        return 1

    def is_alive(self, job: Job) -> bool:
        return False

    def has_capacity(self, config: Config) -> bool:
        return len(self.running) < 2

    def submit(self, job: Job) -> None:
        self._use("submit")
        self.submitted.append(job.number)
        self.running[job.number] = job

    def cancel(self, job: Job, signum: int) -> None:
        self.cancelled.append((job.number, signum))
        self._use("cancel")
        self.ends[job.number].insert(0, STOPPED)

    def poll(self, timeout: float) -> list[JobExit]:
        if len(self.submitted) > 1:
            self._use("poll")
        exits = [self._end(job, self.ends[job.number].pop(0)) for job in self.running.values() if self.ends[job.number]]
        for job_exit in exits:
            del self.running[job_exit.job.number]
        return exits

    def _end(self, job: Job, end: End) -> JobExit:
        status, code, cause = end
        if status is not None:
            write_result(job.run, Result(status, "", error="as the test says"))
        return JobExit(job, code, 1.0, cause)


Schedule = Callable[..., Scheduler]


@pytest.fixture
def schedule(tmp_path: Path) -> Schedule:
    """Make a scheduler for jobs 0, 1, ... of a backend."""

    def make(backend: ScriptedBackend, retries: int = 0) -> Scheduler:
        jobs = [Job(number, RunDirectory(tmp_path / str(number)), CONFIG) for number in backend.ends]
        for job in jobs:
            job.run.path.mkdir()
        return Scheduler(JobQueue(jobs, len(jobs)), backend, Display("s", len(jobs)), retries, StopRequest())

    return make


def test_a_lost_job_is_started_again_which_costs_no_retry(schedule: Schedule) -> None:
    backend = ScriptedBackend({0: [LOST, LOST, LOST_AFTER_A_RANK, FAILED, LOST, COMPLETED], 1: [LOST, FAILED, FAILED]})
    scheduler = schedule(backend, retries=1)
    scheduler.run()
    assert {number: outcome.status for number, outcome in scheduler.outcomes.items()} == {0: "completed", 1: "failed"}
    assert (backend.submitted.count(0), backend.submitted.count(1)) == (6, 3)


def test_a_job_that_is_lost_without_progress_is_given_up(schedule: Schedule, tmp_path: Path) -> None:
    """After five losses in a row; a new checkpoint starts the count anew."""
    backend = ScriptedBackend({0: [LOST] * 9 + [COMPLETED], 1: [LOST] * 9 + [COMPLETED]})
    scheduler = schedule(backend)
    submit = backend.submit

    def submit_and_save(job: Job) -> None:
        submit(job)
        if job.number == 1 and backend.submitted.count(1) == 4:
            job.run.checkpoints.mkdir()
            job.run.last.touch()

    backend.submit = submit_and_save  # type: ignore[method-assign]
    scheduler.run()
    assert (backend.submitted.count(0), backend.submitted.count(1)) == (5, 8)
    for number in (0, 1):
        outcome = scheduler.outcomes[number]
        assert outcome.status == RunStatus.LOST
        assert "5 times without a new checkpoint" in outcome.message


def test_a_diverged_job_is_not_started_again(schedule: Schedule) -> None:
    backend = ScriptedBackend({0: [(RunStatus.DIVERGED, 1, None), COMPLETED], 1: [FAILED, COMPLETED]})
    scheduler = schedule(backend, retries=2)
    scheduler.run()
    assert backend.submitted == [0, 1, 1]
    outcome = scheduler.outcomes[0]
    assert (outcome.status, outcome.message, outcome.log) == (RunStatus.DIVERGED, "as the test says", ())


def test_a_cancelled_job_is_not_started_again(schedule: Schedule, tmp_path: Path) -> None:
    backend = ScriptedBackend({0: [CANCELLED], 1: [(None, 0, ExitCause.CANCELLED)], 2: [COMPLETED]})
    scheduler = schedule(backend, retries=3)
    scheduler.run()
    assert [scheduler.outcomes[number].status for number in range(3)] == ["cancelled", "cancelled", "completed"]
    assert sorted(backend.submitted) == [0, 1, 2]
    for number in range(2):
        result = read_result(RunDirectory(tmp_path / str(number)))
        assert (result["status"], result["error"]) == ("cancelled", "cancelled in the queue")


def test_a_job_that_another_process_completed_keeps_its_result(schedule: Schedule, tmp_path: Path) -> None:
    backend = ScriptedBackend({0: [FAILED, COMPLETED], 1: [COMPLETED]})
    scheduler = schedule(backend)
    run = RunDirectory(tmp_path / "0")
    write_result(run, Result(RunStatus.COMPLETED, "", objective=0.5))
    scheduler.run()
    assert backend.submitted == [1]
    assert (scheduler.outcomes[0].status, scheduler.outcomes[0].objective) == ("completed", 0.5)
    assert read_result(run)["status"] == "completed"


def test_an_outcome_does_not_replace_a_result_that_was_completed_meanwhile(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another process completes the run between the look at its result and the lock."""
    job = Job(0, RunDirectory(tmp_path), CONFIG)
    lock = outcome_module.directory_lock

    def complete_first(*arguments: Any, **options: Any) -> Any:
        write_result(job.run, Result(RunStatus.COMPLETED, ""))
        return lock(*arguments, **options)

    monkeypatch.setattr(outcome_module, "directory_lock", complete_first)
    assert outcome_module.determine_outcome(JobExit(job, -9, 1.0)).status is RunStatus.COMPLETED
    assert read_result(job.run)["status"] == "completed"


def test_a_job_in_use_is_not_a_failure(schedule: Schedule) -> None:
    scheduler = schedule(ScriptedBackend({0: [(None, 75, None), COMPLETED], 1: [(None, 75, None), (None, 75, None)]}))
    scheduler.run()
    assert [scheduler.outcomes[number].status for number in range(2)] == ["completed", "interrupted"]
    assert scheduler.outcomes[1].message == "another process is at work on it"


def test_an_error_of_submit_stops_the_other_jobs_first(schedule: Schedule) -> None:
    backend = ScriptedBackend({0: [COMPLETED], 1: [], 2: []})
    scheduler = schedule(backend)
    poll = backend.poll

    def break_after_first(timeout: float) -> list[JobExit]:
        backend.broken["submit"] = UserError("the queue is closed")
        return poll(timeout)

    backend.poll = break_after_first  # type: ignore[method-assign]
    with pytest.raises(UserError, match="the queue is closed"):
        scheduler.run()
    assert backend.cancelled == [(1, signal.SIGTERM)]
    assert scheduler.outcomes[1].status == "interrupted"


def test_an_error_of_cancel_leaves_no_other_job_running(schedule: Schedule) -> None:
    """Both are asked to stop, then killed, and given up in the end: nothing reports their end."""
    backend = ScriptedBackend({0: [], 1: []})
    scheduler = schedule(backend)
    backend.broken = {"cancel": OSError("no answer"), "poll": UserError("the queue is closed")}
    start = time.monotonic()
    with pytest.raises(UserError, match="the queue is closed"):
        scheduler.run()
    assert time.monotonic() - start < 5
    assert backend.cancelled == [(number, signum) for signum in (signal.SIGTERM, signal.SIGKILL) for number in (0, 1)]


def test_an_error_of_poll_stops_the_jobs_in_order(schedule: Schedule) -> None:
    backend = ScriptedBackend({0: [], 1: []})
    scheduler = schedule(backend)
    backend.broken["poll"] = OSError("no answer")
    cancel = backend.cancel

    def recover(job: Job, signum: int) -> None:
        backend.broken.clear()
        cancel(job, signum)

    backend.cancel = recover  # type: ignore[method-assign]
    with pytest.raises(OSError, match="no answer"):
        scheduler.run()
    assert backend.cancelled == [(0, signal.SIGTERM), (1, signal.SIGTERM)]
    assert [scheduler.outcomes[number].status for number in range(2)] == ["interrupted", "interrupted"]


class Queue(ScriptedBackend):
    """Backend whose jobs outlive the command: they wait in `waiting` before they run."""

    outlives_command = True

    def __init__(self, ends: dict[int, list[End]]) -> None:
        super().__init__(ends)
        self.waiting: dict[int, str] = {}

    def has_capacity(self, config: Config) -> bool:
        return True

    def queued(self) -> dict[int, str]:
        return self.waiting


def stop_at(backend: ScriptedBackend, number: int, action: Callable[[], None]) -> None:
    """Call an action within the poll of this number."""
    poll, polls = backend.poll, iter(range(1, 1_000_000))

    def counted(timeout: float) -> list[JobExit]:
        if next(polls) == number:
            action()
        time.sleep(0.01)
        return poll(timeout)

    backend.poll = counted  # type: ignore[method-assign]


def request_stop(scheduler: Scheduler) -> None:
    scheduler.stop.received = signal.SIGINT


def test_a_signal_detaches_from_jobs_that_outlive_the_command(schedule: Schedule) -> None:
    backend = Queue({0: [COMPLETED], 1: [], 2: []})
    scheduler = schedule(backend)
    stop_at(backend, 3, lambda: request_stop(scheduler))
    scheduler.run()
    assert scheduler.is_detached
    assert (backend.submitted, backend.cancelled) == ([0, 1, 2], [])
    assert scheduler.outcomes.keys() == {0}


def test_control_c_again_cancels_them_saved(
    schedule: Schedule, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    backend = Queue({0: [], 1: []})
    scheduler = schedule(backend)
    stop_at(backend, 2, lambda: request_stop(scheduler))
    monkeypatch.setattr("sys.stdin.isatty", lambda: True, raising=False)
    timer = threading.Timer(0.5, lambda: os.kill(os.getpid(), signal.SIGINT))
    timer.start()
    scheduler.run()
    timer.join()
    assert not scheduler.is_detached
    assert backend.cancelled == [(0, signal.SIGINT), (1, signal.SIGINT)]
    assert [outcome.status for outcome in scheduler.outcomes.values()] == ["interrupted"] * 2
    assert "the jobs go on; Ctrl-C again within 5 s cancels them, saved" in capsys.readouterr().out


def test_a_job_that_fails_at_a_signal_is_not_tried_again(
    schedule: Schedule, capsys: pytest.CaptureFixture[str]
) -> None:
    backend = ScriptedBackend({0: [FAILED]})
    scheduler = schedule(backend, retries=1)
    stop_at(backend, 1, lambda: request_stop(scheduler))
    scheduler.run()
    assert (backend.submitted, scheduler.outcomes[0].status) == ([0], "failed")
    assert "tried again" not in capsys.readouterr().out


def test_detach_ends_the_command_once_all_jobs_are_submitted(schedule: Schedule) -> None:
    backend = Queue({number: [] for number in range(5)})
    backend.detaches = True
    scheduler = schedule(backend)
    scheduler.run()
    assert scheduler.is_detached
    assert backend.submitted == [0, 1, 2, 3, 4]


def test_few_jobs_of_an_adaptive_source_are_handed_over(schedule: Schedule) -> None:
    """A trial that is proposed late is proposed with more results."""
    backend = Queue({number: [] for number in range(5)})
    backend.max_parallel = 2
    scheduler = schedule(backend)
    scheduler._source.is_adaptive = True
    handed_over = []
    stop_at(backend, 2, lambda: handed_over.extend(backend.submitted))
    stop_at(backend, 3, lambda: backend.ends[0].append(COMPLETED))
    stop_at(backend, 6, lambda: request_stop(scheduler))
    scheduler.run()
    assert handed_over == [0, 1]
    assert backend.submitted == [0, 1, 2]


def test_jobs_are_shown_as_running_when_they_run(schedule: Schedule, capsys: pytest.CaptureFixture[str]) -> None:
    backend = Queue({0: []})
    backend.waiting = {0: "Priority"}
    scheduler = schedule(backend)
    stop_at(backend, 2, backend.waiting.clear)
    stop_at(backend, 4, lambda: backend.waiting.update({0: "BeginTime"}))
    stop_at(backend, 6, lambda: backend.ends[0].append(COMPLETED))
    scheduler.run()
    lines = [line.partition(" ")[2].partition("  [")[0] for line in capsys.readouterr().out.splitlines()]
    assert lines == ["started", "queued again", "completed"]
