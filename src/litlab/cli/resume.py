"""Continue a run in place from its newest checkpoint, or all jobs of a study."""

import os
import re
import shlex
import sys
from argparse import ArgumentParser, Namespace
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

import yaml

from litlab.cli.arguments import add_allow, insert_override, new_parser
from litlab.compare.tensorboard_summary import update_summary
from litlab.config.resume_record import write_resume_record
from litlab.config.secrets import resolve_secrets
from litlab.config.targets import check_foreign
from litlab.config.tree import Config, format_change
from litlab.config.trust import ALLOW
from litlab.errors import RunFailed, UserError
from litlab.inference.finished_run import FinishedRun
from litlab.process.controller import RunStopped, run_worker
from litlab.process.launch_commands import launch_commands
from litlab.process.ranks import refuse_tasks
from litlab.process.signals import exit_code
from litlab.runs.directory import RunDirectory
from litlab.runs.files import as_mapping
from litlab.runs.lock import directory_lock
from litlab.runs.metrics import read_metric_table, read_metrics, split_of
from litlab.runs.provenance import describe_launch
from litlab.runs.state import RunStatus, read_state
from litlab.runs.terminal import headline
from litlab.sweep.backends import make_backend
from litlab.sweep.backends.base import Backend, Job
from litlab.sweep.multirun import resume_grid, run_single, wait_for_workers
from litlab.sweep.study import STUDY_FILE, Plan, Study

if TYPE_CHECKING:
    from litlab.config.resume_overrides import ConfigChange

_LAUNCHER = ("hydra/launcher", "hydra.launcher.")  # begin the overrides that choose a queue
MAX_LISTED = 20  # runs in a directory of several
_REASONS = {  # for which the jobs of a kind of study are not changed
    "search": "a search, whose jobs are one experiment",
    "decide": "a comparison of settings, whose jobs are one experiment",
}
NOTES = """\
The run ends with the same bits as without the interruption. Its metrics.csv and event files are first truncated to the
checkpoint, so that no row is repeated. For a run on several machines, the commands that continue it are printed.

key=value changes where and how the run continues, not what it has computed so far:
  trainer.accelerator, devices, num_nodes, strategy, log_every_n_steps, profiler; threads
  data.root, data.path, data.cache, data.url; logger.*; checkpoint.*
  trainer.max_epochs, if the learning rate does not depend on the total number of steps, as that of one_cycle, cosine
  and linear does
Keys are those of the run's config.yaml in Hydra's grammar; +key=value adds one. A change is recorded in
provenance.json. Any other change would make a different experiment and is refused.

Where the config leaves trainer.accelerator, trainer.devices (auto) or threads (null) open, the run keeps what its first
start took; an override of such a key, also with the value that it has, lets the next start choose again.

Of a study (the directory of a multirun, with study.yaml), all jobs that are not completed continue on the devices of
this machine, and changes are made in each of them. A search or decide creates the jobs that are left.

hydra/launcher=slurm or ray, with hydra.launcher.KEY=VALUE, submits a single run to a cluster, wherever it was started.

Exit code: as of litlab train; 0 if everything is completed already, 75 if another process holds the run or study.

examples:
  litlab resume outputs/cifar10_cnn/2026-01-31_12-00-00_1a2b3c
  litlab resume DIR trainer.devices=2 data.root=/datasets/cifar10
  litlab resume DIR trainer.max_epochs=40
  litlab resume outputs/lr_by_seed       a study
  litlab resume DIR hydra/launcher=slurm hydra.launcher.time=60
  litlab resume DIR --allow timm         an untrusted run with a network of timm
"""


def main(arguments: list[str]) -> None:
    """Continue a run or a study until it is completed.

    Raises:
        UserError: If there is no such run, another process works on it, or an override can't be changed.
        RunFailed: If the worker did not complete.
    """
    options = parse_options(arguments)
    refuse_tasks()
    directory = Path(options.run)
    if (directory / STUDY_FILE).is_file():
        if options.allow:
            raise UserError("--allow is for untrusted runs; only studies of your own are continued")
        try:
            resume_study(directory, options.overrides, ["litlab", "resume", *arguments])
        except OSError as error:
            raise _cannot_write(directory, error) from error
        return
    if (runs := _runs_in(directory)) and not (directory / "config.yaml").exists():
        print(_choose_run(directory, runs))
        return
    run = RunDirectory.existing(directory)
    launcher = [override for override in options.overrides if _key(override).startswith(_LAUNCHER)]
    options.overrides = [override for override in options.overrides if override not in launcher]
    command = ["litlab", "resume", *arguments]
    if launcher:
        _resume_in_queue(run, options, launcher, command)
        return
    config = prepare(run, options, command)
    if config is None:
        return
    if (num_nodes := config["trainer"]["num_nodes"]) > 1:
        lines = [
            f"trainer.num_nodes={num_nodes}: add hydra/launcher=slurm, or start the run on all machines by one of",
            *launch_commands(run, config),
        ]
        raise UserError("\n".join(lines))
    run_worker(run, config, keep=True)


