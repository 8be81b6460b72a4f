"""The Hydra app behind `litlab train`: compose, validate, freeze, leave the work to a worker. No torch."""

import os
import sys
from collections.abc import Iterator
from pathlib import Path
from string import Template
from typing import Any, cast

import hydra
from hydra import initialize_config_dir
from hydra._internal.config_loader_impl import ConfigLoaderImpl
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from hydra.core.object_type import ObjectType
from hydra.experimental.callback import Callback
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf, open_dict

from litlab.config.compose import register_resolvers, set_output_dir, swept_overrides
from litlab.config.freeze import hydra_record
from litlab.config.hydra_errors import explain_error, explain_write_error
from litlab.config.paths import ROOT, VERSION_BASE, packaged_conf
from litlab.config.secrets import refuse_secret_arguments, refuse_secret_literals, resolve_secrets
from litlab.errors import RunFailed, UserError
from litlab.runs.directory import RunDirectory
from litlab.runs.files import remove_if_empty, write_json

_NO_CHOICE = ("hydra", "data/base")  # Hydra's own, and what data sets have in common
FLAGS = ("-h", "--help", "-m", "--multirun")


def asks_for_help(arguments: list[str]) -> bool:
    """Whether help is asked for, with no other flag of Hydra's."""
    flags = [each for each in arguments if each.startswith("-")]
    return any(each in ("-h", "--help") for each in flags) and all(each in FLAGS for each in flags)


def help_text(arguments: list[str]) -> str:
    """The groups with their options, and the keys of what these arguments compose."""
    overrides = [each for each in arguments if each not in FLAGS]
    with initialize_config_dir(str(packaged_conf()), version_base=VERSION_BASE):
        loader = cast(ConfigLoaderImpl, GlobalHydra.instance().config_loader())
        config = loader.load_configuration(ROOT, overrides=overrides, run_mode=RunMode.RUN)
        groups = "".join(f"{group}: {', '.join(options)}\n" for group, options in _groups(loader))
    keys = OmegaConf.to_yaml(OmegaConf.masked_copy(config, [str(key) for key in config if key != "hydra"]))
    template: str = config.hydra.help.template
    return Template(template).safe_substitute(APP_CONFIG_GROUPS=groups, CONFIG=keys).rstrip()


def _groups(loader: ConfigLoaderImpl, parent: str = "") -> Iterator[tuple[str, list[str]]]:
    """Every group and its options, but those that nobody chooses from."""
    for name in sorted(loader.repository.get_group_options(parent, ObjectType.GROUP)):
        group = f"{parent}/{name}" if parent else name
        if group in _NO_CHOICE:
            continue
        if options := loader.repository.get_group_options(group):
            yield group, options
        yield from _groups(loader, group)


_FULL_ERROR = "HYDRA_FULL_ERROR"
_DRY_RUN = "--dry-run"
_OF_TORCHRUN = ("RANK", "LOCAL_RANK", "WORLD_SIZE")
_DRY_RUN_OVERRIDE = "hydra.launcher.dry_run=true"
register_resolvers()  # here, since a launcher may call a job in a process that only imports this module


@hydra.main(version_base=VERSION_BASE, config_path=str(packaged_conf()), config_name=ROOT)
def _launch(composed: DictConfig) -> float | None:
    """One job. Hydra goes on after a failed one, which suits a multirun; a single run ends, and so does a signal."""
    try:
        return _run(composed)
    except (UserError, RunFailed) as error:
        from litlab.process.controller import RunStopped  # here, since --help and --cfg run nothing

        if HydraConfig.get().mode == RunMode.MULTIRUN and not isinstance(error, RunStopped):
            raise
        raise _Ended(error) from error


class _Ended(BaseException):
    """Carries an error past Hydra, which goes on after an Exception; None for an end that is none."""

    def __init__(self, error: Exception | None) -> None:
        super().__init__(error)
        self.error = error


class BeforeHydraWrites(Callback):
    """Called by Hydra before it makes a directory, or writes multirun.yaml, which some sweepers do at once."""

    def on_multirun_start(self, config: DictConfig, **kwargs: Any) -> None:
        try:
            _refuse_torchrun()
            _refuse_dry_run(config)
            refuse_secret_literals(OmegaConf.to_container(config, resolve=False))
        except UserError as error:
            raise _Ended(error) from error  # of other errors Hydra makes warnings

    def on_run_start(self, config: DictConfig, **kwargs: Any) -> None:
        if not config.hydra.launcher.get("dry_run"):
            return
        try:
            HydraConfig.instance().set_config(config)
            directory = Path(config.hydra.run.dir).absolute()
            set_output_dir(directory)
            with open_dict(config):
                del config["hydra"]
            _checked(config, directory)
            print(f"a single run, which would be in {directory}; nothing was started or written")
        except Exception as error:
            raise _Ended(error) from error
        raise _Ended(None)


