"""Student's t: intervals, power and number of seeds against scipy.stats and tables, Holm's correction by hand."""

import math
from itertools import count

import pytest
from scipy import stats

from litlab.statistics.student_t import FAR, MAX_SEEDS, POWER, holm, mean_interval, num_seeds_needed, power


def test_interval_of_a_metric_with_one_bound_is_on_the_log_scale():
    low, high = mean_interval(2.0, 0.5, 4, (0.0, math.inf))
    half = stats.t.ppf(0.975, 4) * 0.5 / 2.0
    assert (low, high) == pytest.approx((2 * math.exp(-half), 2 * math.exp(half)))
    assert mean_interval(-2.0, 0.5, 4, (-math.inf, 0.0)) == pytest.approx((-high, -low))
    unbounded = mean_interval(2.0, 0.5, 4)
    assert mean_interval(2.0, 0.5, 4, (-math.inf, math.inf)) == unbounded
    assert mean_interval(2.0, 0.5, 4, (0.0, 1.0)) == unbounded, "a mean that is not between the bounds"


def test_holm_by_hand():
    """The smallest of four counts four times, and no corrected p is smaller than that of a smaller p."""
    corrected = holm({"a": 0.01, "b": 0.04, "c": 0.03, "d": 0.005})
    assert corrected == pytest.approx({"d": 0.02, "a": 0.03, "c": 0.06, "b": 0.06})
    assert holm({"a": 0.7, "b": 0.6}) == {"a": 1.0, "b": 1.0}
    assert holm({}) == {}


@pytest.mark.parametrize("dof", [1, 2, 4, 9.5, 50, 999])
@pytest.mark.parametrize("level", [0.05, 0.001])
def test_power_matches_scipy(dof, level):
    critical = stats.t.isf(level / 2, dof)
    for noncentrality in (1e-6, 0.3, 1.0, 2.8, 5.0, 10.0, 20.0):
        assert power(noncentrality, dof, level) == pytest.approx(stats.nct.sf(critical, dof, noncentrality), abs=1e-9)
    assert power(0.0, dof, level) == pytest.approx(level / 2)


@pytest.mark.parametrize("dof", [1, 1.5, 2, 3])
def test_approximate_power_of_large_noncentralities_is_continuous(dof):
    """The critical values that matter beyond FAR are those of tiny levels."""
    for factor in (0.5, 1.0, 2.0):
        level = 2 * stats.t.sf(FAR * factor, dof)
        assert power(FAR + 1e-9, dof, level) == pytest.approx(power(FAR, dof, level), abs=0.002)
    assert power(1e300, dof, 1e-9) == 1.0


@pytest.mark.parametrize(("effect", "num_pairs", "num_unpaired"), [(0.2, 199, 394), (0.5, 34, 64), (0.8, 15, 26)])
def test_seeds_needed_match_the_tables(effect, num_pairs, num_unpaired):
    """Cohen's small, medium and large effects at 5 %, two-sided, 80 %, as in textbooks."""
    assert num_seeds_needed(effect, 1.0, 1, 0.05) == num_pairs
    assert num_seeds_needed(-effect, math.sqrt(2), 2, 0.05) == num_unpaired


@pytest.mark.parametrize("effect", [0.09, 0.3, 0.9, 1.7, 4.0, 40.0])
@pytest.mark.parametrize("level", [0.05, 0.005])
def test_seeds_needed_are_the_fewest(effect, level):
    def is_enough(num):
        critical = stats.t.isf(level / 2, num - 1)
        return stats.nct.sf(critical, num - 1, effect * math.sqrt(num)) >= POWER  # the wrong sign is below 1e-5

    fewest = next(num for num in count(2) if num > MAX_SEEDS or is_enough(num))
    assert num_seeds_needed(effect, 1.0, 1, level) == (fewest if fewest <= MAX_SEEDS else None)
