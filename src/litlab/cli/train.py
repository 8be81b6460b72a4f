"""Compose, validate and freeze a config with Hydra, then train it in a worker process; no torch here."""

import os
import shutil
import sys
import traceback
from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path
from string import Template
from typing import TYPE_CHECKING, Any, cast

import hydra
from hydra import initialize_config_dir
from hydra._internal.config_loader_impl import ConfigLoaderImpl
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from hydra.core.object_type import ObjectType
from hydra.errors import ConfigCompositionException
from hydra.experimental.callback import Callback
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf, open_dict

from litlab.cli.arguments import insert_override
from litlab.config.ablation_changes import quote_changes
from litlab.config.compose import (
    RunLoader,
    register_project_resolvers,
    register_resolvers,
    set_output_dir,
    swept_overrides,
)
from litlab.config.hydra_errors import explain_error, explain_write_error, unknown_override
from litlab.config.job_overrides import as_written, leave_to_jobs
from litlab.config.paths import ROOT, VERSION_BASE, packaged_conf
from litlab.config.secrets import refuse_secret_arguments, refuse_secret_literals, resolve_secrets
from litlab.config.tree import NULL_GROUPS
from litlab.errors import RunFailed, UserError
from litlab.process.child_process import may_have_gpu
from litlab.process.ranks import refuse_tasks
from litlab.runs.directory import RunDirectory
from litlab.runs.files import remove_if_empty, write_json

if TYPE_CHECKING:
    from litlab.sweep.backends.base import Backend

_HELP_FLAGS = {"-h", "--help"}
_HIDDEN_GROUPS = ("hydra", "data/base")  # options of Hydra itself, and what data sets share
_FLAGS = {  # flag -> override
    "--dry-run": "hydra.launcher.dry_run=true",
    "--detach": "hydra.launcher.detach=true",
    "--freeze-only": "++hydra.callbacks.litlab.freeze_only=true",
}
_FULL_ERROR = "HYDRA_FULL_ERROR"
directory: Path | None = None  # of the run or study of the last command, as soon as it is known
# Hydra offers no other place to choose its loader; see RunLoader.
hydra._internal.hydra.ConfigLoaderImpl = RunLoader  # type: ignore[attr-defined]
register_resolvers()  # at import, since a launcher may run a job in a process that only imports this module


def main(arguments: list[str]) -> None:
    """Run `litlab train` with Hydra's command line.

    Raises:
        UserError: For an error of the user in the command line or the config.
        RunFailed: If a worker did not complete.
    """
    global directory
    directory = None
    for flag in _FLAGS.keys() & set(arguments):
        arguments = insert_override(_FLAGS[flag], [argument for argument in arguments if argument != flag])
    arguments = [_quote_baseline(quote_changes(NULL_GROUPS.get(argument, argument))) for argument in arguments]
    full_error = os.environ.get(_FULL_ERROR)
    os.environ[_FULL_ERROR] = "1"  # makes Hydra raise its errors instead of printing them and exiting
    sys.argv = ["litlab train", *arguments]
    try:
        register_project_resolvers(Path.cwd())
        if _is_help(arguments):
            print(help_text(arguments))
        else:
            refuse_tasks()
            refuse_secret_arguments(arguments)  # before a multirun records them
            _run(arguments)
    except (_Exit, Exception) as caught:
        error = caught.error if isinstance(caught, _Exit) else caught
        if error is None:
            return
        if isinstance(error, UserError | RunFailed):
            raise error from None
        message = explain_error(error, arguments)
        if full_error == "1" or message is None:  # a developer wants the traceback
            raise error from None
        if message.startswith("hydra.launcher.dry_run:"):
            message = f"--dry-run: expected hydra/launcher={_launchers('dry_run')}; no other launcher has a dry run"
        elif message.startswith("hydra.launcher.detach:"):
            names = _launchers("detach")
            message = f"--detach: expected hydra/launcher={names}; the jobs of other launchers end with the command"
        raise UserError(message) from error
    finally:
        if full_error is None:
            del os.environ[_FULL_ERROR]
        else:
            os.environ[_FULL_ERROR] = full_error


