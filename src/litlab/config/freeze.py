"""From a composed config to the frozen one: plain, resolved, complete; only secrets stay references."""

import os
from pathlib import Path

import yaml
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from litlab.config.plain import check_plain
from litlab.config.schema import SECTIONS
from litlab.config.secrets import keep_references, unresolvable
from litlab.config.validate import Config, validate
from litlab.config.words import GROUPS, GROUPS_OF_MANY
from litlab.errors import UserError
from litlab.runs.later_keys import with_later_keys

_MAX_TEXT = 2**22  # characters
_LINE_BREAKS = ("\x85", "\u2028", "\u2029")  # unless escaped, YAML reads them as blanks
_Dumper = getattr(yaml, "CSafeDumper", yaml.SafeDumper)  # libyaml's is ten times as quick
_OTHERWISE = ('"', "'':", "? ")  # where libyaml folds lines in another way than the dumper written in Python


def freeze(composed: DictConfig) -> Config:
    """Resolve, check and freeze a composed config.

    Raises:
        UserError: for values that are missing, unknown, out of range, or that cannot be resolved.
    """
    config = freeze_but_threads(composed)
    if config["threads"] is None:
        config["threads"] = threads_per_rank(config["trainer"])
    return config


def freeze_but_threads(composed: DictConfig) -> Config:
    """The same, but the number of threads stays open where it was: who runs several at once decides."""
    try:
        resolved = OmegaConf.to_container(composed, resolve=True, throw_on_missing=False)
    except OmegaConfBaseException as error:
        raise UserError(unresolvable(error)) from error
    assert isinstance(resolved, dict)
    left_out = {group: None for group in (*GROUPS, *GROUPS_OF_MANY) if group not in resolved}
    config: Config = {str(key): value for key, value in resolved.items()} | left_out
    validate(config)
    _make_absolute(config["data"])
    return keep_references(config, OmegaConf.to_container(composed, resolve=False))


def _make_absolute(data: Config) -> None:
    """The paths of litlab's own data modules: whoever reads the config later may do so in another folder."""
    if data["_target_"] in SECTIONS:
        for key in ("root", "cache"):
            if key in data:
                data[key] = str(Path(data[key]).expanduser().absolute())


def threads_per_rank(trainer: Config) -> int | None:
    """Cores of this process divided by the ranks of one machine; None if only the worker can count its devices."""
    devices = trainer["devices"]
    if devices in ("auto", -1):
        return cores() if trainer["accelerator"] == "cpu" else None
    return max(1, cores() // (len(devices) if isinstance(devices, list) else devices))


def cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def to_yaml(config: Config) -> str:
    """The text of config.yaml."""
    text: str = yaml.dump(config, Dumper=_Dumper, sort_keys=False, allow_unicode=True)
    if text.isascii() and not any(each in text for each in _OTHERWISE):
        return text
    text = yaml.safe_dump(config, sort_keys=False, allow_unicode=True)
    if any(each in text for each in _LINE_BREAKS):
        return yaml.safe_dump(config, sort_keys=False, allow_unicode=False)
    return text


def from_yaml(text: str) -> Config:
    """Read config.yaml, with keys that came later switched off. References to secrets are left as they are.

    Raises:
        UserError: if it is no config of a format this version reads.
    """
    if len(text) > _MAX_TEXT:
        raise UserError(f"it has {len(text):,} characters; no config of a run has more than {_MAX_TEXT:,}")
    try:
        config = yaml.safe_load(text)
    except RecursionError as error:
        raise UserError("it is nested too deeply for a config of a run") from error
    except Exception as error:  # `!!int x` and the like end in all kinds of errors
        raise UserError(f"it is not valid YAML: {error}") from error
    check_plain(config)
    if not isinstance(config, dict) or "format" not in config:
        raise UserError("it is not a config frozen by litlab: it has no key `format`")
    if type(config["format"]) is not int or config["format"] != 1:
        raise UserError(
            f"its format is {config['format']!r}; this version of litlab reads format 1; a newer litlab may read it"
        )
    return with_later_keys(config)
