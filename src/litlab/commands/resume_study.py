"""`litlab resume` of a study: all jobs of a grid that are not complete, or the command of a search once more."""

import os
import re
import shlex
import sys
from contextlib import ExitStack
from dataclasses import fields
from pathlib import Path

from litlab.commands.resume import change_of, record_change, result_of
from litlab.compare.summaries import tell_tensorboard
from litlab.controller import RunStopped
from litlab.errors import RunFailed, UserError
from litlab.inference.finished import FinishedRun
from litlab.runs.lock import owning
from litlab.runs.provenance import of_launch
from litlab.signals import exit_code
from litlab.sweep.local.pool import LocalPool, PoolSettings
from litlab.sweep.multirun import resume_grid, wait_for_workers
from litlab.sweep.states import state_of
from litlab.sweep.study import Plan, Study


def resume_study(directory: Path, overrides: list[str], command: list[str]) -> None:
    """Continue a study until it is complete.

    Args:
        directory: that holds study.yaml.
        overrides: what is to be different from now on, in every job of a grid that is not complete.
        command: that was called, for the record.

    Raises:
        UserError: if it is somebody else's or in use, or the overrides ask for what can't be changed.
        RunFailed: if a job did not complete.
    """
    study = Study.read(directory)
    plan = study.plan
    assert plan is not None
    if plan.kind == "search" or len(study.records) < plan.num_jobs:
        _call_again(study, plan, overrides)
    _require_configs(study, plan)
    if overrides:
        _change(study, overrides, command)
    if not [run for _, run in study.jobs() if state_of(run).word != "done"]:
        print(f"{directory} holds {len(study.records)} jobs, all complete; nothing to resume")
        return
    settings = PoolSettings(**{each.name: plan.launcher[each.name] for each in fields(PoolSettings)})
    pool = LocalPool(settings)
    provenance = None if overrides else of_launch(Path(plan.project), command)  # with overrides, it is on record
    try:
        end = resume_grid(study, pool, provenance=provenance, retries=settings.retries, begun=tell_tensorboard)
    finally:
        pool.close()
    tell_tensorboard(study.path)
    if end.received is not None:
        raise RunStopped(exit_code(end.received))
    if not end.is_complete:
        raise RunFailed(1)


def _require_configs(study: Study, plan: Plan) -> None:
    """
    Raises:
        UserError: if a job has lost the config that it would go on with.
    """
    for _, run in study.jobs():
        if not run.config.is_file():
            again = shlex.join(["litlab", "train", *plan.arguments])
            raise UserError(f"{run.config} is missing; the command of the study makes it anew: {again}")


def _change(study: Study, overrides: list[str], command: list[str]) -> None:
    """Change the configs of the jobs that are not complete, and of those that would be prolonged.

    Raises:
        UserError: if one can't be changed, or is at work; then none is.
    """
    from litlab.config.change import in_words  # loads Hydra's parser

    with study.holding(), ExitStack() as held:
        wait_for_workers(study)
        changes = []
        for _, run in study.jobs():
            held.enter_context(owning(run.path))
            finished = FinishedRun.open(run.path)
            if not finished.own:
                raise UserError(f"{run.path} is not known as yours: {finished.trust.doubt}")
            try:
                change = change_of(finished, overrides, result_of(run))
            except UserError as error:
                raise UserError(f"{run.path.name}: {error}\nno job of the study was changed") from error
            if change.prolongs or state_of(run).word != "done":
                changes.append((finished, change))
        said = [in_words(key, *values) for _, change in changes for key, values in change.changed.items()]
        said += [f"note: {line}" for _, change in changes for line in change.remarks]
        for finished, change in changes:
            said += [f"note: {line}" for line in record_change(finished, change, command)]
    print("\n".join(dict.fromkeys(said)), flush=True)


def _call_again(study: Study, plan: Plan, overrides: list[str]) -> None:
    """Become the command of the study, in the folder that it was called in; does not return.

    Raises:
        UserError: if that folder is gone, or something is to be changed.
    """
    arguments = _at(study.path.absolute(), plan.arguments)
    if overrides:
        what = "a search, whose jobs are one experiment" if plan.kind == "search" else "not set up completely"
        raise UserError(
            f"{study.path} is {what}; what may change in it, such as the number of trials, is said to its command: "
            + shlex.join(["litlab", "train", *plan.arguments])
        )
    try:
        os.chdir(plan.project)
    except OSError as error:
        raise UserError(
            f"{plan.project}: {error.strerror}; the search was begun in that folder: call its command in the folder "
            f"where the project is now: {shlex.join(['litlab', 'train', *arguments])}"
        ) from error
    sys.stdout.flush()
    os.execv(sys.executable, [sys.executable, "-P", "-m", "litlab", "train", *arguments])


def _at(directory: Path, arguments: list[str]) -> list[str]:
    """The arguments, for a study in this directory; beside the other overrides, since flags may follow these."""
    kept = [each for each in arguments if not each.startswith("hydra.sweep.dir=")]
    first = next((place for place, each in enumerate(kept) if "=" in each and not each.startswith("-")), len(kept))
    return [*kept[:first], f"hydra.sweep.dir={_quoted(directory)}", *kept[first:]]


def _quoted(path: Path) -> str:
    """A text in Hydra's grammar, where a backslash is itself unless it stands before a quote."""
    escaped = re.sub(r"(\\*)('|$)", lambda found: found[1] * 2 + found[2].replace("'", "\\'"), str(path))
    return f"'{escaped}'"