def _quote_baseline(argument: str) -> str:
    """Quote an override as the value of `hydra.sweeper.baseline`: Hydra's grammar has no second `=` without quotes."""
    key, _, value = argument.partition("=")
    if key != "hydra.sweeper.baseline" or "=" not in value or value[0] in "'\"":
        return argument
    escaped = value.replace("'", "\\'")
    return f"{key}='{escaped}'"


def _run(arguments: list[str]) -> None:
    """Run a job or a multirun. A key that only the configs on an axis have is overridden in the jobs alone."""
    sys.argv = ["litlab train", *arguments]
    try:
        _run_job()
    except ConfigCompositionException as error:
        frames = {frame.name for frame in traceback.extract_tb(error.__traceback__)}
        key = unknown_override(error) if "load_sweep_config" not in frames else None  # no job was composed yet
        left = leave_to_jobs(key, arguments) if key else None
        if left is None:
            raise
        try:
            _run(left)
        except ConfigCompositionException as second:
            shown = error if "requires --multirun" in str(second) else second  # a study may be a single run
            raise shown from shown.__cause__


@hydra.main(version_base=VERSION_BASE, config_path=str(packaged_conf()), config_name=ROOT)
def _run_job(composed: DictConfig) -> float | None:
    """Run one job: a multirun continues after a failed one, but not after a signal."""
    try:
        return _train(composed)
    except (UserError, RunFailed) as error:
        from litlab.process.controller import RunStopped  # not needed by --help and --cfg

        if HydraConfig.get().mode == RunMode.MULTIRUN and not isinstance(error, RunStopped):
            raise
        raise _Exit(error) from error


def _train(composed: DictConfig) -> float | None:
    """Create a run directory with the frozen config, train it in a worker and return the objective."""
    settings = HydraConfig.get()
    directory, project = Path(settings.runtime.output_dir), Path(settings.runtime.cwd)
    os.chdir(project)  # undo hydra.job.chdir
    try:
        backend = _open_queue(settings.launcher, directory) if settings.mode == RunMode.RUN else None
        config = _freeze(composed, directory, backend)
        from litlab.process.controller import EarlyWorker, run_worker  # late, so that a wrong key is reported quickly

        starts_early = settings.mode == RunMode.RUN and backend is None
        with EarlyWorker(config) if starts_early else nullcontext() as early:
            _check_classes(config)
            run = _create_run(composed, config, directory, project)
            if backend is not None:
                return _run_in_queue(run, config, backend, retries=settings.launcher.retries)
            return run_worker(run, config, keep=settings.mode == RunMode.MULTIRUN, early=early)
    except OSError as error:
        raise UserError(explain_write_error(directory, error)) from error
    finally:
        remove_if_empty(directory)  # created by Hydra


def _create_run(composed: DictConfig, config: dict[str, Any], directory: Path, project: Path) -> RunDirectory:
    """Create the run directory of a frozen config, with provenance and signature."""
    from litlab.config.config_file import to_yaml
    from litlab.config.freeze import hydra_record
    from litlab.runs.initial_weights import keep_weights
    from litlab.runs.provenance import describe_launch
    from litlab.runs.signature import sign

    provenance = describe_launch(project, ["litlab", "train", *map(as_written, sys.argv[1:])])
    run = RunDirectory.create(directory, to_yaml(config), hydra_record(composed))
    try:
        keep_weights(run, config)
    except BaseException:
        shutil.rmtree(directory)
        raise
    write_json(run.provenance, provenance)
    sign(run)
    return run


