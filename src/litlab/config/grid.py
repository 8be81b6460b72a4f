"""Grids: the axes of a multirun in Hydra's grammar, expanded to the overrides of each job."""

import itertools
from collections.abc import Mapping, Sequence
from typing import Any

from hydra._internal.config_loader_impl import ConfigLoaderImpl
from hydra.core.config_loader import ConfigLoader
from hydra.core.override_parser.types import Override, ValueType
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf

from litlab.config.hydra_errors import parse_overrides
from litlab.config.tree import bare_key, did_you_mean
from litlab.errors import UserError
from litlab.runs.files import as_mapping
from litlab.runs.redact import has_credentials, is_secret_key

_PAIRED = "hydra.sweeper.paired"
_EXAMPLE = f"{_PAIRED}=[optimizer.lr,data.batch_size]"


def expand_grid(
    arguments: Sequence[str], params: Mapping[str, Any], paired: Sequence[Any], loader: ConfigLoader
) -> list[list[str]]:
    """Return the overrides of each job of a grid: every combination of the values of all axes.

    The order is that of Hydra's own sweeper.

    Args:
        arguments: Overrides from the command line; of two with one key the later counts.
        params: Key -> value or axis, as `hydra.sweeper.params` has them.
        paired: Axes that vary together instead of being combined: keys, or lists of keys for several such groups.
        loader: Hydra's config loader, which knows the configs that a glob matches.

    Raises:
        UserError: For an axis without values, one that can't be counted, a glob that matches a config without a value
            that it needs, and axes that can't be paired.
    """
    axes: dict[str, list[str]] = {}  # a fixed key has one value
    swept: list[str] = []
    lines = [*(f"{key}={'null' if value is None else value}" for key, value in params.items()), *arguments]
    overrides = parse_overrides(lines, loader)
    for override in overrides:
        key = override.get_key_element()
        axes[key] = _values(override)
        swept = [other for other in swept if other != key] + ([key] if override.is_sweep_override() else [])
    for override in overrides:
        if override.value_type is ValueType.GLOB_CHOICE_SWEEP and isinstance(loader, ConfigLoaderImpl):
            _refuse_incomplete_configs(override, axes[override.get_key_element()], {*map(bare_key, axes)}, loader)
    dimensions = _dimensions(axes, _paired_keys(paired, swept))
    indices = itertools.product(*(range(len(axes[keys[0]])) for keys in dimensions))
    dimension_of = {key: number for number, keys in enumerate(dimensions) for key in keys}
    return [[f"{key}={values[index[dimension_of[key]]]}" for key, values in axes.items()] for index in indices]


def params_with_references(params: Mapping[str, Any], settings: DictConfig) -> dict[str, Any]:
    """Return resolved axes of a sweeper, in which secrets are the references of `hydra.sweeper`, not their values."""
    unresolved = as_mapping(as_mapping(OmegaConf.to_container(settings, resolve=False)).get("params"))
    return {
        key: unresolved.get(key, value) if is_secret_key(key) or has_credentials(str(value)) else value
        for key, value in params.items()
    }


def _values(override: Override) -> list[str]:
    """Return the values of an axis as texts; of a fixed override its one value."""
    if not override.is_sweep_override():
        return [override.get_value_element_as_str()]
    line = override.input_line
    if not override.is_discrete_sweep():
        raise UserError(
            f"{line}: a grid needs values that can be counted, as in a,b,c or range(0,3); "
            "an interval needs hydra/sweeper=search"
        )
    try:
        values = list(override.sweep_string_iterator())
    except (HydraException, ValueError) as error:  # a step of zero
        raise UserError(f"{line}: {error}") from error
    if not values:
        raise UserError(f"{line}: an empty axis, so there would be no job{_known_options(override)}")
    return values


def _refuse_incomplete_configs(
    glob: Override, options: list[str], set_keys: set[str], loader: ConfigLoaderImpl
) -> None:
    """Refuse a glob that matches a config with a missing value: no override could set it for this config alone."""
    group = glob.key_or_group
    incomplete: dict[str, str] = {}  # option -> missing key
    for option in options:
        config = loader.repository.load_config(f"{group}/{option}")
        if config is None or not isinstance(config.config, DictConfig):
            continue
        names = (str(name) for name in config.config if OmegaConf.is_missing(config.config, name))
        if missing := [f"{group}.{name}" for name in names if f"{group}.{name}" not in set_keys]:
            incomplete[option] = missing[0]
    if incomplete:
        excluded = ",".join(incomplete)
        excluded = f"[{excluded}]" if len(incomplete) > 1 else excluded
        problems = " and ".join(f"{group}={option} has no value for {key}" for option, key in incomplete.items())
        others = ",".join(option for option in options if option not in incomplete)
        raise UserError(
            f"{glob.input_line}: {problems}; leave out what has none, as in "
            f"'{glob.get_key_element()}=glob(*,exclude={excluded})', or name the configs: {others}"
        )


def _known_options(override: Override) -> str:
    """Return a hint for a glob that nothing matches."""
    if override.config_loader is None or override.is_range_sweep():
        return ""
    options = override.config_loader.get_group_options(override.key_or_group)
    return f"; known: {', '.join(options)}" if options else f"; there is no group {override.key_or_group}"


def _paired_keys(paired: Sequence[Any], swept: Sequence[str]) -> list[list[str]]:
    """Return the groups of paired keys, as the axes name them."""
    if not paired:
        return []
    groups = [paired] if _are_keys(paired) else paired
    if not all(_are_keys(group) for group in groups):
        raise UserError(f"{_PAIRED}={list(paired)}: expected keys, as in {_EXAMPLE}, or lists of keys")
    names = {bare_key(key): key for key in swept}
    seen: set[str] = set()
    for key in (key for group in groups for key in group):
        if key not in names:
            known = f"; swept are {', '.join(names)}" if names else ""
            hint = did_you_mean(key, names) or known
            raise UserError(f"{_PAIRED}: {key} is not swept{hint}; pair axes, as in {_EXAMPLE}")
        if key in seen:
            raise UserError(f"{_PAIRED}: {key} occurs twice; an axis is paired once")
        seen.add(key)
    return [[names[key] for key in group] for group in groups]


def _are_keys(value: Any) -> bool:
    return isinstance(value, Sequence) and not isinstance(value, str) and all(isinstance(key, str) for key in value)


def _dimensions(axes: Mapping[str, list[str]], groups: list[list[str]]) -> list[list[str]]:
    """Return the keys that vary together, in the order of the first of them."""
    for group in groups:
        if len({len(axes[key]) for key in group}) > 1:
            lengths = ", ".join(f"{bare_key(key)} has {len(axes[key])} values" for key in group)
            raise UserError(f"{_PAIRED}: paired axes need the same number of values; {lengths}")
    group_of = {key: group for group in groups for key in group}
    dimensions: list[list[str]] = []
    for key in axes:
        keys = group_of.get(key, [key])
        if keys not in dimensions:
            dimensions.append(keys)
    return dimensions
