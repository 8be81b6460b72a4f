"""Real jobs for the local pool."""

import copy
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import torch
from support.processes import PATIENCE, wait_until
from support.runs import TINY, compose_config

from litlab.config.config_file import to_yaml
from litlab.process.signals import StopRequest
from litlab.runs.directory import RunDirectory
from litlab.runs.files import write_json
from litlab.runs.result import read_result
from litlab.runs.signature import sign
from litlab.sweep.backends.base import Job, JobExit
from litlab.sweep.backends.device_allocator import Machine
from litlab.sweep.backends.local import LocalPool
from litlab.training.run import train

QUICK = (
    *TINY, "trainer.max_epochs=1",
    "+callbacks.process_facts._target_=support.sabotage.ProcessFacts",
)  # fmt: skip


@cache
def _quick() -> dict[str, Any]:
    return compose_config(*QUICK)


def quick_config(how: str | None = None, **trainer: Any) -> dict[str, Any]:
    """Compose the config of a short run, with keys of its trainer; `how` it is sabotaged."""
    config = copy.deepcopy(_quick())
    config["trainer"] |= trainer
    if how is not None:
        config["callbacks"]["sabotage"] = {"_target_": "support.sabotage.Sabotage", "how": how}
    return config


def endless(**trainer: Any) -> dict[str, Any]:
    return quick_config(how="sleep", max_epochs=100000, **trainer)


def new_job(folder: Path, number: int, config: dict[str, Any]) -> Job:
    """Create a run directory for a worker; its project is the folder of the tests."""
    run = RunDirectory.create(folder / str(number), to_yaml(config), {})
    write_json(run.provenance, {"project": str(Path(__file__).parents[1])})
    sign(run)
    return Job(number, run, config)


def run_all(pool: LocalPool, jobs: Sequence[Job]) -> dict[int, JobExit]:
    """Submit each job as soon as there is capacity, and wait for all."""
    waiting, ended = list(jobs), dict[int, JobExit]()
    end = time.monotonic() + PATIENCE
    while len(ended) < len(jobs):
        while waiting and pool.has_capacity(waiting[0].config):
            pool.submit(waiting.pop(0))
        ended |= {job_exit.job.number: job_exit for job_exit in pool.poll(1)}
        assert time.monotonic() < end, f"only {sorted(ended)} ended"
    return ended


def next_ended(pool: LocalPool, number: int) -> list[JobExit]:
    values: list[JobExit] = []
    end = time.monotonic() + PATIENCE
    while len(values) < number:
        values += pool.poll(1)
        assert time.monotonic() < end
    return values


def process_facts(job: Job, rank: int = 0) -> dict[str, Any]:
    """Read the file of the job's callback `ProcessFacts`."""
    return job.run.read_mapping(job.run.path / f"process.{rank}.json")


def result(run: RunDirectory) -> dict[str, Any]:
    """Return the values that are the same in two equal runs."""
    keys = ("status", "objective", "best", "last", "test", "weights", "epochs", "steps", "identity")
    return {key: read_result(run)[key] for key in keys}


def trained_here(folder: Path, config: dict[str, Any]) -> RunDirectory:
    """Train in this process, which is no fork."""
    job = new_job(folder, 0, config)
    before = torch.get_num_threads()
    torch.set_num_threads(config["threads"])
    train(job.run, job.config, StopRequest(), started=time.perf_counter(), silent=True)
    torch.set_num_threads(before)
    return job.run


def with_settings(pool: LocalPool, machine: Machine | None = None, **changes: Any) -> LocalPool:
    """Copy a pool with other settings; both use the same server, which the fixture closes."""
    other = copy.copy(pool)
    del other._devices
    settings = replace(pool._settings, **changes)
    other.__dict__ |= {"_settings": settings, "_machine": machine, "_running": {}, "_exits": []}
    return other


def until(condition: Callable[[], Any], pool: LocalPool) -> None:
    """Wait for a condition, polling a pool meanwhile, none of whose jobs may end."""

    def is_met() -> bool:
        if condition():
            return True
        assert pool.poll(0.005) == []
        return False

    wait_until(is_met)
