"""Differences over seeds: against scipy.stats, against values by hand, and in simulated studies.

A count of 200 simulated studies has to lie in the 99.9 % range of the binomial distribution with the stated rate. The
random numbers are always the same.
"""

import math
from functools import partial
from itertools import count

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats
from support.thorough import examples

from litlab.compare.conclusion import advice
from litlab.compare.data_model import Design, Difference
from litlab.compare.differences import FIXED, differences
from litlab.compare.summaries import summarize
from litlab.runs.metrics import Metric
from litlab.statistics.sequential import nominal_level, sequential_p
from litlab.statistics.student_t import MAX_SEEDS, POWER, num_seeds_needed

MAX, MIN = Metric("val/f1", mode="max"), Metric("val/loss", mode="min")
RANDOM = np.random.default_rng(7)
DATA = [
    [0.5734, 0.5811, 0.5699],
    [0.9, 0.1],
    [2.0, 4.0, 4.0, 4.0, 5.0, 5.0, 7.0, 9.0],
    [-3.25, 1e-3, 8.0, 8.0, 1e4],
    RANDOM.normal(1e6, 10.0, 12).tolist(),
    RANDOM.exponential(2.0, 40).tolist(),
]
FINITE = st.floats(allow_nan=False, allow_infinity=False)
SEEDS = st.dictionaries(
    st.none() | st.integers(0, 5), FINITE | st.sampled_from([0.5, 1e308, -1e308, 5e-324]), min_size=1
)
NUM_STUDIES = 200
LEVEL = 0.05


def seeds(values, first=0):
    return {first + seed: float(value) for seed, value in enumerate(values)}


def against(baseline, values):
    return differences(seeds(baseline), {"b": seeds(values)})["b"]


@pytest.mark.parametrize("values", DATA)
def test_paired_differences_match_scipy(values):
    baseline = (np.array(values)[::-1] + np.random.default_rng(1).normal(0, np.std(values), len(values))).tolist()
    difference = against(baseline, values)
    expected = stats.ttest_rel(values, baseline)
    interval = expected.confidence_interval(0.95)
    gains = np.subtract(values, baseline)
    assert (difference.kind, difference.num) == ("paired", len(values))
    assert difference.mean == pytest.approx(gains.mean(), rel=1e-9)
    assert (difference.p, difference.corrected) == pytest.approx((expected.pvalue, expected.pvalue), rel=1e-9)
    assert (difference.low, difference.high) == pytest.approx((interval.low, interval.high), rel=1e-9)
    assert difference.effect == pytest.approx(gains.mean() / gains.std(ddof=1), rel=1e-9)


def test_runs_without_a_partner_are_left_out():
    baseline = {0: 0.1, 1: 0.3, 2: 0.2, 3: 99.0, None: 50.0}
    values = {2: 0.5, 0: 0.3, 1: 0.4, 7: -99.0, None: -50.0}
    difference = differences(baseline, {"b": values})["b"]
    assert difference == against([0.1, 0.3, 0.2], [0.3, 0.4, 0.5])
    assert (difference.kind, difference.num) == ("paired", 3)


@pytest.mark.parametrize(("num", "other"), [(3, 3), (2, 9), (12, 4), (30, 2)])
def test_differences_without_shared_seeds_match_welch_of_scipy(num, other):
    random = np.random.default_rng(num)
    baseline, values = random.normal(0, 1, num).tolist(), random.normal(0.7, 3, other).tolist()
    first, second = seeds(baseline), seeds(values, 100)
    difference = differences(first, {"b": second})["b"]
    expected = stats.ttest_ind(values, baseline, equal_var=False)
    interval = expected.confidence_interval(0.95)
    assert (difference.kind, difference.num) == ("welch", min(num, other))
    assert difference.mean == pytest.approx(np.mean(values) - np.mean(baseline))
    assert (difference.p, difference.low, difference.high) == pytest.approx(
        (expected.pvalue, interval.low, interval.high), rel=1e-9
    )
    shared = differences(first, {"b": {num - 1: values[0], **dict(list(second.items())[1:])}})["b"]
    assert shared == difference, "a single shared seed cannot be tested as a pair"


