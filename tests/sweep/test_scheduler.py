"""Tests of the scheduler with a backend whose jobs end as a test says."""

from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from litlab.process.signals import StopRequest
from litlab.runs.directory import RunDirectory
from litlab.runs.result import Result, read_result, write_result
from litlab.runs.state import RunStatus
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
    """

    outlives_command, grace_seconds, max_parallel = False, 8.0, None

    def __init__(self, ends: dict[int, list[End]]) -> None:
        self.submitted: list[int] = []
        self.cancelled: list[tuple[int, int]] = []
        self.running: dict[int, Job] = {}
        self.ends = ends

    def start(self) -> None: ...

    def queued(self) -> dict[int, str]:
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
        self.submitted.append(job.number)
        self.running[job.number] = job

    def cancel(self, job: Job, signum: int) -> None:
        self.cancelled.append((job.number, signum))
        self.ends[job.number].insert(0, STOPPED)

    def poll(self, timeout: float) -> list[JobExit]:
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


def test_a_cancelled_job_is_not_started_again(schedule: Schedule, tmp_path: Path) -> None:
    backend = ScriptedBackend({0: [CANCELLED], 1: [(None, 0, ExitCause.CANCELLED)], 2: [COMPLETED]})
    scheduler = schedule(backend, retries=3)
    scheduler.run()
    assert [scheduler.outcomes[number].status for number in range(3)] == ["cancelled", "cancelled", "completed"]
    assert sorted(backend.submitted) == [0, 1, 2]
    for number in range(2):
        result = read_result(RunDirectory(tmp_path / str(number)))
        assert (result["status"], result["error"]) == ("cancelled", "cancelled in the queue")
