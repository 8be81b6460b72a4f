"""What Hydra needs to know of litlab, and Hydra's own errors in words for the user."""

import re
import secrets
from typing import Any

from hydra.core.global_hydra import GlobalHydra
from hydra.errors import HydraException, MissingConfigException, OverrideParseException
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from litlab.config.location import cache_root
from litlab.config.validate import unknown_key

ROOT = "config"  # conf/config.yaml
_OVERRIDDEN = re.compile(r"Could not (?:override|append to|delete from)[^']*'([^']+)'")
_UNFIT = re.compile(r"[^A-Za-z0-9_.+-]+")


def register_resolvers() -> None:
    """The `${litlab.*:}` functions of conf/config.yaml and conf/data/."""
    OmegaConf.register_new_resolver("litlab.cache", lambda: str(cache_root()), replace=True)
    OmegaConf.register_new_resolver("litlab.id", lambda: secrets.token_hex(3), replace=True, use_cache=True)
    OmegaConf.register_new_resolver("litlab.study", _study, replace=True)
    OmegaConf.register_new_resolver("litlab.job", _job, replace=True)


def _study(study: str | None, name: str, time: str) -> str:
    """A named study has a directory of its own; any other multirun gets a new one."""
    return study or f"{name}/multirun_{time}"


def _job(number: int, overrides: str) -> str:
    """`0007_lr-0.1_seed-3`: the number, then the last part of each key with its value, free of Hydra's grammar."""
    settings = [item.partition("=") for item in re.split(r",(?=[\w.+~/@]+=)", overrides) if item]
    short = [f"{key.rpartition('.')[2].rpartition('/')[2]}-{value}" for key, _, value in settings]
    return "_".join([f"{int(number):04d}", *(_UNFIT.sub("-", item).strip("-") for item in short)])[:120]


def explain(error: HydraException | OmegaConfBaseException) -> str:
    """A composition error in our words: the key, what was expected, the nearest match."""
    if isinstance(error, OverrideParseException):
        return f"{error.override}: cannot be read as an override; expected key=value\n{error.message}"
    if isinstance(error, MissingConfigException) and error.missing_cfg_file:
        return _unknown_config(error)
    text = str(error)
    cause = error.__cause__
    if overridden := _OVERRIDDEN.search(text):
        line = _unknown_override(overridden[1])
        return line if line else f"{text.splitlines()[0]}" + (f"\n{str(cause).splitlines()[0]}" if cause else "")
    key = getattr(cause, "full_key", None)
    first = (str(cause) if isinstance(cause, OmegaConfBaseException) else text).splitlines()[0]
    return f"{key}: {first}" if key else first


def _unknown_config(error: MissingConfigException) -> str:
    group, _, option = str(error.missing_cfg_file).rpartition("/")
    options = sorted(error.options or [])
    if not group or not options:
        return str(error).splitlines()[0]
    nearest = unknown_key(option, options).partition("; ")[2]
    listed = "" if nearest.startswith("known here") else f" Known: {', '.join(options)}"
    return f"{group}={option}: no such config; {nearest}{listed}"


def _unknown_override(key: str) -> str:
    """For a key that isn't there: the nearest one that is, among keys and groups; empty if the key is there."""
    plain = key.lstrip("+~").partition("@")[0]
    loader = GlobalHydra.instance().config_loader()
    config = loader.load_configuration(ROOT, overrides=[], run_mode=RunMode.RUN)
    known = [*(name for name in _flat(config) if not name.startswith("hydra.")), *loader.list_groups("")]
    if plain in known:
        return ""
    extra = ""
    if plain.partition(".")[0] in ("trainer", "model", "optimizer", "schedule", "data", "task", "callbacks", "logger"):
        extra = f"\nAn argument that the class has, but its YAML doesn't: write +{plain}=..."
    return unknown_key(plain, known) + extra


def _flat(node: Any, path: str = "") -> list[str]:
    """Dotted names of all keys, without resolving anything."""
    if not isinstance(node, DictConfig) or node._is_none() or node._is_missing() or node._is_interpolation():
        return [path]
    children = [name for key in node for name in _flat(node._get_node(key), f"{path}.{key}" if path else str(key))]
    return [*([path] if path else []), *children]


