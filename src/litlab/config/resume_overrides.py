"""Overrides of the frozen config of a run that is resumed, as far as they keep what it has computed so far."""

from collections.abc import Callable, Collection, Iterator
from copy import deepcopy
from dataclasses import dataclass
from typing import Any

from hydra.core.override_parser.types import Override
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from litlab.config.freeze import make_paths_absolute, threads_per_rank
from litlab.config.hydra_errors import explain_interpolation_error, parse_overrides
from litlab.config.identity import swept_keys, volatile_keys
from litlab.config.schema import SECTIONS
from litlab.config.secrets import keep_references
from litlab.config.targets import needs_total_steps
from litlab.config.tree import (
    GROUPS,
    MAPPING_GROUPS,
    Config,
    diff,
    format_change,
    get,
    keys,
    lies_under,
    nodes,
    put,
    unknown_key_message,
)
from litlab.config.validate import validate
from litlab.errors import UserError

LOCATION_KEYS = ("name", "study")  # volatile, but the run directory is named after them
LENGTH_KEYS = ("trainer.max_epochs",)  # not max_steps: it may end within an epoch, whose rest would be left out
_NUMERICS_KEYS = ("threads", "trainer.accelerator", "trainer.devices", "trainer.num_nodes", "trainer.strategy")
_AVERAGING = ("WeightAveraging", "EMAWeightAveraging")  # callbacks of Lightning


class AnotherExperiment(UserError):
    """The overrides would change what the run has computed so far."""


@dataclass(frozen=True)
class ConfigChange:
    """The frozen config that a run resumes with, and notes for the user.

    Attributes:
        changed: Dotted key -> [value before, value after] where they differ; `tree.ABSENT` for a missing key.
        extends_training: Whether training continues beyond the end that it had.
        overridden: Dotted keys that the overrides set, also those with the value that they had.
    """

    config: Config
    changed: dict[str, list[Any]]
    extends_training: bool
    overridden: list[str]
    notes: list[str]


def changeable_keys(config: Config) -> tuple[str, ...]:
    """Return the keys of a frozen config that may change when the run is resumed, at any of their values."""
    volatile = volatile_keys((config["data"] or {}).get("_target_"))
    return tuple(
        key for key in volatile if key not in (*LOCATION_KEYS, "init_from.path")
    )  # of weights, the copy counts


def change_config(config: Config, overrides: list[str], num_epochs_begun: Callable[[], int]) -> ConfigChange:
    """Apply overrides to the frozen config of a run that is resumed.

    Args:
        config: Frozen config of the run.
        overrides: Overrides in Hydra's grammar.
        num_epochs_begun: Returns how many epochs the run has begun; called only if `LENGTH_KEYS` are changed.

    Raises:
        AnotherExperiment: With a line for each key that can't be changed: the values and the reason.
        UserError: For overrides that can't be read, unknown keys, and values that are out of range.
    """
    after = apply_overrides(config, overrides)
    _refuse_other_experiment(config, after, num_epochs_begun)
    validate(after)
    if after["threads"] is None and config["threads"] is not None:
        after["threads"] = threads_per_rank(after["trainer"])
    if after["data"]:
        make_paths_absolute(after["data"])
    changed = diff(config, after)
    extends_training = any(key in LENGTH_KEYS for key in changed)
    overridden = [override.key_or_group for override in _parse(overrides)]
    return ConfigChange(after, changed, extends_training, overridden, _notes(after, changed, extends_training))


def apply_overrides(config: Config, overrides: list[str]) -> Config:
    """Return a copy of a frozen config with overrides applied, without checking whether they are allowed.

    Raises:
        UserError: For overrides that can't be read, an unknown key, a config group, several values, or a secret that
            is written out.
    """
    after = deepcopy(config)
    for override in _parse(overrides):
        _apply(after, override)
    return after


