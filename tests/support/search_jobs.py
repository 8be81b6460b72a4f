"""Searches without training: jobs whose files are written as a worker does, with values of a known function.

Everything else is real: Optuna, SQLite, the directory of the study, the scheduler.
"""

import copy
import math
import os
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest.mock import patch

from sqlalchemy import event
from sqlalchemy.engine import Engine

from litlab.config.identity import identity
from litlab.config.job_configs import ComposedJob
from litlab.config.search_space import Choices, Dimension, Numbers, Space
from litlab.errors import UserError
from litlab.process.signals import StopRequest
from litlab.runs.metrics import MetricsWriter, read_metrics
from litlab.runs.result import Result, write_result
from litlab.runs.state import RunStatus
from litlab.sweep.backends.base import Backend, Config, Job, JobExit
from litlab.sweep.compatibility import check_compatible
from litlab.sweep.display import Display
from litlab.sweep.outcome import Outcome
from litlab.sweep.scheduler import Scheduler
from litlab.sweep.search.proposals import SearchSource
from litlab.sweep.search.settings import SearchSettings, make_objectives, read_settings
from litlab.sweep.search.spec import SearchSpec
from litlab.sweep.study import Plan, Study

DEFAULTS: dict[str, Any] = {
    "trials": 20, "sampler": "tpe", "sampler_options": {}, "pruner": None, "pruner_options": {}, "seed": 0,
    "objectives": None, "storage": None,
}  # fmt: skip
EPOCHS = 5
LR = Dimension("optimizer.lr", "optimizer.lr", Numbers(1e-4, 1.0, None, True), "tag(log,interval(1e-4,1))")
WIDTH = Dimension("model.width", "model.width", Numbers(8, 64, 8, False), "range(8,65,8)")
NAMES = Dimension("model.name", "model.name", Choices(("a", "b", "c")), "a,b,c")
FEW = Dimension("optimizer.lr", "optimizer.lr", Choices(("0.1", "0.01")), "0.1,0.01")
BASE: Config = {
    "format": 2, "name": "x", "seed": 0, "threads": None, "objective": {"metric": "val/accuracy", "mode": "max"},
    "checkpoint": {}, "study": {"name": None, "swept": []}, "data": {"_target_": "own.Data"}, "model": {},
    "task": {"_target_": "own.Task"}, "optimizer": {}, "schedule": {}, "callbacks": {}, "logger": {},
    "trainer": {"max_epochs": EPOCHS, "check_val_every_n_epoch": 1, "val_check_interval": 1.0, "devices": 1},
}  # fmt: skip


def accuracy(point: dict[str, str]) -> float:
    """Compute a parabola over the logarithm of the learning rate, with a maximum of 1 at 0.03."""
    return 1 - (math.log10(float(point["optimizer.lr"])) - math.log10(0.03)) ** 2 / 4


class Composer:
    """Composes the config of a point; refuses points on request."""

    def __init__(self, study: Study, refuses: Callable[[dict[str, str]], bool] = lambda point: False) -> None:
        self.study, self.refuses = study, refuses
        self.num_calls = 0

    def __call__(self, overrides: list[str], number: int) -> ComposedJob:
        self.num_calls += 1
        point = dict(override.split("=", 1) for override in overrides)
        if self.refuses(point):
            raise UserError("optimizer.lr: out of range")
        config = copy.deepcopy(BASE)
        for key, value in point.items():
            config.setdefault(key.partition(".")[0], {})[key.partition(".")[2]] = value
        key = identity(config)
        number, directory = self.study.known_jobs.get(key, (number, f"{number:04d}"))
        return ComposedJob(tuple(overrides), point, config, key, number, directory, {"config.yaml": ""})


