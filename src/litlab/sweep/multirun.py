"""Multirun of a grid or an adaptive source, from the composed jobs to the summary."""

import sys
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from litlab.errors import RunFailed
from litlab.process.controller import RunStopped
from litlab.process.signals import exit_code
from litlab.runs.directory import RunDirectory
from litlab.runs.files import as_mapping
from litlab.runs.lock import is_locked
from litlab.runs.state import read_state
from litlab.runs.terminal import display_path
from litlab.sweep.backends.base import Backend, Config, Job
from litlab.sweep.compatibility import check_compatible
from litlab.sweep.display import Display
from litlab.sweep.jobs import create_jobs, print_notes, record_resume
from litlab.sweep.outcome import Outcome, read_outcome
from litlab.sweep.scheduler import JobSource, Scheduler, handle_signals
from litlab.sweep.snapshot import snapshot_sources
from litlab.sweep.study import Plan, Study
from litlab.sweep.summary import summarize

if TYPE_CHECKING:
    from litlab.config.job_configs import ComposedJob


OnStart = Callable[[Path], None]  # called with the directory of the study when its files are complete
WORKER_GRACE_SECONDS = 12.0  # for the workers of a controller that was killed


@dataclass(frozen=True)
class GridResult:
    """Result of the multirun of a grid."""

    outcomes: list[Outcome | None]  # of each job, in their order; None if it was stopped before it started
    signum: int | None  # signal that stopped the multirun; None if none came

    @property
    def is_complete(self) -> bool:
        """True if every job is completed or pruned."""
        return all(outcome is not None and outcome.is_success for outcome in self.outcomes)


class JobQueue:
    """Source of the jobs of a grid that are left, of `total` ones in the study."""

    is_adaptive = False

    def __init__(self, jobs: Sequence[Job], total: int) -> None:
        self.total = total
        self._jobs = deque(jobs)

    def next_job(self, has_capacity: Callable[[Config], bool]) -> Job | None:
        """Return the next job if there is capacity for it."""
        return self._jobs.popleft() if self._jobs and has_capacity(self._jobs[0].config) else None

    def is_exhausted(self) -> bool:
        """Return True if all jobs were handed out."""
        return not self._jobs

    def jobs_to_prune(self, running: Sequence[Job]) -> list[Job]:
        """Return nothing: a grid prunes no job."""
        return []

    def job_ended(self, job: Job, outcome: Outcome) -> None:
        """Do nothing: the jobs of a grid do not depend on one another."""


def run_grid(
    study: Study,
    plan: Plan,
    composed: Sequence["ComposedJob"],
    backend: Backend,
    *,
    provenance: dict[str, Any],
    retries: int,
    on_start: OnStart,
) -> GridResult:
    """Run the jobs of a grid that have not trained to their end.

    Args:
        study: New study, or one to continue.
        plan: Plan of this command.
        composed: Distinct jobs of this command.
        backend: Backend that runs the jobs.
        provenance: Provenance of the command, see `runs.provenance.describe_launch`.
        retries: Number of times that a failed job is started again.
        on_start: Called when the files of the study are complete.

    Raises:
        UserError: If the jobs don't belong to this study or can't run here, or the study is in use; nothing is written.
    """
    check_compatible(study, plan, composed)
    runs = {record.identity: run for record, run in study.jobs()}
    left = [job.config for job in composed if job.identity not in runs or not _has_ended_training(runs[job.identity])]
    if left:  # a backend may take seconds to be ready
        backend.check(left)
    composed = [
        job
        if job.identity in runs or job.config["threads"] is not None
        else replace(job, config=job.config | {"threads": backend.threads(job.config, len(composed))})
        for job in composed
    ]
    num_jobs = len(runs.keys() | {job.identity for job in composed})
    with study.lock():
        wait_for_workers(study, backend)
        study.write_plan(replace(plan, num_jobs=num_jobs))
        jobs = create_jobs(study, composed, provenance)
        on_start(study.path)
        return _run_jobs(study, jobs, backend, retries)


def resume_grid(
    study: Study, backend: Backend, *, provenance: dict[str, Any] | None, retries: int, on_start: OnStart
) -> GridResult:
    """Run the jobs of a grid that have not trained to their end, by their frozen configs; arguments as of `run_grid`.

    `provenance` is None if it is recorded already.

    Raises:
        UserError: If the jobs can't run here, or the study is in use.
    """
    with study.lock():
        wait_for_workers(study, backend)
        jobs = [Job(record.number, run, run.read_config()) for record, run in study.jobs()]
        left = [job for job in jobs if not _has_ended_training(job.run)]
        if left:
            backend.check([job.config for job in left])
        if provenance is not None:
            print_notes([note for job in left for note in record_resume(job.run, job.config, {}, provenance)])
        on_start(study.path)
        return _run_jobs(study, jobs, backend, retries)


