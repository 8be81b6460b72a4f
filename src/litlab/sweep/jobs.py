"""Jobs of a study: creation of their run directories, and the record of those that are resumed.

A job is recorded once its directory is complete, so the same command repairs a kill at any moment: directories without
a record in which no worker has been are created again.
"""

import os
import re
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from litlab.config.config_file import to_yaml
from litlab.config.resume_overrides import changeable_keys
from litlab.config.resume_record import write_resume_record
from litlab.config.tree import diff
from litlab.errors import UserError
from litlab.runs.directory import RunDirectory
from litlab.runs.files import sync_directory, write_json
from litlab.runs.initial_weights import keep_weights
from litlab.runs.lock import directory_lock
from litlab.runs.redact import mask_command
from litlab.runs.signature import sign, signature_problem
from litlab.runs.state import RunStatus, read_state
from litlab.sweep.backends.base import Job
from litlab.sweep.compatibility import Changes, exclude
from litlab.sweep.study import JobRecord, Study

if TYPE_CHECKING:
    from litlab.config.job_configs import ComposedJob

Config = dict[str, Any]
_CREATED_FILES = ("config.yaml", ".hydra", "initial_weights", "provenance.json", ".signature")
_JOB_NAME = re.compile(r"\d{4,}(_.*)?")  # unless hydra.sweep.subdir says otherwise


def create_jobs(study: Study, composed: Sequence["ComposedJob"], provenance: dict[str, Any]) -> list[Job]:
    """Create and record the new jobs of a locked study, and apply this command's settings to its unfinished jobs.

    Args:
        study: The study, locked.
        composed: Distinct jobs, recorded ones with their numbers; `threads` of new ones is settled if it can be.
        provenance: Provenance of the command, see `runs.provenance.describe_launch`.

    Raises:
        UserError: If the directory of a job holds something else, or is not the user's own.
        OSError: If they can't be written.
    """
    _remove_unrecorded(study)
    recorded = study.known_jobs
    new = [job for job in composed if job.identity not in recorded]
    notes: list[str] = []
    jobs = [
        _existing(study, job, provenance, notes)
        if job.identity in recorded
        else _create(study, job, provenance, sync=len(new) == 1)
        for job in composed
    ]
    print_notes(notes)
    if len(new) > 1:
        os.sync()  # one call for all: thousands of small files
    study.append(
        [
            JobRecord(job.number, job.directory, job.identity, mask_command(list(job.overrides)), job.point)
            for job in new
        ]
    )
    return jobs


def record_resume(run: RunDirectory, config: Config, changes: Changes, provenance: dict[str, Any]) -> list[str]:
    """Record that an unfinished run of the user's own is resumed, if it has begun or its config changes.

    Returns:
        Notes about the code, one a line.

    Raises:
        UserError: If another process works on the run.
    """
    if not changes and not read_state(run).status.is_final:  # the process that runs it has recorded it
        return []
    with directory_lock(run.path):
        return write_resume_record(run, config, changes, provenance, own=True, extends_training=False)


def print_notes(notes: Sequence[str]) -> None:
    """Print each note once, to stderr."""
    print("".join(f"note: {note}\n" for note in dict.fromkeys(notes)), end="", file=sys.stderr, flush=True)


def _create(study: Study, job: "ComposedJob", provenance: dict[str, Any], *, sync: bool) -> Job:
    """Create the directory of a job; the signature comes last and marks it as complete."""
    run = RunDirectory(study.path / job.directory)
    if run.path.exists():
        if not _is_unused(run):
            raise UserError(
                f"{run.path} is the directory of the next job, but holds unknown files; "
                "move them elsewhere, then run this command again"
            )
        shutil.rmtree(run.path)
    RunDirectory.create(run.path, to_yaml(job.config), job.hydra, sync=sync)
    keep_weights(run, job.config, study.path)
    command = mask_command(["litlab", "train", *job.overrides])
    of_job = {"command": command, "study": {"name": study.path.name, "number": job.number}}
    write_json(run.provenance, provenance | of_job, sync=sync)
    sign(run, sync=sync)
    if sync:
        sync_directory(run.path.parent)
    return Job(job.number, run, job.config)


def _existing(study: Study, job: "ComposedJob", provenance: dict[str, Any], notes: list[str]) -> Job:
    """Return a recorded job, resumed or created again if needed."""
    run = RunDirectory(study.path / job.directory)
    status = read_state(run).status
    if status.has_ended_training or status is RunStatus.PRUNED:
        return Job(job.number, run, job.config)
    reason = signature_problem(run, run.config.read_bytes()) if run.config.exists() else "config.yaml is missing"
    if reason is None:
        config, changes = _resumed_config(run, job.config)
        notes += record_resume(run, config, changes, provenance)
        return Job(job.number, run, config)
    if run.path.exists() and not _is_unused(run):
        raise UserError(
            f"{run.path} is a job of this study, but can't be continued as yours: {reason}; "
            "remove that directory to run the job again"
        )
    return _create(study, job, provenance, sync=True)


def _resumed_config(run: RunDirectory, config: Config) -> tuple[Config, Changes]:
    """Return the config with which an unfinished run is resumed, and the changes in it."""
    before = run.read_config()
    kept = {"name": before["name"], "study": before["study"]}
    if config["threads"] is None:
        kept["threads"] = before["threads"]
    after = config | kept
    changes = diff(before, after)
    if exclude(changes, changeable_keys(before)):  # prolonged by `litlab resume`, which has the last word
        return before, {}
    return after, changes


def _remove_unrecorded(study: Study) -> None:
    """Remove directories that a killed command created for jobs, but could not record."""
    recorded = {Path(record.directory).parts[0] for record in study.records}
    for path in study.path.iterdir():
        is_job = _JOB_NAME.fullmatch(path.name) and path.is_dir() and not path.is_symlink()
        if is_job and path.name not in recorded and _is_unused(RunDirectory(path)):
            shutil.rmtree(path)


def _is_unused(run: RunDirectory) -> bool:
    """Check that a directory holds only files that `_create` writes."""
    return run.path.is_dir() and all(
        file.name in _CREATED_FILES or (file.name.startswith(".") and file.name.endswith(".tmp"))
        for file in run.path.iterdir()
    )
