"""What `litlab train -m --dry-run` says of a grid: its jobs, and what has become of those that the study has."""

from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING

from litlab.runs.directory import RunDirectory
from litlab.sweep.states import state_of
from litlab.sweep.study import Study
from litlab.sweep.summary import as_typed

if TYPE_CHECKING:
    from litlab.config.jobs import ComposedJob


def table(study: Study, jobs: Sequence["ComposedJob"]) -> list[str]:
    """A line a job: its directory, which begins with its number; its state; what varies. Then the counts."""
    words = [_word(study, job) for job in jobs]
    wide = max((len(job.directory) for job in jobs), default=0)
    lines = [
        f"{job.directory:{wide}}  {word:11}  {_varied(job)}".rstrip() for job, word in zip(jobs, words, strict=True)
    ]
    counts = ", ".join(f"{count} {word}" for word, count in Counter(words).items())
    return [*lines, "", f"{len(jobs)} jobs ({counts}) in {as_typed(study.path)}; nothing was started or written"]


def _word(study: Study, job: "ComposedJob") -> str:
    return state_of(RunDirectory(study.path / job.directory)).word if job.identity in study.known else "new"


def _varied(job: "ComposedJob") -> str:
    return " ".join(f"{key}={value}" for key, value in job.point.items())
