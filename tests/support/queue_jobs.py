"""Jobs for the backends that submit to a queue, which fakes stand for; no job runs."""

import time
from pathlib import Path
from typing import Any

from litlab.runs.directory import RunDirectory
from litlab.sweep.backends.base import Backend, Config, Job, JobExit


def make_config(**trainer: Any) -> Config:
    values = {"accelerator": "cpu", "devices": 1, "num_nodes": 1} | trainer
    return {"format": 2, "threads": None, "trainer": values, "name": "x", "objective": None, "logger": {}, "seed": 0}


def make_jobs(study: Path, number: int, **trainer: Any) -> list[Job]:
    study.mkdir(exist_ok=True)
    runs = [RunDirectory(study / f"{index:04d}") for index in range(number)]
    for run in runs:
        run.path.mkdir(exist_ok=True)
    return [Job(index, run, make_config(**trainer)) for index, run in enumerate(runs)]


def submit(backend: Backend, jobs: list[Job]) -> None:
    """Submit jobs that the queue does not have."""
    for job in jobs:
        assert not backend.is_alive(job)
        backend.submit(job)
    assert backend.poll(0) == []


def poll(backend: Backend, seconds: float = 0.1) -> list[JobExit]:
    """Poll until jobs have ended, for at most some seconds."""
    end, exits = time.monotonic() + seconds, []
    while not exits and time.monotonic() < end:
        exits += backend.poll(0.02)
    return exits