def test_hedges_correction_by_hand():
    """Deviations of 1 and 1, means 2 apart, 4 degrees of freedom: corrected by gamma(2) / sqrt(2) gamma(1.5)."""
    difference = differences({0: 1.0, 1: 2.0, 2: 3.0}, {"b": {5: 3.0, 6: 4.0, 7: 5.0}})["b"]
    assert difference.effect == pytest.approx(2 * 1 / (math.sqrt(2) * math.sqrt(math.pi) / 2))


def test_holm_correction_over_all_groups_that_have_a_p_value():
    """Two pairs: p = 1 - 2 atan(t) / pi (Cauchy), so gains of t - 1 and t + 1 have a p that is known by hand."""
    wanted = {"a": 0.01, "b": 0.04, "c": 0.03, "d": 0.005}
    distance = {name: math.tan((1 - p) * math.pi / 2) for name, p in wanted.items()}
    others = {name: {0: t - 1, 1: t + 1} for name, t in distance.items()}
    others |= {"one seed": {0: 3.0}, "no spread": {0: 1.0, 1: 1.0}}
    tested = differences({0: 0.0, 1: 0.0}, others)
    assert {name: tested[name].p for name in wanted} == pytest.approx(wanted)
    assert {name: tested[name].corrected for name in wanted} == pytest.approx(
        {"d": 0.02, "a": 0.03, "c": 0.06, "b": 0.06}
    )
    assert list(tested) == list(others)
    assert (tested["one seed"].corrected, tested["no spread"].corrected) == (None, None)
    assert all((tested[name].needed is None) == (tested[name].corrected < 0.05) for name in wanted)
    equal = differences({0: 0.0, 1: 0.0}, {name: {0: -1.0, 1: 1.01} for name in "abc"})
    assert {difference.corrected for difference in equal.values()} == {1.0}


def test_without_spread_there_is_no_test():
    def tested(difference):
        return [
            difference.low,
            difference.high,
            difference.p,
            difference.corrected,
            difference.effect,
            difference.needed,
        ]

    baseline, shifted = [0.5734, 0.9, 0.1234], [0.5834, 0.91, 0.1334]
    single = [np.float32(values).astype(float).tolist() for values in (baseline, shifted)]
    for first, second in ((baseline, shifted), single):
        assert len(set(np.subtract(second, first))) > 1, "equal but for rounding: of doubles, of single precision"
    same, apart, rounded = against(baseline, baseline), against(baseline, shifted), against(*single)
    constant = differences({0: 0.5, 1: 0.5}, {"b": {5: 0.6, 6: 0.6}})["b"]
    for difference in (same, apart, rounded, constant):
        assert tested(difference) == [None] * 6
    assert same.mean == 0
    assert [apart.mean, rounded.mean, constant.mean] == pytest.approx([0.01, 0.01, 0.1], rel=1e-5)
    one_more = [0.5834, 0.91, 0.1335]  # correct images of 10,000
    for real in (against(baseline, one_more), against(*np.float32([baseline, one_more]).astype(float).tolist())):
        assert real.p < 0.001
    half = differences({0: 0.5, 1: 0.5, 2: 0.5}, {"b": {5: 0.6, 6: 0.61}})["b"]
    t = 0.105 / 0.005  # with the one degree of freedom of the two that differ
    assert half.p == pytest.approx(1 - 2 * math.atan(t) / math.pi)


def test_values_near_the_limits_of_floats():
    """Their differences, squares or errors overflow or vanish."""
    huge = against([-1e308, 1e308, 0.0], [1e308, -1e308, 0.0])
    assert (huge.mean, huge.p) == (0.0, None)
    tiny = against([0.0, 0.0, 0.0], [0.0, 5e-324, 0.0])
    assert (tiny.mean, tiny.p) == (0.0, None)
    assert summarize([1e308, -1e308], MAX).high == np.finfo(float).max


@examples(60)
@given(SEEDS, st.dictionaries(st.sampled_from("abc"), SEEDS, min_size=1))
def test_differences_of_any_values_are_finite_and_consistent(baseline, others):
    for name, difference in differences(baseline, others).items():
        numbers = [
            difference.mean,
            difference.low,
            difference.high,
            difference.p,
            difference.corrected,
            difference.effect,
        ]
        assert all(math.isfinite(value) for value in numbers if value is not None)
        assert (
            (difference.p is None)
            == (difference.low is None)
            == (difference.corrected is None)
            == (difference.effect is None)
        )
        assert difference.p is None or 0 <= difference.p <= difference.corrected <= 1
        assert (
            difference.needed is None or difference.kind == "welch" or difference.num < difference.needed <= MAX_SEEDS
        )
        assert (advice(name, difference, MIN, "seed", FIXED) is None) == (
            difference.corrected is not None and difference.corrected < 0.05
        )


