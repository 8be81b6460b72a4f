"""Overrides in Hydra's grammar, applied to a frozen config instead of to one that is being composed."""

from collections.abc import Iterator
from copy import deepcopy
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.errors import OverrideParseException
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from litlab.config.compose import explain
from litlab.config.secrets import keep_references, unresolvable
from litlab.config.words import GROUPS, GROUPS_OF_MANY, unknown_key
from litlab.errors import UserError

Config = dict[str, Any]


def overridden(config: Config, overrides: list[str]) -> Config:
    """A copy of a frozen config with other values; whether these are allowed is not looked at.

    Raises:
        UserError: for what can't be read, an unknown key, a group, several values, or a secret that is no reference.
    """
    after = deepcopy(config)
    for override in _parsed(overrides):
        _apply(after, override)
    return after


def _parsed(overrides: list[str]) -> Iterator[Override]:
    try:
        parsed = OverridesParser.create().parse_overrides(overrides)
    except OverrideParseException as error:
        raise UserError(explain(error, overrides)) from error
    for override in parsed:
        key, said = override.key_or_group, override.input_line
        if override.is_sweep_override():
            raise UserError(f"{said}: several values; a run goes on with one")
        if key == "hydra" or override.is_hydra_override():
            raise UserError(f"{said}: Hydra's own settings count only when a run is made")
        if override.package or (isinstance(override.value(), str) and key in (*GROUPS, *GROUPS_OF_MANY)):
            raise UserError(
                f"{said}: configs are chosen when a run is made; here, single keys of its config.yaml can be set, "
                "as in trainer.devices=2"
            )
        yield override


def _apply(config: Config, override: Override) -> None:
    """Set, add or delete one key, as Hydra does it when it composes."""
    key = override.key_or_group
    *parents, name = key.split(".")
    adds = override.is_add() or override.is_force_add()
    node: Any = config
    for parent in parents:
        if adds and node.get(parent) is None:
            node[parent] = {}
        node = node.get(parent)
        if not isinstance(node, dict):
            raise UserError(_unknown(config, key))
    if name not in node and not adds:
        raise UserError(_unknown(config, key))
    if name in node and override.is_add():
        raise UserError(f"{override.input_line}: {key} is there already; leave out the plus")
    if not override.is_delete():
        node[name] = _merged(node.get(name), _value(override))
    elif parents:
        del node[name]
    else:
        node[name] = None  # what a frozen config has for a group that is left out


def _unknown(config: Config, key: str) -> str:
    said = unknown_key(key, _keys(config))
    return said if "did you mean" in said or "." not in key else f"{said}\nA new key takes a plus: +{key}=..."


def _keys(node: Config, path: str = "") -> Iterator[str]:
    """Dotted names of all keys."""
    for key, value in node.items():
        here = f"{path}.{key}" if path else str(key)
        yield here
        if isinstance(value, dict):
            yield from _keys(value, here)


def _value(override: Override) -> Any:
    """The value of an override, resolved by itself; secrets stay references."""
    path = override.key_or_group.split(".")
    nested: Any = override.value()
    for key in reversed(path):
        nested = {key: nested}
    try:
        given = OmegaConf.create(nested)
        resolved: Any = OmegaConf.to_container(given, resolve=True)
    except OmegaConfBaseException as error:
        raise UserError(unresolvable(error)) from error
    kept: Any = keep_references(resolved, OmegaConf.to_container(given, resolve=False))
    for key in path:
        kept = kept[key]
    return kept


def _merged(before: Any, after: Any) -> Any:
    """Dicts are merged, as Hydra does it; a number that is only written in another way (0.1, 1e-1) stays as it was."""
    if isinstance(before, dict) and isinstance(after, dict):
        return before | {key: _merged(before.get(key), value) for key, value in after.items()}
    same = before == after and isinstance(before, bool) == isinstance(after, bool)
    return before if same else after
