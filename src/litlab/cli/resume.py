"""`litlab resume`: continue a run in place, from its newest checkpoint, or all jobs of a study."""

import os
import shlex
from argparse import Namespace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from litlab.cli.arguments import add_allow, new_parser
from litlab.config.resume_record import write_resume_record
from litlab.config.secrets import resolve_secrets
from litlab.config.targets import check_foreign
from litlab.config.trust import ALLOW
from litlab.errors import UserError
from litlab.inference.finished_run import FinishedRun
from litlab.process.controller import run_worker
from litlab.runs.directory import RunDirectory
from litlab.runs.lock import directory_lock
from litlab.runs.metrics import read_metrics, split_of
from litlab.runs.provenance import describe_launch
from litlab.runs.state import RunStatus
from litlab.sweep.study import STUDY_FILE

if TYPE_CHECKING:
    from litlab.config.overrides import ConfigChange
import re
import sys
from contextlib import ExitStack

from litlab.compare.tensorboard import update_summary
from litlab.errors import RunFailed
from litlab.process.controller import RunStopped
from litlab.process.signals import exit_code
from litlab.runs.state import read_state
from litlab.sweep.backends import make_backend
from litlab.sweep.multirun import resume_grid, wait_for_workers
from litlab.sweep.study import Plan, Study

Config = dict[str, Any]
MOST_LINES = 20  # of runs in a directory of several
NOTES = """\
The run ends, to the last bit, where it would have ended without the interruption. Its metrics.csv and event files are
put back to the checkpoint first, so no row is there twice.

key=value changes where and how it goes on, not what it has computed so far:
  trainer.accelerator, devices, num_nodes, strategy, log_every_n_steps, profiler; threads
  data.root, data.cache, data.url; logger.*; checkpoint.*
  trainer.max_epochs, if the learning rate does not follow the number of all steps (one_cycle, cosine do)
Keys are those of the run's config.yaml, in Hydra's grammar; +key=value for one that is not there yet. A change is
recorded in provenance.json. Everything else would be another experiment, and is refused.

A study (the directory of a multirun, with study.yaml): all its jobs that are not complete go on, on the devices that
there are now, and changes are made in each of them. A search asks for the jobs that are left.

Exit code: as of litlab train; 0 if all is complete already.

examples:
  litlab resume outputs/cifar10_cnn/2026-01-31_12-00-00_1a2b3c
  litlab resume DIR trainer.devices=2 data.root=/datasets/cifar10
  litlab resume DIR trainer.max_epochs=40
  litlab resume outputs/lr_by_seed       a study
  litlab resume DIR --allow timm         somebody else's run, whose network is one of timm's
"""


def main(arguments: list[str]) -> None:
    """Continue a run, or a study, until it is complete.

    Raises:
        UserError: if there is no such run, somebody is at it, or the command line asks for what can't be changed.
        RunFailed: if the worker did not complete.
    """
    options = _options(arguments)
    directory = Path(options.run)
    if (directory / STUDY_FILE).is_file():
        _refuse_allow(options)
        try:
            resume_study(directory, options.overrides, ["litlab", "resume", *arguments])
        except OSError as error:
            raise _cannot_write(directory, error) from error
        return
    if (runs := _runs_in(directory)) and not (directory / "config.yaml").exists():
        print(_say_which(directory, runs))
        return
    run = RunDirectory.existing(directory)
    try:
        with directory_lock(run.path):
            config = _prepare(run, options, ["litlab", "resume", *arguments])
    except OSError as error:
        raise _cannot_write(run.path, error) from error
    if config is not None:
        run_worker(run, config, keep=True)


def _options(arguments: list[str]) -> Namespace:
    parser = new_parser("resume", "Continue a run, or all of a study, in place, from the newest checkpoints.", NOTES)
    parser.add_argument("run", metavar="DIR", help="a run directory, or a study: outputs/NAME")
    parser.add_argument("overrides", metavar="key=value", nargs="*", help="what is to be different from now on")
    add_allow(parser)
    return parser.parse_intermixed_args(arguments)


def _cannot_write(path: Path, error: OSError) -> UserError:
    return UserError(
        f"{error.filename or path}: {error.strerror}; a run is continued in its own directory: "
        "make room and allow writing there, or resume a copy of it"
    )


def _refuse_allow(options: Namespace) -> None:
    """
    Raises:
        UserError: if the command line allows packages to a study.
    """
    if options.allow:
        raise UserError("--allow is for a run of somebody else's; of studies only your own are continued")


def _prepare(run: RunDirectory, options: Namespace, command: list[str]) -> Config | None:
    """The config to go on with, in place and recorded; None if there is nothing to do."""
    from litlab.config.tree import format_change

    finished = FinishedRun.open(run.path, options.allow)
    result = result_of(run)
    changed = change_of(finished, options.overrides, result)
    if result.get("status") == RunStatus.COMPLETED and not changed.extends_training:
        print(f"{run.path} is complete: {_values(result, finished.config)}; nothing to resume")
        return None
    for key, values in changed.changed.items():
        print(format_change(key, *values))
    remarks = changed.notes + record_change(finished, changed, command)
    print("".join(f"note: {remark}\n" for remark in remarks), end="", flush=True)
    if finished.trust.allowed:
        os.environ[ALLOW] = ",".join(finished.trust.allowed)
    return changed.config


def change_of(finished: FinishedRun, overrides: list[str], result: Config) -> "ConfigChange":
    """
    Raises:
        UserError: for what can't be changed, with the command that makes a new run of it.
    """
    from litlab.config.overrides import AnotherExperiment, change_config

    try:
        found = change_config(finished.config, overrides, lambda: _begun(finished.run, result))
    except AnotherExperiment as error:
        raise UserError(f"{error}\nstart a new run: {_new_run(finished, overrides)}") from error
    finished.trust.check_names(found.config)
    if finished.own:  # else the worker judges before it imports anything
        groups = {key.partition(".")[0] for key in found.changed}
        check_foreign(resolve_secrets({key: found.config[key] for key in groups}), finished.run.project())
    return found