def _open_queue(launcher: DictConfig, folder: Path) -> "Backend | None":
    """Open the queue of a cluster that a single run is submitted to; None if it runs on this machine."""
    if launcher.get("backend", "pool") == "pool":
        return None
    from litlab.config.validate import check_launcher
    from litlab.sweep.backends import make_backend

    settings = OmegaConf.to_container(launcher, resolve=True)
    assert isinstance(settings, dict)
    values = {str(key): value for key, value in settings.items() if key != "_target_"}
    check_launcher(values)
    backend = make_backend(values, folder)
    backend.start()
    return backend


def _run_in_queue(run: RunDirectory, config: dict[str, Any], backend: "Backend", *, retries: int) -> float | None:
    from litlab.sweep.multirun import run_single

    try:
        return run_single(run, config, backend, retries=retries)
    finally:
        backend.close()


def _freeze_run(composed: DictConfig, launcher: DictConfig, directory: Path, project: Path) -> None:
    """Create the directory of a single run, and print the commands that start it."""
    from litlab.process.launch_commands import launch_commands
    from litlab.runs.terminal import display_path

    if launcher.get("backend", "pool") != "pool":
        raise UserError(
            f"--freeze-only: hydra/launcher={launcher.backend} starts the run itself; leave out one of the two"
        )
    config = _freeze(composed, directory, starts=False)
    _check_classes(config)
    lines = launch_commands(RunDirectory(directory), config)
    try:
        _create_run(composed, config, directory, project)
    except OSError as error:
        raise UserError(explain_write_error(directory, error)) from error
    print("\n".join([f"run          {display_path(directory)}", *lines]))


def _freeze(
    composed: DictConfig, directory: Path, backend: "Backend | None" = None, *, starts: bool = True
) -> dict[str, Any]:
    """Validate and freeze the config of a run in a new directory, and check that it can run where it is started.

    Args:
        composed: Composed config.
        directory: The new directory.
        backend: Queue that the run is submitted to; None if it runs on this machine.
        starts: Whether this command starts the run.
    """
    from litlab.config.freeze import freeze

    RunDirectory(directory).refuse_if_taken()
    config = freeze(composed, fill_threads=backend is None)
    if backend is not None:
        config["threads"] = backend.threads(config, 1)
        backend.check([config])
    elif starts and (num_nodes := config["trainer"]["num_nodes"]) > 1:
        raise UserError(
            f"trainer.num_nodes={num_nodes}: this command starts processes on this machine alone; add "
            "hydra/launcher=slurm to submit the run to a cluster, or --freeze-only to make its directory and print "
            "what to start with srun or torchrun"
        )
    elif starts and config["trainer"]["accelerator"] in ("gpu", "cuda") and not may_have_gpu():
        raise UserError(
            f"trainer.accelerator={config['trainer']['accelerator']}: this machine has no GPU that CUDA can use; train "
            "with trainer=cpu, or on a cluster with hydra/launcher=slurm"
        )
    config["study"]["swept"] = swept_overrides(composed)
    resolve_secrets(config)  # raises an error if the environment lacks one
    return config


def _check_classes(config: dict[str, Any]) -> None:
    """Check that the classes of a frozen config that are not litlab's take their arguments."""
    from litlab.config.targets import check_foreign

    check_foreign(resolve_secrets(config))


class _Exit(BaseException):
    """Carry an error, or None for success, through Hydra, which handles every Exception itself."""

    def __init__(self, error: Exception | None) -> None:
        super().__init__(error)
        self.error = error


