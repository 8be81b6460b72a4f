"""Checks a resolved config and says everything that is wrong with it at once."""

from collections.abc import Iterable
from typing import Any

from pydantic import ValidationError

from litlab.config.schema import SECTIONS, Root, Section, Trainer, validation_metrics
from litlab.config.suggestions import GROUPS, GROUPS_OF_MANY, nearest, shown, unknown_key
from litlab.config.tree import Config, check_plain, walk
from litlab.errors import UserError

MISSING = "???"
_READ_BY_US = ("accelerator", "devices", "num_nodes")


def validate(config: Config) -> None:
    """Check every key of ours, and of the classes listed in `schema.SECTIONS`, in a resolved config.

    Raises:
        UserError: with a line for each problem: the key, what was found, what was expected, the nearest match.
    """
    check_plain(config)
    if not isinstance(config, dict):
        raise UserError(f"expected a config, found a {type(config).__name__}")
    problems = [f"{key}: a value is missing; set {key}=..." for key, value in walk(config) if value == MISSING]
    problems += _check("", config, Root)
    for path, node in nodes(config):
        problems += _check_node(path, node)
    if not problems:
        problems = _across(config)
    if problems:
        raise UserError("\n".join(dict.fromkeys(problems)))


def check_settings(path: str, settings: Config, section: type[Section]) -> None:
    """Check settings that are Hydra's, not a run's, such as those of a launcher.

    Raises:
        UserError: with a line for each problem.
    """
    if problems := _check(path, settings, section):
        raise UserError("\n".join(problems))


def nodes(config: Config) -> Iterable[tuple[str, Config]]:
    """The parts of a config that name a class: (dotted path, node)."""
    for group in GROUPS:
        if isinstance(config.get(group), dict):
            yield group, config[group]
    task = config.get("task")
    metrics = task.get("metrics") if isinstance(task, dict) and task.get("_target_") in SECTIONS else None
    many = {group: config.get(group) for group in GROUPS_OF_MANY} | {"task.metrics": metrics}
    for group, members in many.items():
        for name, node in members.items() if isinstance(members, dict) else ():
            if isinstance(node, dict):
                yield f"{group}.{name}", node


def _check_node(path: str, node: Config) -> list[str]:
    target = node.get("_target_")
    if not isinstance(target, str):
        return [f"{path}._target_: names the class to build, as in package.module.Class; found {target!r}"]
    section = SECTIONS.get(target)
    if section is None and target.startswith("litlab."):
        return [f"{path}._target_={target}: litlab has no such class{nearest(target, SECTIONS)}"]
    arguments = {key: value for key, value in node.items() if key != "_target_"}
    if section is None and path == "trainer":
        return _check_read_by_us(arguments)
    return _check(path, arguments, section) if section else []


def _check_read_by_us(arguments: Config) -> list[str]:
    """Of a foreign Trainer, what the number of processes depends on."""
    known = {name: arguments[name] for name in _READ_BY_US if name in arguments}
    ours = tuple(f"trainer.{name}" for name in _READ_BY_US)
    return [line for line in _check("trainer", known, Trainer) if line.startswith(ours)]


def _check(path: str, values: Config, section: type[Section]) -> list[str]:
    try:
        section.model_validate(values)
    except ValidationError as error:
        found: dict[str, list[str]] = {}  # several, where a value may be of several types
        for item in error.errors(include_url=False):
            key, expected = _explain(path, dict(item), section)
            found.setdefault(key, []).append(expected)
        return [key + ", or ".join(expected).replace(", or expected", ", or") for key, expected in found.items() if key]
    return []


def _explain(path: str, item: dict[str, Any], section: type[Section]) -> tuple[str, str]:
    """The key with what was found there, and what was expected."""
    keys = [str(part) for part in item["loc"] if _is_key(part)]
    key = ".".join([path, *keys] if path else keys)
    if item["input"] == MISSING:
        return "", ""  # said already
    if item["type"] == "extra_forbidden":
        return unknown_key(key, [f"{path}.{name}" if path else name for name in section.model_fields]), ""
    if item["type"] == "missing":
        return f"{key}: a value is missing; set {key}=...", ""
    said = item["msg"].removeprefix("Value error, ").replace("Input should be", "expected")
    return f"{key}={shown(item['input'])}: ", said[0].lower() + said[1:]


def _is_key(part: object) -> bool:
    """Pydantic adds the member of a union to the location; those names hold brackets or are types."""
    return isinstance(part, int) or (isinstance(part, str) and part.isidentifier() and part not in _TYPE_NAMES)


_TYPE_NAMES = {"int", "float", "str", "bool", "none"}


def _across(config: Config) -> list[str]:
    """What no single key can tell."""
    problems = []
    data, trainer, objective = config["data"], config["trainer"], config.get("objective")
    metrics = validation_metrics(config["task"])
    if objective and config["task"]["_target_"] in SECTIONS and objective["metric"] not in metrics:
        hint = nearest(objective["metric"], metrics)
        known = ", ".join(metrics)
        problems.append(f"objective.metric={objective['metric']}: is not measured in validation{hint}; known: {known}")
    if data.get("progressive_sizes") and data["_target_"] in SECTIONS and trainer.get("max_epochs") in (None, -1):
        problems.append(
            "data.progressive_sizes: each has an equal share of the epochs, so it must be known how many there are; "
            "set trainer.max_epochs=N"
        )
    devices = trainer.get("devices")
    batch_size = data.get("batch_size") if data["_target_"] in SECTIONS else None  # a foreign one may count per device
    ranks = (len(devices) if isinstance(devices, list) else devices) if devices not in ("auto", -1) else None
    if isinstance(ranks, int) and isinstance(batch_size, int):
        world = ranks * int(trainer.get("num_nodes", 1))
        if batch_size % world:
            near = sorted({max(world, batch_size // world * world), -(-batch_size // world) * world})
            problems.append(
                f"data.batch_size={batch_size}: it counts the images of all devices together, so {world} devices must "
                f"divide it; use {' or '.join(map(str, near))}"
            )
    return problems
