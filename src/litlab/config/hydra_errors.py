"""Errors of Hydra and OmegaConf in plain words: the key, the expected value and the nearest match."""

import re
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import cast

import yaml
from hydra import initialize_config_dir
from hydra.core.config_loader import ConfigLoader
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.errors import HydraException, MissingConfigException, OverrideParseException
from hydra.types import RunMode
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from litlab.config.job_overrides import as_written
from litlab.config.paths import ROOT, VERSION_BASE, packaged_conf, project_conf
from litlab.config.tree import (
    MAPPING_GROUPS,
    Config,
    bare_key,
    did_you_mean,
    get,
    keys,
    lies_under,
    unknown_key_message,
)
from litlab.errors import UserError
from litlab.runs.terminal import display_path

_NAMED_KEY = re.compile(r"Could not (?:override|append to|delete from)[^']*'([^']+)'")
_UNKNOWN_OVERRIDE = re.compile(r"Could not override '([^']+)'\.\nTo append to your config use")
_NO_DEFAULT = re.compile(r"In '(?P<config>[^']+)': Could not override '(?P<key>[^']+)'")
_UNMERGED = re.compile(r"In '(?P<config>[^']+)': \w+ raised while composing config:\n(?P<reason>.*)")
_MISSING = re.compile(r"MissingMandatoryValue .*: Missing mandatory value: (\S+)$")
_NOT_MERGED = re.compile(r"Key '([^']+)' is not in struct")
_NODES = ("data", "model", "task", "optimizer", "schedule")  # groups whose config is a single node
_SEVERAL_VALUES = re.compile(r"Ambiguous value for argument '(.*)'|Sweep parameters '(.*)' requires --multirun")
_LIBRARIES = {"hydra", "omegaconf"}


def explain_error(error: Exception, arguments: list[str]) -> str | None:
    """Return a message for an error that Hydra raised on a command line; None for one that the user can't mend."""
    if isinstance(error, HydraException | OmegaConfBaseException):
        return explain_hydra_error(error, arguments)
    if isinstance(error, OSError) and error.filename:
        return explain_write_error(error.filename, error)
    if isinstance(error, yaml.YAMLError):
        return explain_yaml_error(error)
    frames = traceback.extract_tb(error.__traceback__)
    composing = any(frame.name == "load_configuration" for frame in frames)
    if not composing and not (frames and _LIBRARIES & set(Path(frames[-1].filename).parts)):
        return None
    nulls = [argument.removesuffix("=null") for argument in arguments if argument.endswith("=null")]
    if nulls and "Config group override" in str(error):
        return f"{nulls[0]}=null: a group takes the name of a config; to leave the group out, write ~{nulls[0]}"
    is_plain = isinstance(error, ValueError) and not isinstance(error, UnicodeError)  # some mistakes end in a bare one
    return str(error) if is_plain else f"the config cannot be composed: {type(error).__name__}: {error}"


def parse_overrides(overrides: list[str], loader: ConfigLoader | None = None) -> list[Override]:
    """Parse overrides in Hydra's grammar.

    Args:
        overrides: Overrides of a command line or config.
        loader: Hydra's config loader, which knows the configs that a glob matches.

    Raises:
        UserError: For an override that can't be read.
    """
    lines = [as_written(override) for override in overrides]
    try:
        return OverridesParser.create(config_loader=loader).parse_overrides(lines)
    except HydraException as error:
        raise UserError(explain_hydra_error(error, lines)) from error


def explain_write_error(path: object, error: OSError) -> str:
    """Return a message for a run directory that can't be written."""
    return (
        f"{path}: {error.strerror}; a run makes a directory of its own, by default in outputs/: "
        "choose another place with hydra.run.dir=..., for a multirun with hydra.sweep.dir=..."
    )


