"""Differences of groups from a baseline over seeds or folds: tests, intervals and effects."""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from litlab.compare.data_model import Design, Difference, Unit
from litlab.statistics.sequential import nominal_level, paired_looks, sequential_p
from litlab.statistics.student_t import (
    CONFIDENCE,
    MAX_SEEDS,
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

FIXED = Design("fixed")
MAX_SEQUENTIAL = 100  # seeds that may be needed for a decision; boundaries for more take seconds
Values = Mapping[Unit, float]


@dataclass(frozen=True)
class _Estimate:
    """A difference whose test is not corrected, with what `num_seeds_needed` has to know."""

    difference: Difference
    error_of_one: float = 0.0
    dof_of_one: float = 0.0


def differences(
    baseline: Values,
    others: Mapping[str, Values],
    design: Design = FIXED,
    ended: Mapping[str, Mapping[Unit, float]] | None = None,
) -> dict[str, Difference]:
    """Test each of the other groups against the baseline.

    If at least two seeds or folds are in both groups, a t-test over the pairs of runs with the same one, without the
    other runs; else Welch's (Biometrika 34, 1947). P-values are corrected by Holm (Scandinavian Journal of Statistics
    6, 1979) over all groups that have one: if no group differs from the baseline, a corrected p below 0.05 occurs in at
    most 5 % of studies.

    In a sequential design, the tests are those of `litlab.statistics.sequential`, with a look after each pair in the
    order in which they ended, whether somebody looked then or not: so each earlier look was at the first of these
    pairs. In the order of the seeds it would not have been, if jobs end in another order. This p-value is valid at any
    time, so Holm's correction of it is, too (Maurer and Bretz, Statistics in Biopharmaceutical Research 5, 2013).

    Without spread (all pairs the same distance apart; or no spread in either group) Student's t is not defined:
    interval, p and effect are None. A spread below single precision's rounding does not count.

    Args:
        baseline: Seed or fold -> finite value; None: a run without a seed, which is never paired.
        others: Group -> the same; each has at least one value.
        design: Design of the tests.
        ended: Group -> seed or fold -> time at which it had ended there and in the baseline; by default, seeds end in
            the order of their numbers.
    """
    estimates = {
        name: _estimate(baseline, values, design, (ended or {}).get(name, {})) for name, values in others.items()
    }
    p_values = {name: estimate.difference.p for name, estimate in estimates.items()}
    corrected = holm({name: p for name, p in p_values.items() if p is not None})
    level = (1 - CONFIDENCE) / max(len(corrected), 1)  # Bonferroni's, sufficient for Holm whatever the other groups do
    tested = {}
    for name, estimate in estimates.items():
        p, needed = corrected.get(name), None
        if p is not None and p >= 1 - CONFIDENCE:
            needed = _num_seeds_needed(estimate, level, design)
        tested[name] = replace(estimate.difference, corrected=p, needed=needed)
    return tested


def _num_seeds_needed(estimate: _Estimate, level: float, design: Design) -> int | None:
    """Return the number for a true difference of the estimated size; in a sequential design, an upper bound of it.

    It is the number at which the boundary is crossed with the stated power; a difference may be found before.
    """
    mean, error, dof = estimate.difference.mean, estimate.error_of_one, estimate.dof_of_one
    if not design.is_sequential:
        return num_seeds_needed(mean, error, dof, level, MAX_SEEDS)
    most = MAX_SEQUENTIAL if design.horizon is None else min(design.horizon, MAX_SEQUENTIAL)
    return num_seeds_needed(mean, error, dof, lambda num: nominal_level(num, design.horizon, level), most)


def _estimate(baseline: Values, values: Values, design: Design, ended: Mapping[Unit, float]) -> _Estimate:
    """Return the uncorrected difference; pairs and groups are in the order in which they ended."""
    units = [unit for unit in baseline if unit is not None and unit in values]
    if len(units) >= 2:
        return _paired([(values[unit], baseline[unit]) for unit in _in_order(units, ended)], design)
    first, second = ([group[unit] for unit in _in_order(group, ended)] for group in (baseline, values))
    return _welch(first, second, design)


def _in_order(units: Iterable[Unit], ended: Mapping[Unit, float]) -> list[Unit]:
    """Sort seeds by the time at which they ended, then by number; runs without a seed come last, folds keep order."""
    return sorted(units, key=lambda unit: (ended.get(unit, 0.0), unit) if isinstance(unit, int) else (math.inf, 0))


def _paired(pairs: Sequence[tuple[float, float]], design: Design) -> _Estimate:
    gains = [finite(value - base) for value, base in pairs]
    mean, deviation, num = mean_of(gains), deviation_of(gains), len(gains)
    difference = Difference("paired", num, mean)
    values = [value for pair in pairs for value in pair]
    if deviation is None or not is_spread(deviation, values):
        return _Estimate(difference)
    effect = mean / deviation  # Cohen's d_z
    if not design.is_sequential:
        return _Estimate(_tested(difference, deviation / math.sqrt(num), num - 1, effect), deviation, 1)
    look = paired_looks(gains, design.horizon, 1 - CONFIDENCE, scale=max(map(abs, values)), is_last=design.is_last)[-1]
    return _Estimate(_at_look(difference, look.low, look.high, look.p, effect), deviation, 1)


def _welch(baseline: Sequence[float], values: Sequence[float], design: Design) -> _Estimate:
    num = min(len(baseline), len(values))
    difference = Difference("welch", num, finite(mean_of(values) - mean_of(baseline)))
    error, dof = _welch_error(baseline, values)
    if error is None:
        return _Estimate(difference)
    first, second = deviation_of(baseline) or 0.0, deviation_of(values) or 0.0
    effect = hedges_g(difference.mean, first, second, len(baseline) - 1, len(values) - 1)
    error_of_one = math.hypot(first, second)
    dof_of_one = welch_dof(first / error_of_one, 1, 1)
    if not design.is_sequential:
        return _Estimate(_tested(difference, error, dof, effect), error_of_one, dof_of_one)
    p_values = {size: _welch_p(baseline[:size], values[:size]) for size in range(2, num)}
    p_values[num] = two_sided_p(difference.mean, error, dof)  # with all runs of the larger group
    end = num if design.is_last else None
    level = nominal_level(num, design.horizon, 1 - CONFIDENCE, end)
    low, high = mean_interval(difference.mean, error, dof, level=level) if level > 0 else (-math.inf, math.inf)
    p = sequential_p(p_values, design.horizon, end)
    return _Estimate(_at_look(difference, low, high, p, effect), error_of_one, dof_of_one)


def _welch_error(baseline: Sequence[float], values: Sequence[float]) -> tuple[float | None, float]:
    """Return the standard error of the difference of two means, and its degrees of freedom; None without spread."""
    first, second = deviation_of(baseline), deviation_of(values)
    if first is None or second is None or not is_spread(math.hypot(first, second), [*baseline, *values]):
        return None, 0.0
    errors = first / math.sqrt(len(baseline)), second / math.sqrt(len(values))
    error = math.hypot(*errors)
    return error, welch_dof(errors[0] / error, len(baseline) - 1, len(values) - 1)


def _welch_p(baseline: Sequence[float], values: Sequence[float]) -> float:
    """Return the p-value of the ordinary test; 1 without spread."""
    error, dof = _welch_error(baseline, values)
    return 1.0 if error is None else two_sided_p(mean_of(values) - mean_of(baseline), error, dof)


def _tested(difference: Difference, error: float, dof: float, effect: float) -> Difference:
    """Add interval, p and effect of the ordinary test."""
    low, high = mean_interval(difference.mean, error, dof)
    return replace(difference, low=low, high=high, p=two_sided_p(difference.mean, error, dof), effect=effect)


def _at_look(difference: Difference, low: float, high: float, p: float, effect: float) -> Difference:
    """Add interval, p and effect of the sequential test; beyond the last boundary, there is no interval."""
    if math.isinf(low) or math.isinf(high):
        return replace(difference, p=p, effect=effect)
    return replace(difference, low=finite(low), high=finite(high), p=p, effect=effect)
