"""Ablations: groups of runs by the changes of a recipe, and their order, the most harmful change first."""

from collections.abc import Sequence
from dataclasses import replace
from math import inf

from litlab.compare.data_model import Group, Run
from litlab.compare.grouping import (
    Grouping,
    GroupSpec,
    RunGroup,
    SettingColumn,
    Subgroup,
    averaging_notes,
    data_notes,
    setting_column,
    split_group,
    varying_columns,
)
from litlab.config.ablation import ABLATION
from litlab.errors import UserError
from litlab.runs.metrics import Mode
from litlab.runs.terminal import format_value

FULL, ALL = "full recipe", "all together"  # no names of changes, which have no spaces
CHANGE, OVERRIDES = "change", "overrides"  # labels of the columns
Names = tuple[str, ...]


def define_variants(groups: Sequence[RunGroup]) -> Grouping:
    """Define a group for the full recipe, each change, and each combination of changes, in this order.

    Settings that vary besides the changes, such as other axes of the study, are averaged over, as by `--group`.

    Raises:
        UserError: If the runs are of no ablation, of none with a full recipe, or if a name means several changes.
    """
    by_names: dict[Names, list[RunGroup]] = {}
    others: list[Run] = []
    for group in groups:
        members: dict[Names, list[Run]] = {}
        for run in group.runs:
            if run.variant is None:
                others.append(run)
            else:
                members.setdefault(run.variant.names, []).append(run)
        for names, runs in members.items():
            by_names.setdefault(names, []).append(replace(group, runs=tuple(runs)))
    if not by_names:
        raise UserError(
            "--ablation: none of these runs belongs to an ablation, a multirun with study.ablate; leave --ablation out"
        )
    if () not in by_names:
        raise UserError("--ablation: no run of the full recipe is among these; the command of the study makes it")
    kept = [group for members in by_names.values() for group in members]
    overrides = {names: _overrides(names, members) for names, members in by_names.items()}
    varying = dict.fromkeys(column.key for members in by_names.values() for column in varying_columns(members))
    averaged = [setting_column(key, kept) for key in varying]
    changes = frozenset(name for group in kept for run in group.runs if run.variant for name in run.variant.known)
    specs = []
    for names in sorted(by_names, key=len):
        name = variant_name(names, changes)
        settings = {CHANGE: name} | ({OVERRIDES: overrides[names]} if name != ALL and names else {})
        specs.append(GroupSpec(name, settings, _parts(by_names[names], averaged, kept)))
    notes = data_notes(kept) + averaging_notes(kept, averaged, specs)
    if others:
        notes.append(f"{len(others)} run{'s' * (len(others) != 1)} of no ablation left out")
    return Grouping({CHANGE: ABLATION, OVERRIDES: "study.ablate"}, specs, notes)


def variant_name(names: Names, changes: frozenset[str]) -> str:
    """Return the name to show: `full recipe`, `no_flip`, `no_flip + no_crop` or `all together`."""
    if not names:
        return FULL
    return ALL if len(names) > 1 and changes <= {*names} else " + ".join(map(format_value, names))


def sort_variants(groups: Sequence[Group], mode: Mode) -> list[Group]:
    """Sort the full recipe first, then the changes, the most harmful first, then their combinations."""
    sign = 1 if mode == "max" else -1

    def key(group: Group) -> tuple[int, float, str]:
        rank = 0 if group.name == FULL else 3 if group.name == ALL else 2 if " + " in group.name else 1
        return rank, sign * group.difference.mean if group.difference else inf, group.name

    return sorted(groups, key=key)


def _overrides(names: Names, groups: Sequence[RunGroup]) -> str:
    texts = {" ".join(run.variant.overrides) for group in groups for run in group.runs if run.variant}
    if len(texts) > 1:
        several = " and ".join(map(format_value, sorted(texts)[:3]))
        raise UserError(
            f"--ablation: {'+'.join(names)} means {several} in different runs; compare one of the studies, or choose "
            "runs with --filter"
        )
    return texts.pop()


def _parts(
    members: Sequence[RunGroup], averaged: Sequence[SettingColumn], groups: Sequence[RunGroup]
) -> tuple[Subgroup, ...]:
    """Return the runs of a variant, apart for each value of the settings that are averaged over."""
    indices = {id(group): index for index, group in enumerate(groups)}
    rows = [tuple(column.values[indices[id(group)]] for column in averaged) for group in members]
    return tuple(part for group, row in zip(members, rows, strict=True) for part in split_group(group, row))