class SimulatedBackend(Backend):
    """Backend of two jobs at once, each of which does a validation at every poll.

    Args:
        metric: Name of the metric that the jobs report.
        fails: Called with a point, returns the error of its job; None if that completes.
        stops: Number of a job -> how often it is stopped from outside.
    """

    outlives_command, detaches, grace_seconds, max_parallel = False, False, 8.0, None

    def __init__(
        self,
        *,
        metric: str = "val/accuracy",
        fails: Callable[[dict[str, str]], str | None] = lambda point: None,
        stops: dict[int, int] | None = None,
    ) -> None:
        self.metric, self.fails, self.stops = metric, fails, stops or {}
        self.running: dict[int, Job] = {}
        self.cancelled: set[int] = set()
        self.num_validations = 0

    def queued(self) -> dict[int, str]:
        return {}

    def queued_runs(self) -> dict[Path, str]:
        return {}

    def how_to_cancel(self) -> str:
        return ""

    def is_alive(self, job: Job) -> bool:
        return job.number in self.running

    def threads(self, config: Config, num_jobs: int) -> int | None:
        return 1

    def has_capacity(self, config: Config) -> bool:
        return len(self.running) < 2

    def submit(self, job: Job) -> None:
        self.running[job.number] = job

    def cancel(self, job: Job, signum: int) -> None:
        self.cancelled.add(job.number)

    def poll(self, timeout: float) -> list[JobExit]:
        exits = []
        for job in list(self.running.values()):
            result, code = self._advance(job)
            if result is not None:
                write_result(job.run, result)
                exits.append(JobExit(job, code, 1.0))
                del self.running[job.number]
        return exits

    def _advance(self, job: Job) -> tuple[Result | None, int]:
        """Validate once more; return the result and the exit code of a job that ends."""
        point, key = point_of(job.config), identity(job.config)
        epoch = len(read_metrics(job.run.metrics)) if job.run.metrics.exists() else 0
        if epoch and self.stops.get(job.number, 0):
            self.stops[job.number] -= 1
            return Result(RunStatus.INTERRUPTED, key, error="stopped by SIGTERM"), 143
        if job.number in self.cancelled:
            return Result(RunStatus.INTERRUPTED, key, error="stopped"), 143
        if message := self.fails(point):
            return Result(RunStatus.FAILED, key, error=message), 1
        value = accuracy(point)
        if epoch < EPOCHS:
            writer = MetricsWriter(job.run.metrics)
            writer.append(epoch, 10 * (epoch + 1), {self.metric: value - 0.1 * (EPOCHS - epoch - 1)})
            writer.close()
            self.num_validations += 1
            return None, 0
        best, seconds = {self.metric: value}, {"training": 5.0}
        return Result(
            RunStatus.COMPLETED, key, objective=value, best=best, parameters=len(str(point)), seconds=seconds
        ), 0


def point_of(config: Config) -> dict[str, str]:
    return {f"{group}.{key}": config[group][key] for group in ("optimizer", "model") for key in config[group]}


def settings_of(**changes: Any) -> SearchSettings:
    return read_settings(DEFAULTS | changes)


def search_of(study: Study, *dimensions: Dimension, compose: Any = None, **changes: Any) -> SearchSpec:
    settings = settings_of(**changes)
    objectives = make_objectives(BASE, settings.objectives)
    launch = {"project": str(study.path.parent), "started": "2026-01-31T12:00:00+00:00", "command": [], "code": None}
    return SearchSpec("s", settings, Space(dimensions, ()), objectives, BASE, compose or Composer(study), launch)


def plan_of(search: SearchSpec) -> Plan:
    return Plan("search", search.space.axes, {}, [], {}, {}, "/", "2026-01-01T00:00:00+00:00")


@contextmanager
def unsynced() -> Iterator[None]:
    """Skip waiting for the disk, which takes most of the time; it matters for power cuts, not for kills."""

    def connected(connection: sqlite3.Connection, _: object) -> None:
        connection.execute("PRAGMA synchronous=OFF")

    event.listen(Engine, "connect", connected)
    with patch.object(os, "fsync", lambda descriptor: None):
        yield
    event.remove(Engine, "connect", connected)


def run_search(
    path: Path, *dimensions: Dimension, backend: SimulatedBackend | None = None, **settings: Any
) -> SearchSource:
    """Run a search, or the rest of one."""
    backend = backend or SimulatedBackend()
    study = Study.load_own(path)
    search = search_of(study, *dimensions, **settings)
    check_compatible(study, plan_of(search), [])
    with unsynced(), study.lock():
        source = open_search(study, search, backend)
        with Display(path.name, source.total) as display:
            Scheduler(source, backend, display, 0, StopRequest()).run()
    return source


def states(source: SearchSource) -> list[str]:
    return [trial.state.name for trial in source.trials.get_trials(deepcopy=False)]


def open_search(study: Study, search: SearchSpec, backend: SimulatedBackend | None = None) -> SearchSource:
    """Write the plan of a locked study, and open its trials."""
    study.write_plan(plan_of(search))
    return SearchSource(search, study, backend or SimulatedBackend())


def complete_jobs(study: Study, search: SearchSpec) -> SearchSource:
    """Run a search whose jobs are completed one after the other, without a scheduler."""
    with study.lock():
        source = open_search(study, search)
        while not source.is_exhausted():
            job = source.next_job(lambda config: True)
            if job is not None:
                source.job_ended(job, Outcome(RunStatus.COMPLETED, "", (), {"best": {"val/accuracy": 0.5}}, 1.0))
    return source
