"""Differences of groups from a baseline over seeds or folds: tests, intervals and effects."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace

from litlab.compare.data_model import Difference, Unit
from litlab.statistics.student_t import (
    CONFIDENCE,
    deviation_of,
    finite,
    hedges_g,
    holm,
    is_spread,
    mean_interval,
    mean_of,
    num_seeds_needed,
    two_sided_p,
    welch_dof,
)

Values = Mapping[Unit, float]
_Estimate = tuple[Difference, float, float]


def differences(baseline: Values, others: Mapping[str, Values]) -> dict[str, Difference]:
    """Test each of the other groups against the baseline.

    If at least two seeds or folds are in both groups, a t-test over the pairs of runs with the same one, without the
    other runs; else Welch's (Biometrika 34, 1947). P-values are corrected by Holm (Scandinavian Journal of Statistics
    6, 1979) over all groups that have one: if no group differs from the baseline, a corrected p below 0.05 occurs in at
    most 5 % of studies.

    Without spread (all pairs the same distance apart; or no spread in either group) Student's t is not defined:
    interval, p and effect are None. A spread below single precision's rounding does not count.

    Args:
        baseline: Seed or fold -> finite value; None: a run without a seed, which is never paired.
        others: Group -> the same; each has at least one value.
    """
    estimates = {name: _estimate(baseline, values) for name, values in others.items()}
    p_values = {name: difference.p for name, (difference, _, _) in estimates.items()}
    corrected = holm({name: p for name, p in p_values.items() if p is not None})
    level = (1 - CONFIDENCE) / max(len(corrected), 1)  # Bonferroni's, sufficient for Holm whatever the other groups do
    tested = {}
    for name, (difference, error_of_one, dof_of_one) in estimates.items():
        p, needed = corrected.get(name), None
        if p is not None and p >= 1 - CONFIDENCE:
            needed = num_seeds_needed(difference.mean, error_of_one, dof_of_one, level)
        tested[name] = replace(difference, corrected=p, needed=needed)
    return tested


def _estimate(baseline: Values, values: Values) -> _Estimate:
    """Return the uncorrected difference, with the last two arguments of `num_seeds_needed` but the level."""
    units = [unit for unit in baseline if unit is not None and unit in values]
    if len(units) >= 2:
        return _paired([(values[unit], baseline[unit]) for unit in units])
    return _welch(list(baseline.values()), list(values.values()))


def _paired(pairs: Sequence[tuple[float, float]]) -> _Estimate:
    gains = [finite(value - base) for value, base in pairs]
    mean, deviation, num = mean_of(gains), deviation_of(gains), len(gains)
    difference = Difference("paired", num, mean)
    if deviation is None or not is_spread(deviation, [value for pair in pairs for value in pair]):
        return difference, 0, 0
    effect = mean / deviation  # Cohen's d_z
    return _tested(difference, deviation / math.sqrt(num), num - 1, effect), deviation, 1


def _welch(baseline: Sequence[float], values: Sequence[float]) -> _Estimate:
    difference = Difference("welch", min(len(baseline), len(values)), finite(mean_of(values) - mean_of(baseline)))
    first, second = deviation_of(baseline), deviation_of(values)
    if first is None or second is None or not is_spread(math.hypot(first, second), [*baseline, *values]):
        return difference, 0, 0
    dofs = len(baseline) - 1, len(values) - 1
    errors = first / math.sqrt(len(baseline)), second / math.sqrt(len(values))
    error, error_of_one = math.hypot(*errors), math.hypot(first, second)
    effect = hedges_g(difference.mean, first, second, *dofs)
    tested = _tested(difference, error, welch_dof(errors[0] / error, *dofs), effect)
    return tested, error_of_one, welch_dof(first / error_of_one, 1, 1)


def _tested(difference: Difference, error: float, dof: float, effect: float) -> Difference:
    """Add interval, p and effect."""
    low, high = mean_interval(difference.mean, error, dof)
    p = two_sided_p(difference.mean, error, dof)
    return replace(difference, low=low, high=high, p=p, effect=effect)
