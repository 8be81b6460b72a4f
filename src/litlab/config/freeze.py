"""From a composed config to the frozen one: plain, resolved, complete; only secrets stay references."""

import os
import re
from typing import Any

import yaml
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from litlab.config.validate import GROUPS, GROUPS_OF_MANY, Config, validate
from litlab.errors import UserError

_SECRET = re.compile(
    r"(^|_)(token|secrets?|passwords?|passwd|pwd|(api|access|private)_?keys?|credentials?)($|_)", re.IGNORECASE
)
_REFERENCE = re.compile(r"^\$\{oc\.env:[^}]+\}$")


def freeze(composed: DictConfig) -> Config:
    """Resolve, check and freeze a composed config.

    Raises:
        UserError: for values that are missing, unknown, out of range, or that cannot be resolved.
    """
    try:
        resolved = OmegaConf.to_container(composed, resolve=True, throw_on_missing=False)
    except OmegaConfBaseException as error:
        raise UserError(_unresolvable(error)) from error
    assert isinstance(resolved, dict)
    left_out = {group: None for group in (*GROUPS, *GROUPS_OF_MANY) if group not in resolved}
    config: Config = {str(key): value for key, value in resolved.items()} | left_out
    validate(config)
    if config["threads"] is None:
        config["threads"] = threads_per_rank(config["trainer"])
    frozen: Config = _with_references(config, OmegaConf.to_container(composed, resolve=False), "")
    return frozen


def threads_per_rank(trainer: Config) -> int | None:
    """Cores of this process divided by the ranks of one machine; None if only the worker can count its devices."""
    devices = trainer["devices"]
    if devices in ("auto", -1):
        return cores() if trainer["accelerator"] == "cpu" else None
    return max(1, cores() // (len(devices) if isinstance(devices, list) else devices))


def cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def is_secret(key: str) -> bool:
    """Whether a key looks like one whose value must not be written down."""
    return bool(_SECRET.search(key))


def to_yaml(config: Config) -> str:
    """The text of config.yaml."""
    return yaml.safe_dump(config, sort_keys=False, allow_unicode=True)


def from_yaml(text: str) -> Config:
    """Read config.yaml. References to secrets are left as they are.

    Raises:
        UserError: if it is no config of a format this version reads.
    """
    try:
        config = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise UserError(f"it is not valid YAML: {error}") from error
    if not isinstance(config, dict) or "format" not in config:
        raise UserError("it is not a config frozen by litlab: it has no key `format`")
    if config["format"] != 1:
        raise UserError(
            f"its format is {config['format']!r}; this version of litlab reads format 1; a newer litlab may read it"
        )
    return config


def with_secrets(config: Config) -> Config:
    """A copy in which `${oc.env:NAME}` has been replaced by the environment's value: in memory only.

    Raises:
        UserError: if the environment has no such variable.
    """
    try:
        resolved = OmegaConf.to_container(OmegaConf.create(config), resolve=True)
    except OmegaConfBaseException as error:
        raise UserError(_unresolvable(error)) from error
    assert isinstance(resolved, dict)
    return {str(key): value for key, value in resolved.items()}


def _with_references(value: Any, raw: Any, path: str, secret: bool = False) -> Any:
    """Put the reference back where a key, or one above it, looks like a secret."""
    if isinstance(value, dict):
        raw = raw if isinstance(raw, dict) else {}
        return {
            key: _with_references(item, raw.get(key), f"{path}.{key}", secret or is_secret(str(key)))
            if key != "_target_"
            else item
            for key, item in value.items()
        }
    if isinstance(value, list):
        raw = raw if isinstance(raw, list) else []
        padded = raw + [None] * (len(value) - len(raw))
        return [_with_references(item, padded[i], f"{path}.{i}", secret) for i, item in enumerate(value)]
    return _reference(value, raw, path) if secret else value


def _reference(value: Any, raw: Any, path: str) -> Any:
    if value is None or isinstance(value, bool):  # `token: true` says whether to use one
        return value
    if isinstance(raw, str) and _REFERENCE.match(raw):
        return raw
    raise UserError(
        f"{path.lstrip('.')}: looks like a secret, and a run directory is made to be shared. "
        f"Put the value into an environment variable and write '${{oc.env:NAME}}'"
    )


def _unresolvable(error: OmegaConfBaseException) -> str:
    key = getattr(error, "full_key", None) or "config"
    return f"{key}: cannot be resolved: {str(error).splitlines()[0]}"