@examples(40)
@given(st.lists(st.tuples(st.integers(0, 9999), st.integers(0, 9999)), min_size=2, max_size=8), st.booleans())
def test_interval_excludes_zero_where_p_is_below_5_percent_and_signs_mirror(pairs, is_paired):
    """Differences of accuracies over 10,000 images."""
    baseline = {seed: pair[0] / 10_000 for seed, pair in enumerate(pairs)}
    values = {seed + 100 * (not is_paired): pair[1] / 10_000 for seed, pair in enumerate(pairs)}
    difference, back = differences(baseline, {"b": values})["b"], differences(values, {"b": baseline})["b"]
    assert isinstance(difference, Difference)
    assert (difference.mean, difference.p, difference.needed) == (-back.mean, pytest.approx(back.p), back.needed)
    if difference.p is not None and abs(difference.p - 0.05) > 1e-9:
        assert (difference.p < 0.05) == (not difference.low <= 0 <= difference.high)


def test_seeds_needed_without_shared_seeds_follow_both_spreads():
    """Variances of 1 and 2, means 2 apart; with n in each, 3^2 / (1 + 2^2) (n - 1) degrees of freedom."""
    root = math.sqrt(2)
    difference = differences({0: -1.0, 1: 0.0, 2: 1.0}, {"b": {5: 2 - root, 6: 2.0, 7: 2 + root}})["b"]

    def is_enough(num):
        dof = (num - 1) * 3**2 / (1 + 2**2)
        return stats.nct.sf(stats.t.isf(0.025, dof), dof, 2 / math.sqrt(3 / num)) >= POWER

    assert difference.needed == next(num for num in count(2) if is_enough(num))


def test_more_comparisons_need_more_seeds():
    baseline, values = {0: 0.50, 1: 0.51, 2: 0.52}, {0: 0.504, 1: 0.53, 2: 0.519}
    alone = differences(baseline, {"a": values})["a"]
    among = differences(baseline, {"a": values, "b": {**values, 0: 0.505}, "c": {**values, 0: 0.506}})["a"]
    assert among.needed > alone.needed > 3
    assert num_seeds_needed(0.0, 1.0, 1, 0.05) is None


def bounds(rate):
    low, high = stats.binom.interval(0.999, NUM_STUDIES, rate)
    return range(int(low), int(high) + 1)


@pytest.mark.parametrize(("is_paired", "ratio"), [(True, 1.0), (False, 1.0), (False, 4.0)])
def test_the_needed_number_of_seeds_finds_80_percent(is_paired, ratio):
    """Pairs, whose seeds shift both alike, or groups without a shared seed; `ratio` of the two deviations."""
    random = np.random.default_rng(int(ratio))
    variances = (1.0,) if is_paired else (1.0, ratio**2)
    dof_of_one = sum(variances) ** 2 / sum(variance**2 for variance in variances)
    num = num_seeds_needed(1.2, math.sqrt(sum(variances)), dof_of_one, LEVEL)
    num_significant = 0
    for _ in range(NUM_STUDIES):
        baseline, values = random.normal(0, 1, num), random.normal(1.2, ratio, num)
        other = seeds(baseline + values) if is_paired else seeds(values, first=100)
        num_significant += differences(seeds(baseline), {"b": other})["b"].corrected < LEVEL
    assert num_significant in bounds(POWER)


@pytest.mark.parametrize("is_paired", [True, False])
def test_equal_groups_rarely_differ(is_paired):
    """Any of five groups that differs from the baseline makes the study wrong; without correction it happens often."""
    random = np.random.default_rng(5)
    num_wrong = num_wrong_uncorrected = 0
    for _ in range(NUM_STUDIES):
        shared = random.normal(0.9, 0.03, 5) if is_paired else 0.9
        groups = [shared + random.normal(0, 0.01, 5) for _ in range(6)]
        others = {str(group): seeds(values, 0 if is_paired else 10 * group) for group, values in enumerate(groups)}
        tested = differences(others.pop("0"), others).values()
        num_wrong += any(difference.corrected < LEVEL for difference in tested)
        num_wrong_uncorrected += any(difference.p < LEVEL for difference in tested)
    assert num_wrong <= bounds(LEVEL)[-1]
    assert num_wrong_uncorrected > bounds(LEVEL)[-1]