def _begun(run: RunDirectory, result: Config) -> int:
    """Epochs that the run has begun, as far as its files tell."""
    try:
        rows = [row for row in read_metrics(run.metrics) if split_of(row.metric) != "test"]
    except (OSError, ValueError):
        rows = []  # the worker puts that file right
    counted = number if isinstance(number := result.get("epochs"), int) else 0
    return max([counted, *(1 + row.epoch for row in rows)])


def _new_run(finished: FinishedRun, overrides: list[str]) -> str:
    """The command that makes a new run of one's own run's overrides and these."""
    file = finished.run.path / ".hydra" / "overrides.yaml"
    try:
        before = yaml.safe_load(file.read_text(encoding="utf-8")) if finished.own else None
    except (OSError, ValueError, yaml.YAMLError):
        before = None
    if not isinstance(before, list):
        return shlex.join(["litlab", "train", "...", *overrides])
    keys = {_key(each) for each in overrides}
    return shlex.join(["litlab", "train", *(each for each in map(str, before) if _key(each) not in keys), *overrides])


def _key(override: str) -> str:
    return override.partition("=")[0].lstrip("+~")


def record_change(finished: FinishedRun, changed: "ConfigChange", command: list[str]) -> list[str]:
    """Write down what is different from now on; returns what should be known about the code."""
    now = describe_launch(finished.run.project() if finished.own else Path.cwd(), command)
    return write_resume_record(
        finished.run, changed.config, changed.changed, now, own=finished.own, extends_training=changed.extends_training
    )


def result_of(run: RunDirectory) -> Config:
    """result.json; empty where there is none, or a damaged one, which the worker replaces."""
    try:
        found = run.read_json(run.result)
    except UserError:
        return {}
    return found if isinstance(found, dict) else {}


def _values(result: Config, config: Config) -> str:
    """What a completed run came to: its objective, or where it has none its test metrics."""
    test = result.get("test")
    values = test if isinstance(test, dict) else {}
    if config["objective"]:
        values = {config["objective"]["metric"]: result.get("objective")}
    shown = [f"{name} {value:.4f}" for name, value in values.items() if isinstance(value, float)]
    return f"{', '.join(shown) or 'nothing measured'} after {result.get('steps')} steps"


def _runs_in(directory: Path) -> list[RunDirectory]:
    """The runs one or two levels below: of a multirun, or of all multiruns and runs of an experiment."""
    records = [path for pattern in ("*/.hydra", "*/*/.hydra") for path in directory.glob(pattern)]
    return [RunDirectory(path.parent) for path in sorted(records) if (path.parent / "config.yaml").is_file()]


def _say_which(directory: Path, runs: list[RunDirectory]) -> str:
    """What to do with a directory of several runs.

    Raises:
        UserError: if some are unfinished.
    """
    statuses = {run.path: _status(run) for run in runs}
    unfinished = {path: status for path, status in statuses.items() if status != RunStatus.COMPLETED}
    if not unfinished:
        return f"{directory} holds {len(runs)} runs, all complete; nothing to resume"
    lines = [f"  {path.relative_to(directory)}: {status}" for path, status in unfinished.items()][:MOST_LINES]
    more = len(unfinished) - len(lines)
    lines += [f"  and {more} more"] if more else []
    raise UserError(
        f"{directory} holds {len(runs)} runs, {len(unfinished)} of them not complete; they are resumed one by one:\n"
        + "\n".join(lines)
        + f"\nlitlab resume {shlex.quote(str(next(iter(unfinished))))}"
    )


def _status(run: RunDirectory) -> str:
    result = result_of(run)
    if "status" not in result:
        return "no result yet: it is running, or was killed"
    said = str(result.get("error") or "").splitlines()
    return str(result["status"]) + (f": {said[0]}" if said else "")


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
    study = Study.load_own(directory)
    plan = study.plan
    assert plan is not None
    if plan.kind == "search" or len(study.records) < plan.num_jobs:
        _call_again(study, plan, overrides)
    _require_configs(study, plan)
    if overrides:
        _change(study, overrides, command)
    if not [run for _, run in study.jobs() if read_state(run).status != RunStatus.COMPLETED]:
        print(f"{directory} holds {len(study.records)} jobs, all complete; nothing to resume")
        return
    backend = make_backend(plan.launcher)
    backend.start()
    provenance = None if overrides else describe_launch(Path(plan.project), command)  # with overrides, it is on record
    try:
        end = resume_grid(
            study, backend, provenance=provenance, retries=plan.launcher["retries"], on_start=update_summary
        )
    finally:
        backend.close()
    update_summary(study.path)
    if end.signum is not None:
        raise RunStopped(exit_code(end.signum))
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
    from litlab.config.tree import format_change

    with study.lock(), ExitStack() as held:
        wait_for_workers(study)
        changes = []
        for _, run in study.jobs():
            held.enter_context(directory_lock(run.path))
            finished = FinishedRun.open(run.path)
            if not finished.own:
                raise UserError(f"{run.path} is not known as yours: {finished.trust.doubt}")
            try:
                change = change_of(finished, overrides, result_of(run))
            except UserError as error:
                raise UserError(f"{run.path.name}: {error}\nno job of the study was changed") from error
            if change.extends_training or read_state(run).status != RunStatus.COMPLETED:
                changes.append((finished, change))
        said = [format_change(key, *values) for _, change in changes for key, values in change.changed.items()]
        said += [f"note: {line}" for _, change in changes for line in change.notes]
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
