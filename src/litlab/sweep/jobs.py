"""Run directories for the jobs of a study. A job is recorded once its directory is whole, so a kill at any moment is
made good by the same command: directories without a record, in which no worker has been, are made anew."""

import os
import re
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from litlab.amending import amend
from litlab.config.change import CHANGEABLE, difference
from litlab.config.freeze import to_yaml
from litlab.config.trust import doubt, sign
from litlab.errors import UserError
from litlab.masking import mask_command
from litlab.runs.directory import RunDirectory
from litlab.runs.files import sync_directory, write_json
from litlab.runs.lock import owning
from litlab.sweep.backend import Config, Job
from litlab.sweep.continuing import without
from litlab.sweep.plan import Record
from litlab.sweep.states import state_of

if TYPE_CHECKING:
    from litlab.config.jobs import ComposedJob
    from litlab.sweep.study import Study

_MADE = ("config.yaml", ".hydra", "provenance.json", ".signature")
_NUMBERED = re.compile(r"\d{4,}(_.*)?")  # the names of jobs, unless hydra.sweep.subdir says otherwise


def admit(study: "Study", composed: Sequence["ComposedJob"], provenance: dict[str, Any]) -> list[Job]:
    """Give new jobs their directories and records; let unfinished known ones go on as is asked for now.

    Raises:
        UserError: if the directory of one holds something else, or is not the user's own.
        OSError: if they can't be written.
    """
    _remove_unrecorded(study)
    known = {each.identity: each for each in study.records}
    new = {each.identity: each for each in composed if each.identity not in known}
    jobs: dict[str, Job] = {}
    remarks: list[str] = []
    for each in composed:
        if each.identity in jobs:
            continue
        if each.identity in new:
            jobs[each.identity] = _make(study, each, each.number, each.directory, provenance, sync=len(new) == 1)
        else:
            jobs[each.identity] = _known(study, each, known[each.identity], provenance, remarks)
    say(remarks)
    if len(new) > 1:
        os.sync()  # one call for all: thousands of small files
    study.append([_record(each) for each in new.values()])
    return [jobs[each.identity] for each in composed]


def _record(job: "ComposedJob") -> Record:
    return Record(job.number, job.directory, job.identity, mask_command(list(job.overrides)), job.point)


def _make(
    study: "Study", job: "ComposedJob", number: int, directory: str, provenance: dict[str, Any], *, sync: bool
) -> Job:
    """The directory of a job, signed last: with a signature it is whole."""
    run = RunDirectory(study.path / directory)
    if run.path.exists():
        _require_unused(run)
        shutil.rmtree(run.path)
    RunDirectory.create(run.path, to_yaml(job.config), job.hydra, sync=sync)
    command = {"command": mask_command(["litlab", "train", *job.overrides])}
    place = {"study": {"name": study.path.name, "number": number}}
    write_json(run.provenance, provenance | command | place, sync=sync)
    sign(run, sync=sync)
    if sync:
        sync_directory(run.path.parent)
    return Job(number, run, job.config)


def _known(study: "Study", job: "ComposedJob", record: Record, provenance: dict[str, Any], remarks: list[str]) -> Job:
    """
    Raises:
        UserError: if its directory is gone or not the user's own.
    """
    run = RunDirectory(study.path / record.directory)
    if state_of(run).word in ("done", "pruned"):
        return Job(record.number, run, job.config)
    reason = doubt(run, run.config.read_bytes()) if run.config.exists() else "config.yaml is missing"
    if reason is None:
        config, changed = _settled(run, job.config)
        remarks += take_up(run, config, changed, provenance)
        return Job(record.number, run, config)
    if run.path.exists() and not _is_unused(run):
        raise UserError(
            f"{run.path} is a job of this study, but can't be continued as yours: {reason}; "
            "remove that directory to have the job done anew"
        )
    return _make(study, job, record.number, record.directory, provenance, sync=True)


def _settled(run: RunDirectory, config: Config) -> tuple[Config, dict[str, list[Any]]]:
    """The config that an unfinished run goes on with, and what changed in it."""
    before = run.read_config()
    stays = {"name": before["name"], "study": before["study"]}
    if config["threads"] is None:
        stays["threads"] = before["threads"]
    after = config | stays
    changed = difference(before, after)
    if without(changed, CHANGEABLE):
        return before, {}  # prolonged by `litlab resume`: it goes on as it was told there
    return after, changed


def take_up(run: RunDirectory, config: Config, changed: dict[str, list[Any]], provenance: dict[str, Any]) -> list[str]:
    """Have an unfinished run of one's own go on, on record if it has begun or its config is another one.

    Args:
        config: to go on with.
        changed: dotted key -> [value before, value after].
        provenance: of the command, as `runs.provenance.of_launch` gives it.

    Returns:
        what should be known about its code, a line each.

    Raises:
        UserError: if somebody is at work on it.
    """
    if not changed and state_of(run).word in ("waiting", "running"):  # who is at work on it has recorded it
        return []
    with owning(run.path):
        return amend(run, config, changed, provenance, own=True, prolongs=False)


def say(remarks: Sequence[str]) -> None:
    """Each once, before there is a display."""
    print("".join(f"note: {each}\n" for each in dict.fromkeys(remarks)), end="", file=sys.stderr, flush=True)


def _remove_unrecorded(study: "Study") -> None:
    """What a killed command made for jobs that it could not record any more."""
    recorded = {Path(each.directory).parts[0] for each in study.records}
    for path in study.path.iterdir():
        if path.name not in recorded and _NUMBERED.fullmatch(path.name) and path.is_dir() and not path.is_symlink():
            run = RunDirectory(path)
            if _is_unused(run):
                shutil.rmtree(path)


def _require_unused(run: RunDirectory) -> None:
    """
    Raises:
        UserError: if anybody but us has put something there.
    """
    if not _is_unused(run):
        raise UserError(
            f"{run.path} is the next job's place, but holds something that the study does not know; "
            "move it elsewhere, then call this command again"
        )


def _is_unused(run: RunDirectory) -> bool:
    """Whether there is nothing but what we put there for a worker."""
    return run.path.is_dir() and all(
        each.name in _MADE or (each.name.startswith(".") and each.name.endswith(".tmp")) for each in run.path.iterdir()
    )