def _parse(overrides: list[str]) -> Iterator[Override]:
    for override in parse_overrides(overrides):
        key, line = override.key_or_group, override.input_line
        if override.is_sweep_override():
            raise UserError(f"{line}: several values; a run is resumed with one")
        if key == "hydra" or override.is_hydra_override():
            raise UserError(f"{line}: Hydra's own settings count only when a run is made")
        if override.package or (isinstance(override.value(), str) and key in (*GROUPS, *MAPPING_GROUPS)):
            raise UserError(
                f"{line}: configs are chosen when a run is made; here, single keys of its config.yaml can be set, "
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
            raise UserError(_unknown_key(config, key))
    if name not in node and not adds:
        raise UserError(_unknown_key(config, key))
    if name in node and override.is_add():
        raise UserError(f"{override.input_line}: {key} exists already; remove the +")
    if not override.is_delete():
        node[name] = _merge(node.get(name), _resolved_value(override))
    elif parents:
        del node[name]
    else:
        node[name] = None  # a frozen config has null for a group that is left out


def _unknown_key(config: Config, key: str) -> str:
    message = unknown_key_message(key, keys(config))
    if "did you mean" in message or "." not in key:
        return message
    return f"{message}\nA new key takes a plus: +{key}=..."


def _resolved_value(override: Override) -> Any:
    """Return the value of an override, resolved by itself; secrets stay references."""
    nested: Config = {}
    put(nested, override.key_or_group, override.value())
    try:
        raw = OmegaConf.create(nested)
        resolved: Any = OmegaConf.to_container(raw, resolve=True)
    except OmegaConfBaseException as error:
        raise UserError(explain_interpolation_error(error)) from error
    kept = keep_references(resolved, OmegaConf.to_container(raw, resolve=False))
    return get(kept, override.key_or_group)


def _merge(before: Any, after: Any) -> Any:
    """Merge dicts, as Hydra does it; a number that is only written in another way (0.1, 1e-1) stays as it was."""
    if isinstance(before, dict) and isinstance(after, dict):
        return before | {key: _merge(before.get(key), value) for key, value in after.items()}
    is_same = before == after and isinstance(before, bool) == isinstance(after, bool)
    return before if is_same else after


def _refuse_other_experiment(before: Config, after: Config, num_epochs_begun: Callable[[], int]) -> None:
    refused = []
    for key, (old, new) in diff(before, after).items():
        reason = None
        if key in LENGTH_KEYS:
            reason = _length_problem(new, num_epochs_begun(), before)
        elif lies_under(key, *LOCATION_KEYS):
            reason = "is part of the run's location, which can't be changed"
        elif not lies_under(key, *changeable_keys(before)):
            reason = "would make it another experiment"
        elif lies_under(key, *swept_keys(before)):
            reason = "is varied by its study, so it would be another job"
        if reason:
            refused.append(f"{format_change(key, old, new)} {reason}")
    if refused:
        raise AnotherExperiment("\n".join(refused))


def _length_problem(max_epochs: Any, num_epochs_begun: int, config: Config) -> str | None:
    """Return why training can't end there; None if it can. -1 and null mean no end."""
    schedule, data = config["schedule"], config["data"] or {"_target_": None}
    if isinstance(max_epochs, int) and 0 <= max_epochs < num_epochs_begun:
        return f"is less than the {num_epochs_begun} epochs that the run has begun already"
    if data.get("progressive_sizes"):  # of litlab's data modules, or one that inherits from them
        return (
            "would make it another experiment: data.progressive_sizes has equal shares of all epochs, so the images of "
            "the epochs so far would have been others"
        )
    if config["trainer"].get("reload_dataloaders_every_n_epochs"):
        return (
            "would make it another experiment: trainer.reload_dataloaders_every_n_epochs creates loaders at the start "
            "of an epoch, with random numbers that are not known any more after the last one"
        )
    for name, node in (config["callbacks"] or {}).items():
        if node and node["_target_"].rpartition(".")[2] in _AVERAGING and node["_target_"].startswith("lightning."):
            return (
                f"would make it another experiment: callbacks.{name} replaces the trained weights by their average "
                "where training ends (a run with callbacks=ema can be extended)"
            )
    if schedule is None or not needs_total_steps(schedule):
        return None
    return (
        f"would make it another experiment: {schedule['_target_']} follows the total number of steps, so the learning "
        "rate of every step so far would have been another (a run with schedule=constant can be extended)"
    )


def _notes(config: Config, changed: Collection[str], extends_training: bool) -> list[str]:
    notes = []
    target = (config["data"] or config["task"])["_target_"]  # without a data module, the task has the loaders
    if any(key in _NUMERICS_KEYS for key in changed) or ("data.num_workers" in changed and target not in SECTIONS):
        samples = "the stream of samples stays the same" if target in SECTIONS else f"the samples depend on {target}"
        difference = f"{samples}, but the last bits of the weights may differ"
        if target in SECTIONS and (config["data"] or {}).get("hard_fraction", 1) < 1:
            difference = "the last bits of losses may differ, and then data.hard_fraction draws other images"
        notes.append(f"on other devices or threads {difference}")
    foreign = [
        node["_target_"]
        for key, node in nodes(config)
        if lies_under(key, "task", "callbacks") and node["_target_"] not in SECTIONS
    ]
    if extends_training and foreign:
        notes.append(f"litlab can't tell whether {', '.join(foreign)} depended on the length of the training")
    return notes
