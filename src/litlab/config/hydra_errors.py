"""Errors of Hydra and OmegaConf in plain words: the key, the expected value and the nearest match."""

import re
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import cast

from hydra import initialize_config_dir
from hydra.core.config_loader import ConfigLoader
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.errors import HydraException, MissingConfigException, OverrideParseException
from hydra.types import RunMode
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from litlab.config.paths import ROOT, VERSION_BASE, packaged_conf
from litlab.config.tree import GROUPS, MAPPING_GROUPS, Config, bare_key, did_you_mean, keys, unknown_key_message
from litlab.errors import UserError

_NAMED_KEY = re.compile(r"Could not (?:override|append to|delete from)[^']*'([^']+)'")


def explain_error(error: Exception, arguments: list[str]) -> str | None:
    """Return a message for an error that Hydra raised on a command line; None for one that the user can't mend."""
    if isinstance(error, HydraException | OmegaConfBaseException):
        return explain_hydra_error(error, arguments)
    if isinstance(error, OSError) and error.filename:
        return explain_write_error(error.filename, error)
    file = traceback.extract_tb(error.__traceback__)[-1].filename if error.__traceback__ else ""
    if isinstance(error, ValueError) and "hydra" in Path(file).parts:  # some mistakes end in a bare ValueError of Hydra
        nulls = [argument.removesuffix("=null") for argument in arguments if argument.endswith("=null")]
        if nulls and "Config group override" in str(error):
            return f"{nulls[0]}=null: a group takes the name of a config; to leave the group out, write ~{nulls[0]}"
        return str(error)
    return None


def parse_overrides(overrides: list[str], loader: ConfigLoader | None = None) -> list[Override]:
    """Parse overrides in Hydra's grammar.

    Args:
        overrides: Overrides of a command line or config.
        loader: Hydra's config loader, which knows the configs that a glob matches.

    Raises:
        UserError: For an override that can't be read.
    """
    try:
        return OverridesParser.create(config_loader=loader).parse_overrides(overrides)
    except HydraException as error:
        raise UserError(explain_hydra_error(error, overrides)) from error


def explain_write_error(path: object, error: OSError) -> str:
    """Return a message for a run directory that can't be written."""
    return (
        f"{path}: {error.strerror}; a run makes a directory of its own, by default in outputs/: "
        "choose another place with hydra.run.dir=..., for a multirun with hydra.sweep.dir=..."
    )


def explain_interpolation_error(error: OmegaConfBaseException) -> str:
    """Return a message for a value that can't be resolved."""
    key = getattr(error, "full_key", None) or "config"
    return f"{key}: cannot be resolved: {str(error).splitlines()[0]}"


def explain_hydra_error(error: HydraException | OmegaConfBaseException, arguments: list[str]) -> str:
    """Return a message for an error of composition or of the override grammar."""
    if isinstance(error, OverrideParseException):
        return (
            f"{error.override}: cannot be read as an override; expected key=value, "
            """where a value with special characters is quoted, as in 'data.root="~/my images"'"""
        )
    if isinstance(error, MissingConfigException) and error.missing_cfg_file:
        return _unknown_config(error)
    text, cause = str(error), error.__cause__
    reason = (str(cause) if isinstance(cause, OmegaConfBaseException) else text).splitlines()[0]
    if match := _NAMED_KEY.search(text):
        key = bare_key(match[1]).partition("@")[0]
        is_of_hydra = key.startswith("hydra.")
        valid_keys = [name for name in _valid_keys(arguments) if name.startswith("hydra.") == is_of_hydra]
        return f"{key}: {reason}" if key in valid_keys else _unknown_key(key, valid_keys)
    full_key = getattr(cause, "full_key", None)
    return f"{full_key}: {reason}" if full_key else reason


def _unknown_config(error: MissingConfigException) -> str:
    group, _, option = str(error.missing_cfg_file).rpartition("/")
    options = sorted(error.options or [])
    if not group or not options:
        return str(error).splitlines()[0]
    return f"{group}={option}: no such config{did_you_mean(option, options)}; known: {', '.join(options)}"


def _unknown_key(key: str, valid_keys: list[str]) -> str:
    message = unknown_key_message(key, valid_keys)
    if key.partition(".")[0] in (*GROUPS, *MAPPING_GROUPS) and "." in key and "did you mean" not in message:
        message += f"\nAn argument that the class has, but its YAML has not, is added with a plus: +{key}=..."
    return message


def _valid_keys(arguments: list[str]) -> list[str]:
    """Return the keys and groups that exist under the group choices among the arguments."""
    with _separate_hydra(), initialize_config_dir(str(packaged_conf()), version_base=VERSION_BASE):
        loader = GlobalHydra.instance().config_loader()
        groups = loader.list_groups("")
        choices = [argument for argument in arguments if re.match(rf"({'|'.join(groups)})(/\w+)*=", argument)]
        config = loader.load_configuration(ROOT, overrides=choices, run_mode=RunMode.RUN)
    unresolved = cast(Config, OmegaConf.to_container(config, resolve=False))
    return [*(key for key in keys(unresolved) if key != "hydra"), *groups]


@contextmanager
def _separate_hydra() -> Iterator[None]:
    """Set Hydra's global state aside, which is in use while a multirun is composed."""
    instance = GlobalHydra.instance()
    before, instance.hydra = instance.hydra, None
    try:
        yield
    finally:
        instance.hydra = before
