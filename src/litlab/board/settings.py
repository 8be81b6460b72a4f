"""Which settings tell a run from others, in the types that TensorBoard's HParams page knows."""

import json
from typing import Any

from litlab.config.identity import VOLATILE, place
from litlab.masking import is_secret, redact
from litlab.runs.directory import RunDirectory, open_regular

Config = dict[str, Any]
Setting = bool | float | str
_LONGEST = 500  # characters of a text


def settings_of(run: RunDirectory, config: Config) -> dict[str, Setting]:
    """Key as it was typed -> value: of a job what its study sweeps, of a single run what its command set, and the seed.

    A choice of a group is the name that was chosen. What is null is left out, since a cell can be blank, but not null;
    so are secrets.

    Args:
        config: the frozen config, which holds no values of secrets.
    """
    choices = _choices(run)
    study = config.get("study")
    keys = study.get("swept") if isinstance(study, dict) else None
    swept = [str(key) for key in keys] if isinstance(keys, list) else []
    found = {}
    for key in swept or [*(key for key in choices if not _is_elsewhere(key)), "seed"]:
        value = setting(_value(config, key, choices))
        if value is not None and not any(is_secret(part) for part in place(key).split(".")):
            found[key.lstrip("+")] = value
    return found


def _choices(run: RunDirectory) -> dict[str, str]:
    """Key -> text of the overrides that Hydra recorded; none if its record is gone or damaged: nothing rests on it."""
    import yaml

    try:
        with open_regular(run.path / ".hydra" / "overrides.yaml") as file:
            overrides = yaml.safe_load(file.read())
    except (OSError, ValueError, RecursionError, yaml.YAMLError):
        return {}
    pairs = [str(each).partition("=") for each in overrides] if isinstance(overrides, list) else []
    return {key.lstrip("+"): value for key, equals, value in pairs if equals and not key.startswith("~")}


def _is_elsewhere(key: str) -> bool:
    """Whether a key says where a run computes and writes, as `trainer=gpu` does, and not what it computes."""
    where = place(key)
    return where == "trainer" or any(f"{where}.".startswith(f"{each}.") for each in (*VOLATILE, "hydra"))


def _value(config: Config, key: str, choices: dict[str, str]) -> Any:
    """The value in the config, or the text of the choice where there is a whole node or nothing."""
    node: Any = config
    for name in place(key).split("."):
        if not isinstance(node, dict) or name not in node:
            return choices.get(key.lstrip("+"))
        node = node[name]
    return choices.get(key.lstrip("+")) if isinstance(node, dict) else node


def setting(value: Any) -> Setting | None:
    """A value in a type that the page knows; None if it is null, or nothing that can be written."""
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, int | float) and abs(value) < 1e308:  # the page's JSON has no infinity, nor longer numbers
        return value
    try:
        text = value if isinstance(value, str) else json.dumps(value, separators=(",", ":"), default=str)
    except (TypeError, ValueError, RecursionError):  # a stranger's config may hold itself
        return None
    return redact(text).encode(errors="replace").decode()[:_LONGEST]
