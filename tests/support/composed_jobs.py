"""Studies for the tests: composed jobs of one real config, with their plan."""

import copy
from collections.abc import Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import yaml
from support.runs import TINY, compose_config

from litlab.config.identity import identity
from litlab.config.job_configs import ComposedJob
from litlab.config.tree import put
from litlab.runs.provenance import describe_launch
from litlab.sweep.backends.base import Job
from litlab.sweep.compatibility import check_compatible
from litlab.sweep.jobs import create_jobs
from litlab.sweep.study import Plan, Study

_HYDRA = {"config.yaml": "seed: 0\n", "hydra.yaml": "hydra: {}\n"}


@cache
def _base() -> dict[str, Any]:
    return compose_config(*TINY, "schedule=constant") | {"study": {"name": "s", "swept": ["seed", "optimizer.lr"]}}


def base(**changes: Any) -> dict[str, Any]:
    """Return a frozen config; `optimizer__lr=1` sets optimizer.lr."""
    config = copy.deepcopy(_base())
    for key, value in changes.items():
        put(config, key.replace("__", "."), value)
    return config


def jobs_of(study: Study, configs: Sequence[dict[str, Any]], points: Sequence[dict[str, str]]) -> list[ComposedJob]:
    """Make composed jobs: existing ones keep their numbers, others get the next."""
    composed: list[ComposedJob] = []
    names = dict(study.known_jobs)
    for config, point in zip(configs, points, strict=True):
        key = identity(config)
        number = study.next_number + len(names) - len(study.known_jobs)
        name = "_".join([f"{number:04d}", *(f"{axis.rpartition('.')[2]}-{value}" for axis, value in point.items())])
        overrides = tuple(f"{axis}={value}" for axis, value in point.items())
        hydra = _HYDRA | {"overrides.yaml": yaml.safe_dump(["data=shapes", *overrides])}
        composed.append(ComposedJob(overrides, point, config, key, *names.setdefault(key, (number, name)), hydra))
    return composed


def seeds(study: Study, values: Sequence[int], **changes: Any) -> list[ComposedJob]:
    """Make a grid over seeds."""
    configs = [base(seed=value, **changes) for value in values]
    return jobs_of(study, configs, [{"seed": str(value)} for value in values])


def plan_of(values: Sequence[int], project: Path, **changes: Any) -> Plan:
    return Plan(
        kind="grid",
        axes={"seed": [str(value) for value in values]},
        base=base(**changes),
        arguments=["-m", "data=shapes", "seed=" + ",".join(map(str, values))],
        launcher={"backend": "pool", "jobs": 2, "jobs_per_device": 1, "timeout": None, "retries": 0, "dry_run": False},
        search={},
        project=str(project),
        started="2026-01-31T12:00:00+00:00",
    )


def search_of(project: Path, space: str = "interval(0,1)", trials: int = 5) -> Plan:
    plan = plan_of([], project)
    return replace(plan, kind="search", axes={"optimizer.lr": [space]}, search={"trials": trials})


def provenance(project: Path) -> dict[str, Any]:
    return describe_launch(project, ["litlab", "train", "-m", "seed=0,1"]) | {"code": None}


def create(study: Study, plan: Plan, composed: Sequence[ComposedJob]) -> list[Job]:
    """Write the plan of a study and create its jobs."""
    with study.lock():
        study.write_plan(plan)
        return create_jobs(study, composed, provenance(study.path.parent))


def begin(path: Path, values: Sequence[int], **changes: Any) -> list[Job]:
    """Do what a command does before its jobs start, on a new study or one to continue."""
    study = Study.load_own(path)
    plan, composed = plan_of(values, path.parent, **changes), seeds(study, values, **changes)
    check_compatible(study, plan, composed)
    return create(study, plan, composed)


def contents(path: Path) -> dict[str, bytes]:
    """Return the contents of all files below a directory."""
    return {str(file.relative_to(path)): file.read_bytes() for file in path.rglob("*") if file.is_file()}
