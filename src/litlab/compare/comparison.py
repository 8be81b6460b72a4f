"""The comparison that `litlab compare` shows: groups of runs, averaged over seeds or folds, ordered by their ranks."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from math import inf
from pathlib import Path

from litlab.compare.ablation import FULL, add_interactions, define_variants, is_pair, sort_pairs, sort_variants
from litlab.compare.collect import collect
from litlab.compare.conclusion import advice, caution, selection_note
from litlab.compare.data_model import Comparison, Design, Group, Run, Summary, best_group
from litlab.compare.design import choose_design
from litlab.compare.differences import differences
from litlab.compare.filters import filter_runs
from litlab.compare.grouping import GroupSpec, define_groups, group_by_settings
from litlab.compare.metric_values import (
    BEST,
    check_at,
    choose_metric,
    metric_table,
    no_values_error,
    test_counterpart,
    value_of,
)
from litlab.compare.selection import select_best
from litlab.compare.table import sort_groups
from litlab.compare.unit_values import (
    UnitValues,
    Values,
    exclude_runs,
    run_names,
    runs_are,
    summarize_group,
    unit_end_times,
    unit_means,
    values_by_unit,
)
from litlab.errors import UserError
from litlab.runs.metrics import Metric, MetricTable, Mode
from litlab.runs.state import RunStatus
from litlab.runs.terminal import format_value, printable

_NUM_LISTED = 5  # directories, runs or groups in a message
_NUM_GROUPS = 12  # groups in the message about a baseline
_NUM_ADVICE = 8  # groups that are named one by one as not different from the baseline
_SPEED = Metric("images/s", mode="max")
_SECONDS = Metric("seconds", "s", mode="min")


def compare(
    directories: Sequence[Path],
    *,
    metric: str | None = None,
    mode: Mode | None = None,
    at: str = BEST,
    filters: Sequence[str] = (),
    group: Sequence[str] | None = None,
    sort: str | None = None,
    baseline: str | None = None,
    ablation: bool = False,
) -> Comparison:
    """Collect the runs at or below directories, group them by their configs without seed and fold, and rank the groups.

    Args:
        directories: Studies, runs, or folders of them.
        metric: Validation metric that groups are compared by; by default the objective of the runs.
        mode: Direction of the metric; by default that of the objective or of the metric's class.
        at: `best`: where the objective was best; `last`; or `epoch=N`, counted from 1.
        filters: Conditions on settings: `optimizer.lr<0.1`. A run counts if all of them hold.
        group: Settings that alone tell groups apart; all others are averaged over.
        sort: Column to sort by: a setting by its label or key, a metric, or another column; by default the metric.
        baseline: Name of the group that others are compared with, or a part that only one name has.
        ablation: Compare the changes of an ablation with its full recipe, instead of groups by settings.

    Raises:
        UserError: If no run is left to compare, or if an argument does not fit the runs.
    """
    check_at(at)
    runs, skipped = collect(directories)
    if not runs:
        reasons = [printable(f"{entry.path}: {entry.reason}") for entry in skipped]
        raise UserError("\n".join(["there is nothing to compare", *_first(reasons, _NUM_LISTED)]))
    all_groups = group_by_settings(runs)
    filtered_groups = filter_runs(all_groups, filters)
    grouping = define_variants(filtered_groups) if ablation else define_groups(filtered_groups, group, all_groups)
    kept = [run for spec in grouping.groups for run in spec.runs]
    table = metric_table(kept)
    chosen = choose_metric(kept, metric, mode, table)
    test = test_counterpart(chosen, table)
    table[test.name] = test
    values = {
        run.path: value for run in kept if run.is_completed and (value := value_of(run, chosen.name, at)) is not None
    }
    if not values:
        raise no_values_error(kept, chosen.name, at)
    if chosen.mode is None:
        raise UserError(
            f"--metric {format_value(chosen.name)}: it is unknown which values are better, since it is not the "
            "objective and its class has no `higher_is_better`; add --mode max or --mode min"
        )
    specs, notes = exclude_runs(grouping.groups, values)
    notes += _not_averaged(kept, values, chosen.name, at)
    notes += _without_test(specs, values, test.name)
    notes += _on_several_devices([run for spec in specs for run in spec.runs if run.path in values])
    groups = [_group(spec, values, chosen, table) for spec in specs]
    design = choose_design(groups)
    pairs: list[Group] = []
    if ablation:
        means = {spec.name: unit_means(values_by_unit(spec.subgroups, values)) for spec in specs}
        groups = add_interactions(groups, means, design)
        pairs = sort_pairs(groups)
        groups = [group for group in groups if not is_pair(group)]
        if next(group.value for group in groups if group.name == FULL) is None:
            raise UserError(f"--ablation: no run of the full recipe has a value of {format_value(chosen.name)} yet")
    notes += caution(groups, chosen.mode)
    baseline = FULL if ablation else baseline
    base = None if baseline is None else _find_group(groups, baseline)
    by_unit = {spec.name: values_by_unit(spec.subgroups, values) for spec in specs}
    selection = None if ablation else select_best(groups, by_unit, chosen, test)
    if selection is not None:
        notes.append(selection_note(selection, groups, chosen, test))
    if base is not None:
        groups, remarks = _against(base, groups, by_unit, chosen, design)
        notes += remarks
    num_filtered = len(runs) - sum(len(group.runs) for group in filtered_groups)
    filtered = [f"--filter leaves out {num_filtered} of {len(runs)} runs"] * (num_filtered > 0)
    sign = -1 if chosen.mode == "max" else 1
    ranked = sorted(groups, key=lambda group: (sign * group.value.mean if group.value else inf, group.name))
    ranked = sort_variants(groups, chosen.mode) if ablation else ranked
    comparison = Comparison(
        directories=tuple(directories),
        metric=chosen,
        test_metric=test,
        at=at,
        labels=tuple(grouping.keys),
        keys=grouping.keys,
        groups=tuple(ranked),
        baseline=base.name if base else None,
        design=design,
        selection=selection,
        ties=frozenset() if ablation else _tied_groups(groups, chosen.mode),  # the question is another one
        notes=(*filtered, *grouping.notes, *notes),
        skipped=tuple(skipped),
        unfinished=tuple(run for run in runs if not run.is_completed),
        pruned=tuple(run for run in kept if run.status == RunStatus.PRUNED),
        is_ablation=ablation,
        pairs=tuple(pairs),
    )
    return comparison if sort is None else replace(comparison, groups=sort_groups(comparison, sort, table))


def _group(spec: GroupSpec, values: Values, metric: Metric, table: MetricTable) -> Group:
    completed = sorted(
        (run for run in spec.runs if run.is_completed),
        key=lambda run: (run.seed is None, run.seed or 0, run.fold.number if run.fold else 0),
    )
    counted = [run for run in completed if run.path in values]  # the same runs in all columns
    tests = dict.fromkeys(name for run in counted for name in run.test)

    def summary(values: Mapping[Path, float | None], metric: Metric) -> Summary | None:
        present = {path: value for path, value in values.items() if value is not None}
        return summarize_group(spec.subgroups, present, metric)

    test = {name: summary({run.path: run.test.get(name) for run in counted}, table[name]) for name in tests}
    parameters, trainable = ({run.parameters for run in completed}, {run.trainable_parameters for run in completed})
    return Group(
        name=spec.name,
        settings=spec.settings,
        runs=tuple(completed),
        others=dict(Counter(run.status for run in spec.runs if not run.is_completed)),
        value=summarize_group(spec.subgroups, values, metric),
        test={name: value for name, value in test.items() if value is not None},
        seconds=summary({run.path: run.training_seconds for run in counted}, _SECONDS),
        images_per_second=summary({run.path: run.images_per_second for run in counted}, _SPEED),
        parameters=parameters.pop() if len(parameters) == 1 else None,
        trainable_parameters=trainable.pop() if len(trainable) == 1 else None,
    )


def _tied_groups(groups: Sequence[Group], mode: Mode) -> frozenset[str]:
    """Return the names of the best group and of those whose interval overlaps that of the best.

    The value of a single run stands for its interval. The rule is simple and conservative: intervals that do not
    overlap mean a difference well below p = 0.05; a test (`--baseline`) may tell groups with overlapping ones apart.
    """
    best = best_group(groups, mode)
    assert best is not None
    intervals = {group.name: group.value.ends for group in groups if group.value is not None}
    low, high = intervals[best.name]
    return frozenset(name for name, (lower, upper) in intervals.items() if lower <= high and upper >= low)


def _find_group(groups: Sequence[Group], name: str) -> Group:
    """Return the group with a name, or the only one with these settings (`lr=0.1`), or with this text in its name."""
    settings = set(name.split())
    matches: list[Group] = []
    for fits in (
        lambda group: group.name == name,
        lambda group: settings <= {f"{label}={value}" for label, value in group.settings.items()},
        lambda group: name in group.name,
    ):
        matches = [group for group in groups if fits(group)]
        if len(matches) == 1:
            return matches[0]
        if matches:
            break
    problem = "is a part of several names" if matches else "is not a group"
    names = _first([f"  {group.name}" for group in matches or groups], _NUM_GROUPS, "  ")
    raise UserError("\n".join([f"--baseline {format_value(name)}: {problem}; name one of", *names]))


def _against(
    base: Group, groups: Sequence[Group], units: dict[str, UnitValues], metric: Metric, design: Design
) -> tuple[list[Group], list[str]]:
    """Add differences from the baseline to the groups, and describe those that cannot be told from noise."""
    if base.value is None:
        raise UserError(f"--baseline {base.name}: none of its runs has a value of {metric.name}; choose another")
    if not units[base.name]:
        settings = "seeds and settings that are averaged" if base.unit == "fold" else "settings that --group averages"
        raise UserError(
            f"--baseline {base.name}: no {base.unit} has a completed run of all {settings} over there, so "
            "nothing can be tested against it; leave --group out, or let it name more settings"
        )
    if len(groups) == 1:
        return [base], [f"{base.name} is the only group: there is nothing to compare with it"]
    means = {group.name: unit_means(units[group.name]) for group in groups if units[group.name]}
    ended = {group.name: unit_end_times([*base.runs, *group.runs]) for group in groups}
    tested = differences(means.pop(base.name), means, design, ended)
    sentences = [
        sentence
        for name, difference in tested.items()
        if (sentence := advice(name, difference, metric, base.unit, design))
    ]
    remarks = sentences[:_NUM_ADVICE]
    if (num_more := len(sentences) - _NUM_ADVICE) > 0:
        remarks.append(f"{num_more} more group{'s' * (num_more != 1)} can't be told from {base.name} either")
    return [replace(group, difference=tested.get(group.name)) for group in groups], remarks


def _not_averaged(runs: Sequence[Run], values: Values, metric: str, at: str) -> list[str]:
    """Describe runs that are counted only: those that are not completed, and those without the metric."""
    notes = []
    if unfinished := [run for run in runs if not run.is_completed]:
        statuses = Counter(run.status.label for run in unfinished)
        counts = ", ".join(f"{num} {status}" for status, num in statuses.items())
        notes.append(f"{runs_are(unfinished)} not completed and not averaged: {counts}")
    if without := [run for run in runs if run.is_completed and run.path not in values]:
        notes.append(f"{runs_are(without)} completed, but without {metric} at {at}: {run_names(without)}")
    return notes


def _without_test(specs: Sequence[GroupSpec], values: Values, test_metric: str) -> list[str]:
    """Describe runs that count, but lack the test metric, if others have it."""
    runs = [run for spec in specs for run in spec.runs if run.path in values]
    without = [run for run in runs if test_metric not in run.test]
    if not without or len(without) == len(runs):
        return []
    have = "1 run has" if len(without) == 1 else f"{len(without)} runs have"
    return [f"{have} no {test_metric}, which is averaged over the others: {run_names(without)}"]


def _on_several_devices(runs: Sequence[Run]) -> list[str]:
    """Say so if the runs trained on different devices, or if `trainer.precision=auto` chose different precisions."""
    kinds = Counter(
        f"{run.device}, {run.precision}" if run.settings.get("trainer.precision") == "auto" else run.device
        for run in runs
        if run.device is not None
    )
    if len(kinds) < 2:
        return []
    counts = "; ".join(f"{num} on {printable(kind)}" for kind, num in kinds.most_common())
    return [f"the runs trained on different devices, whose results differ for the same seed: {counts}"]


def _first(lines: Sequence[str], num: int, indent: str = "") -> list[str]:
    return [*lines[:num], *[f"{indent}and {len(lines) - num} more"] * (len(lines) > num)]
