"""Config trees: nested dicts and lists, addressed by dotted keys such as `optimizer.lr`.

Imports nothing heavy, so that `litlab --help` is quick.
"""

import difflib
from collections.abc import Callable, Iterable, Iterator
from sys import intern
from typing import Any

from litlab.errors import UserError

Config = dict[str, Any]

GROUPS = ("data", "model", "task", "optimizer", "schedule", "trainer")
MAPPING_GROUPS = ("callbacks", "logger")  # name -> node, instead of one node
NULL_GROUPS = {f"{group}=null": f"~{group}" for group in (*GROUPS, *MAPPING_GROUPS)}  # for Hydra, null is no config
ROOT_VALUES = ("seed", "name", "threads")  # keys of the root that can vary and are no groups
ABSENT = "not set"  # stands for a missing value in a diff
MAX_DEPTH = 100  # levels; litlab's own configs have five
MAX_VALUES = 100_000  # YAML aliases count each time: a few lines of YAML can expand to billions of values


def join(parent: str, key: object) -> str:
    """Return the dotted key of a child."""
    return f"{parent}.{key}" if parent else str(key)


def children(node: Any) -> Iterable[tuple[Any, Any]]:
    """Return the (key or index, value) pairs of a mapping or list; nothing for any other value."""
    return node.items() if isinstance(node, dict) else enumerate(node) if isinstance(node, list) else ()


def walk(node: Any, key: str = "") -> Iterator[tuple[str, Any]]:
    """Yield (dotted key, value) of a node and of everything below it, parents first, lists included."""
    yield key, node
    for name, value in children(node):
        yield from walk(value, join(key, name))


def keys(config: Config, parent: str = "") -> Iterator[str]:
    """Yield the dotted key of every entry of nested mappings, parents first; lists are not entered."""
    for name, value in config.items():
        key = join(parent, name)
        yield key
        if isinstance(value, dict):
            yield from keys(value, key)


def flatten(config: Config, parent: str = "") -> dict[str, Any]:
    """Map dotted keys to values. Lists and empty mappings count as values."""
    flat: dict[str, Any] = {}
    for name, value in config.items():
        key = join(parent, name)
        if isinstance(value, dict) and value:
            flat.update(flatten(value, key))
        else:
            flat[intern(key)] = value  # thousands of runs share their keys
    return flat


def map_values(function: Callable[[str, Any], Any], node: Any, key: str = "") -> Any:
    """Return a copy in which `function(dotted key, value)` replaces each value that is no mapping or list."""
    if isinstance(node, dict):
        return {name: map_values(function, value, join(key, name)) for name, value in node.items()}
    if isinstance(node, list):
        return [map_values(function, value, join(key, index)) for index, value in enumerate(node)]
    return function(key, node)


def diff(before: Any, after: Any, key: str = "") -> dict[str, list[Any]]:
    """Map the dotted key of each value that differs to [before, after]; `ABSENT` for a missing one.

    Values of different types differ, such as 1 and 1.0. Lists are compared as a whole.
    """
    if isinstance(before, dict) and isinstance(after, dict):
        changed: dict[str, list[Any]] = {}
        for name in {**before, **after}:
            changed |= diff(before.get(name, ABSENT), after.get(name, ABSENT), join(key, name))
        return changed
    return {} if repr(before) == repr(after) else {key: [before, after]}


def lies_under(key: str, *parents: str) -> bool:
    """Return whether a dotted key is one of `parents` or lies below one."""
    return any(key == parent or key.startswith(f"{parent}.") for parent in parents)


def get(config: Any, key: str, default: Any = None) -> Any:
    """Return the value at a dotted key of nested mappings, or `default` if there is none."""
    node = config
    for name in key.split("."):
        if not isinstance(node, dict) or name not in node:
            return default
        node = node[name]
    return node


def put(config: Config, key: str, value: Any) -> None:
    """Set the value at a dotted key. Mappings on the way are created where there are none."""
    *parents, name = key.split(".")
    for parent in parents:
        if not isinstance(config.get(parent), dict):
            config[parent] = {}
        config = config[parent]
    config[name] = value


def bare_key(key: str) -> str:
    """Return the key of an override without its prefix: `+model@net` -> `model@net`."""
    return key.lstrip("+~")


def config_key(key: str) -> str:
    """Return the dotted config key that an override sets: `+model@net` -> `net`, `data/augment` -> `data.augment`."""
    group, _, package = bare_key(key).partition("@")
    return (package or group).replace("/", ".")


