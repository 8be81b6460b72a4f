"""What tells groups of runs apart, in as few columns as do.

A choice that was swept (`model=cnn,resnet`) and a class that differs (`optimizer._target_`) each stand for all
settings that come with them.
"""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from litlab.compare.hyperparameters import SEED, full_name, short_names, written
from litlab.compare.model import Run
from litlab.compare.table import shortened
from litlab.config.freeze import place
from litlab.config.tree import lies_under
from litlab.errors import UserError
from litlab.runs.diff import shown
from litlab.runs.state import RunStatus


@dataclass(frozen=True)
class Alike:
    """Runs that only their seeds tell apart.

    Attributes:
        settings: as texts, by their full names.
        choices: what their study sweeps, by its place in the config: `model` -> `cnn`.
        data: fingerprint of their data; None if no run knows it.
    """

    settings: Mapping[str, str]
    choices: Mapping[str, str]
    data: str | None
    runs: tuple[Run, ...]


def alike(runs: Sequence[Run]) -> list[Alike]:
    """Groups in the order of their first runs; a run that doesn't know its data is with those of its settings."""
    by_settings: dict[tuple[tuple[str, str], ...], dict[str | None, list[Run]]] = {}
    for run in runs:
        key = tuple(sorted(written(run.settings).items()))
        by_settings.setdefault(key, {}).setdefault(run.data, []).append(run)
    groups = []
    for by_data in by_settings.values():
        known = [data for data in by_data if data is not None]
        if known and None in by_data:
            by_data[known[0]] += by_data.pop(None)
        groups += [_alike(data, members) for data, members in by_data.items()]
    return groups


def _alike(data: str | None, runs: Sequence[Run]) -> Alike:
    choices: dict[str, str] = {}
    for run in runs:
        for key, value in run.choices.items():
            choices.setdefault(place(key), value)
    return Alike(written(runs[0].settings), choices, data, tuple(runs))


_TARGET = "._target_"
FINGERPRINT = "data fingerprint"
_SHOWN = 12  # characters of a fingerprint
Value = str | None


@dataclass(frozen=True)
class Column:
    """What each group has for a key, in the order of the groups; None where it has no such setting."""

    key: str
    values: tuple[Value, ...]

    @property
    def varies(self) -> bool:
        return len(set(self.values)) > 1

    def decides(self, other: "Column") -> bool:
        """Whether groups that are equal here are equal there, too."""
        return len(set(zip(self.values, other.values, strict=True))) == len(set(self.values))


def swept_keys(groups: Sequence[Alike]) -> list[str]:
    """What studies sweep besides the seed, in their order."""
    return [key for key in dict.fromkeys(key for each in groups for key in each.choices) if key != SEED]


def leaves_of(groups: Sequence[Alike]) -> list[str]:
    """All settings, in the order of the configs."""
    return list(dict.fromkeys(key for each in groups for key in each.settings))


def keys_of(groups: Sequence[Alike]) -> list[str]:
    """All that there can be a column of: choices, leaves, and for `X._target_` X."""
    return list(dict.fromkeys([*swept_keys(groups), *(leaf.removesuffix(_TARGET) for leaf in leaves_of(groups))]))


def column(key: str, groups: Sequence[Alike]) -> Column:
    """Of a leaf its values; of another key what was chosen for it, or else the short names of its classes."""
    if not any(setting.startswith(f"{key}.") for setting in leaves_of(groups)):
        return Column(key, tuple(each.settings.get(key, each.choices.get(key)) for each in groups))
    chosen, classes = _chosen(key, groups), _classes(key, groups)
    return Column(key, tuple(a if a is not None else b for a, b in zip(chosen, classes.values, strict=True)))


