"""A search without training: jobs whose files are written as a worker writes them, with values of a known function.

Everything else is real: Optuna, SQLite, the study's directory, the loop.
"""

import copy
import itertools
import json
import math
import os
import signal
import sqlite3
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import optuna
from optuna.trial import Trial

from litlab.config.identity import identity
from litlab.config.space import Choices, Dimension, Numbers, Space
from litlab.errors import UserError
from litlab.runs.metrics import MetricsWriter, read_metrics
from litlab.runs.result import Result, write_result
from litlab.signals import StopRequest
from litlab.sweep.backend import Config, Ended, Job
from litlab.sweep.display import Display
from litlab.sweep.plan import Plan
from litlab.sweep.running import Loop
from litlab.sweep.search.description import Search
from litlab.sweep.search.objectives import objectives_of
from litlab.sweep.search.sampling import DistinctSampler
from litlab.sweep.search.settings import read_settings
from litlab.sweep.search.source import SearchSource
from litlab.sweep.study import Study

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
    "format": 1, "name": "known", "seed": 0, "threads": None, "objective": {"metric": "val/accuracy", "mode": "max"},
    "checkpoint": {}, "study": {"name": None, "swept": []}, "data": {"_target_": "own.Data"}, "model": {},
    "task": {"_target_": "own.Task"}, "optimizer": {}, "schedule": {}, "callbacks": {}, "logger": {},
    "trainer": {"max_epochs": EPOCHS, "check_val_every_n_epoch": 1, "val_check_interval": 1.0, "devices": 1},
}  # fmt: skip


def best_at(lr: float) -> Function:
    """A parabola over the logarithm of the learning rate, 1 at its top."""
    return lambda point: 1 - (math.log10(float(point["optimizer.lr"])) - math.log10(lr)) ** 2 / 4


@dataclass(frozen=True)
class Composed:
    """As litlab.config.jobs has it."""

    overrides: tuple[str, ...]
    point: dict[str, str]
    config: Config
    identity: str
    number: int
    directory: str
    hydra: dict[str, str]


class Composer:
    """Puts a point into the config; refuses what it is told to."""

    def __init__(self, study: Study, refuses: Callable[[dict[str, str]], bool] = lambda point: False) -> None:
        self.study, self.refuses = study, refuses
        self.num_calls = 0

    def __call__(self, overrides: list[str], number: int) -> Composed:
        self.num_calls += 1
        point = dict(each.split("=", 1) for each in overrides)
        if self.refuses(point):
            raise UserError("optimizer.lr: out of range")
        config = copy.deepcopy(BASE)
        for key, value in point.items():
            config.setdefault(key.partition(".")[0], {})[key.partition(".")[2]] = value
        found = identity(config)
        number, directory = self.study.known.get(found, (number, f"{number:04d}"))
        return Composed(tuple(overrides), point, config, found, number, directory, {"config.yaml": ""})


class Machine:
    """A `Backend` whose jobs do a validation at each look, `slots` of them at once."""

    def __init__(self, function: Function, slots: int = 2, seconds: float = 0.0) -> None:
        self.function, self.slots, self.seconds = function, slots, seconds
        self.running: dict[int, Job] = {}
        self.stopped: set[int] = set()
        self.fails: Callable[[dict[str, str]], str | None] = lambda point: None
        self.metric = "val/accuracy"
        self.num_validations = 0

    def check(self, configs: Sequence[Config]) -> None: ...

    def close(self) -> None: ...

    def threads(self, config: Config, num_jobs: int) -> int | None:
        return 1

    def has_room(self, config: Config) -> bool:
        return len(self.running) < self.slots

    def submit(self, job: Job) -> None:
        self.running[job.number] = job

    def cancel(self, job: Job, signum: int) -> None:
        self.stopped.add(job.number)

    def wait(self, seconds: float) -> list[Ended]:
        time.sleep(self.seconds)
        ended = [found for job in list(self.running.values()) if (found := self._advance(job)) is not None]
        for each in ended:
            del self.running[each.job.number]
        return ended

    def _advance(self, job: Job) -> Ended | None:
        point = point_of(job.config)
        rows = read_metrics(job.run.metrics) if job.run.metrics.exists() else []
        epoch, value = len(rows), self.function(point)
        if job.number in self.stopped:
            return self._ended(job, Result("interrupted", identity(job.config), error="stopped"), 143)
        if message := self.fails(point):
            return self._ended(job, Result("failed", identity(job.config), error=message), 1)
        if epoch < EPOCHS:
            writer = MetricsWriter(job.run.metrics)
            writer.append(epoch, 10 * (epoch + 1), {self.metric: value - 0.1 * (EPOCHS - epoch - 1)})
            writer.close()
            self.num_validations += 1
            return None
        result = Result(
            "completed", identity(job.config), objective=value, best={self.metric: value}, parameters=len(str(point)),
            seconds={"training": 5.0},
        )  # fmt: skip
        return self._ended(job, result, 0)

    def _ended(self, job: Job, result: Result, code: int) -> Ended:
        write_result(job.run, result)
        return Ended(job, code, 1.0)


