"""Ablations: groups of runs by the changes of a recipe, and their order, the most harmful change first."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from math import inf

from litlab.compare.data_model import Comparison, Design, Group, Interaction, Run, Unit, variant_of
from litlab.compare.differences import differences
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
from litlab.compare.table import Column, Table, decimals, fixed, tested_columns, unit_of_differences
from litlab.compare.unit_values import unit_end_times
from litlab.config.ablation_changes import ABLATION
from litlab.errors import UserError
from litlab.runs.metrics import Mode
from litlab.runs.terminal import format_value
from litlab.statistics.student_t import mean_of

FULL, ALL = "full recipe", "all together"  # no names of changes, which have no spaces
CHANGE, OVERRIDES = "change", "overrides"  # labels of the columns
Names = tuple[str, ...]
_PLUS = " + "  # between the names of changes


def define_variants(groups: Sequence[RunGroup]) -> Grouping:
    """Define a group for the full recipe, each change, and each combination of changes, in this order.

    Settings that vary besides the changes, such as other axes of the study, are averaged over, as by `--group`.

    Raises:
        UserError: If the runs are of no ablation, of none with a full recipe, or if a name means several changes.
    """
    by_names, num_others = _by_names(groups)
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
    if num_others:
        notes.append(f"{num_others} run{'s' * (num_others != 1)} of no ablation left out")
    return Grouping({CHANGE: ABLATION, OVERRIDES: "study.ablate"}, specs, notes)


def variant_name(names: Names, changes: frozenset[str]) -> str:
    """Return the name to show: `full recipe`, `no_flip`, `no_flip + no_crop` or `all together`."""
    if not names:
        return FULL
    return ALL if len(names) > 1 and changes <= {*names} else _PLUS.join(map(format_value, names))


def sort_variants(groups: Sequence[Group], mode: Mode) -> list[Group]:
    """Sort the full recipe first, then the changes, the most harmful first, then their combinations."""
    sign = 1 if mode == "max" else -1

    def key(group: Group) -> tuple[int, float, str]:
        rank = 0 if group.name == FULL else 3 if group.name == ALL else 2 if _PLUS in group.name else 1
        return rank, sign * group.difference.mean if group.difference else inf, group.name

    return sorted(groups, key=key)


def add_interactions(groups: Sequence[Group], means: Mapping[str, Mapping[Unit, float]], design: Design) -> list[Group]:
    """Return the groups, those of two changes with their interaction.

    The interaction of a seed or fold is the value with both changes, minus those with one change, plus that of the full
    recipe. Over the seeds, it is tested against no interaction.

    Args:
        groups: All groups of an ablation.
        means: Name of a group -> seed or fold -> value.
        design: Design of the tests.
    """
    names = {group.name: variant_of(group.runs) for group in groups}
    full = {unit: value for unit, value in means.get(FULL, {}).items() if unit is not None}
    level = mean_of([*full.values()]) if full else 0.0
    effects: dict[str, tuple[float, float]] = {}
    interactions: dict[str, dict[Unit, float]] = {}
    for name, changes in names.items():
        if len(changes) != 2:
            continue
        both, (first, second) = means.get(name, {}), (means.get(change, {}) for change in changes)
        units = [unit for unit in full if unit in both and unit in first and unit in second]
        if units:
            together = {unit: both[unit] - full[unit] for unit in units}
            total = {unit: first[unit] + second[unit] - 2 * full[unit] for unit in units}
            effects[name] = mean_of([*together.values()]), mean_of([*total.values()])
            # Around the level of the metric, not around 0, so that a spread from rounding is told from a real one.
            interactions[name] = {unit: level + together[unit] - total[unit] for unit in units}
    runs = {group.name: group.runs for group in groups}
    ended = {
        name: unit_end_times(run for part in (FULL, *names[name], name) for run in runs[part]) for name in interactions
    }
    tested = differences(dict.fromkeys(full, level), interactions, design, ended)
    return [
        replace(group, interaction=Interaction(*effects[group.name], tested[group.name]))
        if group.name in tested
        else group
        for group in groups
    ]


def is_pair(group: Group) -> bool:
    """Return True for two changes of several; they have a table of their own."""
    return group.name.count(_PLUS) == 1


def sort_pairs(groups: Sequence[Group]) -> list[Group]:
    """Return the groups with two changes, the largest interaction first."""
    pairs = [group for group in groups if is_pair(group) or group.interaction]
    return sorted(
        pairs, key=lambda pair: (-abs(pair.interaction.difference.mean) if pair.interaction else inf, pair.name)
    )


def interaction_columns(comparison: Comparison) -> list[Column]:
    """Return the columns of the table of interactions, and of their values in CSV and JSON; none without pairs."""
    if not comparison.pairs:
        return []
    metric = comparison.metric
    places = decimals(metric, (group.value for group in comparison.groups))
    unit = f" ({unit})" if (unit := unit_of_differences(metric)) else ""

    def number(name: str, title: str) -> Column:
        def value(group: Group) -> float | None:
            return getattr(group.interaction, name, None)

        def text(group: Group) -> str:
            return "" if (found := value(group)) is None else fixed(metric.scale * found, places, "+")

        return Column(title + unit, value, text, key=f"interaction {name}")

    def num(group: Group) -> int:
        return group.interaction.difference.num if group.interaction else 0

    return [
        Column("changes", lambda group: group.name, pair_name, data={}, is_number=False),
        Column("n", num, lambda group: str(num(group)), data={}),
        number("together", "together"),
        number("total", "sum of both"),
        *tested_columns(
            comparison, "interaction", lambda group: group.interaction.difference if group.interaction else None
        ),
    ]


def interaction_table(comparison: Comparison) -> Table | None:
    """Build the table of the interactions; None without pairs."""
    pairs = [(column, tuple(map(column.text, comparison.pairs))) for column in interaction_columns(comparison)]
    if not pairs:
        return None
    units = " or ".join(sorted({f"{group.unit}s" for group in comparison.pairs if group.runs})) or "seeds"
    num = sum(bool(pair.interaction and pair.interaction.difference.p is not None) for pair in comparison.pairs)
    tested = f"Intervals and p as for the differences; p corrected for {num} interaction{'s' * (num != 1)}."
    tested = tested if num else "No interaction could be tested."
    return Table(
        name=f"{comparison.directories[0].resolve().name}-interactions",
        columns=tuple(column for column, cells in pairs if any(cells)),
        cells=tuple(cells for _, cells in pairs if any(cells)),
        ties=(False,) * len(comparison.pairs),
        caption=(
            f"Interactions in {format_value(comparison.metric.name)}: the difference of both changes together from the "
            "full recipe, minus the sum of their single differences; 0: the effects add up.",
            f"n: {units} with all four runs. {tested}",
        ),
        notes=(),
    )


def pair_name(pair: Group) -> str:
    """Return the names of two changes: `no_flip + no_crop`, also where these are all changes."""
    return _PLUS.join(map(format_value, variant_of(pair.runs))) or pair.name


def _by_names(groups: Sequence[RunGroup]) -> tuple[dict[Names, list[RunGroup]], int]:
    """Divide groups by the changes that their runs have, in whatever order; also count the runs of no ablation."""
    divided: dict[frozenset[str], list[RunGroup]] = {}
    num_others = 0
    for group in groups:
        members: dict[frozenset[str], list[Run]] = {}
        for run in group.runs:
            if run.variant is None:
                num_others += 1
            else:
                members.setdefault(frozenset(run.variant.names), []).append(run)
        for key, runs in members.items():
            divided.setdefault(key, []).append(replace(group, runs=tuple(runs)))
    return {variant_of(members[0].runs): members for members in divided.values()}, num_others


def _overrides(names: Names, groups: Sequence[RunGroup]) -> str:
    variants = [run.variant for group in groups for run in group.runs if run.variant]
    texts = {frozenset(variant.overrides): " ".join(variant.overrides) for variant in reversed(variants)}
    if len(texts) > 1:
        several = " and ".join(map(format_value, sorted(texts.values())[:3]))
        raise UserError(
            f"--ablation: {'+'.join(names)} means {several} in different runs; compare one of the studies, or choose "
            "runs with --filter"
        )
    return next(iter(texts.values()))


def _parts(
    members: Sequence[RunGroup], averaged: Sequence[SettingColumn], groups: Sequence[RunGroup]
) -> tuple[Subgroup, ...]:
    """Return the runs of a variant, apart for each value of the settings that are averaged over."""
    indices = {id(group): index for index, group in enumerate(groups)}
    rows = [tuple(column.values[indices[id(group)]] for column in averaged) for group in members]
    return tuple(part for group, row in zip(members, rows, strict=True) for part in split_group(group, row))