def varying_columns(groups: Sequence[Alike]) -> list[Column]:
    """What was swept comes first, then the others in the order of the configs."""
    leaves = leaves_of(groups)
    found = (Column(leaf, tuple(each.settings.get(leaf) for each in groups)) for leaf in leaves)
    left = {each.key: each for each in found if each.varies}
    swept = [each for key in swept_keys(groups) if (each := left.pop(key, None) or column(key, groups)).varies]
    for each in swept:
        if None in _chosen(each.key, groups):
            left.pop(each.key + _TARGET, None)
            _cover(left, each, [key for key in left if lies_under(key, each.key) and None in left[key].values])
        else:
            is_anywhere = not any(lies_under(leaf, each.key) for leaf in leaves)  # `experiment` may set anything
            _cover(left, each, [key for key in left if is_anywhere or lies_under(key, each.key)])
    others: list[Column] = []
    for target in sorted((key for key in left if key.endswith(_TARGET)), key=len):
        if left.pop(target, None):  # else it is within a class that differs
            others.append(each := _classes(target.removesuffix(_TARGET), groups))
            _cover(left, each, [key for key in left if lies_under(key, each.key) and None in left[key].values])
    order = {key: number for number, leaf in enumerate(leaves) for key in (leaf.removesuffix(_TARGET), leaf)}
    return swept + sorted([*others, *left.values()], key=lambda each: order[each.key])


def _cover(left: dict[str, Column], by: Column, keys: Sequence[str]) -> None:
    """Leave out those of the settings that another column tells already."""
    for key in keys:
        if by.decides(left[key]):
            del left[key]


def fingerprints(groups: Sequence[Alike]) -> Column:
    """Of the data: where nothing else tells groups apart."""
    return Column(FINGERPRINT, tuple(each.data and each.data[:_SHOWN] for each in groups))


def _chosen(key: str, groups: Sequence[Alike]) -> list[Value]:
    """The choice for a node; a study that doesn't sweep it has that of another study with the same settings below the
    node, or of the only one with the same class."""
    choices = [each.choices.get(key) for each in groups]
    if None not in choices or not any(choices):
        return choices
    known: dict[object, set[str]] = {}
    for each, choice in zip(groups, choices, strict=True):
        if choice is not None:
            for trait in _traits(key, each):
                known.setdefault(trait, set()).add(choice)
    return [choice or _only(key, each, known) for each, choice in zip(groups, choices, strict=True)]


def _only(key: str, group: Alike, known: dict[object, set[str]]) -> Value:
    found = (known[trait] for trait in _traits(key, group) if trait in known)
    return next((min(choices) for choices in found if len(choices) == 1), None)


def _traits(key: str, group: Alike) -> list[object]:
    """What a choice is known by: all settings below its node, then the class there."""
    below = tuple(sorted((name, value) for name, value in group.settings.items() if lies_under(name, key)))
    target = group.settings.get(key + _TARGET)
    return ([below] if below else []) + ([target] if target else [])


def _classes(node: str, groups: Sequence[Alike]) -> Column:
    """The classes at a node by their short names, if those are as many; what stands there else is shown as it is."""
    targets = [each.settings.get(node + _TARGET) for each in groups]
    short = [target and target.rpartition(".")[2] for target in targets]
    names = short if len(set(short)) == len(set(targets)) else targets
    return Column(
        node, tuple(each.settings.get(node) if name is None else name for name, each in zip(names, groups, strict=True))
    )


ALL = "all runs"
_NUM_NAMED = 5  # values of a setting in a note


@dataclass(frozen=True)
class Part:
    """Runs that only their seeds tell apart; `others` are the settings that vary and that --group leaves out."""

    others: tuple[str | None, ...]
    runs: tuple[Run, ...]


@dataclass(frozen=True)
class Members:
    """A group to be: its settings by their labels, and its runs in whatever state; several parts only by --group."""

    name: str
    settings: dict[str, str]
    parts: tuple[Part, ...]

    @property
    def runs(self) -> tuple[Run, ...]:
        return tuple(run for part in self.parts for run in part.runs)


@dataclass(frozen=True)
class Formed:
    """
    Attributes:
        keys: label -> full name of the key, in the order of the columns.
        notes: what was left out, and what is averaged over.
    """

    keys: dict[str, str]
    members: list[Members]
    notes: list[str]


Filter = Callable[[Sequence[Alike], Sequence[str]], list[Alike]]