def point_of(config: Config) -> dict[str, str]:
    return {f"{group}.{key}": config[group][key] for group in ("optimizer", "model") for key in config[group]}


def search_of(study: Study, *dimensions: Dimension, compose: Any = None, **settings: Any) -> Search:
    read = read_settings(DEFAULTS | settings)
    space = Space(dimensions, ())
    objectives = objectives_of(BASE, read.objectives)
    return Search("s", read, space, objectives, BASE, compose or Composer(study), {"project": str(study.path.parent)})


def plan_of(search: Search) -> Plan:
    return Plan("search", search.space.axes, {}, [], {}, {}, "/", "2026-01-01T00:00:00+00:00")


def run_search(path: Path, machine: Machine, *dimensions: Dimension, **settings: Any) -> SearchSource:
    """A whole search, or the rest of one."""
    study = Study.read(path)
    search = search_of(study, *dimensions, **settings)
    plan = plan_of(search)
    study.check(plan, [])
    with study.holding():
        study.write_plan(plan)
        source = SearchSource(search, study, machine)
        with Display(path.name, source.total) as display:
            Loop(source, machine, display, 0, StopRequest()).run()
    return source


# Where a process is killed: the function, and whether that is before it does anything or after.
MOMENTS: dict[str, tuple[Any, str, bool]] = {
    "a trial without values": (DistinctSampler, "sample_relative", True),
    "a trial with half its values": (Trial, "suggest_float", False),
    "asked, not admitted": (Study, "admit", True),
    "admitted, not started": (Study, "admit", False),
    "reported": (Trial, "report", False),
    "ended, not told": (optuna.Study, "tell", True),
    "told": (optuna.Study, "tell", False),
}


def kill_at(moment: str, call: int) -> None:
    """Let this process be killed with the nth call of a function."""
    owner, name, before = MOMENTS[moment]
    function, calls = getattr(owner, name), itertools.count(1)

    def killing(*arguments: Any, **named: Any) -> Any:
        last = next(calls) == call
        if last and before:
            os.kill(os.getpid(), signal.SIGKILL)
        returned = function(*arguments, **named)
        if last:
            os.kill(os.getpid(), signal.SIGKILL)
        return returned

    setattr(owner, name, killing)


def main() -> None:
    """Directory, number of trials, then `moment=call` for each time that it is killed, and nothing for an end in peace.

    Each time in a process of its own, forked so that the imports are paid once. Prints the exit code of each, and
    how many trials were in which state then.
    """
    path, trials, *moments = sys.argv[1:]
    for moment in moments:
        if (child := os.fork()) == 0:
            name, _, call = moment.partition("=")
            if name:
                kill_at(name, int(call))
            run_search(Path(path), Machine(best_at(0.03)), LR, WIDTH, trials=int(trials), pruner="median")
            os._exit(0)
        code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        with closing(sqlite3.connect(Path(path) / "search.db")) as database:
            states = dict(database.execute("select state, count(*) from trials group by state").fetchall())
        print("ended", json.dumps({"moment": moment, "code": code, "states": states}), flush=True)


if __name__ == "__main__":
    main()
