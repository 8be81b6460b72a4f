"""Wording of a comparison: its question, its answer, and advice where differences may be noise."""

from collections.abc import Sequence
from datetime import date

from litlab.compare.data_model import Comparison, Design, Difference, Group, Selection, Summary, best_group, variant_of
from litlab.compare.differences import MAX_SEQUENTIAL
from litlab.compare.grouping import ALL
from litlab.compare.table import INTERVAL, decimals, fixed, unit_of_differences, with_unit
from litlab.runs.metrics import Metric, Mode
from litlab.runs.terminal import format_value, printable
from litlab.statistics.student_t import CONFIDENCE, MAX_SEEDS

MAX_LENGTH = 300  # characters of a text from a file
MAX_LABELS = 4  # in a question
_MAX_FULL = 1e3  # points; larger differences are written with six digits


def on_one_line(text: str) -> str:
    """Return an untrusted text on one line, cut if it is long, without control characters."""
    return printable(text if len(text) <= MAX_LENGTH else f"{text[: MAX_LENGTH - 1]}…")


def question(comparison: Comparison) -> str:
    """Return the question that the comparison answers."""
    metric, groups = on_one_line(comparison.metric.label), comparison.groups
    if comparison.is_ablation:
        return f"What does each change of the recipe do to {metric}?"
    if len(groups) < 2:
        num_runs = sum(len(group.runs) for group in groups)
        return f"What {metric} {'does the run' if num_runs == 1 else 'do the runs'} reach?"
    if not comparison.labels:
        return f"Which of {len(groups)} groups of runs has the best {metric}?"
    names = [on_one_line(label) for label in comparison.labels]
    if len(names) > MAX_LABELS:
        names = [*names[: MAX_LABELS - 1], f"{len(names) - MAX_LABELS + 1} more settings"]
    listed = " and ".join(filter(None, [", ".join(names[:-1]), names[-1]]))
    return f"Which setting of {listed} gives the best {metric}?"


def answer(comparison: Comparison) -> str:
    """Name the best group, its certainty, and how many groups cannot be told from it."""
    best = comparison.best
    if best is None or best.value is None:
        return f"No completed run has a value of {on_one_line(comparison.metric.name)}."
    value = _value(comparison, best.value, best.unit)
    name = "All runs" if best.name == ALL else on_one_line(best.name)
    if comparison.is_ablation:
        return _ablation_answer(comparison)
    num_others = sum(group.value is not None for group in comparison.groups) - 1
    if not num_others:
        return f"{name}: {value}."
    return f"{name} is best: {value}; {_certainty(comparison, best, num_others)}."


def _ablation_answer(comparison: Comparison) -> str:
    """Name the value of the full recipe, the most harmful change, and how many changes can be told from noise."""
    metric, groups = comparison.metric, comparison.groups
    full = next(group for group in groups if group.name == comparison.baseline)
    single = [group for group in groups if group.runs and len(variant_of(group.runs)) == 1]
    changes = {group.name: group.difference for group in single if group.difference}
    assert full.value is not None
    start = f"The full recipe: {_value(comparison, full.value, full.unit)}."
    if not changes:
        return f"{start} No change has a completed run."
    name, worst = next(iter(changes.items()))
    gain = fixed(metric.scale * worst.mean, decimals(metric, (group.value for group in groups)), "+")
    gain = f"{gain} {unit_of_differences(metric)}".rstrip()
    is_harmful = worst.mean < 0 if comparison.mode == "max" else worst.mean > 0
    most = f"{on_one_line(name)} harms most: {gain}" if is_harmful else "none of the changes harms"
    num_found = sum(bool(difference and _is_significant(difference)) for difference in changes.values())
    return f"{start} Of {len(changes)} change{'s' * (len(changes) != 1)}, {most}; {num_found} can be told from noise."


def _is_significant(difference: Difference) -> bool:
    return difference.corrected is not None and difference.corrected < 1 - CONFIDENCE


def _certainty(comparison: Comparison, best: Group, num_others: int) -> str:
    if not best.has_interval:
        value = "a mean without an interval" if best.value and best.value.num > 1 else f"a single {best.unit}"
        return f"{value} does not tell whether that is more than chance"
    num_ties = len(comparison.ties - {best.name})
    if num_ties == num_others:
        return "no other can be told from it" if num_others > 1 else "the other one cannot be told from it"
    if num_ties:
        return f"{num_ties} of the {num_others} others cannot be told from it"
    return f"its interval does not overlap {'those of the others' if num_others > 1 else 'that of the other one'}"


def _value(comparison: Comparison, value: Summary, one: str) -> str:
    """Return `63.20 % (95 % interval 62.51 to 63.94, 5 seeds)`; `one` is `seed`, `fold` or `run`."""
    metric = comparison.metric
    places = decimals(metric, (group.value for group in comparison.groups))
    mean = with_unit(metric, value.mean, places)
    if value.low is None or value.high is None:
        return f"{mean} (one {one})" if value.num == 1 else f"{mean} ({value.num} runs)"
    low, high = fixed(metric.scale * value.low, places), fixed(metric.scale * value.high, places)
    return f"{mean} ({INTERVAL} {low} to {high}, {value.num} {one}s)"


