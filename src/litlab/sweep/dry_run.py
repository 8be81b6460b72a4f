"""Dry run of a grid: the table of the jobs that would run."""

from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING

from litlab.runs.directory import RunDirectory
from litlab.runs.redact import mask_command
from litlab.runs.state import read_state
from litlab.runs.terminal import display_path
from litlab.sweep.study import Study

if TYPE_CHECKING:
    from litlab.config.job_configs import ComposedJob


def format_jobs(study: Study, jobs: Sequence["ComposedJob"]) -> list[str]:
    """Format a line for each job (its directory, its status, what varies), and a line with the counts.

    Args:
        study: Study that the jobs belong to; it may have some of them already.
        jobs: Distinct jobs of the command.
    """
    statuses = [_status(study, job) for job in jobs]
    width = max((len(job.directory) for job in jobs), default=0)
    lines = [
        f"{job.directory:{width}}  {status:11}  {_point(job)}".rstrip()
        for job, status in zip(jobs, statuses, strict=True)
    ]
    counts = ", ".join(f"{count} {status}" for status, count in Counter(statuses).items())
    place = display_path(study.path)
    return [*lines, "", f"{len(jobs)} jobs ({counts}) in {place}; nothing was started or written"]


def _status(study: Study, job: "ComposedJob") -> str:
    if job.identity not in study.known_jobs:
        return "new"
    return read_state(RunDirectory(study.path / job.directory)).status.label


def _point(job: "ComposedJob") -> str:
    return " ".join(mask_command([f"{key}={value}" for key, value in job.point.items()]))