def explain_yaml_error(error: yaml.YAMLError, file: object = None) -> str:
    """Return a message for a file that is no YAML.

    Args:
        error: The error.
        file: The file; None for the one that the error names.
    """
    if not isinstance(error, yaml.MarkedYAMLError) or error.problem_mark is None:
        return f"{file or 'a config'}: cannot be read as YAML: {' '.join(str(error).split())}"
    mark, remedy = error.problem_mark, ""
    if "'\\t'" in str(error.problem):
        remedy = "; indent by spaces, not by tabs"
    elif isinstance(error, yaml.scanner.ScannerError | yaml.parser.ParserError):
        remedy = (
            "; keys of one mapping begin in the same column, and a space follows each colon: check this line and the "
            "one before"
        )
    return f"{file or mark.name}, line {mark.line + 1}: cannot be read as YAML: {error.problem}{remedy}"


def explain_interpolation_error(error: OmegaConfBaseException) -> str:
    """Return a message for a value that can't be resolved."""
    key, reason = getattr(error, "full_key", None) or "config", str(error).splitlines()[0]
    if match := _MISSING.search(reason):
        return f"{match[1]}: a value is missing; set {match[1]}=..."
    hint = "; a function of this name in conf/resolvers.py defines it" if "Unsupported interpolation" in reason else ""
    return f"{key}: cannot be resolved: {reason}{hint}"


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
    if match := _SEVERAL_VALUES.search(text):
        return _several_values(match[1] or match[2])
    if match := _NO_DEFAULT.match(text):
        return _unknown_default(match["config"], match["key"])
    if match := _UNMERGED.match(text):
        return f"{_conf_file(match['config'])}: {match['reason']}"
    if match := _NAMED_KEY.search(text):
        key = bare_key(match[1]).partition("@")[0]
        if text.startswith("Could not append"):
            return f"{key}: exists already; leave out the plus"
        config, groups = _compose(arguments)
        is_of_hydra = key.startswith("hydra.")
        valid_keys = [name for name in [*keys(config), *groups] if name.startswith("hydra.") == is_of_hydra]
        valid_keys = [name for name in valid_keys if name != "hydra"]
        if key in _NODES and (match := _NOT_MERGED.match(reason)):
            return (
                f"{key}.{match[1]}: {key}={{...}} is merged into the config of {key}, which has no such key; replace "
                f"it by ~{key} '+{key}={{...}}', or write conf/{key}/NAME.yaml"
            )
        return f"{key}: {reason}" if key in valid_keys else _unknown_key(key, config, valid_keys)
    full_key = getattr(cause, "full_key", None)
    if full_key and reason == "Cannot merge DictConfig with ListConfig":
        return f"{full_key}: {_unmergeable(full_key, arguments)}"
    return f"{full_key}: {reason}" if full_key else reason


def _unmergeable(key: str, arguments: list[str]) -> str:
    """Return what is expected instead of a list or a mapping."""
    if key == "data.transforms":
        return "expected lists for training and evaluation: data.transforms.train=[...] and data.transforms.eval=[...]"
    values = (value for name, _, value in (argument.partition("=") for argument in arguments) if name == key)
    is_list = any(value.lstrip().startswith("[") for value in values)
    return "expected a mapping, found a list" if is_list else f"expected a list, as in '{key}=[...]'"


def unknown_override(error: HydraException) -> str | None:
    """Return the key of an override that the composed config does not have; None for any other error."""
    match = _UNKNOWN_OVERRIDE.match(str(error))
    return match[1] if match else None


def missing_header(config: str) -> str:
    """Return a message for a config, such as `experiment/mine`, whose keys lie below its group, not at the root."""
    group = config.rpartition("/")[0]
    return (
        f"{_conf_file(config)}: its first line has to be `# @package _global_`; without it, all its keys lie below "
        f"`{group}`, as in {group}.model"
    )


def _several_values(line: str) -> str:
    key, _, values = line.partition("=")
    message = f"{line}: several values; add -m to run a job for each of them"
    if values.endswith(")"):  # range(3) and other functions
        return message
    return f"""{message}, or write a list as '{key}=[{values}]', a text as "{key}='{values}'\""""


