"""Statistics over seeds or folds: summaries with intervals, differences from a baseline, and the power of their tests.

The values of a group are taken as independent draws: each seed or fold counts once. `tests/compare/test_statistics.py`
compares them with scipy.stats, and simulates what scipy does not have: intervals of bounded metrics, the corrected
tests of several groups, and the number of seeds needed. The t distribution is that of scipy.special: importing
scipy.stats, whose intervals are the same, takes 0.4 s more.
"""

import math
import sys
from bisect import bisect_left
from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import accumulate

from litlab.compare.data_model import CONFIDENCE, Difference, Summary, Unit
from litlab.runs.metrics import Metric

POWER = 0.8  # probability with which a true difference is to be found
MAX_SEEDS = 1000
FAR = 30  # noncentrality from which on scipy.special.nctdtr may be nan
LARGEST, SMALLEST = sys.float_info.max, sys.float_info.min
SCALE = 2.0**-64  # an exact factor with which a sum of huge values stays finite
ROUNDING = 2.0**-22  # relative error of a difference of metrics, which are computed in single precision
Values = Mapping[Unit, float]
_Estimate = tuple[Difference, float, float]


def summarize(values: Sequence[float], metric: Metric) -> Summary:
    """Compute mean, sample deviation, confidence interval and best of values.

    Equal values have a deviation of 0 and an interval of width 0.

    Args:
        values: One or more finite values.
        metric: Its mode tells the best value; its bounds, if there are any, hold the interval.
    """
    assert values
    num, mean, deviation = len(values), _mean(values), _deviation(values)
    low, high = None, None
    if deviation is not None:
        low, high = mean_interval(mean, deviation / math.sqrt(num), num - 1, metric.bounds)
    return Summary(num, mean, deviation, low, high, best=min(values) if metric.mode == "min" else max(values))


def mean_interval(
    mean: float, error: float, dof: float, bounds: tuple[float, float] | None = None
) -> tuple[float, float]:
    """Compute a confidence interval for a mean by Student's t.

    For a bounded metric, the interval is computed on the logit scale (two bounds) or the log scale (one bound), with
    the standard error there by the delta method, and mapped back: so it stays within the bounds.

    Args:
        mean: Mean of the values.
        error: Standard error of the mean.
        dof: Degrees of freedom.
        bounds: Lower and upper bound of the values; infinite, or None for both, if there is none.
    """
    from scipy.special import expit, stdtrit  # type: ignore[import-untyped]

    half = float(stdtrit(dof, (1 + CONFIDENCE) / 2)) * error
    lower, upper = bounds or (-math.inf, math.inf)
    below, above = mean - lower, upper - mean
    if half == 0 or below <= 0 or above <= 0 or (below == above == math.inf):
        return _finite(mean - half), _finite(mean + half)
    if math.isfinite(below) and math.isfinite(above):
        logit, half = math.log(below) - math.log(above), half * (upper - lower) / below / above
        low, high = (lower + (upper - lower) * float(expit(logit + shift)) for shift in (-half, half))
    else:
        bound, distance = (lower, below) if math.isfinite(below) else (upper, -above)
        half = min(half / abs(distance), 700.0)  # exp of more is infinite
        low, high = sorted(_finite(bound + distance * math.exp(shift)) for shift in (-half, half))
    return min(low, mean), max(high, mean)  # despite rounding


def interval_method(metric: Metric) -> str:
    """Name the method of `mean_interval` for a metric."""
    num_bounds = sum(map(math.isfinite, metric.bounds or ()))
    scale = {0: "", 1: " on the log scale", 2: " on the logit scale"}[num_bounds]
    return f"Student's t{scale}"


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
    corrected = _holm({name: p for name, p in p_values.items() if p is not None})
    level = (1 - CONFIDENCE) / max(len(corrected), 1)  # Bonferroni's, sufficient for Holm whatever the other groups do
    tested = {}
    for name, (difference, error_of_one, dof_of_one) in estimates.items():
        p, needed = corrected.get(name), None
        if p is not None and p >= 1 - CONFIDENCE:
            needed = num_seeds_needed(difference.mean, error_of_one, dof_of_one, level)
        tested[name] = replace(difference, corrected=p, needed=needed)
    return tested


def power(noncentrality: float, dof: float, level: float) -> float:
    """Compute the probability that a two-sided t-test at `level` (0.05 or less) finds a difference with its sign.

    It is that of the noncentral t distribution (Cohen, Statistical Power Analysis, 1988, chapter 12). Above a
    noncentrality of 30 the spread of the difference is neglected beside that of its standard error, which changes the
    result by less than 0.002.

    Args:
        noncentrality: True difference divided by its standard error; not negative.
        dof: Degrees of freedom.
        level: Level of the test.
    """
    from scipy.special import gammainc, nctdtr, stdtrit

    critical = -float(stdtrit(dof, level / 2))
    if noncentrality > FAR:
        return float(gammainc(dof / 2, dof / 2 * (noncentrality / critical) * (noncentrality / critical)))
    return 1 - float(nctdtr(dof, noncentrality, critical))


