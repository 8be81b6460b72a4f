"""Student's t over seeds: intervals for means, tests of differences, their power, and Holm's correction.

The values of a group are taken as independent draws: each seed or fold counts once.
`tests/statistics/test_student_t.py` and `tests/compare/test_differences.py` compare them with scipy.stats, and simulate
what scipy does not have: intervals of bounded metrics, the corrected tests of several groups, and the number of seeds
needed. The t distribution is that of scipy.special: importing scipy.stats, whose intervals are the same, takes 0.4 s
more.
"""

import math
import sys
from bisect import bisect_left
from collections.abc import Callable, Hashable, Mapping, Sequence
from itertools import accumulate
from typing import TypeVar

CONFIDENCE = 0.95  # of all intervals
POWER = 0.8  # probability with which a true difference is to be found
MAX_SEEDS = 1000
FAR = 30  # noncentrality from which on scipy.special.nctdtr may be nan
LARGEST, SMALLEST = sys.float_info.max, sys.float_info.min
SCALE = 2.0**-64  # an exact factor with which a sum of huge values stays finite
ROUNDING = 2.0**-22  # relative error of a difference of metrics, which are computed in single precision
Name = TypeVar("Name", bound=Hashable)


def mean_interval(
    mean: float, error: float, dof: float, bounds: tuple[float, float] | None = None, *, level: float = 1 - CONFIDENCE
) -> tuple[float, float]:
    """Compute a confidence interval for a mean by Student's t.

    For a bounded metric, the interval is computed on the logit scale (two bounds) or the log scale (one bound), with
    the standard error there by the delta method, and mapped back: so it stays within the bounds.

    Args:
        mean: Mean of the values.
        error: Standard error of the mean.
        dof: Degrees of freedom.
        bounds: Lower and upper bound of the values; infinite, or None for both, if there is none.
        level: Probability with which the interval misses the true mean.
    """
    from scipy.special import expit, stdtrit  # type: ignore[import-untyped]

    half = float(stdtrit(dof, 1 - level / 2)) * error
    lower, upper = bounds or (-math.inf, math.inf)
    below, above = mean - lower, upper - mean
    if half == 0 or below <= 0 or above <= 0 or (below == above == math.inf):
        return finite(mean - half), finite(mean + half)
    if math.isfinite(below) and math.isfinite(above):
        logit, half = math.log(below) - math.log(above), half * (upper - lower) / below / above
        low, high = (lower + (upper - lower) * float(expit(logit + shift)) for shift in (-half, half))
    else:
        bound, distance = (lower, below) if math.isfinite(below) else (upper, -above)
        half = min(half / abs(distance), 700.0)  # exp of more is infinite
        low, high = sorted(finite(bound + distance * math.exp(shift)) for shift in (-half, half))
    return min(low, mean), max(high, mean)  # despite rounding


def two_sided_p(mean: float, error: float, dof: float) -> float:
    """Compute the p-value of a two-sided t-test of a mean against 0.

    Args:
        mean: Mean, or difference of means.
        error: Its standard error; positive.
        dof: Degrees of freedom.
    """
    from scipy.special import stdtr

    return 2 * float(stdtr(dof, -abs(mean) / error))


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


def num_seeds_needed(
    mean: float, error_of_one: float, dof_of_one: float, level: float | Callable[[int], float], most: int = MAX_SEEDS
) -> int | None:
    """Compute the fewest seeds a group that find a true difference of `mean` with POWER; None if `most` do not.

    Args:
        mean: True difference.
        error_of_one: Standard error of the difference, times the square root of the number of seeds in a group.
        dof_of_one: Degrees of freedom, divided by the number of seeds in a group less one.
        level: Level of the two-sided test, or of that with a number of seeds.
        most: Largest number of seeds.
    """

    def power_of(num: int) -> float:
        of_num = level if isinstance(level, float) else level(num)
        return power(abs(mean) / error_of_one * math.sqrt(num), dof_of_one * (num - 1), of_num)

    candidates = range(2, most + 1)
    index = bisect_left(candidates, POWER, key=power_of)
    return candidates[index] if index < len(candidates) else None


def holm(p_values: Mapping[Name, float]) -> dict[Name, float]:
    """Correct p-values of several tests (Holm, Scandinavian Journal of Statistics 6, 1979).

    A corrected p below a level for any true null hypothesis occurs with at most that probability, however the tests
    depend on each other.

    Args:
        p_values: Name of a test -> its p-value.
    """
    ranked = sorted(p_values, key=lambda name: p_values[name])
    scaled = (min(1.0, p_values[name] * (len(ranked) - rank)) for rank, name in enumerate(ranked))
    return dict(zip(ranked, accumulate(scaled, max), strict=True))


def hedges_g(mean: float, first: float, second: float, dof_first: int, dof_second: int) -> float:
    """Compute Hedges' g (Journal of Educational Statistics 6, 1981) with its exact correction."""
    dof = dof_first + dof_second
    pooled = math.hypot(first * math.sqrt(dof_first / dof), second * math.sqrt(dof_second / dof))
    correction = math.exp(math.lgamma(dof / 2) - math.lgamma((dof - 1) / 2)) / math.sqrt(dof / 2)
    return mean / pooled * correction


def welch_dof(share: float, first: int, second: int) -> float:
    """Compute Welch-Satterthwaite degrees of freedom; `share` is the first error divided by that of the difference."""
    return 1 / (share**4 / first + (1 - share**2) ** 2 / second)


def mean_of(values: Sequence[float]) -> float:
    """Sum exactly; rounding never leads out of the range of the values, so that equal ones have no spread."""
    mean = math.fsum(value * SCALE for value in values) / len(values) / SCALE
    return min(max(mean, min(values)), max(values))


def deviation_of(values: Sequence[float]) -> float | None:
    """Compute the sample standard deviation in two passes, without cancellation or overflow."""
    if len(values) < 2:
        return None
    mean = mean_of(values)
    return finite(math.hypot(*(value - mean for value in values)) / math.sqrt(len(values) - 1))


def is_spread(deviation: float, values: Sequence[float]) -> bool:
    """Return True if a deviation of values is more than the rounding of single precision, and finite."""
    return max(SMALLEST, ROUNDING * max(map(abs, values))) < deviation < LARGEST


def finite(value: float) -> float:
    """Return the nearest finite number: a damaged file may hold values with an infinite difference."""
    return min(max(value, -LARGEST), LARGEST)
