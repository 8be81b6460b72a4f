"""How many seeds a t-test needs to find a difference."""

import math

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
