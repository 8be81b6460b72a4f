"""Ablations: the full recipe, each of its changes alone, pairs of them, and all together, as the jobs of a grid."""

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any

from litlab.config.ablation_changes import ABLATION, DELETED, KEY, Changes, Names, check_changes, names_in, variant_name
from litlab.config.hydra_errors import parse_overrides
from litlab.config.tree import NULL_GROUPS, config_key, lies_under
from litlab.errors import UserError


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
            notes.append(f"{KEY}: {variant_name(variant, names)} is left out, since {problem}")
    return AblationGrid([_job(job, variant, changes) for variant in kept for job in grid], notes)


def read_changes(value: Any) -> dict[str, list[str]]:
    """Return name -> overrides of `study.ablate`, without changes that are null.

    Raises:
        UserError: If it is of another form.
    """
    try:
        check_changes(value)
    except ValueError as error:
        raise UserError(f"{KEY}: {error}") from error
    return {name: list(overrides) for name, overrides in (value or {}).items() if overrides is not None}


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
            notes[f"{KEY}: {name} is the same experiment as {other or 'the full recipe'}, and gets no job"] = None
        elif not same:
            problems[
                f"{KEY}.{name}: changes nothing that the results depend on: the full recipe is the same experiment; "
                f"set a value that it does not have, or leave {name} out"
            ] = None
        else:
            problems[f"{KEY}.{name}: is the same experiment as {other}; leave one of the two out"] = None
    if problems:
        raise UserError("\n".join(problems))
    return [*notes]


def _assignments(name: str, overrides: Sequence[str], swept: Collection[str]) -> dict[str, str]:
    """Return config key -> value of the overrides of a change.

    Raises:
        UserError: For a key that a change may not set, or sets twice.
    """
    values: dict[str, str] = {}
    for override in parse_overrides([NULL_GROUPS.get(line, line) for line in overrides]):
        line, key = override.input_line, config_key(override.get_key_element())
        start = f"{KEY}.{name}: {line}"
        if override.is_sweep_override():
            raise UserError(f"{start}: a change has one value for each key; make a change of each value")
        if lies_under(key, "seed", "study", "hydra") or key == "study":
            raise UserError(f"{start}: a change is a part of the recipe, which {key.partition('.')[0]} is not")
        if axis := next((axis for axis in map(config_key, swept) if _overlap(key, axis)), None):
            raise UserError(f"{start}: {axis} is an axis of the multirun; leave it out of either")
        if key in values:
            raise UserError(f"{start}: the change sets {key} twice")
        values[key] = DELETED if override.is_delete() else override.get_value_element_as_str()
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
