"""Groups of runs and the settings that tell them apart, in as few columns as possible.

A swept choice (`model=cnn,resnet`) and a class that differs (`optimizer._target_`) each stand for all settings that
follow from them.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from litlab.compare.data_model import Run, unit_name
from litlab.compare.setting_names import FOLD, SEED, full_name, listed, short_names, shorten, text
from litlab.config.tree import config_key, lies_under
from litlab.errors import UserError
from litlab.runs.terminal import format_value

ALL = "all runs"
FINGERPRINT = "data fingerprint"
_FINGERPRINT_LENGTH = 12
_TARGET = "._target_"
_NUM_LISTED = 5  # values of a setting in a note
Value = str | None


@dataclass(frozen=True)
class RunGroup:
    """Runs that differ in nothing but their seeds and folds.

    Attributes:
        settings: Settings as texts, by full names.
        choices: Swept values by their config keys: `model` -> `cnn`.
        data: Fingerprint of their data; None if no run knows it.
    """

    settings: Mapping[str, str]
    choices: Mapping[str, str]
    data: str | None
    runs: tuple[Run, ...]


@dataclass(frozen=True)
class SettingColumn:
    """Values of a key in the order of the groups; None where a group has no such setting."""

    key: str
    values: tuple[Value, ...]

    @property
    def varies(self) -> bool:
        """Return True if the groups have different values."""
        return len(set(self.values)) > 1

    def determines(self, other: "SettingColumn") -> bool:
        """Return True if groups that are equal in this column are equal in the other."""
        return len(set(zip(self.values, other.values, strict=True))) == len(set(self.values))


@dataclass(frozen=True)
class Subgroup:
    """Runs of a group that differ in nothing but their seeds, or with the same seed in nothing but their folds.

    Attributes:
        settings: Values of what is averaged over: the settings that vary besides those of `--group`; the seed of folds.
    """

    settings: tuple[Value, ...]
    runs: tuple[Run, ...]


@dataclass(frozen=True)
class GroupSpec:
    """A group to compare: its settings by label, its runs in any state, in several subgroups if values are averaged."""

    name: str
    settings: dict[str, str]
    subgroups: tuple[Subgroup, ...]

    @property
    def runs(self) -> tuple[Run, ...]:
        """All runs of the group."""
        return tuple(run for subgroup in self.subgroups for run in subgroup.runs)


@dataclass(frozen=True)
class Grouping:
    """The groups to compare.

    Attributes:
        keys: Label -> full name of the key, in the order of the columns.
        notes: Remarks on the data and on the settings that are averaged over.
    """

    keys: dict[str, str]
    groups: list[GroupSpec]
    notes: list[str]


def group_by_settings(runs: Sequence[Run]) -> list[RunGroup]:
    """Group runs in the order of their first ones; a run of unknown data joins the runs with its settings."""
    by_settings: dict[tuple[tuple[str, str], ...], dict[str | None, list[Run]]] = {}
    for run in runs:
        key = tuple(sorted((name, text(value)) for name, value in run.settings.items()))
        by_settings.setdefault(key, {}).setdefault(run.data, []).append(run)
    groups = []
    for by_data in by_settings.values():
        fingerprints = [data for data in by_data if data is not None]
        if fingerprints and None in by_data:
            by_data[fingerprints[0]] += by_data.pop(None)
        for data, members in by_data.items():
            choices: dict[str, str] = {}
            for run in members:
                for choice, value in run.choices.items():
                    choices.setdefault(config_key(choice), value)
            settings = {key: text(value) for key, value in members[0].settings.items()}
            groups.append(RunGroup(settings, choices, data, tuple(members)))
    return groups


def define_groups(
    groups: Sequence[RunGroup], keys: Sequence[str] | None = None, among: Sequence[RunGroup] | None = None
) -> Grouping:
    """Define the groups that are compared.

    Args:
        groups: Groups of runs that differ in nothing but their seeds and folds.
        keys: Names of the settings that alone tell groups apart; None for all that vary.
        among: All groups, if `groups` are filtered: labels are unambiguous among their settings.

    Raises:
        UserError: If a name means no setting or several.
    """
    among = groups if among is None else among
    all_keys = setting_keys(among)
    notes = data_notes(groups)
    averaged: list[SettingColumn] = []
    if keys is None:
        columns = _distinguishing_columns(groups)
    else:
        if SEED in keys:
            raise UserError("--group seed: groups are averaged over seeds; name the settings that define groups")
        if any(run.fold is not None for group in groups for run in group.runs) and {*keys} & {FOLD, "fold"}:
            raise UserError("--group fold: groups are averaged over folds; name the settings that define groups")
        chosen = dict.fromkeys(full_name(key, all_keys, "--group") for key in keys)
        columns = [setting_column(key, groups) for key in chosen]
        averaged = [column for column in varying_columns(groups) if column.key not in chosen]
    names = short_names([column.key for column in columns], [*all_keys, *_leaves(among), SEED])
    labels = {key: format_value(name) for key, name in names.items()}
    specs = _specs(groups, columns, averaged, labels)
    notes += averaging_notes(groups, averaged, specs)
    return Grouping({labels[column.key]: column.key for column in columns}, specs, notes)


def data_notes(groups: Sequence[RunGroup]) -> list[str]:
    """Say if the runs had different data."""
    if len({group.data for group in groups if group.data}) < 2:
        return []
    return ["not all of the runs had the same data: the fingerprints of their images differ"]


def setting_keys(groups: Sequence[RunGroup]) -> list[str]:
    """Return all keys that have a column: choices, leaves, and `X` for `X._target_`."""
    return list(dict.fromkeys([*_swept_keys(groups), *(leaf.removesuffix(_TARGET) for leaf in _leaves(groups))]))


def setting_column(key: str, groups: Sequence[RunGroup]) -> SettingColumn:
    """Return the values of a leaf; for a node its choice, or else the short names of its classes."""
    if not any(setting.startswith(f"{key}.") for setting in _leaves(groups)):
        return SettingColumn(key, tuple(group.settings.get(key, group.choices.get(key)) for group in groups))
    choices, classes = _choices(key, groups), _class_column(key, groups)
    return SettingColumn(key, tuple(a if a is not None else b for a, b in zip(choices, classes.values, strict=True)))


def varying_columns(groups: Sequence[RunGroup]) -> list[SettingColumn]:
    """Return the columns that vary: first swept keys, then the others in the order of the configs."""
    leaves = _leaves(groups)
    columns = (SettingColumn(leaf, tuple(group.settings.get(leaf) for group in groups)) for leaf in leaves)
    left = {column.key: column for column in columns if column.varies}
    swept = [
        column for key in _swept_keys(groups) if (column := left.pop(key, None) or setting_column(key, groups)).varies
    ]
    for column in swept:
        if None in _choices(column.key, groups):
            left.pop(column.key + _TARGET, None)
            _drop_determined(left, column, only_optional=True)
        else:
            sets_any_key = not any(lies_under(leaf, column.key) for leaf in leaves)  # such as `experiment`
            _drop_determined(left, column, anywhere=sets_any_key)
    classes = []
    for target in sorted((key for key in left if key.endswith(_TARGET)), key=len):
        if left.pop(target, None):  # else it is within a class that differs
            classes.append(column := _class_column(target.removesuffix(_TARGET), groups))
            _drop_determined(left, column, only_optional=True)
    order = {key: number for number, leaf in enumerate(leaves) for key in (leaf.removesuffix(_TARGET), leaf)}
    return swept + sorted([*classes, *left.values()], key=lambda column: order[column.key])


def _drop_determined(
    left: dict[str, SettingColumn], by: SettingColumn, *, anywhere: bool = False, only_optional: bool = False
) -> None:
    """Remove settings that another column determines: those below its key, `anywhere`, or that some groups lack."""
    for key, column in list(left.items()):
        is_candidate = (anywhere or lies_under(key, by.key)) and (not only_optional or None in column.values)
        if is_candidate and by.determines(column):
            del left[key]


def _distinguishing_columns(groups: Sequence[RunGroup]) -> list[SettingColumn]:
    """Return what varies; also the fingerprint of the data if nothing else tells groups apart."""
    columns = varying_columns(groups)
    rows = set(zip(*(column.values for column in columns), strict=True)) if columns else {()}
    data = SettingColumn(FINGERPRINT, tuple(group.data and group.data[:_FINGERPRINT_LENGTH] for group in groups))
    return [*columns, data] if len(rows) < len(groups) and data.varies else columns


def _swept_keys(groups: Sequence[RunGroup]) -> list[str]:
    return [key for key in dict.fromkeys(key for group in groups for key in group.choices) if key != SEED]


def _leaves(groups: Sequence[RunGroup]) -> list[str]:
    return list(dict.fromkeys(key for group in groups for key in group.settings))


def _choices(key: str, groups: Sequence[RunGroup]) -> list[Value]:
    """Return the choices for a node.

    A study that does not sweep it gets the choice of another study with the same settings below the node, or else the
    only choice with the same class.
    """
    choices = [group.choices.get(key) for group in groups]
    if None not in choices or not any(choices):
        return choices
    by_trait: dict[object, set[str]] = {}
    for group, choice in zip(groups, choices, strict=True):
        if choice is not None:
            for trait in _traits(key, group):
                by_trait.setdefault(trait, set()).add(choice)

    def only_choice(group: RunGroup) -> Value:
        candidates = (by_trait.get(trait, set()) for trait in _traits(key, group))
        return next((min(choices) for choices in candidates if len(choices) == 1), None)

    return [choice or only_choice(group) for group, choice in zip(groups, choices, strict=True)]


def _traits(key: str, group: RunGroup) -> list[object]:
    """Return what identifies a choice: all settings below its node, then the class there."""
    below = tuple(sorted((name, value) for name, value in group.settings.items() if lies_under(name, key)))
    target = group.settings.get(key + _TARGET)
    return ([below] if below else []) + ([target] if target else [])


def _class_column(node: str, groups: Sequence[RunGroup]) -> SettingColumn:
    """Return the classes at a node, by their short names if these are unambiguous; other values stay as they are."""
    targets = [group.settings.get(node + _TARGET) for group in groups]
    short = [target and target.rpartition(".")[2] for target in targets]
    names = short if len(set(short)) == len(set(targets)) else targets
    values = (group.settings.get(node) if name is None else name for name, group in zip(names, groups, strict=True))
    return SettingColumn(node, tuple(values))


def averaging_notes(
    groups: Sequence[RunGroup], averaged: Sequence[SettingColumn], specs: Sequence[GroupSpec]
) -> list[str]:
    """Name what is averaged over, settings by `--group` and the seeds of folds; say if it differs between groups."""
    folds = [run for group in groups for run in group.runs if run.fold is not None]
    seeds = list(dict.fromkeys(text(run.seed) for run in folds))
    if len({(run.fold, run.seed) for run in folds}) == len({run.fold for run in folds}):
        seeds = []  # one for each fold
    if not averaged and len(seeds) < 2:
        return []
    labels = short_names([column.key for column in averaged], _leaves(groups))
    settings = []
    for column in averaged:
        short = shorten(column.values)
        values = ["absent" if value is None else format_value(short[value]) for value in dict.fromkeys(column.values)]
        settings.append(f"{format_value(labels[column.key])} ({listed(values, _NUM_LISTED)})")
    if len(seeds) > 1:
        settings.append(f"{SEED} ({listed(seeds, _NUM_LISTED)})")
    unit = unit_name(run for group in groups for run in group.runs)
    unit = "seed" if unit == "run" else unit
    notes = [f"averaged over {', '.join(settings)} for each {unit}, and then over {unit}s, which n and intervals count"]
    completed = {
        frozenset(part.settings for part in spec.subgroups if any(run.is_completed for run in part.runs))
        for spec in specs
    }
    if len(completed) > 1:
        notes.append("the groups are not averaged over the same settings, which may be why they differ")
    return notes


def split_group(group: RunGroup, settings: tuple[Value, ...]) -> list[Subgroup]:
    """Split a group into runs of one value each: those of folds by their seeds, which are averaged for each fold."""
    by_seed: dict[Value, list[Run]] = {}
    for run in group.runs:
        by_seed.setdefault(None if run.fold is None else text(run.seed), []).append(run)
    return [Subgroup((*settings, seed), tuple(runs)) for seed, runs in by_seed.items()]


def _specs(
    groups: Sequence[RunGroup],
    columns: Sequence[SettingColumn],
    averaged: Sequence[SettingColumn],
    labels: dict[str, str],
) -> list[GroupSpec]:
    """Merge groups that are equal in all columns; names are unique whatever the settings hold."""
    merged: dict[tuple[Value, ...], list[Subgroup]] = {}
    for index, group in enumerate(groups):
        row, rest = (tuple(column.values[index] for column in part) for part in (columns, averaged))
        merged.setdefault(row, []).extend(split_group(group, rest))
    names: Counter[str] = Counter()  # linear time, although all may be equal
    short = {column.key: shorten(column.values) for column in columns}
    specs = []
    for row, subgroups in merged.items():
        present = [(column.key, value) for column, value in zip(columns, row, strict=True) if value is not None]
        settings = {labels[key]: format_value(value) for key, value in present}
        name = " ".join(f"{labels[key]}={format_value(short[key][value])}" for key, value in present) or ALL
        names[name] += 1
        specs.append(GroupSpec(name if names[name] == 1 else f"{name} ({names[name]})", settings, tuple(subgroups)))
    return specs