def extent(comparison: Comparison, dates: Sequence[date]) -> str:
    """Describe the number of runs, and the dates on which they were started, given in any order."""
    nums = sorted(len(group.runs) for group in comparison.all_groups)
    text = f"{sum(nums):,} completed run{'s' * (sum(nums) != 1)}"
    if len(nums) > 1:
        text += f" in {len(nums):,} groups of {nums[0]}" + f" to {nums[-1]}" * (nums[0] < nums[-1])
    if dates:
        first, last = (f"{day.day} {day:%B %Y}" for day in (min(dates), max(dates)))
        text += f", made on {first}" if first == last else f", made from {first} to {last}"
    return f"{text}."


def caution(groups: Sequence[Group], mode: Mode) -> list[str]:
    """Warn if the best of several groups has no interval."""
    valued = [group for group in groups if group.value]
    best = best_group(valued, mode)
    if len(valued) < 2 or best is None or best.value is None or best.has_interval:
        return []
    if all(group.value and group.value.num == 1 for group in valued):
        return [f"one {best.unit} a group: no spread is known, so the order may be chance; run more {best.unit}s"]
    reason = f"has one {best.unit}" if best.value.num == 1 else "has no interval"
    advice = f"run more {best.unit}s"
    return [f"{best.name} {reason}: no spread is known, so that it comes first may be chance; {advice}"]


def selection_note(selection: Selection, groups: Sequence[Group], metric: Metric, test: Metric) -> str:
    """Say how much of the value of the best group is owed to being selected by it, and what to report instead.

    Args:
        selection: Selection of the best group.
        groups: All groups.
        metric: The compared metric.
        test: The same quantity on the test split.
    """
    best = next(group for group in groups if group.name == selection.group)
    assert best.value is not None
    places = decimals(metric, (group.value for group in groups))
    unit = unit_of_differences(metric)

    def amount(value: float) -> str:
        return f"{fixed(metric.scale * max(value, 0.0), places)} {unit}".rstrip()

    value = with_unit(metric, best.value.mean, places)
    start = f"{selection.group}: the best of {selection.num_groups} groups by {format_value(metric.name)}"
    if selection.value_bias is None or selection.lead_bias is None:
        bias = f"{start}: how much of its {value} is selection can't be told, as no group has two {best.unit}s"
    else:
        of_value, of_lead, none = map(amount, (selection.value_bias, selection.lead_bias, 0.0))
        is_all = selection.lead_bias >= selection.lead > 0
        of_value = "none is" if of_value == none else f"about {of_value} are"
        of_lead = "none" if of_lead == none else "all" if is_all else f"about {of_lead}"
        bias = (
            f"{start}; of its {value}, {of_value} expected to be selection, and of its lead of "
            f"{amount(selection.lead)}, {of_lead}"
        )
    if selection.test is None:
        return f"{bias}; a value without selection needs a {format_value(test.name)}, which it does not have"
    test_places = decimals(test, (group.test.get(test.name) for group in groups))
    tested = with_unit(test, selection.test, test_places)
    return f"{bias}; its {format_value(test.name)}, by which nothing was selected, is {tested}"


def advice(name: str, difference: Difference, metric: Metric, unit: str, design: Design) -> str | None:
    """Say what would tell a group of that name from the baseline; None if its difference is significant.

    Args:
        name: Name of the group.
        difference: Its difference from the baseline.
        metric: The compared metric.
        unit: Unit of repetition: `seed`, `fold` or `run`.
        design: Design of the test.
    """
    if _is_significant(difference):
        return None
    if metric.unit == "%":
        gain = f"{100 * difference.mean:{'+z.2f' if abs(difference.mean) < _MAX_FULL else '+.6g'}} points"
    else:
        gain = f"{difference.mean:+.4g} {metric.unit}".rstrip()
    start = f"{name}: {gain} against the baseline"
    if difference.num < 2:
        return f"{start}, but with one {unit} no spread is known: it may be noise; run at least 2 more {unit}s"
    is_paired = difference.kind == "paired"
    start += f" ({difference.num} {f'pairs of {unit}s' if is_paired else f'{unit}s'})"
    if difference.p is None:
        same = "the difference is the same in all pairs" if is_paired else "all have the same value"
        return f"{start}, but {same}, so there is no spread to test with"
    if unit == "fold":  # more of them would be other ones
        return f"{start} can't be told from noise; more seeds for each fold make its value more certain"
    return f"{start} can't be told from noise{_what_to_do(difference, design)}"


def _what_to_do(difference: Difference, design: Design) -> str:
    """Say how many seeds would tell a difference from noise, and what adding them means for the test."""
    num, needed, horizon = difference.num, difference.needed, design.horizon
    if_true = "if the true difference is as large as this"
    if not design.is_sequential:
        if needed is None:
            return f"; a difference this small would need more than {MAX_SEEDS:,} seeds"
        again = f"about {needed} seeds of each would do in a study that plans them"
        return f"; {if_true}, {again} (seeds added to this one make its test sequential, which needs more)"
    if horizon is not None and (num >= horizon or design.is_last):
        return f" with the {horizon} planned seeds; with more, the test has an open end"
    add = " yet; seeds may be added until it is decided"
    if needed is not None and needed > num:
        return f"{add}; {if_true}, about {needed} of each would do"
    if needed is not None:  # with this many, studies find it more often than not, but this one did not
        return add
    if horizon is None or horizon > MAX_SEQUENTIAL:
        return f"{add}; a difference this small would need more than {MAX_SEQUENTIAL} seeds"
    return f"{add}; a difference this small would need more than the {horizon} seeds that are planned"
