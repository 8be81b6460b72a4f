"""Decide studies without training: jobs whose results are drawn, on real study directories and the real scheduler."""

import copy
import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from support.search_jobs import BASE, SimulatedBackend, unsynced

from litlab.config.identity import identity
from litlab.config.job_configs import ComposedJob
from litlab.process.signals import StopRequest
from litlab.runs.result import Result, write_result
from litlab.runs.state import RunStatus
from litlab.sweep.backends.base import Job, JobExit
from litlab.sweep.compatibility import check_compatible
from litlab.sweep.decide.settings import DecideSettings, Setting, find_baseline, find_objective, read_settings
from litlab.sweep.decide.source import DecideSource, DecideSpec, Known, check_growth, make_spec
from litlab.sweep.display import Display
from litlab.sweep.scheduler import Scheduler
from litlab.sweep.study import Plan, Study

DEFAULTS: dict[str, Any] = {
    "params": None, "settings": None, "from_study": None, "best": 3, "baseline": "lr=0.1", "seeds_max": 8,
    "alpha": 0.05, "delta": None, "alpha_reserve": 0.1,
}  # fmt: skip
LAUNCH = {"project": "/", "started": "2026-01-31T12:00:00+00:00", "command": [], "code": None}


def accuracy(lr: str, seed: int) -> float:
    """Return a value: 0.5 for a learning rate of 0.1, less for a lower one, more for a higher one; 0.01 of noise."""
    noise = random.Random(f"{lr} {seed}").gauss(0, 0.01)
    shared = random.Random(seed).gauss(0, 0.05)
    return 0.5 + 0.8 * (float(lr) - 0.1) + shared + noise


class DrawnBackend(SimulatedBackend):
    """Backend that ends its jobs in a random order.

    Args:
        num_workers: Number of jobs at once.
        seed: Seed of the order.
        statuses: Called with learning rate and seed, returns the status of the run.
        kill_after: Number of results after which the command is killed; None to let it live.
    """

    def __init__(
        self,
        num_workers: int = 2,
        seed: int = 0,
        statuses: Callable[[str, int], RunStatus] = lambda lr, seed: RunStatus.COMPLETED,
        kill_after: int | None = None,
    ) -> None:
        super().__init__()
        self.num_workers, self.statuses, self.kill_after = num_workers, statuses, kill_after
        self.order = random.Random(seed)
        self.num_submitted = 0

    def has_capacity(self, config: Any) -> bool:
        return len(self.running) < self.num_workers

    def submit(self, job: Job) -> None:
        super().submit(job)
        self.num_submitted += 1

    def poll(self, timeout: float) -> list[JobExit]:
        if not self.running:
            return []
        if self.kill_after == 0:
            raise KeyboardInterrupt
        job = self.running.pop(self.order.choice(list(self.running)))
        lr, seed = job.config["optimizer"]["lr"], job.config["seed"]
        status, key = self.statuses(lr, seed), identity(job.config)
        value = accuracy(lr, seed) if status is RunStatus.COMPLETED else None
        best = {"val/accuracy": value} if value is not None else {}
        error = None if value is not None else "made to fail"
        write_result(job.run, Result(status, key, objective=value, best=best, error=error))
        if self.kill_after is not None:
            self.kill_after -= 1
        return [JobExit(job, 0 if value is not None else 1, 1.0)]


def settings_of(**changes: Any) -> DecideSettings:
    return read_settings(DEFAULTS | changes)


def spec_of(study: Study, rates: Sequence[str], skipped: Sequence[int] = (), **changes: Any) -> DecideSpec:
    """Specify a comparison of learning rates."""
    settings = settings_of(**changes)
    candidates = [Setting(f"lr={lr}", (f"optimizer.lr={lr}",), {"optimizer.lr": lr}) for lr in rates]

    def compose(setting: Setting, seed: int, number: int, known: Known) -> ComposedJob:
        config = copy.deepcopy(BASE) | {"seed": seed, "optimizer": {"lr": setting.point["optimizer.lr"]}}
        key = identity(config)
        number, directory = known.get(key, (number, f"{number:04d}"))
        overrides = (*setting.overrides, f"seed={seed}")
        point = {**setting.point, "seed": str(seed)}
        return ComposedJob(overrides, point, config, key, number, directory, {"config.yaml": ""})

    baseline = None if settings.baseline is None else find_baseline(settings.baseline, candidates)
    return make_spec(settings, candidates, baseline, find_objective, list(skipped), compose, LAUNCH)


def run_decide(path: Path, rates: Sequence[str], backend: DrawnBackend | None = None, **changes: Any) -> DecideSource:
    """Run a decide study, or the rest of one."""
    backend = backend or DrawnBackend()
    study = Study.load_own(path)
    spec = spec_of(study, rates, **changes)
    plan = Plan("decide", {"optimizer.lr": list(rates)}, {}, [], {}, {}, "/", "2026-01-01T00:00:00+00:00")
    check_compatible(study, plan, list(spec.examples.values()))
    check_growth(spec, study)
    with unsynced(), study.lock():
        study.write_plan(replace(plan))
        source = DecideSource(spec, study, backend)
        with Display(path.name, source.total) as display:
            Scheduler(source, backend, display, 0, StopRequest()).run()
    return source


def outcome_of(source: DecideSource) -> Mapping[str, Any]:
    """Return the answer without the number of runs, which depends on how many ran ahead."""
    return source.answer.model_dump(exclude={"runs"})
