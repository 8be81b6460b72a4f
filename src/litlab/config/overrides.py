"""What `litlab resume` may change in a frozen config: where and how long a run goes on, not what it has computed."""

import inspect
from collections.abc import Callable, Collection, Iterator
from copy import deepcopy
from dataclasses import dataclass
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.errors import OverrideParseException
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from litlab.config.compose import explain
from litlab.config.freeze import VOLATILE, _make_absolute, identity, swept, threads_per_rank
from litlab.config.schema import SECTIONS
from litlab.config.secrets import keep_references, unresolvable
from litlab.config.suggestions import GROUPS, GROUPS_OF_MANY, shown, unknown_key
from litlab.config.targets import find
from litlab.config.tree import Config, diff, get, keys, lies_under, put
from litlab.config.validate import nodes, validate
from litlab.errors import UserError


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
    said = unknown_key(key, keys(config))
    return said if "did you mean" in said or "." not in key else f"{said}\nA new key takes a plus: +{key}=..."


def _value(override: Override) -> Any:
    """The value of an override, resolved by itself; secrets stay references."""
    nested: Config = {}
    put(nested, override.key_or_group, override.value())
    try:
        given = OmegaConf.create(nested)
        resolved: Any = OmegaConf.to_container(given, resolve=True)
    except OmegaConfBaseException as error:
        raise UserError(unresolvable(error)) from error
    kept = keep_references(resolved, OmegaConf.to_container(given, resolve=False))
    return get(kept, override.key_or_group)


def _merged(before: Any, after: Any) -> Any:
    """Dicts are merged, as Hydra does it; a number that is only written in another way (0.1, 1e-1) stays as it was."""
    if isinstance(before, dict) and isinstance(after, dict):
        return before | {key: _merged(before.get(key), value) for key, value in after.items()}
    same = before == after and isinstance(before, bool) == isinstance(after, bool)
    return before if same else after


PLACES = ("name", "study")  # volatile as well, but the directory has its name from them
CHANGEABLE = tuple(key for key in VOLATILE if key not in PLACES)
LENGTH = ("trainer.max_epochs",)  # not max_steps: it may end within an epoch, whose rest would be left out
_OTHER_BITS = ("threads", "trainer.accelerator", "trainer.devices", "trainer.num_nodes", "trainer.strategy")
_ENDLESS = "litlab.optim.schedules.constant"  # the one schedule of ours that doesn't ask for the total number of steps


class AnotherExperiment(UserError):
    """The overrides would change what the run has computed so far."""


@dataclass(frozen=True)
class Change:
    """The frozen config that a run goes on with.

    Attributes:
        changed: dotted key -> [value before, value after], where they differ; `ABSENT` for a key that isn't there.
        prolongs: whether training goes on to another end.
        remarks: what the person who resumes should know, a line each.
    """

    config: Config
    changed: dict[str, list[Any]]
    prolongs: bool
    remarks: list[str]


def change(config: Config, overrides: list[str], begun: Callable[[], int]) -> Change:
    """Apply overrides in Hydra's grammar to the frozen config of a run that is resumed.

    Args:
        begun: how many epochs the run has begun; asked only where `LENGTH` is changed.

    Raises:
        AnotherExperiment: with a line for each key that can't be changed: the values, and why not.
        UserError: for overrides that can't be read, unknown keys, and values that are out of range.
    """
    after = overridden(config, overrides)
    _refuse(config, after, diff(config, after), begun)
    validate(after)
    if after["threads"] is None and config["threads"] is not None:
        after["threads"] = threads_per_rank(after["trainer"])
    _make_absolute(after["data"])
    changed = diff(config, after)
    prolongs = any(key in LENGTH for key in changed)
    return Change(after, changed, prolongs, _remarks(after, changed, prolongs))


def in_words(key: str, before: Any, after: Any) -> str:
    """One change, as `key: before -> after`."""
    return f"{key}: {shown(before)} -> {shown(after)}"


def _refuse(before: Config, after: Config, changed: dict[str, list[Any]], begun: Callable[[], int]) -> None:
    """
    Raises:
        AnotherExperiment: with a line for each key that can't be changed.
    """
    refused = []
    for key, (old, new) in changed.items():
        why = None
        if key in LENGTH:
            why = _against_length(new, begun(), before["schedule"], before["data"])
        elif lies_under(key, *PLACES):
            why = "belongs to the place of the run, which stays where it is"
        elif not lies_under(key, *CHANGEABLE):
            why = "would make it another experiment"
        elif lies_under(key, *swept(before)):
            why = "is what its study varies, so it would be another job"
        if why:
            refused.append(f"{in_words(key, old, new)} {why}")
    if refused:
        raise AnotherExperiment("\n".join(refused))
    assert identity(_as_long_as(before, after)) == identity(before)


def _against_length(new: Any, begun: int, schedule: Config | None, data: Config) -> str | None:
    """Why training can't end there; None if it can. -1 and null mean without an end."""
    if isinstance(new, int) and 0 <= new < begun:
        return f"is less than what the run has begun already, {begun}"
    if data["_target_"] in SECTIONS and data.get("progressive_sizes"):
        return (
            "would make it another experiment: data.progressive_sizes has equal shares of all epochs, so the images of "
            "the epochs so far would have been others"
        )
    if schedule is None or not _follows_total_steps(schedule):
        return None
    return (
        f"would make it another experiment: {schedule['_target_']} follows the total number of steps, so the learning "
        "rate of every step so far would have been another (a run with schedule=constant can be prolonged)"
    )


def _follows_total_steps(schedule: Config) -> bool:
    """Whether it is given the total number of steps: it has such a parameter, and the config does not set it."""
    target = schedule["_target_"]
    if "total_steps" in schedule or target == _ENDLESS:
        return False
    if target in SECTIONS:
        return True
    try:
        return "total_steps" in inspect.signature(find(target)).parameters
    except Exception as error:  # a module of the user's own may raise anything
        raise UserError(f"schedule._target_: {target} can't be looked at: {type(error).__name__}: {error}") from error


def _as_long_as(before: Config, after: Config) -> Config:
    names = {key.rpartition(".")[2] for key in LENGTH}
    trainer = {key: value for key, value in after["trainer"].items() if key not in names}
    return after | {"trainer": trainer | {key: before["trainer"][key] for key in names & before["trainer"].keys()}}


def _remarks(config: Config, changed: Collection[str], prolongs: bool) -> list[str]:
    remarks = []
    target = config["data"]["_target_"]
    if any(key in _OTHER_BITS for key in changed) or ("data.num_workers" in changed and target not in SECTIONS):
        stream = "the stream of samples stays the same" if target in SECTIONS else f"the samples are up to {target}"
        remarks.append(f"on other devices or threads {stream}, but the last bits of the weights may differ")
    foreign = [
        node["_target_"]
        for path, node in nodes(config)
        if path.partition(".")[0] in ("task", "callbacks") and node["_target_"] not in SECTIONS
    ]
    if prolongs and foreign:
        remarks.append(f"whether {', '.join(foreign)} went by the length of the training can't be seen from here")
    return remarks
