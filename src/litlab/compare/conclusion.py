"""The question that a comparison answers, and the answer, as sentences."""

from collections.abc import Sequence
from datetime import date

from litlab.compare.model import LEVEL, Comparison, Group, Summary
from litlab.compare.table import best_group, decimals, fixed
from litlab.runs.terminal import printable

LONGEST = 300  # characters of a text from a file
MOST_LABELS = 4  # that a question names
_SPLITS = {"val": "validation", "train": "training"}


def on_one_line(text: str) -> str:
    """A stranger's text, without what would garble the page, and not endless."""
    cut = text if len(text) <= LONGEST else f"{text[: LONGEST - 1]}…"
    return printable(cut)


def in_words(metric: str) -> str:
    """`val/top5_accuracy` -> validation top5 accuracy."""
    split, _, name = metric.rpartition("/")
    return on_one_line(f"{_SPLITS.get(split, split)} {name.replace('_', ' ')}".strip())


def question(comparison: Comparison) -> str:
    """What the comparison was made for."""
    metric, groups = in_words(comparison.metric), comparison.groups
    if len(groups) < 2:
        num_runs = sum(len(group.runs) for group in groups)
        return f"What {metric} {'does the run' if num_runs == 1 else 'do the runs'} reach?"
    if not comparison.labels:
        return f"Which of {len(groups)} groups of runs has the best {metric}?"
    return f"Which setting of {_listed([on_one_line(label) for label in comparison.labels])} gives the best {metric}?"


def _listed(names: Sequence[str]) -> str:
    if len(names) > MOST_LABELS:
        names = [*names[: MOST_LABELS - 1], f"{len(names) - MOST_LABELS + 1} more settings"]
    return " and ".join(filter(None, [", ".join(names[:-1]), names[-1]]))


def answer(comparison: Comparison) -> str:
    """Which group is best, how sure that is, and how many cannot be told from it."""
    best = best_group(comparison.groups, comparison.mode)
    if best is None or best.value is None:
        return f"No run that is done has a value of {on_one_line(comparison.metric)}."
    value = _value(comparison, best.value, "seed" if all(run.seed is not None for run in best.runs) else "run")
    known = [group for group in comparison.groups if group.value]
    if len(known) == 1:
        return f"{on_one_line(best.name).capitalize() if best.name == 'all runs' else on_one_line(best.name)}: {value}."
    return f"{on_one_line(best.name)} is best: {value}; {_certainty(comparison, best, len(known) - 1)}."


def _certainty(comparison: Comparison, best: Group, num_others: int) -> str:
    if best.value is None or best.value.low is None:
        what = "a mean without an interval" if best.value and best.value.num > 1 else "a single seed"
        return f"{what} does not tell whether that is more than chance"
    num_ties = len(comparison.ties - {best.name})
    if num_ties == num_others:
        return "no other can be told from it" if num_others > 1 else "the other one cannot be told from it"
    if num_ties:
        return f"{num_ties} of the {num_others} others cannot be told from it"
    return f"its interval lies apart from {'all others' if num_others > 1 else 'that of the other one'}"


def _value(comparison: Comparison, value: Summary, one: str) -> str:
    """`63.20 % (95 % interval 62.51 to 63.94, 5 seeds)`; `one` is what is averaged over."""
    scale, unit = (100, " %") if "accuracy" in comparison.metric else (1, "")
    places = decimals(comparison.metric, (group.value for group in comparison.groups))
    mean = f"{fixed(scale * value.mean, places)}{unit}"
    if value.low is None or value.high is None:
        return f"{mean} (one {one})" if value.num == 1 else f"{mean} ({value.num} runs)"
    low, high = fixed(scale * value.low, places), fixed(scale * value.high, places)
    return f"{mean} ({100 * LEVEL:.0f} % interval {low} to {high}, {value.num} {one}s)"


def extent(comparison: Comparison, dates: Sequence[date]) -> str:
    """How many runs there are, and when they were made.

    Args:
        dates: on which runs were started, in any order.
    """
    nums = sorted({len(group.runs) for group in comparison.groups})
    num_runs, num_groups = sum(len(group.runs) for group in comparison.groups), len(comparison.groups)
    said = f"{num_runs:,} finished run{'s' * (num_runs != 1)}"
    if num_groups > 1:
        each = f"{nums[0]}" if len(nums) == 1 else f"{nums[0]} to {nums[-1]}"
        said += f" in {num_groups:,} groups of {each}"
    if dates:
        first, last = (f"{day.day} {day:%B %Y}" for day in (min(dates), max(dates)))
        said += f", made on {first}" if first == last else f", made from {first} to {last}"
    return f"{said}."
