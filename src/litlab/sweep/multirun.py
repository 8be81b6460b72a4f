"""A multirun from its composed jobs to its summary: the study's directory, the loop over its jobs, what is said."""

import signal
import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from litlab.config.freeze import from_yaml
from litlab.runs.directory import RunDirectory
from litlab.runs.result import read_result
from litlab.signals import STOPPING, StopRequest
from litlab.sweep.backend import Backend, Config, Job
from litlab.sweep.display import Display, summary
from litlab.sweep.outcome import Outcome
from litlab.sweep.running import Loop, Source
from litlab.sweep.states import state_of
from litlab.sweep.study import Plan, Study

if TYPE_CHECKING:
    from litlab.config.jobs import ComposedJob


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
        return all(outcome is not None and outcome.kind in ("done", "pruned") for outcome in self.outcomes)


class Queue:
    """The jobs of a grid, one after the other; a `Source`."""

    def __init__(self, jobs: Sequence[Job]) -> None:
        self.total = len(jobs)
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
) -> MultirunEnd:
    """Run the jobs of a grid that are not done yet.

    Raises:
        UserError: if they don't belong to this study, can't run here, or the study is somebody else's or in use;
            nothing has been written then.
    """
    study.check(plan, composed)
    known = {record.identity: run for record, run in study.jobs()}
    _check(backend, [each.config for each in composed if not _is_done(known.get(each.identity))])
    ready = [
        each if each.identity in known else replace(each, config=_with_threads(each.config, backend, len(composed)))
        for each in composed
    ]
    with study.holding():
        study.write_plan(plan)
        return _run(study, study.admit(ready, provenance), backend, retries)


def resume_grid(study: Study, backend: Backend, *, retries: int) -> MultirunEnd:
    """Run the jobs of a grid that are not done yet, as they were frozen.

    Raises:
        UserError: if they can't run here, or the study is in use.
    """
    with study.holding():
        jobs = [Job(each.number, run, from_yaml(run.config.read_text(encoding="utf-8"))) for each, run in study.jobs()]
        _check(backend, [job.config for job in jobs if not _is_done(job.run)])
        return _run(study, jobs, backend, retries)


def run_search(
    study: Study, plan: Plan, open_source: Callable[[], Source], backend: Backend, *, retries: int
) -> MultirunEnd:
    """Run what a search asks for, until it has asked for all.

    `open_source` is called once the study is held, and goes on from what is known.

    Raises:
        UserError: if the search can't go on, or the study is in use.
    """
    with study.holding():
        study.write_plan(plan)
        source = open_source()
        known = {each.number for each, run in study.jobs() if state_of(run).word in ("done", "pruned", "failed")}
        with _attended() as stop, Display(study.path.name, source.total, known=len(known)) as display:
            loop = Loop(source, backend, display, retries, stop)
            loop.run()
        return MultirunEnd([loop.outcomes[number] for number in sorted(loop.outcomes)], stop.received)


def _run(study: Study, jobs: Sequence[Job], backend: Backend, retries: int) -> MultirunEnd:
    """The loop over the jobs that are not done, and the summary over all."""
    distinct = {job.number: job for job in jobs}
    done = {number: found for number, job in distinct.items() if (found := _done(job)) is not None}
    left = [job for number, job in distinct.items() if number not in done]
    title = study.path.name
    with _attended() as stop, Display(title, len(distinct), known=len(done)) as display:
        loop = Loop(Queue(left), backend, display, retries, stop)
        loop.run()
    outcomes = done | loop.outcomes
    print("\n".join(summary(study.path, list(distinct.values()), outcomes, received=stop.received)), flush=True)
    return MultirunEnd([outcomes.get(job.number) for job in jobs], stop.received)


def _check(backend: Backend, configs: Sequence[Config]) -> None:
    """Ask only where there is something to run: a backend may take seconds to be ready."""
    if configs:
        backend.check(configs)


def _is_done(run: RunDirectory | None) -> bool:
    return run is not None and state_of(run).word == "done"


def _done(job: Job) -> Outcome | None:
    """How a job came out that was done before."""
    if not _is_done(job.run):
        return None
    result = read_result(job.run)
    return Outcome("done", "", (), result, float(sum(result.get("seconds", {}).values())))


def _with_threads(config: Config, backend: Backend, num_jobs: int) -> Config:
    if config["threads"] is not None:
        return config
    return config | {"threads": backend.threads(config, num_jobs)}


@contextmanager
def _attended() -> Iterator[StopRequest]:
    """The first signal stops the jobs, saved; a second one ends them. Outside of the main thread there are none."""
    stop = StopRequest()
    if threading.current_thread() is not threading.main_thread():
        yield stop
        return
    before = {signum: signal.getsignal(signum) for signum in STOPPING}
    stop.install()
    try:
        with stop.deferred():
            yield stop
    finally:
        for signum, handler in before.items():
            signal.signal(signum, handler)