def num_seeds_needed(mean: float, error_of_one: float, dof_of_one: float, level: float) -> int | None:
    """Compute the fewest seeds a group that find a true difference of `mean` with POWER; None above MAX_SEEDS.

    Args:
        mean: True difference.
        error_of_one: Standard error of the difference, times the square root of the number of seeds in a group.
        dof_of_one: Degrees of freedom, divided by the number of seeds in a group less one.
        level: Level of the two-sided test.
    """

    def power_of(num: int) -> float:
        return power(abs(mean) / error_of_one * math.sqrt(num), dof_of_one * (num - 1), level)

    candidates = range(2, MAX_SEEDS + 1)
    index = bisect_left(candidates, POWER, key=power_of)
    return candidates[index] if index < len(candidates) else None


def _estimate(baseline: Values, values: Values) -> _Estimate:
    """Return the uncorrected difference, with the last two arguments of `num_seeds_needed` but the level."""
    units = [unit for unit in baseline if unit is not None and unit in values]
    if len(units) >= 2:
        return _paired([(values[unit], baseline[unit]) for unit in units])
    return _welch(list(baseline.values()), list(values.values()))


def _paired(pairs: Sequence[tuple[float, float]]) -> _Estimate:
    gains = [_finite(value - base) for value, base in pairs]
    mean, deviation, num = _mean(gains), _deviation(gains), len(gains)
    difference = Difference("paired", num, mean)
    if deviation is None or not _is_spread(deviation, [value for pair in pairs for value in pair]):
        return difference, 0, 0
    effect = mean / deviation  # Cohen's d_z
    return _tested(difference, deviation / math.sqrt(num), num - 1, effect), deviation, 1


def _welch(baseline: Sequence[float], values: Sequence[float]) -> _Estimate:
    difference = Difference("welch", min(len(baseline), len(values)), _finite(_mean(values) - _mean(baseline)))
    first, second = _deviation(baseline), _deviation(values)
    if first is None or second is None or not _is_spread(math.hypot(first, second), [*baseline, *values]):
        return difference, 0, 0
    dofs = len(baseline) - 1, len(values) - 1
    errors = first / math.sqrt(len(baseline)), second / math.sqrt(len(values))
    error, error_of_one = math.hypot(*errors), math.hypot(first, second)
    effect = _hedges_g(difference.mean, first, second, *dofs)
    tested = _tested(difference, error, _welch_dof(errors[0] / error, *dofs), effect)
    return tested, error_of_one, _welch_dof(first / error_of_one, 1, 1)


def _tested(difference: Difference, error: float, dof: float, effect: float) -> Difference:
    """Add interval, p and effect."""
    from scipy.special import stdtr

    low, high = mean_interval(difference.mean, error, dof)
    p = 2 * float(stdtr(dof, -abs(difference.mean) / error))
    return replace(difference, low=low, high=high, p=p, effect=effect)


def _mean(values: Sequence[float]) -> float:
    """Sum exactly; rounding never leads out of the range of the values, so that equal ones have no spread."""
    mean = math.fsum(value * SCALE for value in values) / len(values) / SCALE
    return min(max(mean, min(values)), max(values))


def _deviation(values: Sequence[float]) -> float | None:
    """Compute the sample standard deviation in two passes, without cancellation or overflow."""
    if len(values) < 2:
        return None
    mean = _mean(values)
    return _finite(math.hypot(*(value - mean for value in values)) / math.sqrt(len(values) - 1))


def _finite(value: float) -> float:
    """Return the nearest finite number: a damaged file may hold values with an infinite difference."""
    return min(max(value, -LARGEST), LARGEST)


def _welch_dof(share: float, first: int, second: int) -> float:
    """Compute Welch-Satterthwaite degrees of freedom; `share` is the first error divided by that of the difference."""
    return 1 / (share**4 / first + (1 - share**2) ** 2 / second)


def _hedges_g(mean: float, first: float, second: float, dof_first: int, dof_second: int) -> float:
    """Compute Hedges' g (Journal of Educational Statistics 6, 1981) with its exact correction."""
    dof = dof_first + dof_second
    pooled = math.hypot(first * math.sqrt(dof_first / dof), second * math.sqrt(dof_second / dof))
    correction = math.exp(math.lgamma(dof / 2) - math.lgamma((dof - 1) / 2)) / math.sqrt(dof / 2)
    return mean / pooled * correction


def _is_spread(deviation: float, values: Sequence[float]) -> bool:
    return max(SMALLEST, ROUNDING * max(map(abs, values))) < deviation < LARGEST


def _holm(p_values: Mapping[str, float]) -> dict[str, float]:
    ranked = sorted(p_values, key=lambda name: p_values[name])
    scaled = (min(1.0, p_values[name] * (len(ranked) - rank)) for rank, name in enumerate(ranked))
    return dict(zip(ranked, accumulate(scaled, max), strict=True))
