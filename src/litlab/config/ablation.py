"""Ablations: the full recipe, each of its changes alone, pairs of them, and all together, as the jobs of a grid.

Hydra is imported in functions only: `litlab compare` reads names of changes here.
"""

import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any

from litlab.config.tree import NULL_GROUPS, bare_key, config_key, lies_under
from litlab.errors import UserError

ABLATION = "study.ablation"  # names of the changes in a job: [] is the full recipe, null is no ablation
FULL, ALL = "full", "all"
Changes = Mapping[str, Sequence[str]]  # name -> overrides
Names = tuple[str, ...]
_KEY = "study.ablate"
_OVERRIDES_BY_NAME = (_KEY, "hydra.sweeper.settings")
_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_.-]*")
_RESERVED = (FULL, ALL, "true", "false", "null", "nan", "inf")  # the last five are no texts in Hydra's grammar
_EXAMPLE = "{no_flip: [data.flip=false]}"
_DELETED = "~"
_QUOTED = re.compile(r"""'[^']*'|"[^"]*\"""")
_ITEM = re.compile(r"(?P<before>[\[,]\s*)(?P<key>[\w+~][\w.+~/@-]*=)")


@dataclass(frozen=True)
class AblationGrid:
    """Jobs of an ablation.

    Attributes:
        overrides: Overrides of each job.
        notes: Combinations of changes that are left out.
    """

    overrides: list[list[str]]
    notes: list[str]


def expand_ablation(
    grid: Sequence[Sequence[str]], changes: Changes, swept: Collection[str], *, pairs: bool
) -> AblationGrid:
    """Combine each job of a grid with the full recipe, each change, all pairs if wanted, and all changes together.

    Changes that set one key to different values contradict each other: combinations with them are left out.

    Args:
        grid: Overrides of each job of the grid.
        changes: Name -> overrides, which are applied after those of the grid.
        swept: Keys that the grid varies.
        pairs: Whether to run all pairs of changes.

    Raises:
        UserError: For a change that can't be applied to each job alike.
    """
    assigned = {name: _assignments(name, overrides, swept) for name, overrides in changes.items()}
    names = list(changes)
    wanted: list[Names] = [(), *((name,) for name in names)]
    wanted += combinations(names, 2) if pairs else []
    wanted += [tuple(names)] if len(names) > 1 and tuple(names) not in wanted else []
    kept, notes = [], []
    for variant in wanted:
        problem = next(_contradictions(variant, assigned), None)
        if problem is None:
            kept.append(variant)
        else:
            notes.append(f"{_KEY}: {variant_name(variant, names)} is left out, since {problem}")
    return AblationGrid([_job(job, variant, changes) for variant in kept for job in grid], notes)


def read_changes(value: Any) -> dict[str, list[str]]:
    """Return name -> overrides of `study.ablate`, without changes that are null.

    Raises:
        UserError: If it is of another form.
    """
    try:
        check_changes(value)
    except ValueError as error:
        raise UserError(f"{_KEY}: {error}") from error
    return {name: list(overrides) for name, overrides in (value or {}).items() if overrides is not None}


def check_changes(value: Any) -> Any:
    """Return the value of `study.ablate`.

    Raises:
        ValueError: If it is not of the form name -> overrides.
    """
    if value is None:
        return None
    if not isinstance(value, dict):
        raise ValueError(f"expected changes by name, as in {_EXAMPLE}")
    for name, overrides in value.items():
        if not is_plain_name(name):
            raise ValueError(
                f"{name!r} is no name for a change: expected letters, digits and . _ -, a letter first, and not one "
                f"of {', '.join(_RESERVED)}"
            )
        if overrides is None:
            continue
        if not isinstance(overrides, list) or not all(map(_is_override, overrides)):
            raise ValueError(f"{name}: expected a list of overrides KEY=VALUE, as in {_EXAMPLE}")
        if not overrides:
            raise ValueError(f"{name}: has no override; name what it changes, as in {_EXAMPLE}")
    return value


def _is_override(line: object) -> bool:
    return isinstance(line, str) and ("=" in line or line.startswith(_DELETED))


def is_plain_name(name: object) -> bool:
    """Return True for a text that may name a change."""
    return isinstance(name, str) and bool(_NAME.fullmatch(name)) and name.lower() not in _RESERVED


def variant_name(names: Sequence[str], changes: Collection[str]) -> str:
    """Return the name of the job with some of the changes: `full`, `no_flip`, `no_flip+no_crop` or `all`."""
    if not names:
        return FULL
    return ALL if len(names) > 1 and {*names} >= {*changes} else "+".join(names)


def names_in(text: str) -> Names:
    """Return the names in the value of `study.ablation` as a text: `[no_flip,no_crop]`."""
    return tuple(filter(None, text.strip("[]").split(",")))