SEQUENTIAL = [Design("sequential", 20), Design("sequential")]


@pytest.mark.parametrize("design", SEQUENTIAL)
@pytest.mark.parametrize("is_paired", [True, False])
def test_sequential_differences_are_those_of_each_number_of_seeds(design: Design, is_paired: bool) -> None:
    """The p-value is the smallest of all looks in the order of the seeds, in whatever order the runs are given."""
    random = np.random.default_rng(3)
    baseline, values = seeds(random.normal(0, 1, 8)), seeds(random.normal(4, 1, 8), 0 if is_paired else 100)
    results = []
    for num in range(2, 9):
        first, second = (dict(list(group.items())[:num][::-1]) for group in (baseline, values))
        results.append(differences(first, {"b": second}, design)["b"])
        test = stats.ttest_rel if is_paired else partial(stats.ttest_ind, equal_var=False)
        ordinary = test([*second.values()], [*first.values()])
        assert results[-1].num == num
        level = nominal_level(num, design.horizon, 0.05)
        low, high = ordinary.confidence_interval(1 - level)
        assert (results[-1].low, results[-1].high) == pytest.approx((low, high), rel=1e-6)
        boundary = sequential_p({num: ordinary.pvalue}, design.horizon)
        assert results[-1].p == pytest.approx(min([boundary, *(result.p for result in results[:-1])]))
        assert results[-1].p >= ordinary.pvalue
    assert results[-1].p == results[-1].corrected < 0.1


def test_ties_of_rounded_values_are_no_evidence() -> None:
    """0.61 - 0.6 and 0.52 - 0.51 are equal but for rounding, which would be an infinite t."""
    for first in (0, 100):
        baseline, values = seeds([0.6, 0.51, 0.3, 0.2]), seeds([0.61, 0.52, 0.25, 0.26], first)
        assert differences(baseline, {"b": values}, Design("sequential"))["b"].p > 0.1
    equal, values = [0.5, 0.5, 0.5], [0.6, 0.6, 0.61]  # no spread in the first two
    difference = differences(seeds(equal), {"b": seeds(values, 100)}, Design("sequential"))["b"]
    ordinary = stats.ttest_1samp(values, 0.5)
    assert difference.p == pytest.approx(sequential_p({3: ordinary.pvalue}, None))


@pytest.mark.parametrize("horizon", [20, None])
@pytest.mark.parametrize("is_paired", [True, False])
def test_equal_groups_rarely_differ_although_every_seed_is_looked_at(horizon: int | None, is_paired: bool) -> None:
    """Any of five groups that differs from the baseline at any look makes the study wrong."""
    random = np.random.default_rng(8)
    num_wrong = 0
    for _ in range(NUM_STUDIES):
        shared = random.normal(0.9, 0.03, 12) if is_paired else 0.9
        groups = [shared + random.normal(0, 0.01, 12) for _ in range(6)]
        others = {str(group): seeds(values, 0 if is_paired else 100 * group) for group, values in enumerate(groups)}
        tested = differences(others.pop("0"), others, Design("sequential", horizon)).values()
        num_wrong += any(difference.corrected < LEVEL for difference in tested)
    assert num_wrong <= bounds(LEVEL)[-1]


@pytest.mark.parametrize("horizon", [40, None])
def test_the_needed_number_of_a_sequential_design_finds_at_least_80_percent(horizon: int | None) -> None:
    gains = [1.9, -0.6, 1.3, -0.4, 0.8]
    needed = differences(seeds([0.0] * 5), {"b": seeds(gains)}, Design("sequential", horizon))["b"].needed
    assert needed is not None
    effect = np.mean(gains) / np.std(gains, ddof=1)
    samples = np.random.default_rng(1).normal(effect, 1, (2000, needed))
    num = np.arange(2, needed + 1)
    means = samples.cumsum(axis=1)[:, 1:] / num
    deviations = np.sqrt(((samples**2).cumsum(axis=1)[:, 1:] - num * means**2) / (num - 1))
    p_values = 2 * stats.t.sf(np.abs(means) / deviations * np.sqrt(num), num - 1)
    levels = np.array([nominal_level(int(size), horizon, LEVEL) for size in num])
    assert 0.78 <= (p_values < levels).any(axis=1).mean() <= 0.95
