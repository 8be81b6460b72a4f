"""What the seeds of a group say together, and whether a group differs from the baseline by more than noise.

Means are those of runs: each seed counts once. Intervals and p-values are Student's, so the values of a group are
taken as draws from a normal distribution; `tests/compare/test_simulated_studies.py` shows how often they are right.
"""

import math
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from litlab.compare.model import LEVEL, Difference, Mode, Summary

POWER = 0.8  # share of studies in which the difference is to be found
MAX_SEEDS = 1000
FAR = 30  # centralities above it, and in the lower tail those above NEAR: scipy.special.nctdtr may be nan
NEAR = 2.5


def power(centrality: float, freedom: float, level: float) -> float:
    """Probability that a two-sided t-test at `level` (0.05 or less) finds a difference.

    Args:
        centrality: of the noncentral t distribution: the true difference by its standard error; not negative.
        freedom: degrees of freedom.

    That of the noncentral t distribution, both tails counted (Cohen, Statistical Power Analysis, 1988, chapter 12).
    Above a centrality of 2.5 the tail of the wrong sign, below 0.0002, is left out; above 30 the spread of the
    difference is left out beside that of its standard error, which changes the result by less than 0.002.
    """
    from scipy.special import gammainc, nctdtr, stdtrit  # type: ignore[import-untyped]

    critical = -float(stdtrit(freedom, level / 2))
    if centrality > FAR:
        return float(gammainc(freedom / 2, freedom / 2 * (centrality / critical) * (centrality / critical)))
    wrong_sign = float(nctdtr(freedom, centrality, -critical)) if centrality < NEAR else 0.0
    return 1 - float(nctdtr(freedom, centrality, critical)) + wrong_sign


def num_needed(mean: float, error_of_one: float, freedom_of_one: float, level: float) -> int | None:
    """Fewest seeds a group with which a true difference of `mean` is found with POWER; None above MAX_SEEDS.

    Args:
        error_of_one: standard error of the difference, times the square root of the seeds that a group has.
        freedom_of_one: degrees of freedom, by the seeds that a group has less one.
        level: of the two-sided test.
    """

    def is_enough(num: int) -> bool:
        return power(abs(mean) / error_of_one * math.sqrt(num), freedom_of_one * (num - 1), level) >= POWER

    low, high = 1, 2  # too few, and the first guess at enough
    while not is_enough(high):
        if high == MAX_SEEDS:
            return None
        low, high = high, min(2 * high, MAX_SEEDS)
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if is_enough(middle) else (middle, high)
    return high


LARGEST, SMALLEST = sys.float_info.max, sys.float_info.min
SCALE = 2.0**-64  # an exact factor with which a sum of huge values stays finite
ROUNDING = 2.0**-22  # of a value: what single precision, in which metrics are computed, does to a difference
_MOST_IN_FULL = 1e3  # from here on, a difference of an accuracy, which has at most 1, is written in six digits
Seeds = Mapping[int | None, float]


@dataclass(frozen=True)
class _Estimate:
    """A difference and what is needed to test it; no test can be made where `error` is None.

    Attributes:
        error: standard error of the mean; None where there are too few runs or no spread.
        freedom: degrees of freedom.
        error_of_one, freedom_of_one: as `num_needed` has them, were both groups as large as each other.
    """

    difference: Difference
    error: float | None = None
    freedom: float = 0.0
    error_of_one: float = 0.0
    freedom_of_one: float = 0.0


def summarize(values: Sequence[float], mode: Mode) -> Summary:
    """Mean, sample deviation, Student's t interval and best of finite values, at least one.

    Values that are all the same have the deviation 0 and an interval of width 0.
    """
    assert values
    num, mean, deviation = len(values), _mean(values), _deviation(values)
    low, high = (None, None) if deviation is None else _interval(mean, deviation / math.sqrt(num), num - 1)
    return Summary(num, mean, deviation, low, high, best=max(values) if mode == "max" else min(values))


def differences(baseline: Seeds, others: Mapping[str, Seeds]) -> dict[str, Difference]:
    """Each of the other groups against the baseline.

    Where at least two seeds are in both, a t-test over the pairs of runs with the same seed, runs without a partner
    left out; else Welch's (Biometrika 34, 1947). Corrected by Holm (Scandinavian Journal of Statistics 6, 1979) over
    all groups of which there is a p, so that with a probability of 95 % none of those that do not differ at all from
    the baseline gets a corrected p below 0.05.

    Without spread (all pairs the same distance apart; or no spread in either group) Student's t is not defined:
    interval, p and effect are None. A spread below single precision's rounding is none.

    Args:
        baseline: seed -> value, finite; None: a run without a seed, which is no partner to any.
        others: group -> the same; each has at least one value.
    """
    estimates = {name: _estimate(baseline, values) for name, values in others.items()}
    corrected = _holm({name: each.difference.p for name, each in estimates.items() if each.difference.p is not None})
    level = (1 - LEVEL) / max(len(corrected), 1)
    return {name: _completed(each, corrected.get(name), level) for name, each in estimates.items()}


def advice(name: str, difference: Difference, metric: str = "") -> str | None:
    """A sentence where it is not told whether a group differs from the baseline, and what would tell.

    Args:
        metric: how differences of it are written: of an accuracy in points, of another with four digits.
    """
    if difference.corrected is not None and difference.corrected < 1 - LEVEL:
        return None
    start = f"{name}: {_gain(metric, difference.mean)} against the baseline"
    if difference.num < 2:
        return f"{start}, but with one seed no spread is known: it may be noise; run at least 2 more seeds"
    runs = f"{difference.num} pairs of seeds" if difference.kind == "paired" else f"{difference.num} seeds"
    if difference.p is None:
        same = "the difference is the same in all pairs" if difference.kind == "paired" else "all have the same value"
        return f"{start} ({runs}), but {same}, so there is no spread to test with"
    if difference.needed is None:
        return f"{start} ({runs}) can't be told from noise; so small a one would need more than {MAX_SEEDS:,} seeds"
    return (
        f"{start} ({runs}) can't be told from noise; if the true difference is as large as this, "
        f"about {difference.needed} seeds of each would do"
    )


