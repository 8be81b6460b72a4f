"""In which order groups stand, which of them are no worse than the best as far as one can tell, and which is meant."""

from collections.abc import Callable, Mapping, Sequence
from math import inf

from litlab.compare.hyperparameters import parsed
from litlab.compare.metric_values import mode_of
from litlab.compare.model import Group, Mode, Objective, Summary
from litlab.errors import UserError
from litlab.runs.diff import shown

_NUM_NAMED = 12  # groups in a message


def tied(groups: Sequence[Group], mode: Mode) -> frozenset[str]:
    """The names of the best group and of those whose interval reaches that of the best.

    Of a group of one run, its value stands for the interval. The rule is simple and careful: intervals that don't
    overlap mean a difference well below p = 0.05; of some that do, a test (`--baseline`) would tell the groups apart.
    """
    known = {each.name: _interval(each.value) for each in groups if each.value is not None}
    if not known:
        return frozenset()
    first = min((each for each in groups if each.value is not None), key=lambda each: _rank(each.value, mode))
    low, high = known[first.name]
    return frozenset(name for name, (lower, upper) in known.items() if lower <= high and upper >= low)


def _interval(summary: Summary) -> tuple[float, float]:
    if summary.low is None or summary.high is None:
        return summary.mean, summary.mean
    return summary.low, summary.high


def _rank(summary: Summary | None, mode: Mode) -> float:
    """The smaller, the better; what is not known comes last."""
    if summary is None:
        return inf
    return -summary.mean if mode == "max" else summary.mean


_COLUMNS: dict[str, Callable[[Group], float]] = {
    "n": lambda each: -each.value.num if each.value else inf,
    "time": lambda each: _rank(each.seconds, "min"),
    "images/s": lambda each: _rank(each.images_per_second, "max"),
    "parameters": lambda each: inf if each.parameters is None else each.parameters,
}


def ranked(groups: Sequence[Group], sort: str | None, objective: Objective, keys: Mapping[str, str]) -> list[Group]:
    """By the metric that is compared, the best first; or by a column, of numbers other than settings the best first.

    Args:
        sort: `name`, one of `_COLUMNS`, a setting by its label or key, or a metric of the test.
        keys: label -> full name of the key.

    Raises:
        UserError: if there is no such column.
    """
    best_first = sorted(groups, key=lambda each: (_rank(each.value, objective.mode), each.name))
    if sort is None or sort == objective.metric:
        return best_first
    if sort == "name":
        return sorted(best_first, key=lambda each: each.name)
    if sort in _COLUMNS:
        return sorted(best_first, key=_COLUMNS[sort])
    by_key = {key: label for label, key in keys.items()}
    if (label := sort if sort in keys else by_key.get(sort)) is not None:
        return sorted(best_first, key=lambda each: _order(each.settings.get(label)))
    tested = {name: summary for each in groups for name, summary in each.test.items()}
    if sort in tested:
        return sorted(best_first, key=lambda each: _rank(each.test.get(sort), mode_of(sort)))
    columns = ", ".join([*map(shown, keys), objective.metric, *sorted(tested)[:_NUM_NAMED], "name", *_COLUMNS])
    raise UserError(f"--sort {shown(sort)}: no such column; expected one of {columns}")


def _order(value: str | None) -> tuple[int, float, str]:
    """Numbers by size, then texts, then what is absent."""
    if value is None:
        return 2, 0.0, ""
    number = parsed(value)
    is_number = isinstance(number, int | float) and not isinstance(number, bool)
    return (0, float(number), value) if is_number else (1, 0.0, value)


def find_group(groups: Sequence[Group], asked: str) -> Group:
    """The group with a name, or the only one with these settings (`lr=0.1`), or with this text in its name.

    Raises:
        UserError: if there is none, or several.
    """
    wanted = set(asked.split())
    for fits in (
        lambda each: each.name == asked,
        lambda each: wanted <= {f"{label}={value}" for label, value in each.settings.items()},
        lambda each: asked in each.name,
    ):
        found = [each for each in groups if fits(each)]
        if len(found) == 1:
            return found[0]
        if found:
            break
    what = "is a part of several names" if found else "is no group"
    names = [f"  {each.name}" for each in (found or groups)[:_NUM_NAMED]]
    more = len(found or groups) - _NUM_NAMED
    raise UserError(
        "\n".join([f"--baseline {shown(asked)}: {what}; name one of", *names, *[f"  and {more} more"] * (more > 0)])
    )
