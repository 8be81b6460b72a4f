"""A multirun from its composed jobs to its summary: the study's directory, the loop over its jobs, what is said."""

import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from litlab.runs.directory import RunDirectory
from litlab.runs.lock import is_locked
from litlab.runs.result import read_result
from litlab.runs.state import RunStatus, read_state
from litlab.sweep.backends.base import Backend, Config, Job
from litlab.sweep.compatibility import check_compatible
from litlab.sweep.display import Display, summary
from litlab.sweep.jobs import create_jobs, print_notes, record_resume
from litlab.sweep.outcome import Outcome
from litlab.sweep.scheduler import Loop, Source, attended
from litlab.sweep.study import Plan, Study

if TYPE_CHECKING:
    from litlab.config.job_configs import ComposedJob


Begun = Callable[[Path], None]  # is called with the directory of the study when its files stand, before jobs start
PATIENCE = 12.0  # seconds for the workers of a controller that was killed


@dataclass(frozen=True)
class MultirunEnd:
    """
    Attributes:
        outcomes: of each job asked for, in their order; None for those that were stopped before they could start.
        received: the signal that stopped it, if one came.
    """

    outcomes: list[Outcome | None]
    received: int | None

    @property
    def is_complete(self) -> bool:
        """Whether every job is done, or was pruned."""
        return all(
            outcome is not None and outcome.status in (RunStatus.COMPLETED, RunStatus.PRUNED)
            for outcome in self.outcomes
        )


class Queue:
    """The jobs of a grid, one after the other; a `Source`."""

    def __init__(self, jobs: Sequence[Job], total: int) -> None:
        """`total`: of the study, with the jobs that were done before."""
        self.total = total
        self._waiting = deque(jobs)

    def next(self, has_room: Callable[[Config], bool]) -> Job | None:
        return self._waiting.popleft() if self._waiting and has_room(self._waiting[0].config) else None

    def is_exhausted(self) -> bool:
        return not self._waiting

    def look(self, running: Sequence[Job]) -> list[Job]:
        return []

    def ended(self, job: Job, outcome: Outcome) -> None:
        """Nothing follows from it."""


def run_grid(
    study: Study,
    plan: Plan,
    composed: Sequence["ComposedJob"],
    backend: Backend,
    *,
    provenance: dict[str, Any],
    retries: int,
    begun: Begun,
) -> MultirunEnd:
    """Run the jobs of a grid that are not done yet.

    Raises:
        UserError: if they don't belong to this study, can't run here, or the study is somebody else's or in use;
            nothing has been written then.
    """
    check_compatible(study, plan, composed)
    known = {record.identity: run for record, run in study.jobs()}
    _check(backend, [each.config for each in composed if not _is_done(known.get(each.identity))])
    ready = [
        each if each.identity in known else replace(each, config=_with_threads(each.config, backend, len(composed)))
        for each in composed
    ]
    num_jobs = len(known.keys() | {each.identity for each in composed})
    with study.lock():
        wait_for_workers(study)
        study.write_plan(replace(plan, num_jobs=num_jobs))
        jobs = create_jobs(study, ready, provenance)
        begun(study.path)
        return _run(study, jobs, backend, retries)


def resume_grid(
    study: Study, backend: Backend, *, provenance: dict[str, Any] | None, retries: int, begun: Begun
) -> MultirunEnd:
    """Run the jobs of a grid that are not done yet, as they were frozen.

    `provenance`: of the command, as `runs.provenance.of_launch` gives it; None if their continuing is on record.

    Raises:
        UserError: if they can't run here, or the study is in use.
    """
    with study.lock():
        wait_for_workers(study)
        jobs = [Job(each.number, run, run.read_config()) for each, run in study.jobs()]
        left = [job for job in jobs if not _is_done(job.run)]
        _check(backend, [job.config for job in left])
        if provenance is not None:
            print_notes([line for job in left for line in record_resume(job.run, job.config, {}, provenance)])
        begun(study.path)
        return _run(study, jobs, backend, retries)


def run_search(
    study: Study, plan: Plan, open_source: Callable[[], Source], backend: Backend, *, retries: int, begun: Begun
) -> MultirunEnd:
    """Run what a search asks for, until it has asked for all.

    `open_source` is called once the study is held, and goes on from what is known.

    Raises:
        UserError: if the search can't go on, or the study is in use.
    """
    with study.lock():
        wait_for_workers(study)
        study.write_plan(plan)
        source = open_source()
        begun(study.path)
        known = {
            each.number
            for each, run in study.jobs()
            if read_state(run).status in (RunStatus.COMPLETED, RunStatus.PRUNED, RunStatus.FAILED)
        }
        loop = _loop(study, source, backend, retries, num_known=len(known))
        return MultirunEnd([loop.outcomes[number] for number in sorted(loop.outcomes)], loop.stop.received)


def _run(study: Study, jobs: Sequence[Job], backend: Backend, retries: int) -> MultirunEnd:
    """The loop over the jobs that are not done, and the summary over all."""
    distinct = {job.number: job for job in jobs}
    done = {number: found for number, job in distinct.items() if (found := _done(job)) is not None}
    left = [job for number, job in distinct.items() if number not in done]
    loop = _loop(study, Queue(left, len(distinct)), backend, retries, num_known=len(done))
    outcomes, received = done | loop.outcomes, loop.stop.received
    print("\n".join(summary(study.path, list(distinct.values()), outcomes, received=received)), flush=True)
    return MultirunEnd([outcomes.get(job.number) for job in jobs], received)


def _loop(study: Study, source: Source, backend: Backend, retries: int, *, num_known: int) -> Loop:
    """One pass over a source, shown and attended."""
    with (
        attended(study.path, backend) as (stop, pause),
        Display(study.path.name, source.total, known=num_known) as display,
    ):
        loop = Loop(source, backend, display, retries, stop, pause)
        loop.run()
    return loop


def _check(backend: Backend, configs: Sequence[Config]) -> None:
    """Ask only where there is something to run: a backend may take seconds to be ready."""
    if configs:
        backend.check(configs)


def _is_done(run: RunDirectory | None) -> bool:
    return run is not None and read_state(run).status == RunStatus.COMPLETED


def _done(job: Job) -> Outcome | None:
    """How a job came out that was done before."""
    state = read_state(job.run)
    if state.status != RunStatus.COMPLETED:
        return None
    return Outcome(RunStatus.COMPLETED, "", (), read_result(job.run), state.seconds or 0.0)


def _with_threads(config: Config, backend: Backend, num_jobs: int) -> Config:
    if config["threads"] is not None:
        return config
    return config | {"threads": backend.threads(config, num_jobs)}


def wait_for_workers(study: Study) -> None:
    """Those of a controller that was killed may still be saving; they have some seconds for it.

    The study has to be held.
    """
    runs = [run for _, run in study.jobs() if not run.result.exists()]
    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline and any(is_locked(run.path) for run in runs):
        time.sleep(0.1)