def nodes(config: Config) -> Iterator[tuple[str, Config]]:
    """Yield (dotted key, node) of the parts of a config that name a class."""
    for group in GROUPS:
        if isinstance(config.get(group), dict):
            yield group, config[group]
    mappings = {group: config.get(group) for group in MAPPING_GROUPS}
    if str(get(config, "task._target_")).startswith("litlab."):
        mappings["task.metrics"] = get(config, "task.metrics")
        if isinstance(loss := get(config, "task.loss"), dict):
            yield "task.loss", loss
    for group, members in mappings.items():
        for name, node in members.items() if isinstance(members, dict) else ():
            if isinstance(node, dict):
                yield f"{group}.{name}", node


def format_value(value: object) -> str:
    """Return a value as the command line writes it."""
    return "null" if value is None else str(value).lower() if isinstance(value, bool) else str(value)


def format_change(key: str, before: Any, after: Any) -> str:
    """Return a change as `key: before -> after`."""
    return f"{key}: {format_value(before)} -> {format_value(after)}"


def did_you_mean(name: str, names: Iterable[str]) -> str:
    """Return `; did you mean X` for the name that is spelled most alike; empty if none is close."""
    close = difflib.get_close_matches(name, list(names), n=1, cutoff=0.75)
    return f"; did you mean {close[0]}" if close else ""


def unknown_key_message(key: str, valid_keys: Iterable[str]) -> str:
    """Return a message for an unknown dotted key that suggests the nearest valid one, preferably of the same parent.

    Without one, it lists the keys beside the first part of the key that is unknown.
    """
    valid_keys = list(dict.fromkeys(valid_keys))
    parent = key.rpartition(".")[0]
    siblings = sorted(name for name in valid_keys if name.rpartition(".")[0] == parent)
    for candidates in (siblings, [name for name in valid_keys if name != parent]):
        if hint := did_you_mean(key, candidates):
            return f"{key}: unknown key{hint}?"
    while parent and parent not in valid_keys and not any(lies_under(name, parent) for name in valid_keys):
        parent = parent.rpartition(".")[0]
    known = [name for name in valid_keys if name.rpartition(".")[0] == parent]
    if parent and not known:
        return f"{key}: unknown key; {parent} has no keys here, it is set as a whole: {parent}=..."
    return f"{key}: unknown key; known here: {', '.join(sorted(known) if parent else known)}"


def check_plain(config: Any) -> None:
    """Check that a config can be written as YAML and read back unchanged.

    Raises:
        UserError: if it holds anything but nested dicts, lists, strings, numbers of at most 64 bits, true, false and
            null, with strings or numbers for keys; or if it is too deep or too large.
    """
    num_values = 0
    pending: list[tuple[str, Any, int]] = [("", config, 0)]  # no recursion: the depth is not known yet
    while pending:
        key, node, depth = pending.pop()
        num_values += 1
        if num_values > MAX_VALUES or depth > MAX_DEPTH:
            limit = f"{MAX_DEPTH} levels" if depth > MAX_DEPTH else f"{MAX_VALUES:,} values"
            raise UserError(f"{key[:80] or 'the config'}: the config has more than {limit}; no config of a run has")
        if problem := _type_problem(node):
            raise UserError(f"{key or 'the config'}: {problem}")
        for name, value in children(node):
            if isinstance(node, dict) and (problem := _key_problem(name, node, is_root=not key)):
                raise UserError(f"{key or 'the config'}: has the key {_excerpt(name)}, {problem}")
            pending.append((join(key, name), value, depth + 1))


def _type_problem(value: Any) -> str | None:
    if isinstance(value, str):
        try:
            value.encode()
        except UnicodeEncodeError:
            return f"{value[:40]!a} can't be written as UTF-8"
    elif isinstance(value, int):
        return None if value.bit_length() <= 64 else "a number of more than 64 bits"
    elif not isinstance(value, float | dict | list | None):
        return f"found {_excerpt(value)}, expected a text, a number, true, false, null, a list or a mapping"
    return None


def _key_problem(name: Any, node: Config, *, is_root: bool) -> str | None:
    """Return why a mapping can't have a key. Numbers are keys of data, such as weights of classes, not of arguments."""
    if isinstance(name, bool) or not isinstance(name, str | int | float) or name != name:  # NaN
        return "expected a text or a number; quote it"
    if problem := _type_problem(name):
        return problem
    if not isinstance(name, str) and (is_root or "_target_" in node):
        return "expected a name"
    return "and the same as a text; leave out one" if not isinstance(name, str) and str(name) in node else None


def _excerpt(value: Any) -> str:
    if isinstance(value, int) and value.bit_length() > 64:
        return "a number of more than 64 bits"
    return f"the {type(value).__name__} {str(value)[:40]!a}"