def check_effects(jobs: Sequence[tuple[Mapping[str, str], str]]) -> list[str]:
    """Check that each change makes another experiment, and return notes on combinations that make none of their own.

    Args:
        jobs: Point and identity of each job, the full recipe before the changes, and these before their combinations.

    Raises:
        UserError: With the changes without an effect, and those that make the same experiment.
    """
    first: dict[tuple[frozenset[tuple[str, str]], str], Names] = {}
    problems: dict[str, None] = {}
    notes: dict[str, None] = {}
    for point, identity in jobs:
        if ABLATION not in point:
            continue
        variant = names_in(point[ABLATION])
        rest = frozenset((key, value) for key, value in point.items() if key != ABLATION)
        same = first.setdefault((rest, identity), variant)
        if same == variant:
            continue
        name, other = "+".join(variant), "+".join(same)
        if len(variant) > 1:
            notes[f"{_KEY}: {name} is the same experiment as {other or 'the full recipe'}, and gets no job"] = None
        elif not same:
            problems[
                f"{_KEY}.{name}: changes nothing that the results depend on: the full recipe is the same experiment; "
                f"set a value that it does not have, or leave {name} out"
            ] = None
        else:
            problems[f"{_KEY}.{name}: is the same experiment as {other}; leave one of the two out"] = None
    if problems:
        raise UserError("\n".join(problems))
    return [*notes]


def quote_changes(argument: str) -> str:
    """Quote the overrides in an argument `study.ablate={no_flip:[data.flip=false]}`, as Hydra's grammar needs it.

    The settings of decide have the same form. Other arguments, and overrides that are quoted already, stay as they are.
    """
    key, separator, value = argument.partition("=")
    if not separator or not lies_under(bare_key(key), *_OVERRIDES_BY_NAME):
        return argument
    quoted, position = "", 0
    while position < len(value):
        token = _QUOTED.match(value, position) or _ITEM.match(value, position)
        end = token.end() if token else position + 1
        if token is None or token.re is _QUOTED:
            quoted += value[position:end]
        else:
            end = _end_of_item(value, end)
            quote = '"' if "'" in value[position:end] else "'"
            quoted += f"{token['before']}{quote}{value[token.start('key') : end].rstrip()}{quote}"
        position = end
    return f"{key}={quoted}"


def _end_of_item(text: str, position: int) -> int:
    """Return the index of the comma or bracket that ends an item of a list."""
    depth = 0
    while position < len(text):
        if depth == 0 and text[position] in ",]":
            break
        depth += (text[position] in "[{(") - (text[position] in "]})")
        position = string.end() if (string := _QUOTED.match(text, position)) else position + 1
    return position


def _assignments(name: str, overrides: Sequence[str], swept: Collection[str]) -> dict[str, str]:
    """Return config key -> value of the overrides of a change.

    Raises:
        UserError: For a key that a change may not set, or sets twice.
    """
    from litlab.config.hydra_errors import parse_overrides

    values: dict[str, str] = {}
    for override in parse_overrides([NULL_GROUPS.get(line, line) for line in overrides]):
        line, key = override.input_line, config_key(override.get_key_element())
        start = f"{_KEY}.{name}: {line}"
        if override.is_sweep_override():
            raise UserError(f"{start}: a change has one value for each key; make a change of each value")
        if lies_under(key, "seed", "study", "hydra") or key == "study":
            raise UserError(f"{start}: a change is a part of the recipe, which {key.partition('.')[0]} is not")
        if axis := next((axis for axis in map(config_key, swept) if _overlap(key, axis)), None):
            raise UserError(f"{start}: {axis} is an axis of the multirun; leave it out of either")
        if key in values:
            raise UserError(f"{start}: the change sets {key} twice")
        values[key] = _DELETED if override.is_delete() else override.get_value_element_as_str()
    return values


def _contradictions(variant: Names, assigned: Mapping[str, Mapping[str, str]]) -> Iterator[str]:
    """Yield reasons why changes can't be combined: one key with two values, or a group and a key within it."""
    for first, second in combinations(variant, 2):
        for key, value in assigned[first].items():
            for other, other_value in assigned[second].items():
                if key == other and value != other_value:
                    yield f"{first} and {second} set {key} to different values"
                elif key != other and _overlap(key, other):
                    yield f"{first} sets {key} and {second} sets {other}"


def _overlap(key: str, other: str) -> bool:
    return lies_under(key, other) or lies_under(other, key)


def _job(job: Sequence[str], variant: Names, changes: Changes) -> list[str]:
    overrides = [NULL_GROUPS.get(line, line) for name in variant for line in changes[name]]
    return [*job, *dict.fromkeys(overrides), f"{ABLATION}=[{','.join(variant)}]"]