def form(runs: Sequence[Run], keys: Sequence[str] | None = None, keep: Filter | None = None) -> Formed:
    """Form the groups that are compared.

    Args:
        keys: names of the settings that alone tell groups apart; None for all that vary.
        keep: Drops runs from groups, given the keys that all of them have.

    Raises:
        UserError: if a name means no setting or several, or no run is left.
    """
    every = alike(runs)
    known = keys_of(every)
    groups = keep(every, known) if keep else every
    num_left_out = len(runs) - sum(len(each.runs) for each in groups)
    notes = [f"--filter leaves out {num_left_out} of {len(runs)} runs"] * (num_left_out > 0)
    if len({each.data for each in groups if each.data}) > 1:
        notes.append("not all of the runs had the same data: the fingerprints of their images differ")
    others: list[Column] = []
    if keys is None:
        columns = _telling_apart(groups)
    else:
        if SEED in keys:
            raise UserError("--group seed: seeds are what a group is averaged over; name the settings that make groups")
        columns = [column(key, groups) for key in dict.fromkeys(full_name(key, known, "--group") for key in keys)]
        others = [each for each in varying_columns(groups) if each.key not in {each.key for each in columns}]
    names = short_names([each.key for each in columns], [*known, *leaves_of(every), SEED])
    labels = {key: shown(name) for key, name in names.items()}
    members = _members(groups, columns, others, labels)
    notes += _averaged(groups, others, members)
    return Formed({labels[each.key]: each.key for each in columns}, members, notes)


def _telling_apart(groups: Sequence[Alike]) -> list[Column]:
    """What varies; the fingerprint of the data, where there is nothing else."""
    columns = varying_columns(groups)
    rows = set(zip(*(each.values for each in columns), strict=True)) if columns else {()}
    data = fingerprints(groups)
    return [*columns, data] if len(rows) < len(groups) and data.varies else columns


def _averaged(groups: Sequence[Alike], others: Sequence[Column], members: Sequence[Members]) -> list[str]:
    """What --group leaves out although it varies, and whether that is the same in all groups."""
    if not others:
        return []
    labels = short_names([each.key for each in others], leaves_of(groups))
    said = []
    for each in others:
        short = shortened(each.values)
        values = ["absent" if value is None else shown(short[value]) for value in dict.fromkeys(each.values)]
        more = f" and {len(values) - _NUM_NAMED} more" * (len(values) > _NUM_NAMED)
        said.append(f"{shown(labels[each.key])} ({', '.join(values[:_NUM_NAMED])}{more})")
    notes = [f"averaged over {', '.join(said)} for each seed, and then over seeds, which n and intervals count"]
    if len({frozenset(_finished(each)) for each in members}) > 1:
        notes.append("the groups are not averaged over the same settings: what tells them apart may be those")
    return notes


def _finished(members: Members) -> list[tuple[str | None, ...]]:
    """The settings that are put together, of which there is a run that is done."""
    return [part.others for part in members.parts if any(run.status == RunStatus.COMPLETED for run in part.runs)]


def _members(
    groups: Sequence[Alike], columns: Sequence[Column], others: Sequence[Column], labels: dict[str, str]
) -> list[Members]:
    """Groups that are the same in all columns become one; names are told apart whatever the settings hold."""
    merged: dict[tuple[str | None, ...], list[Part]] = {}
    for index, group in enumerate(groups):
        row, rest = (tuple(each.values[index] for each in found) for found in (columns, others))
        merged.setdefault(row, []).append(Part(rest, group.runs))
    names: Counter[str] = Counter()
    short = {each.key: shortened(each.values) for each in columns}
    members = []
    for row, parts in merged.items():
        found = [(each.key, value) for each, value in zip(columns, row, strict=True) if value is not None]
        settings = {labels[key]: shown(value) for key, value in found}
        name = " ".join(f"{labels[key]}={shown(short[key][value])}" for key, value in found) or ALL
        names[name] += 1
        members.append(Members(name if names[name] == 1 else f"{name} ({names[name]})", settings, tuple(parts)))
    return members
