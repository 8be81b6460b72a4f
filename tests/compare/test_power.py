"""How many seeds are needed: against scipy.stats, against tables, against counting up one by one."""

import math
from itertools import count

import pytest
from scipy import stats

from litlab.compare.statistics import FAR, MAX_SEEDS, POWER, differences, num_seeds_needed, power


@pytest.mark.parametrize("dof", [1, 2, 4, 9.5, 50, 999])
@pytest.mark.parametrize("level", [0.05, 0.001])
def test_power_is_that_of_scipy(dof, level):
    critical = stats.t.isf(level / 2, dof)
    for noncentrality in (1e-6, 0.3, 1.0, 2.8, 5.0, 10.0, 20.0):
        expected, wrong_sign = stats.nct.sf(critical, dof, noncentrality), 0.0
        if noncentrality <= 1:
            wrong_sign = stats.nct.cdf(-critical, dof, noncentrality)  # nan further out, where it is below 0.0002
        assert power(noncentrality, dof, level) == pytest.approx(expected + wrong_sign, abs=1e-9)
    assert power(0.0, dof, level) == pytest.approx(level), "nothing to be found is found at the level"


@pytest.mark.parametrize("dof", [1, 1.5, 2, 3])
def test_power_far_out_joins_on(dof):
    """Beyond FAR it is an approximation; the critical values that matter there are those of tiny levels."""
    for factor in (0.5, 1.0, 2.0):
        level = 2 * stats.t.sf(FAR * factor, dof)
        assert power(FAR + 1e-9, dof, level) == pytest.approx(power(FAR, dof, level), abs=0.002)
    assert power(1e300, dof, 1e-9) == 1.0


@pytest.mark.parametrize(("effect", "pairs", "each"), [(0.2, 199, 394), (0.5, 34, 64), (0.8, 15, 26)])
def test_seeds_needed_are_those_of_the_tables(effect, pairs, each):
    """Cohen's small, medium and large effects at 5 %, two-sided, 80 %: as in the usual tables and programs."""
    assert num_seeds_needed(effect, 1.0, 1, 0.05) == pairs
    assert num_seeds_needed(-effect, math.sqrt(2), 2, 0.05) == each


@pytest.mark.parametrize("effect", [0.09, 0.3, 0.9, 1.7, 4.0, 40.0])
@pytest.mark.parametrize("level", [0.05, 0.005])
def test_seeds_needed_are_the_fewest(effect, level):
    def enough(num):
        critical = stats.t.isf(level / 2, num - 1)
        noncentrality = effect * math.sqrt(num)
        return stats.nct.sf(critical, num - 1, noncentrality) >= POWER  # the wrong sign is below 1e-5 there

    fewest = next(num for num in count(2) if num > MAX_SEEDS or enough(num))
    assert num_seeds_needed(effect, 1.0, 1, level) == (fewest if fewest <= MAX_SEEDS else None)


def test_seeds_needed_without_common_seeds_go_by_both_spreads():
    """Hand-made: variances of 1 and 2, means 2 apart; were there n in each, 3^2 / (1 + 2^2) (n - 1) degrees."""
    root = math.sqrt(2)
    found = differences({0: -1.0, 1: 0.0, 2: 1.0}, {"b": {5: 2 - root, 6: 2.0, 7: 2 + root}})["b"]

    def enough(num):
        dof = (num - 1) * 3**2 / (1 + 2**2)
        return stats.nct.sf(stats.t.isf(0.025, dof), dof, 2 / math.sqrt(3 / num)) >= POWER

    assert found.needed == next(num for num in count(2) if enough(num))


def test_more_comparisons_need_more_seeds():
    baseline, values = {0: 0.50, 1: 0.51, 2: 0.52}, {0: 0.504, 1: 0.53, 2: 0.519}
    alone = differences(baseline, {"a": values})["a"]
    among = differences(baseline, {"a": values, "b": {**values, 0: 0.505}, "c": {**values, 0: 0.506}})["a"]
    assert alone.needed is not None
    assert among.needed is not None
    assert among.needed > alone.needed > 3
    assert num_seeds_needed(0.0, 1.0, 1, 0.05) is None
