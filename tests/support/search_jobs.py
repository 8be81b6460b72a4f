"""Searches without training: jobs whose files are written as a worker does, with values of a known function.

Everything else is real: Optuna, SQLite, the directory of the study, the scheduler.
"""

import copy
import math
import os
import sqlite3
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest.mock import patch

from sqlalchemy import event
from sqlalchemy.engine import Engine

from litlab.config.identity import identity
from litlab.config.search_space import Choices, Dimension, Numbers, Space
from litlab.errors import UserError
from litlab.process.signals import StopRequest
from litlab.runs.metrics import MetricsWriter, read_metrics
from litlab.runs.result import Result, write_result
from litlab.runs.state import RunStatus
from litlab.sweep.backends.base import Config, Job, JobExit
from litlab.sweep.compatibility import check_compatible
from litlab.sweep.display import Display
from litlab.sweep.outcome import Outcome
from litlab.sweep.scheduler import Scheduler
from litlab.sweep.search.proposals import SearchSource
from litlab.sweep.search.settings import make_objectives, read_settings
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
Function = Callable[[dict[str, str]], float]
BASE: Config = {
    "format": 2, "name": "known", "seed": 0, "threads": None, "objective": {"metric": "val/accuracy", "mode": "max"},
    "checkpoint": {}, "study": {"name": None, "swept": []}, "data": {"_target_": "own.Data"}, "model": {},
    "task": {"_target_": "own.Task"}, "optimizer": {}, "schedule": {}, "callbacks": {}, "logger": {},
    "trainer": {"max_epochs": EPOCHS, "check_val_every_n_epoch": 1, "val_check_interval": 1.0, "devices": 1},
}  # fmt: skip


def best_at(lr: float) -> Function:
    """Make a parabola over the logarithm of the learning rate, with a maximum of 1."""
    return lambda point: 1 - (math.log10(float(point["optimizer.lr"])) - math.log10(lr)) ** 2 / 4


@dataclass(frozen=True)
class Composed:
    """Stands in for litlab.config.job_configs.ComposedJob."""

    overrides: tuple[str, ...]
    point: dict[str, str]
    config: Config
    identity: str
    number: int
    directory: str
    hydra: dict[str, str]


class Composer:
    """Composes the config of a point; refuses points on request."""

    def __init__(self, study: Study, refuses: Callable[[dict[str, str]], bool] = lambda point: False) -> None:
        self.study, self.refuses = study, refuses
        self.num_calls = 0

    def __call__(self, overrides: list[str], number: int) -> Composed:
        self.num_calls += 1
        point = dict(override.split("=", 1) for override in overrides)
        if self.refuses(point):
            raise UserError("optimizer.lr: out of range")
        config = copy.deepcopy(BASE)
        for key, value in point.items():
            config.setdefault(key.partition(".")[0], {})[key.partition(".")[2]] = value
        found = identity(config)
        number, directory = self.study.known_jobs.get(found, (number, f"{number:04d}"))
        return Composed(tuple(overrides), point, config, found, number, directory, {"config.yaml": ""})


class Machine:
    """Backend whose jobs do a validation at each poll, `slots` jobs at once."""

    outlives_command, detaches, grace_seconds, max_parallel = False, False, 8.0, None

    def __init__(self, function: Function, slots: int = 2, seconds: float = 0.0) -> None:
        self.function, self.slots, self.seconds = function, slots, seconds
        self.running: dict[int, Job] = {}
        self.stopped: set[int] = set()
        self.fails: Callable[[dict[str, str]], str | None] = lambda point: None
        self.disturbances: dict[int, int] = {}  # number -> how often the job is still to be stopped from outside
        self.metric = "val/accuracy"
        self.num_validations = 0

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

    def is_alive(self, job: Job) -> bool:
        return job.number in self.running

    def attach(self, job: Job) -> None: ...

    def threads(self, config: Config, num_jobs: int) -> int | None:
        return 1

    def has_capacity(self, config: Config) -> bool:
        return len(self.running) < self.slots

    def submit(self, job: Job) -> None:
        self.running[job.number] = job

    def cancel(self, job: Job, signum: int) -> None:
        self.stopped.add(job.number)

    def poll(self, timeout: float) -> list[JobExit]:
        time.sleep(self.seconds)
        ended = [found for job in list(self.running.values()) if (found := self._advance(job)) is not None]
        for job_exit in ended:
            del self.running[job_exit.job.number]
        return ended

    def _advance(self, job: Job) -> JobExit | None:
        point = point_of(job.config)
        rows = read_metrics(job.run.metrics) if job.run.metrics.exists() else []
        epoch, value = len(rows), self.function(point)
        if (left := self.disturbances.get(job.number, 0)) and epoch:
            self.disturbances[job.number] = left - 1
            return self._ended(
                job, Result(RunStatus.INTERRUPTED, identity(job.config), error="stopped by SIGTERM"), 143
            )
        if job.number in self.stopped:
            return self._ended(job, Result(RunStatus.INTERRUPTED, identity(job.config), error="stopped"), 143)
        if message := self.fails(point):
            return self._ended(job, Result(RunStatus.FAILED, identity(job.config), error=message), 1)
        if epoch < EPOCHS:
            writer = MetricsWriter(job.run.metrics)
            writer.append(epoch, 10 * (epoch + 1), {self.metric: value - 0.1 * (EPOCHS - epoch - 1)})
            writer.close()
            self.num_validations += 1
            return None
        result = Result(
            RunStatus.COMPLETED, identity(job.config), objective=value, best={self.metric: value},
            parameters=len(str(point)), seconds={"training": 5.0},
        )  # fmt: skip
        return self._ended(job, result, 0)

    def _ended(self, job: Job, result: Result, code: int) -> JobExit:
        write_result(job.run, result)
        return JobExit(job, code, 1.0)


def point_of(config: Config) -> dict[str, str]:
    return {f"{group}.{key}": config[group][key] for group in ("optimizer", "model") for key in config[group]}


def search_of(study: Study, *dimensions: Dimension, compose: Any = None, **settings: Any) -> SearchSpec:
    read = read_settings(DEFAULTS | settings)
    space = Space(dimensions, ())
    objectives = make_objectives(BASE, read.objectives)
    launch = {"project": str(study.path.parent), "started": "2026-01-31T12:00:00+00:00", "command": [], "code": None}
    return SearchSpec("s", read, space, objectives, BASE, compose or Composer(study), launch)


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


def run_search(path: Path, machine: Machine, *dimensions: Dimension, **settings: Any) -> SearchSource:
    """Run a search, or the rest of one."""
    study = Study.load_own(path)
    search = search_of(study, *dimensions, **settings)
    plan = plan_of(search)
    check_compatible(study, plan, [])
    with unsynced(), study.lock():
        study.write_plan(plan)
        source = SearchSource(search, study, machine)
        with Display(path.name, source.total) as display:
            Scheduler(source, machine, display, 0, StopRequest()).run()
    return source


def states(source: SearchSource) -> list[str]:
    return [trial.state.name for trial in source.trials.get_trials(deepcopy=False)]


def search_source(study: Study, search: SearchSpec) -> SearchSource:
    with study.lock():
        study.write_plan(plan_of(search))
        return SearchSource(search, study, Machine(best_at(0.03)))


def drive(study: Study, source: SearchSource) -> SearchSource:
    """Complete one job after the other at once."""
    with study.lock():
        while not source.is_exhausted():
            job = source.next_job(lambda config: True)
            if job is not None:
                source.job_ended(job, Outcome(RunStatus.COMPLETED, "", (), {"best": {"val/accuracy": 0.5}}, 1.0))
    return source