def run_source(
    study: Study, plan: Plan, open_source: Callable[[], JobSource], backend: Backend, *, retries: int, on_start: OnStart
) -> int | None:
    """Run the jobs of a source that is opened once the study is locked; see `run_grid` for the other arguments.

    Returns:
        Signal that stopped the multirun; None if none came.

    Raises:
        UserError: If the source can't continue, or the study is in use.
    """
    with study.lock():
        wait_for_workers(study, backend)
        study.write_plan(plan)
        source = open_source()
        on_start(study.path)
        num_ended = sum(read_outcome(run) is not None for _, run in study.jobs())
        return _schedule(study, source, backend, retries, num_ended).stop.received


def run_single(run: RunDirectory, config: Config, backend: Backend, *, retries: int) -> float | None:
    """Run a single run on a backend that is not this machine.

    Args:
        run: The run directory.
        config: Its frozen config.
        backend: Backend of the run, started.
        retries: Number of times that it is submitted again if it fails.

    Returns:
        The objective; None if the run has none, or goes on without this command.

    Raises:
        RunStopped: After a signal.
        RunFailed: If the run did not complete.
    """
    snapshot = snapshot_sources(run.project(), run.path) if config["study"]["snapshot"] else None
    with (
        handle_signals(run.path, backend) as (stop, pause),
        Display(run.path.name, 1) as display,
    ):
        source = JobQueue([Job(0, run, config)], 1)
        scheduler = Scheduler(source, backend, display, retries, stop, pause, snapshot)
        scheduler.run()
    if scheduler.is_detached:
        place = display_path(run.path)
        print(f"\nrun          {place}\nstatus       litlab status {place}\ncancel       {backend.how_to_cancel()}")
    outcome = scheduler.outcomes.get(0)
    if scheduler.stop.received is not None and (outcome is None or not outcome.is_success):
        raise RunStopped(exit_code(scheduler.stop.received))
    if outcome is None:
        return None
    if not outcome.is_success:
        for line in (outcome.message, *outcome.log):
            print(f"litlab: {line}", file=sys.stderr)
        raise RunFailed(1)
    return outcome.objective


def wait_for_workers(study: Study, backend: Backend | None = None) -> None:
    """Give the workers of a controller that was killed some seconds to save. Requires the lock of the study.

    Jobs that outlive their controller are left alone: the backend takes them up.
    """
    if backend is not None and backend.outlives_command:
        return
    runs = [run for _, run in study.jobs() if not run.result.exists()]
    deadline = time.monotonic() + WORKER_GRACE_SECONDS
    while time.monotonic() < deadline and any(is_locked(run.path) for run in runs):
        time.sleep(0.1)


def _run_jobs(study: Study, jobs: Sequence[Job], backend: Backend, retries: int) -> GridResult:
    """Run the jobs that have not trained to their end, and print the summary of all."""
    earlier = {job.number: read_outcome(job.run) for job in jobs}
    ended = {number: end for number, end in earlier.items() if end and end.status.has_ended_training}
    left = [job for job in jobs if job.number not in ended]
    scheduler = _schedule(study, JobQueue(left, len(jobs)), backend, retries, len(ended))
    outcomes, signum = ended | scheduler.outcomes, scheduler.stop.received
    cancel_command = backend.how_to_cancel() if scheduler.is_detached else ""
    lines = summarize(study.path, jobs, outcomes, signum=signum, cancel_command=cancel_command)
    print("\n".join(lines), flush=True)
    return GridResult([outcomes.get(job.number) for job in jobs], signum)


def _schedule(study: Study, source: JobSource, backend: Backend, retries: int, num_ended: int) -> Scheduler:
    """Run the jobs of a source with a display and signal handling."""
    with (
        handle_signals(study.path, backend) as (stop, pause),
        Display(study.path.name, source.total, num_ended=num_ended) as display,
    ):
        scheduler = Scheduler(source, backend, display, retries, stop, pause, _snapshot(study, backend))
        scheduler.run()
    return scheduler


def _snapshot(study: Study, backend: Backend) -> Path | None:
    """Copy the sources of the study's project, if its jobs may start when they have been edited."""
    plan = study.plan
    if plan is None or not backend.outlives_command or not as_mapping(plan.base.get("study")).get("snapshot"):
        return None
    return snapshot_sources(Path(plan.project), study.path)


def _has_ended_training(run: RunDirectory) -> bool:
    return read_state(run).status.has_ended_training
