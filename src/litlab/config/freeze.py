"""From a composed config to the frozen one: plain, resolved, complete; only secrets stay references."""

import hashlib
import json
import os
from collections.abc import Collection
from enum import Enum
from pathlib import Path
from typing import Any

import yaml
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from litlab.config.schema import SECTIONS
from litlab.config.secrets import keep_references, masked, unresolvable
from litlab.config.suggestions import GROUPS, GROUPS_OF_MANY
from litlab.config.tree import Config, check_plain
from litlab.config.validate import validate
from litlab.errors import UserError
from litlab.runs.directory import FORMAT

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
    """Read config.yaml. References to secrets are left as they are.

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
    if type(config["format"]) is not int or config["format"] != FORMAT:
        raise UserError(f"its format is {config['format']!r}: this version of litlab reads format {FORMAT} only")
    return config


# Where a run computes, writes and reads; not what it computes.
VOLATILE = (
    "name", "threads", "study", "logger", "checkpoint",
    "data.root", "data.cache", "data.url", "data.storage", "data.num_workers",
    "trainer.accelerator", "trainer.devices", "trainer.num_nodes", "trainer.strategy",
    "trainer.log_every_n_steps", "trainer.profiler",
)  # fmt: skip
ORIGIN = ("data.root", "data.url")  # of these, what says where the images come from


def identity(config: dict[str, Any]) -> str:
    """SHA-256 of a frozen config without the volatile keys, except those that its study sweeps."""
    kept = _counting(config, "", swept(config), False)
    return hashlib.sha256(json.dumps(kept, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


def swept(config: dict[str, Any]) -> list[str]:
    """What the study of a run sweeps, as places in its config; configs from before there were studies don't say.

    A group without a place of its own, such as `experiment`, may set anything: then all volatile keys are swept, but
    for the study itself and `threads`, which is settled later.
    """
    study = config.get("study")
    keys = study.get("swept") if isinstance(study, dict) else None
    places = [place(str(key)) for key in keys] if isinstance(keys, list) else []
    is_anywhere = any(each.partition(".")[0] not in config for each in places)
    return [*places, *(key for key in VOLATILE if is_anywhere and key not in ("study", "threads"))]


def place(key: str) -> str:
    """Where in the config an override has its effect: `+model@net` and `data/augment` are net and data.augment."""
    group, _, package = key.lstrip("+~").partition("@")
    return (package or group).replace("/", ".")


def _counting(node: Any, path: str, swept: Collection[str], volatile: bool) -> Any:
    """A copy with what counts; inside a volatile node only what is swept."""
    if not isinstance(node, dict):
        return node
    kept = {}
    for key, value in node.items():
        here = f"{path}.{key}" if path else str(key)
        if here in swept:
            kept[key] = value
        elif not (volatile or here in VOLATILE):
            kept[key] = _counting(value, here, swept, False)
        elif isinstance(value, dict) and any(each.startswith(f"{here}.") for each in swept):
            kept[key] = _counting(value, here, swept, True)
    return kept


_RECORDED = ["run", "sweep", "launcher", "sweeper", "overrides", "job", "runtime", "mode"]  # of hydra.yaml
_BOOLS = ("y", "yes", "n", "no", "true", "false", "on", "off")


def hydra_record(composed: DictConfig) -> dict[str, str]:
    """The files of `.hydra/`, as tools that read Hydra's output expect them; config.yaml stays unresolved there."""
    settings = HydraConfig.get()
    return {
        "config.yaml": _to_yaml(composed),
        "hydra.yaml": _to_yaml({"hydra": {key: getattr(settings, key) for key in _RECORDED}}),
        "overrides.yaml": _to_yaml(settings.overrides.task),
    }


class _HydraDumper(getattr(yaml, "CSafeDumper", yaml.SafeDumper)):  # type: ignore[misc]  # libyaml's is ten times as quick
    """Writes texts so that OmegaConf reads them as texts: it takes more for numbers and bools than others do."""

    def text(self, value: str) -> yaml.ScalarNode:
        quotes = "'" if value.lower() in _BOOLS or _is_number(value) else None
        node: yaml.ScalarNode = self.represent_scalar("tag:yaml.org,2002:str", value, style=quotes)
        return node


_HydraDumper.add_representer(str, _HydraDumper.text)


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def _to_yaml(record: Any) -> str:
    """Unresolved, and without the secrets that somebody wrote into Hydra's own keys."""
    text: str = yaml.dump(masked(_unresolved(record)), Dumper=_HydraDumper, sort_keys=False, allow_unicode=True)
    return text


def _unresolved(record: Any) -> Any:
    if OmegaConf.is_config(record):
        return OmegaConf.to_container(record, resolve=False, enum_to_str=True)
    if isinstance(record, dict):
        return {key: _unresolved(value) for key, value in record.items()}
    return record.name if isinstance(record, Enum) else record
