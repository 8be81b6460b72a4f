"""The Hydra app behind `litlab train`: compose, validate, freeze, leave the work to a worker. No torch."""

import os
import sys
import traceback
from pathlib import Path

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.errors import HydraException
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from litlab.config.compose import ROOT, VERSION_BASE, explain, register_resolvers
from litlab.config.foreign import check_foreign
from litlab.config.freeze import freeze, to_yaml, with_secrets
from litlab.config.help import asks_for_help, help_text
from litlab.config.location import packaged_conf
from litlab.controller import run_worker
from litlab.errors import RunFailed, UserError
from litlab.runs.directory import RunDirectory
from litlab.runs.files import remove_if_empty, write_json
from litlab.runs.provenance import of_launch

_FULL_ERROR = "HYDRA_FULL_ERROR"


@hydra.main(version_base=VERSION_BASE, config_path=str(packaged_conf()), config_name=ROOT)
def _launch(composed: DictConfig) -> float | None:
    """One job. Hydra reports a failed job in its own way, which suits a multirun; a single run ends with ours."""
    try:
        return _run(composed)
    except (UserError, RunFailed) as error:
        if HydraConfig.get().mode == RunMode.MULTIRUN:
            raise
        raise _Ended(error) from error


class _Ended(BaseException):
    """Carries an error of a single run past Hydra."""

    def __init__(self, error: UserError | RunFailed) -> None:
        self.error = error


def _run(composed: DictConfig) -> float | None:
    """A run directory with its frozen config, then a worker on it. Returns the objective."""
    settings = HydraConfig.get()
    directory = Path(settings.runtime.output_dir)
    try:
        RunDirectory(directory).refuse_if_taken()
        config = freeze(composed)
        check_foreign(with_secrets(config))
        run = RunDirectory.create(directory, to_yaml(config), _hydra_record(composed))
        write_json(run.provenance, of_launch(Path.cwd(), ["litlab", "train", *sys.argv[1:]]))
        return run_worker(run, config, keep=settings.mode == RunMode.MULTIRUN)
    finally:
        remove_if_empty(directory)  # Hydra made it before it called us


def _hydra_record(composed: DictConfig) -> dict[str, str]:
    """The files of `.hydra/`, as tools that read Hydra's output expect them; config.yaml stays unresolved there."""
    settings = HydraConfig.get()
    return {
        "config.yaml": OmegaConf.to_yaml(composed),
        "hydra.yaml": OmegaConf.to_yaml(OmegaConf.create({"hydra": {key: getattr(settings, key) for key in _KEPT}})),
        "overrides.yaml": OmegaConf.to_yaml(settings.overrides.task),
    }


_KEPT = ["run", "sweep", "launcher", "sweeper", "overrides", "job", "runtime", "mode"]


def main(arguments: list[str]) -> None:
    """Run `litlab train` with Hydra's command line.

    Raises:
        UserError: for everything a user can get wrong in it.
    """
    before = os.environ.get(_FULL_ERROR)
    developer = before == "1"
    os.environ[_FULL_ERROR] = "1"  # makes Hydra raise its errors instead of printing them and exiting
    register_resolvers()
    sys.argv = ["litlab train", *arguments]
    try:
        if asks_for_help(arguments):
            print(help_text(arguments))
        else:
            _launch()
    except (HydraException, OmegaConfBaseException) as error:
        if developer:
            raise
        raise UserError(explain(error, arguments)) from error
    except ValueError as error:
        if developer or isinstance(error, UserError) or not _raised_by_hydra(error):
            raise
        raise UserError(_plain(error, arguments)) from error
    except _Ended as ended:
        raise ended.error from None
    finally:
        if before is None:
            del os.environ[_FULL_ERROR]
        else:
            os.environ[_FULL_ERROR] = before


def _raised_by_hydra(error: ValueError) -> bool:
    """Hydra says some of what a user can get wrong with a bare ValueError."""
    return "hydra" in Path(traceback.extract_tb(error.__traceback__)[-1].filename).parts


def _plain(error: ValueError, arguments: list[str]) -> str:
    nulls = [each.removesuffix("=null") for each in arguments if each.endswith("=null")]
    if nulls and "Config group override" in str(error):
        return f"{nulls[0]}=null: a group takes the name of a config; to leave the group out, write ~{nulls[0]}"
    return str(error)