def _resume_in_queue(run: RunDirectory, options: Namespace, launcher: list[str], command: list[str]) -> None:
    """Submit a run to the queue of a cluster, or wait for it if it is there already, queued or running."""
    backend = _open_queue(launcher, run.path)
    try:
        if backend.is_alive(Job(0, run, {})):
            if options.overrides:
                raise UserError(f"{run.path} is in the queue or runs, so it can't be changed: {options.overrides[0]}")
            config: Config | None = FinishedRun.open(run.path, options.allow).config
        else:
            config = prepare(run, options, command)
        if config is not None:
            backend.check([config])
            run_single(run, config, backend, retries=0)
    finally:
        backend.close()


def _open_queue(overrides: list[str], folder: Path) -> Backend:
    """Open the queue that overrides of hydra.launcher choose."""
    from litlab.config.compose import compose_launcher
    from litlab.config.validate import check_launcher

    settings = compose_launcher(overrides)
    check_launcher(settings)
    if settings["backend"] == "pool":
        raise UserError(
            f"{' '.join(overrides)}: expected hydra/launcher=slurm or ray; without them the run continues here"
        )
    backend = make_backend(settings, folder)
    backend.start()
    return backend


def parse_options(arguments: list[str]) -> Namespace:
    """Parse the command line."""
    return make_parser().parse_intermixed_args(arguments)


def make_parser() -> ArgumentParser:
    """Create the parser of the command line."""
    parser = new_parser("resume", "Continue a run or a study in place from the newest checkpoints.", NOTES)
    parser.add_argument("run", metavar="DIR", help="a run directory, or a study: outputs/NAME")
    parser.add_argument("overrides", metavar="key=value", nargs="*", help="change a setting for the rest of the run")
    add_allow(parser)
    return parser


def _cannot_write(path: Path, error: OSError) -> UserError:
    return UserError(
        f"{error.filename or path}: {error.strerror}; a run is continued in its own directory: "
        "make room and permit writing there, or resume a copy of it"
    )


def prepare(run: RunDirectory, options: Namespace, command: list[str]) -> Config | None:
    """Change the config of a run in place and record it; return None if there is nothing to do.

    Raises:
        UserError: If the run is in use, can't be written, or can't be changed in this way.
    """
    try:
        with directory_lock(run.path):
            return _prepare_locked(run, options, command)
    except OSError as error:
        raise _cannot_write(run.path, error) from error


def _prepare_locked(run: RunDirectory, options: Namespace, command: list[str]) -> Config | None:
    finished = FinishedRun.open(run.path, options.allow)
    result = _read_result(run)
    change = _change_config(finished, options.overrides, result)
    if result.get("status") == RunStatus.COMPLETED and not change.extends_training:
        print(f"{run.path} is completed: {_format_result(finished, result)}; nothing to resume")
        return None
    if result.get("status") == RunStatus.DIVERGED and not change.extends_training:
        raise UserError(
            f"{run.path} diverged: {headline(str(result.get('error')))}; it would end in the same way again\n"
            f"start a new run with other settings, such as a lower learning rate: {_new_command(finished, [])}"
        )
    notes = change.notes + _record_change(finished, change, command)
    if change.extends_training and isinstance(reason := result.get("stop_reason"), str):
        end = headline(reason)
        notes.append(f"{end}; with more epochs from the start it would have ended there, too: only the test is left")
    lines = [format_change(key, *values) for key, values in change.changed.items()]
    print("".join(f"{line}\n" for line in [*lines, *(f"note: {note}" for note in notes)]), end="", flush=True)
    if finished.trust.allowed:
        os.environ[ALLOW] = ",".join(finished.trust.allowed)
    return change.config


