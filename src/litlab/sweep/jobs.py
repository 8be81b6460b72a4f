"""Run directories for the jobs of a study. A job is recorded once its directory is whole, so a kill at any moment is
made good by the same command: directories without a record, in which no worker has been, are made anew."""

from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING, Any

from litlab.config.freeze import ORIGIN, VOLATILE, place, swept
from litlab.config.overrides import in_words
from litlab.config.tree import diff, lies_under
from litlab.errors import UserError
from litlab.runs.directory import RunDirectory
from litlab.runs.state import RunStatus
from litlab.sweep.plan import Plan, Record, plan_from_yaml, plan_to_yaml

if TYPE_CHECKING:
    from litlab.config.jobs import ComposedJob
    from litlab.sweep.study import Study
import os
import re
import shutil
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from litlab.config.freeze import to_yaml
from litlab.config.overrides import CHANGEABLE
from litlab.config.resume_record import amend
from litlab.runs.files import sync_directory, write_json
from litlab.runs.lock import owning
from litlab.runs.redact import mask_command
from litlab.runs.signature import sign, signature_problem
from litlab.runs.state import read_state
from litlab.sweep.backends.base import Job

if TYPE_CHECKING:
    from litlab.config.jobs import ComposedJob
    from litlab.sweep.study import Study


Config = dict[str, Any]
MOST_LINES = 20
_DO = "choose another study.name for it, or give what was there before"


def check_same(study: "Study", plan: Plan, composed: Sequence["ComposedJob"]) -> None:
    """
    Raises:
        UserError: if what is asked for now would not be the same study, with what differs.
    """
    before = study.plan
    if before is None or not study.records:  # of which nothing but the plan is there
        return
    if before.kind != plan.kind:
        raise UserError(f"{study.path} is a {before.kind}, and this would be a {plan.kind}: {_DO}")
    now = plan_from_yaml(study.path, plan_to_yaml(plan).encode())  # as it is when it comes from the file
    if plan.kind == "search":
        _refuse(study, "the space of the search", diff(before.axes, plan.axes))
        _refuse(study, "what the search is for and keeps its trials in", _aims(diff(before.search, now.search)))
    if plan.kind == "search" or not {each.identity for each in study.records} <= {each.identity for each in composed}:
        _refuse(study, "what is fixed in it", _fixed(before, now))
        _check_points(study, composed)
    _check_origin(study, before, now, composed)


def _aims(changed: dict[str, list[Any]]) -> dict[str, list[Any]]:
    return {
        f"hydra.sweeper.{key}": values for key, values in changed.items() if lies_under(key, "objectives", "storage")
    }


def _fixed(before: Plan, now: Plan) -> dict[str, list[Any]]:
    """What has changed of what is not swept; in a group that is, only what commands set are fixed values."""
    changed = without(diff(before.base, now.base), VOLATILE)
    swept = [place(key) for key in (*before.axes, *now.axes)]
    said = [place(each.partition("=")[0]) for each in (*before.arguments, *now.arguments) if "=" in each]
    set_there = [key for key in said if key not in swept]
    return {
        key: values for key, values in changed.items() if lies_under(key, *set_there) or not lies_under(key, *swept)
    }


def _check_origin(study: "Study", before: Plan, now: Plan, composed: Sequence["ComposedJob"]) -> None:
    """The same place is taken for the same data, so they stay where they were once a job has read them.

    Raises:
        UserError: if they would come from elsewhere now; what they are is not known before they are read.
    """
    begun = {each.identity: run for each, run in study.jobs() if run.dataset.exists() and run.config.exists()}
    known = next((each for each in composed if each.identity in begun), None)
    if not begun or (known is None and not _origin(diff(before.base, now.base))):
        return
    run = begun[known.identity] if known is not None else next(iter(begun.values()))
    config = known.config if known is not None else composed[0].config if composed else now.base
    changed = without(_origin(diff(run.read_config(), config)), swept(config))
    if not changed or any(not _origin(diff(each.read_config(), config)) for each in begun.values()):
        return
    fingerprint = str(run.read_json(run.dataset).get("fingerprint"))[:12]
    said = "\n".join(f"  {in_words(key, *values)}" for key, values in changed.items())
    ((key, (old, new)), *_) = changed.items()
    raise UserError(
        f"{study.path} was begun with data from elsewhere (fingerprint {fingerprint}):\n{said}\n"
        "jobs on other data are another study: choose another study.name for them. If these are the same data, "
        f"continue what is not complete with `litlab resume {study.path} {key}={new}`, which compares the fingerprint; "
        f"for more jobs let {old} be a link to them"
    )


def _origin(changed: dict[str, list[Any]]) -> dict[str, list[Any]]:
    return {key: values for key, values in changed.items() if key in ORIGIN}


def _check_points(study: "Study", composed: Sequence["ComposedJob"]) -> None:
    """A point of the axes is one job; if it comes out as another, what a group or a default stands for has changed.

    Raises:
        UserError: with what differs, for the first such job.
    """
    known = {each.identity for each in study.records}
    by_point = {frozenset(each.point.items()): each for each in study.records}
    for job in composed:
        record = by_point.get(frozenset(job.point.items()))
        if record is not None and job.identity not in known:
            _refuse(study, f"what {record.directory} stands for", _between(study, record, job.config))


def _between(study: "Study", record: Record, config: Config) -> dict[str, list[Any]]:
    run = RunDirectory(study.path / record.directory)
    if not run.config.exists():  # removed, to be made anew
        return {}
    before = run.read_config()
    found = diff(before, config)
    return without(found, VOLATILE) or without(found, ("study", "threads"))


def _refuse(study: "Study", what: str, changed: dict[str, list[Any]]) -> None:
    """
    Raises:
        UserError: if anything changed.
    """
    if not changed:
        return
    lines = [f"  {in_words(key, *values)}" for key, values in changed.items()]
    more = [f"  and {len(lines) - MOST_LINES} more"] if len(lines) > MOST_LINES else []
    said = "\n".join([*lines[:MOST_LINES], *more])
    raise UserError(f"{study.path} is another study, {what} has changed:\n{said}\n{_DO}")


def without(changed: dict[str, list[Any]], places: Collection[str]) -> dict[str, list[Any]]:
    """The changes that are not in these places of the config."""
    return {key: values for key, values in changed.items() if not lies_under(key, *places)}


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
    if read_state(run).status in (RunStatus.COMPLETED, RunStatus.PRUNED):
        return Job(record.number, run, job.config)
    reason = signature_problem(run, run.config.read_bytes()) if run.config.exists() else "config.yaml is missing"
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
    changed = diff(before, after)
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
    if not changed and not read_state(run).status.is_final:  # who is at work on it has recorded it
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
