"""What a grid sweeps: from overrides in Hydra's grammar to those of each job, in the order of Hydra's own sweeper."""

import itertools
from collections.abc import Mapping, Sequence
from typing import Any

from hydra.core.config_loader import ConfigLoader
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.errors import HydraException, OverrideParseException
from omegaconf import DictConfig, OmegaConf

from litlab.config.compose import explain, plain_key
from litlab.config.secrets import names_secret
from litlab.config.suggestions import nearest
from litlab.errors import UserError
from litlab.runs.redact import has_credentials

_PAIRED = "hydra.sweeper.paired"
_EXAMPLE = f"{_PAIRED}=[optimizer.lr,data.batch_size]"


def grid(
    arguments: Sequence[str], params: Mapping[str, Any], paired: Sequence[Any], loader: ConfigLoader
) -> list[list[str]]:
    """The overrides of each job of a grid: every combination of the values of all axes.

    Args:
        arguments: overrides from the command line; of two with one key the later counts.
        params: key -> value or axis, as `hydra.sweeper.params` has them.
        paired: axes that are walked together instead of being crossed: keys, or lists of keys for several such groups.
        loader: knows the configs that a glob matches.

    Raises:
        UserError: for an axis without values, one that can't be counted, and axes that can't be paired.
    """
    axes: dict[str, list[str]] = {}  # of a fixed key with one value
    swept: list[str] = []
    for override in _parsed([*(f"{key}={_text(value)}" for key, value in params.items()), *arguments], loader):
        key = override.get_key_element()
        axes[key] = _values(override)
        swept = [each for each in swept if each != key] + ([key] if override.is_sweep_override() else [])
    dimensions = _dimensions(axes, _groups(paired, swept))
    walks = itertools.product(*(range(len(axes[keys[0]])) for keys in dimensions))
    places = {key: place for place, keys in enumerate(dimensions) for key in keys}
    return [[f"{key}={values[walk[places[key]]]}" for key, values in axes.items()] for walk in walks]


def with_references(params: Mapping[str, Any], settings: DictConfig) -> dict[str, Any]:
    """`params` as Hydra hands them over, but secrets as `hydra.sweeper` has them: the reference, not its value."""
    found = OmegaConf.to_container(settings, resolve=False)
    written = found.get("params") if isinstance(found, dict) else None
    kept = written if isinstance(written, dict) else {}
    return {key: kept.get(key, value) if _is_kept(key, value) else value for key, value in params.items()}


def _is_kept(key: str, value: Any) -> bool:
    return names_secret(key) or has_credentials(str(value))


def _text(value: Any) -> str:
    return "null" if value is None else str(value)


def _parsed(lines: list[str], loader: ConfigLoader) -> list[Override]:
    try:
        return OverridesParser.create(config_loader=loader).parse_overrides(lines)
    except OverrideParseException as error:
        raise UserError(explain(error, lines)) from error


def _values(override: Override) -> list[str]:
    """The values of an axis as texts; of a fixed override its one value."""
    if not override.is_sweep_override():
        return [override.get_value_element_as_str()]
    said = override.input_line
    if not override.is_discrete_sweep():
        raise UserError(
            f"{said}: a grid needs values that can be counted, as in a,b,c or range(0,3); "
            "an interval needs hydra/sweeper=search"
        )
    try:
        values = list(override.sweep_string_iterator())
    except (HydraException, ValueError) as error:  # a step of zero
        raise UserError(f"{said}: {error}") from error
    if not values:
        raise UserError(f"{said}: an empty axis, so there would be no job{_choices(override)}")
    return values


def _choices(override: Override) -> str:
    """For a glob that nothing matches."""
    if override.config_loader is None or override.is_range_sweep():
        return ""
    options = override.config_loader.get_group_options(override.key_or_group)
    return f"; known: {', '.join(options)}" if options else f"; there is no group {override.key_or_group}"


def _groups(paired: Sequence[Any], swept: Sequence[str]) -> list[list[str]]:
    """The groups of paired keys, as the axes are called."""
    if not paired:
        return []
    groups = [paired] if _are_keys(paired) else paired
    if not all(_are_keys(group) for group in groups):
        raise UserError(f"{_PAIRED}={list(paired)}: expected keys, as in {_EXAMPLE}, or lists of keys")
    names = {plain_key(key): key for key in swept}
    found: list[str] = []
    for key in (key for group in groups for key in group):
        if key not in names:
            known = f"; swept are {', '.join(names)}" if names else ""
            raise UserError(f"{_PAIRED}: {key} is not swept{nearest(key, names) or known}; pair axes, as in {_EXAMPLE}")
        if key in found:
            raise UserError(f"{_PAIRED}: {key} stands there twice; an axis is paired once")
        found.append(key)
    return [[names[key] for key in group] for group in groups]


def _are_keys(value: Any) -> bool:
    return isinstance(value, Sequence) and not isinstance(value, str) and all(isinstance(each, str) for each in value)


def _dimensions(axes: Mapping[str, list[str]], groups: list[list[str]]) -> list[list[str]]:
    """The keys that are walked together, at the place of the first of them."""
    for group in groups:
        if len({len(axes[key]) for key in group}) > 1:
            lengths = ", ".join(f"{plain_key(key)} has {len(axes[key])} values" for key in group)
            raise UserError(f"{_PAIRED}: paired axes need as many values each; {lengths}")
    of_key = {key: group for group in groups for key in group}
    dimensions: list[list[str]] = []
    for key in axes:
        keys = of_key.get(key, [key])
        if keys not in dimensions:
            dimensions.append(keys)
    return dimensions