def _gain(metric: str, mean: float) -> str:
    if "accuracy" not in metric:
        return f"{mean:+.4g}"
    return f"{100 * mean:+z.2f} points" if abs(mean) < _MOST_IN_FULL else f"{100 * mean:+.6g} points"


def _estimate(baseline: Seeds, values: Seeds) -> _Estimate:
    seeds = sorted(seed for seed in baseline.keys() & values.keys() if seed is not None)
    if len(seeds) >= 2:
        return _paired([(values[seed], baseline[seed]) for seed in seeds])
    return _welch(list(baseline.values()), list(values.values()))


def _paired(pairs: Sequence[tuple[float, float]]) -> _Estimate:
    gains = [_bounded(value - base) for value, base in pairs]
    mean, deviation, num = _mean(gains), _deviation(gains), len(gains)
    difference = Difference("paired", num, mean, None, None, None, None, None, None)
    if deviation is None or not _is_spread(deviation, [value for pair in pairs for value in pair]):
        return _Estimate(difference)
    effect = mean / deviation  # Cohen's d_z
    return _tested(_Estimate(difference, deviation / math.sqrt(num), num - 1, deviation, 1), effect)


def _welch(baseline: Sequence[float], values: Sequence[float]) -> _Estimate:
    num = min(len(baseline), len(values))
    mean = _bounded(_mean(values) - _mean(baseline))
    difference = Difference("welch", num, mean, None, None, None, None, None, None)
    first, second = _deviation(baseline), _deviation(values)
    if first is None or second is None or not _is_spread(math.hypot(first, second), [*baseline, *values]):
        return _Estimate(difference)
    errors = first / math.sqrt(len(baseline)), second / math.sqrt(len(values))
    error, of_one = math.hypot(*errors), math.hypot(first, second)
    freedom = _freedom(errors[0] / error, len(baseline) - 1, len(values) - 1)
    estimate = _Estimate(difference, error, freedom, of_one, _freedom(first / of_one, 1, 1))
    return _tested(estimate, _hedges(mean, first, second, len(baseline) - 1, len(values) - 1))


def _tested(estimate: _Estimate, effect: float) -> _Estimate:
    """With interval, p and effect."""
    from scipy.special import stdtr

    assert estimate.error is not None
    mean = estimate.difference.mean
    low, high = _interval(mean, estimate.error, estimate.freedom)
    p = 2 * float(stdtr(estimate.freedom, -abs(mean) / estimate.error))
    return replace(estimate, difference=replace(estimate.difference, low=low, high=high, p=p, effect=effect))


def _completed(estimate: _Estimate, corrected: float | None, level: float) -> Difference:
    """With the corrected p and the number of seeds needed.

    `level` is Bonferroni's, at which Holm finds a difference whatever the other groups come to.
    """
    needed = None
    if corrected is not None and corrected >= 1 - LEVEL:
        mean = estimate.difference.mean
        needed = num_needed(mean, estimate.error_of_one, estimate.freedom_of_one, level)
    return replace(estimate.difference, corrected=corrected, needed=needed)


def _mean(values: Sequence[float]) -> float:
    """Summed exactly; never outside of the values, as rounding may have it, so that equal ones have no spread."""
    mean = math.fsum(value * SCALE for value in values) / len(values) / SCALE
    return min(max(mean, min(values)), max(values))


def _deviation(values: Sequence[float]) -> float | None:
    """Sample standard deviation, in two passes: nothing cancels, and no square overflows."""
    if len(values) < 2:
        return None
    mean = _mean(values)
    return _bounded(math.hypot(*(value - mean for value in values)) / math.sqrt(len(values) - 1))


def _bounded(value: float) -> float:
    """The nearest number that a float can hold: a damaged file may hold values whose difference it can't."""
    return min(max(value, -LARGEST), LARGEST)


def _interval(mean: float, error: float, freedom: float) -> tuple[float, float]:
    from scipy.special import stdtrit

    half = float(stdtrit(freedom, (1 + LEVEL) / 2)) * error
    return _bounded(mean - half), _bounded(mean + half)


def _freedom(share: float, first: int, second: int) -> float:
    """Degrees of freedom by Welch and Satterthwaite; `share` is the first error by that of the difference."""
    return 1 / (share**4 / first + (1 - share**2) ** 2 / second)


def _hedges(mean: float, first: float, second: float, num_first: int, num_second: int) -> float:
    """Hedges' g (Journal of Educational Statistics 6, 1981), its correction exact, from degrees of freedom."""
    freedom = num_first + num_second
    pooled = math.hypot(first * math.sqrt(num_first / freedom), second * math.sqrt(num_second / freedom))
    correction = math.exp(math.lgamma(freedom / 2) - math.lgamma((freedom - 1) / 2)) / math.sqrt(freedom / 2)
    return mean / pooled * correction


def _is_spread(deviation: float, values: Sequence[float]) -> bool:
    return max(SMALLEST, ROUNDING * max(map(abs, values))) < deviation < LARGEST


def _holm(p_values: Mapping[str, float]) -> dict[str, float]:
    corrected: dict[str, float] = {}
    largest = 0.0
    for rank, (name, p) in enumerate(sorted(p_values.items(), key=lambda item: item[1])):
        largest = max(largest, min(1.0, p * (len(p_values) - rank)))
        corrected[name] = largest
    return corrected