def _change_config(finished: FinishedRun, overrides: list[str], result: Config) -> "ConfigChange":
    """Apply overrides to the frozen config."""
    from litlab.config.resume_overrides import AnotherExperiment, change_config

    try:
        change = change_config(finished.config, overrides, lambda: _num_begun_epochs(finished.run, result))
    except AnotherExperiment as error:
        raise UserError(f"{error}\nstart a new run: {_new_command(finished, overrides)}") from error
    finished.trust.check_names(change.config)
    if finished.own and change.changed:  # of an untrusted run, the worker checks the names before it imports anything
        check_foreign(resolve_secrets(change.config), finished.run.project())
    return change


def _num_begun_epochs(run: RunDirectory, result: Config) -> int:
    """Count the epochs that the run has begun, as far as its files tell."""
    try:
        rows = [row for row in read_metrics(run.metrics) if split_of(row.metric) != "test"]
    except (OSError, ValueError):
        rows = []  # the worker repairs the file
    num_epochs = result.get("epochs")
    return max([num_epochs if isinstance(num_epochs, int) else 0, *(1 + row.epoch for row in rows)])


def _new_command(finished: FinishedRun, overrides: list[str]) -> str:
    """Return the command of a new run with the overrides of this one and the given ones."""
    file = finished.run.path / ".hydra" / "overrides.yaml"
    try:
        recorded = yaml.safe_load(file.read_text(encoding="utf-8")) if finished.own else None
    except (OSError, ValueError, yaml.YAMLError):
        recorded = None
    if not isinstance(recorded, list):
        return shlex.join(["litlab", "train", "...", *overrides])
    keys = {_key(override) for override in overrides}
    kept = [override for override in map(str, recorded) if _key(override) not in keys]
    return shlex.join(["litlab", "train", *kept, *overrides])


def _key(override: str) -> str:
    return override.partition("=")[0].lstrip("+~")


def _record_change(finished: FinishedRun, change: "ConfigChange", command: list[str]) -> list[str]:
    """Write the change to the run directory; return notes on the code for the user."""
    launch = describe_launch(finished.run.project() if finished.own else Path.cwd(), command)
    return write_resume_record(
        finished.run,
        change.config,
        change.changed,
        launch,
        own=finished.own,
        extends_training=change.extends_training,
        overridden=change.overridden,
    )


def _read_result(run: RunDirectory) -> Config:
    """Read result.json; empty if it is missing or damaged, in which case the worker replaces it."""
    try:
        return as_mapping(run.read_json(run.result))
    except UserError:
        return {}


def _format_result(finished: FinishedRun, result: Config) -> str:
    """Format the objective of a completed run, or its test metrics if it has none."""
    values = as_mapping(result.get("test"))
    if objective := finished.config["objective"]:
        values = {objective["metric"]: result.get("objective")}
    metrics = read_metric_table(finished.run)
    texts = [f"{name} {metrics[name].format(value)}" for name, value in values.items() if isinstance(value, float)]
    return f"{', '.join(texts) or 'no metrics'} after {result.get('steps')} steps"


def _runs_in(directory: Path) -> list[RunDirectory]:
    """List the runs one or two levels below a directory."""
    records = [path for pattern in ("*/.hydra", "*/*/.hydra") for path in directory.glob(pattern)]
    return [RunDirectory(path.parent) for path in sorted(records) if (path.parent / "config.yaml").is_file()]


def _choose_run(directory: Path, runs: list[RunDirectory]) -> str:
    """Report that all runs of a directory have trained to their end."""
    statuses = {run.path: _describe_status(run) for run in runs}
    ended = (RunStatus.COMPLETED, RunStatus.DIVERGED)
    unfinished = {path: status for path, status in statuses.items() if status.partition(":")[0] not in ended}
    if not unfinished:
        return f"{directory} holds {len(runs)} runs, {_all_ended(runs)}; nothing to resume"
    lines = [f"  {path.relative_to(directory)}: {status}" for path, status in unfinished.items()][:MAX_LISTED]
    num_hidden = len(unfinished) - len(lines)
    lines += [f"  and {num_hidden} more"] if num_hidden else []
    raise UserError(
        f"{directory} holds {len(runs)} runs, {len(unfinished)} of them not completed; resume them one by one:\n"
        + "\n".join(lines)
        + f"\nlitlab resume {shlex.quote(str(next(iter(unfinished))))}"
    )