def _unknown_default(config: str, key: str) -> str:
    """Return a message for an `override` in the defaults of a config that matches no group of the root's defaults."""
    own_group, (group, _, package) = config.rpartition("/")[0], key.partition("@")
    if own_group and lies_under(package, own_group.replace("/", ".")):
        return missing_header(config)
    where = _conf_file(config)
    if own_group and lies_under(group.replace("/", "."), own_group):
        group = group.removeprefix(f"{own_group}/")
        return f"{where}: override {group}: groups begin with a slash; write `override /{group}`"
    _, groups = _compose([])
    if group in groups:
        return f"{where}: override /{group}: the defaults of conf/config.yaml have no {key} that it could override"
    return f"{where}: override /{group}: there is no such group{did_you_mean(group, groups)}"


def _conf_file(config: str) -> Path:
    """Return the file of a config, such as `experiment/mine`, for a message."""
    folders = [folder for folder in (project_conf(Path.cwd()), packaged_conf()) if folder is not None]
    files = [folder / f"{config}.yaml" for folder in folders]
    return display_path(next((file for file in files if file.is_file()), Path(f"{config}.yaml")))


def _unknown_config(error: MissingConfigException) -> str:
    group, _, option = str(error.missing_cfg_file).rpartition("/")
    options = sorted(error.options or [])
    if not group or not options:
        return str(error).splitlines()[0]
    message = f"{group}={option}: no such config{did_you_mean(option, options)}; known: {', '.join(options)}"
    if group in _NODES and "." in option:
        message += f". A class is named by ~{group} '+{group}={{_target_: {option}}}', or in a conf/{group}/NAME.yaml"
    return message


def _unknown_key(key: str, config: Config, valid_keys: list[str]) -> str:
    """Return a message for an unknown key; a class may have arguments that its YAML has not."""
    from litlab.config.schema import SECTIONS  # these are slow to import
    from litlab.config.validate import trainer_problem

    if problem := trainer_problem(key):
        return problem
    parent, _, name = key.rpartition(".")
    target = get(config, f"{parent}._target_")
    if isinstance(target, str) and target in SECTIONS:
        arguments = (*SECTIONS[target].model_fields, *SECTIONS[target].facts)
        if name in arguments:
            return f"{key}: is not in the YAML of {parent}; add it with a plus: +{key}=..."
        return unknown_key_message(key, [f"{parent}.{argument}" for argument in arguments])
    message = unknown_key_message(key, valid_keys)
    if isinstance(target, str) and not target.startswith(("litlab.", "hydra_plugins.litlab_")):
        message += f"\nIf {target} has an argument {name}, add it with a plus: +{key}=..."
    elif parent in MAPPING_GROUPS:
        message += f"\nA new one is added with a plus: +{key}._target_=..."
    return message


def _compose(arguments: list[str]) -> tuple[Config, list[str]]:
    """Compose the config under the configs and classes that arguments choose, without axes; return all groups, too."""
    with _separate_hydra(), initialize_config_dir(str(packaged_conf()), version_base=VERSION_BASE):
        loader = GlobalHydra.instance().config_loader()
        groups = loader.list_groups("")
        choice = re.compile(rf"({'|'.join(groups)})(/\w+)*=|\+*({'|'.join(groups)})\.([\w.]+\.)?_target_=")
        choices = [argument for argument in arguments if choice.match(argument)]
        try:
            config = loader.load_configuration(ROOT, overrides=choices, run_mode=RunMode.MULTIRUN)
        except (HydraException, UserError):  # the choices are wrong as well
            config = loader.load_configuration(ROOT, overrides=[], run_mode=RunMode.RUN)
    unresolved = cast(Config, OmegaConf.to_container(config, resolve=False))
    return unresolved, groups


@contextmanager
def _separate_hydra() -> Iterator[None]:
    """Set Hydra's global state aside, which is in use while a multirun is composed."""
    instance = GlobalHydra.instance()
    before, instance.hydra = instance.hydra, None
    try:
        yield
    finally:
        instance.hydra = before