class BeforeHydraWrites(Callback):
    """Act before Hydra or a sweeper writes anything, and end the command; conf/config.yaml names this callback.

    Args:
        freeze_only: Make the directory of a single run, and start nothing.
    """

    def __init__(self, *, freeze_only: bool = False) -> None:
        self._freeze_only = freeze_only

    def on_multirun_start(self, config: DictConfig, **kwargs: Any) -> None:
        """Refuse a dry run by another sweeper, a multirun with --freeze-only, and literal secrets."""
        _set_directory(config.hydra.sweep.dir)
        try:
            _refuse_dry_run(config)
            if self._freeze_only:
                raise UserError(
                    "--freeze-only: expected a single run; for a multirun on a cluster, add hydra/launcher=slurm"
                )
            refuse_secret_literals(OmegaConf.to_container(config, resolve=False))
        except UserError as error:
            raise _Exit(error) from error  # Hydra turns an Exception into a warning

    def on_run_start(self, config: DictConfig, **kwargs: Any) -> None:
        """End a dry run of a single run after its config was checked; create a run that is only to be frozen."""
        _set_directory(config.hydra.run.dir)
        launcher = config.hydra.launcher
        if not (launcher.get("dry_run") or self._freeze_only):
            return
        try:
            HydraConfig.instance().set_config(config)
            directory, project = Path(config.hydra.run.dir).absolute(), Path(config.hydra.runtime.cwd)
            set_output_dir(directory)
            with open_dict(config):
                del config["hydra"]
            if launcher.get("dry_run"):
                _check_classes(
                    _freeze(config, directory, _open_queue(launcher, directory), starts=not self._freeze_only)
                )
                print(f"a single run in {directory}; nothing was started or written")
            else:
                _freeze_run(config, launcher, directory, project)
        except Exception as error:
            raise _Exit(error) from error
        raise _Exit(None)


def _set_directory(path: str) -> None:
    global directory
    directory = Path(path).absolute()


def _launchers(key: str) -> str:
    """Return the names of the launchers that have a setting, as an enumeration."""
    from litlab.config.schema import LAUNCHERS

    *names, last = (name for name, section in LAUNCHERS.items() if key in section.model_fields)
    return f"{', '.join(names)} or {last}"


def _refuse_dry_run(config: DictConfig) -> None:
    """Refuse a dry run by a sweeper that writes before it creates jobs."""
    target = str(OmegaConf.select(config, "hydra.sweeper._target_"))
    if config.hydra.launcher.get("dry_run") and not target.startswith("hydra_plugins.litlab_"):
        name = config.hydra.runtime.choices["hydra/sweeper"]
        raise UserError(
            f"--dry-run: expected hydra/sweeper=grid, search or decide; {name} writes before there are jobs"
        )


def _is_help(arguments: list[str]) -> bool:
    """Return True if the flags are those of help, without another one of Hydra."""
    flags = {argument for argument in arguments if argument.startswith("-")}
    return bool(flags & _HELP_FLAGS) and flags <= _HELP_FLAGS | {"-m", "--multirun"}


def help_text(arguments: list[str]) -> str:
    """Format the groups with their options, and the keys that these arguments compose."""
    overrides = [argument for argument in arguments if not argument.startswith("-")]
    with initialize_config_dir(str(packaged_conf()), version_base=VERSION_BASE):
        loader = cast(ConfigLoaderImpl, GlobalHydra.instance().config_loader())
        config = loader.load_configuration(ROOT, overrides=overrides, run_mode=RunMode.RUN)
        groups = "".join(f"{group}: {', '.join(options)}\n" for group, options in _groups(loader))
    keys = OmegaConf.to_yaml(OmegaConf.masked_copy(config, [str(key) for key in config if key != "hydra"]))
    template: str = config.hydra.help.template
    return Template(template).safe_substitute(APP_CONFIG_GROUPS=groups, CONFIG=keys).rstrip()


def _groups(loader: ConfigLoaderImpl, parent: str = "") -> Iterator[tuple[str, list[str]]]:
    """Yield every group with its options, except hidden ones."""
    for name in sorted(loader.repository.get_group_options(parent, ObjectType.GROUP)):
        group = f"{parent}/{name}" if parent else name
        if group in _HIDDEN_GROUPS:
            continue
        if options := loader.repository.get_group_options(group):
            yield group, options
        yield from _groups(loader, group)
