"""What `litlab train -m --dry-run` says of a grid: its jobs, and what has become of those that the study has."""

from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING

from litlab.config.freeze import cores
from litlab.errors import UserError
from litlab.masking import mask_command
from litlab.runs.directory import RunDirectory
from litlab.sweep.backend import Config
from litlab.sweep.local.leases import Leases, Machine, objections
from litlab.sweep.states import state_of
from litlab.sweep.study import Study
from litlab.sweep.summary import as_typed

if TYPE_CHECKING:
    from litlab.config.jobs import ComposedJob

_NO_DEVICES = {"accelerator": "cpu", "devices": 1}


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
    return " ".join(mask_command([f"{key}={value}" for key, value in job.point.items()]))


def refuse_impossible(jobs: Sequence["ComposedJob"]) -> None:
    """What can be said without asking torch: of GPUs only a pool that runs knows how many there are.

    Raises:
        UserError: with a line for each thing that some job needs and this machine has not.
    """
    leases = Leases(Machine(gpus=(), cores=cores()), jobs=None, jobs_per_device=1)
    if lines := objections(leases, [_known_here(job.config) for job in jobs]):
        raise UserError("\n".join(lines))


def _known_here(config: Config) -> Config:
    trainer = config["trainer"]
    return config if trainer["accelerator"] == "cpu" else config | {"trainer": trainer | _NO_DEVICES}