def _refuse_torchrun() -> None:
    """
    Raises:
        UserError: since there each rank would run the whole multirun.
    """
    if "TORCHELASTIC_RUN_ID" in os.environ or all(name in os.environ for name in _OF_TORCHRUN):
        raise UserError(
            "-m under torchrun: a multirun starts its own processes, those of jobs with several devices, too; "
            "call it without torchrun"
        )


def _refuse_dry_run(config: DictConfig) -> None:
    """
    Raises:
        UserError: for a dry run by a sweeper that writes before it asks for jobs.
    """
    target = str(OmegaConf.select(config, "hydra.sweeper._target_"))
    if config.hydra.launcher.get("dry_run") and not target.startswith("hydra_plugins.litlab_"):
        name = config.hydra.runtime.choices["hydra/sweeper"]
        raise UserError(f"{_DRY_RUN}: expected hydra/sweeper=grid or search; {name} writes before there are jobs")


def _run(composed: DictConfig) -> float | None:
    """A run directory with its frozen config, then a worker on it. Returns the objective."""
    settings = HydraConfig.get()
    directory, project = Path(settings.runtime.output_dir), Path(settings.runtime.cwd)
    os.chdir(project)  # whatever hydra.job.chdir made of it
    try:
        config = _checked(composed, directory)
        from litlab.config.config_file import to_yaml  # here and not before, since a wrong key is said without them
        from litlab.process.controller import run_worker
        from litlab.runs.provenance import describe_launch
        from litlab.runs.signature import sign

        provenance = describe_launch(project, ["litlab", "train", *sys.argv[1:]])
        run = RunDirectory.create(directory, to_yaml(config), hydra_record(composed))
        write_json(run.provenance, provenance)
        sign(run)
        return run_worker(run, config, keep=settings.mode == RunMode.MULTIRUN)
    except OSError as error:
        raise UserError(explain_write_error(directory, error)) from error
    finally:
        remove_if_empty(directory)  # Hydra made it before it called us


def _checked(composed: DictConfig, directory: Path) -> dict[str, Any]:
    """The frozen config of a run that can go there."""
    from litlab.config.freeze import freeze
    from litlab.config.targets import check_foreign

    RunDirectory(directory).refuse_if_taken()
    config = freeze(composed)
    config["study"]["swept"] = swept_overrides(composed)
    check_foreign(resolve_secrets(config))
    return config


def main(arguments: list[str]) -> None:
    """Run `litlab train` with Hydra's command line.

    Raises:
        UserError: for everything a user can get wrong in it.
        RunFailed: if a worker did not complete.
    """
    if _DRY_RUN in arguments:
        arguments = _with(_DRY_RUN_OVERRIDE, [each for each in arguments if each != _DRY_RUN])
    before = os.environ.get(_FULL_ERROR)
    os.environ[_FULL_ERROR] = "1"  # makes Hydra raise its errors instead of printing them and exiting
    sys.argv = ["litlab train", *arguments]
    try:
        if asks_for_help(arguments):
            print(help_text(arguments))
        else:
            refuse_secret_arguments(arguments)  # a multirun writes them down before its first job
            _launch()
    except (_Ended, Exception) as caught:
        error = caught.error if isinstance(caught, _Ended) else caught
        if error is None:
            return
        if isinstance(error, UserError | RunFailed):
            raise error from None
        message = explain_error(error, arguments)
        if before == "1" or message is None:  # a developer wants the traceback
            raise error from None
        raise UserError(_about_dry_run(message)) from error
    finally:
        if before is None:
            del os.environ[_FULL_ERROR]
        else:
            os.environ[_FULL_ERROR] = before


def _with(override: str, arguments: list[str]) -> list[str]:
    """Before the first override: all have to stand together, since argparse takes its positionals in one block."""
    places = (
        place for place, each in enumerate(arguments) if each[:1] == "~" or ("=" in each and not each.startswith("-"))
    )
    first = next(places, len(arguments))
    return [*arguments[:first], override, *arguments[first:]]


def _about_dry_run(message: str) -> str:
    if not message.startswith("hydra.launcher.dry_run:"):
        return message
    return f"{_DRY_RUN}: only hydra/launcher=pool, the default, can say what it would do"
