"""The files of `.hydra/`: Hydra's own record of a job, for tools that read it."""

from enum import Enum
from typing import Any

import yaml
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf

from litlab.config.literals import masked

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


class _Dumper(getattr(yaml, "CSafeDumper", yaml.SafeDumper)):  # type: ignore[misc]  # libyaml's is ten times as quick
    """Writes texts so that OmegaConf reads them as texts: it takes more for numbers and bools than others do."""

    def text(self, value: str) -> yaml.ScalarNode:
        quotes = "'" if value.lower() in _BOOLS or _is_number(value) else None
        node: yaml.ScalarNode = self.represent_scalar("tag:yaml.org,2002:str", value, style=quotes)
        return node


_Dumper.add_representer(str, _Dumper.text)


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def _to_yaml(record: Any) -> str:
    """Unresolved, and without the secrets that somebody wrote into Hydra's own keys."""
    text: str = yaml.dump(masked(_unresolved(record)), Dumper=_Dumper, sort_keys=False, allow_unicode=True)
    return text


def _unresolved(record: Any) -> Any:
    if OmegaConf.is_config(record):
        return OmegaConf.to_container(record, resolve=False, enum_to_str=True)
    if isinstance(record, dict):
        return {key: _unresolved(value) for key, value in record.items()}
    return record.name if isinstance(record, Enum) else record