def _all_ended(runs: Sequence[RunDirectory]) -> str:
    statuses = {read_state(run).status for run in runs}
    return f"all {' or '.join(sorted(statuses))}"


def _describe_status(run: RunDirectory) -> str:
    result = _read_result(run)
    if "status" not in result:
        return "no result yet: it is running, or was killed"
    error = str(result.get("error") or "").splitlines()
    return str(result["status"]) + (f": {error[0]}" if error else "")


def resume_study(directory: Path, overrides: list[str], command: list[str]) -> None:
    """Continue a study until it is completed.

    Args:
        directory: Directory with study.yaml.
        overrides: Changes for every job of a grid that is not completed.
        command: Command line, for the record.

    Raises:
        UserError: If the study is untrusted or in use, or an override can't be changed.
        RunFailed: If a job did not complete.
    """
    study = Study.load_own(directory)
    plan = study.plan
    assert plan is not None
    if plan.kind != "grid" or len(study.records) < plan.num_jobs:
        _exec_command(study, plan, overrides)
    for _, run in study.jobs():
        if not run.config.is_file():
            again = shlex.join(["litlab", "train", *plan.arguments])
            raise UserError(f"{run.config} is missing; create it again by the command of the study: {again}")
    if overrides:
        _change_jobs(study, overrides, command)
    runs = [run for _, run in study.jobs()]
    if all(read_state(run).status.has_ended_training for run in runs):
        print(f"{directory} holds {len(runs)} jobs, {_all_ended(runs)}; nothing to resume")
        return
    backend = make_backend(plan.launcher, study.path)
    backend.start()
    provenance = None if overrides else describe_launch(Path(plan.project), command)  # overrides are recorded already
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


def _change_jobs(study: Study, overrides: list[str], command: list[str]) -> None:
    """Change the configs of the jobs that are not completed or would be trained longer."""
    with study.lock(), ExitStack() as locks:
        wait_for_workers(study)
        changes = []
        for _, run in study.jobs():
            locks.enter_context(directory_lock(run.path))
            finished = FinishedRun.open(run.path)
            if not finished.own:
                raise UserError(f"{run.path} is untrusted: {finished.trust.signature_problem}")
            try:
                change = _change_config(finished, overrides, _read_result(run))
            except UserError as error:
                raise UserError(f"{run.path.name}: {error}\nno job of the study was changed") from error
            if change.extends_training or not read_state(run).status.has_ended_training:
                changes.append((finished, change))
        lines = [format_change(key, *values) for _, change in changes for key, values in change.changed.items()]
        lines += [f"note: {note}" for _, change in changes for note in change.notes]
        for finished, change in changes:
            lines += [f"note: {note}" for note in _record_change(finished, change, command)]
    print("\n".join(dict.fromkeys(lines)), flush=True)


def _exec_command(study: Study, plan: Plan, overrides: list[str]) -> None:
    """Replace this process by the command of the study, in its original folder."""
    arguments = _with_directory(study.path.absolute(), plan.arguments)
    if overrides:
        reason = _REASONS.get(plan.kind, "not set up completely")
        raise UserError(
            f"{study.path} is {reason}; make changes, such as the number of trials or seeds, in its command: "
            + shlex.join(["litlab", "train", *plan.arguments])
        )
    try:
        os.chdir(plan.project)
    except OSError as error:
        raise UserError(
            f"{plan.project}: {error.strerror}; the study was started in that folder: run its command in the present "
            f"folder of the project: {shlex.join(['litlab', 'train', *arguments])}"
        ) from error
    sys.stdout.flush()
    os.execv(sys.executable, [sys.executable, "-P", "-m", "litlab", "train", *arguments])


def _with_directory(directory: Path, arguments: list[str]) -> list[str]:
    kept = [argument for argument in arguments if not argument.startswith("hydra.sweep.dir=")]
    return insert_override(f"hydra.sweep.dir={_quote(directory)}", kept)


def _quote(path: Path) -> str:
    """Quote a path in Hydra's grammar, where a backslash is literal unless it precedes a quote."""
    escaped = re.sub(r"(\\*)('|$)", lambda match: match[1] * 2 + match[2].replace("'", "\\'"), str(path))
    return f"'{escaped}'"
