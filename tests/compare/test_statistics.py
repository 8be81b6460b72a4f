"""Means, intervals, p-values and advice: against scipy.stats, against values by hand, against odd input."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats
from support.thorough import examples

from litlab.compare.conclusion import advice
from litlab.compare.model import Difference
from litlab.compare.statistics import MAX_SEEDS, differences, summarize
from litlab.runs.metrics import Metric

MAX, MIN = Metric("val/f1", mode="max"), Metric("val/loss", mode="min")
ACCURACY = Metric("val/accuracy", "%", "max", (0.0, 1.0))

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


def seeds(values):
    return dict(enumerate(values))


def against(baseline, values):
    return differences(seeds(baseline), {"b": seeds(values)})["b"]


@pytest.mark.parametrize("values", DATA)
def test_a_summary_is_that_of_scipy(values):
    found = summarize(values, MAX)
    low, high = stats.t.interval(0.95, len(values) - 1, loc=np.mean(values), scale=stats.sem(values))
    assert found.num == len(values)
    assert found.mean == pytest.approx(np.mean(values), rel=1e-12)
    assert found.deviation == pytest.approx(np.std(values, ddof=1), rel=1e-9)
    assert (found.low, found.high) == pytest.approx((low, high), rel=1e-9)


def test_a_summary_by_hand():
    """Squares around the mean of 5 add up to 32; Student's t at 97.5 % with 7 degrees of freedom is 2.3646."""
    found = summarize([2, 4, 4, 4, 5, 5, 7, 9], MIN)
    assert (found.num, found.mean, found.best) == (8, 5.0, 2)
    assert found.deviation == pytest.approx(math.sqrt(32 / 7))
    half = 2.3646 * math.sqrt(32 / 7) / math.sqrt(8)
    assert (found.low, found.high) == pytest.approx((5 - half, 5 + half), rel=1e-5)


def test_one_value_has_no_spread_and_the_best_goes_by_the_mode():
    assert summarize([0.25], MAX) == summarize([0.25], MIN)
    single = summarize([0.25], MAX)
    assert (single.mean, single.deviation, single.low, single.high, single.best) == (0.25, None, None, None, 0.25)
    assert (summarize([1.0, 3.0], MAX).best, summarize([1.0, 3.0], MIN).best) == (3.0, 1.0)


@pytest.mark.parametrize("num", range(2, 60))
def test_equal_values_have_no_spread_at_all(num):
    for value in (0.1, 1 / 3, 1e308, -1.1e-300):
        found = summarize([value] * num, MAX)
        assert (found.mean, found.deviation, found.low, found.high) == (value, 0.0, value, value)


def test_nothing_cancels_beside_a_large_mean():
    """1 / 1024 is exact beside 10 to the 9; by the mean of squares less the square of the mean, all digits are lost."""
    found = summarize([1e9 - 1 / 1024, 1e9, 1e9 + 1 / 1024], MAX)
    assert (found.mean, found.deviation) == (1e9, pytest.approx(1 / 1024, rel=1e-12))


@pytest.mark.parametrize("values", DATA)
def test_pairs_are_those_of_scipy(values):
    baseline = (np.array(values)[::-1] + np.random.default_rng(1).normal(0, np.std(values), len(values))).tolist()
    found = against(baseline, values)
    expected = stats.ttest_rel(values, baseline)
    interval = expected.confidence_interval(0.95)
    gains = np.subtract(values, baseline)
    assert (found.kind, found.num) == ("paired", len(values))
    assert found.mean == pytest.approx(gains.mean(), rel=1e-9)
    assert (found.p, found.corrected) == pytest.approx((expected.pvalue, expected.pvalue), rel=1e-9)
    assert (found.low, found.high) == pytest.approx((interval.low, interval.high), rel=1e-9)
    assert found.effect == pytest.approx(gains.mean() / gains.std(ddof=1), rel=1e-9)


def test_pairs_by_hand():
    """Gains of 1, 2, 3: t = 2 sqrt(3); with 2 degrees of freedom p = 1 - t / sqrt(t^2 + 2)."""
    found = against([10, 20, 30], [11, 22, 33])
    assert (found.mean, found.effect) == (2.0, 2.0)
    assert found.p == pytest.approx(1 - math.sqrt(12 / 14))
    assert (found.low, found.high) == pytest.approx((2 - 4.302653 / math.sqrt(3), 2 + 4.302653 / math.sqrt(3)))


def test_runs_without_a_partner_are_left_out():
    baseline = {0: 0.1, 1: 0.3, 2: 0.2, 3: 99.0, None: 50.0}
    values = {2: 0.5, 0: 0.3, 1: 0.4, 7: -99.0, None: -50.0}
    found = differences(baseline, {"b": values})["b"]
    assert found == against([0.1, 0.3, 0.2], [0.3, 0.4, 0.5])
    assert (found.kind, found.num) == ("paired", 3)


@pytest.mark.parametrize(("num", "other"), [(3, 3), (2, 9), (12, 4), (30, 2)])
def test_without_common_seeds_it_is_welch_of_scipy(num, other):
    random = np.random.default_rng(num)
    baseline, values = random.normal(0, 1, num).tolist(), random.normal(0.7, 3, other).tolist()
    first, second = seeds(baseline), {100 + seed: value for seed, value in enumerate(values)}
    found = differences(first, {"b": second})["b"]
    expected = stats.ttest_ind(values, baseline, equal_var=False)
    interval = expected.confidence_interval(0.95)
    assert (found.kind, found.num) == ("welch", min(num, other))
    assert found.mean == pytest.approx(np.mean(values) - np.mean(baseline))
    assert (found.p, found.low, found.high) == pytest.approx((expected.pvalue, interval.low, interval.high), rel=1e-9)
    shared = differences(first, {"b": {num - 1: values[0], **dict(list(second.items())[1:])}})["b"]
    assert shared == found, "one common seed is no pair to test"


def test_hedges_correction_by_hand():
    """Deviations of 1 and 1, means 2 apart, 4 degrees of freedom: corrected by gamma(2) / sqrt(2) gamma(1.5)."""
    found = differences({0: 1.0, 1: 2.0, 2: 3.0}, {"b": {5: 3.0, 6: 4.0, 7: 5.0}})["b"]
    assert found.effect == pytest.approx(2 * 1 / (math.sqrt(2) * math.sqrt(math.pi) / 2))


def test_p_values_are_corrected_by_holm_over_all_groups_that_have_one():
    """Two pairs: p = 1 - 2 atan(t) / pi (Cauchy), so gains of t - 1 and t + 1 have a p that is known by hand."""
    wanted = {"a": 0.01, "b": 0.04, "c": 0.03, "d": 0.005}
    distance = {name: math.tan((1 - p) * math.pi / 2) for name, p in wanted.items()}
    others = {name: {0: t - 1, 1: t + 1} for name, t in distance.items()}
    others |= {"one seed": {0: 3.0}, "no spread": {0: 1.0, 1: 1.0}}
    found = differences({0: 0.0, 1: 0.0}, others)
    assert {name: found[name].p for name in wanted} == pytest.approx(wanted)
    assert {name: found[name].corrected for name in wanted} == pytest.approx(
        {"d": 0.02, "a": 0.03, "c": 0.06, "b": 0.06}
    )
    assert list(found) == list(others)
    assert (found["one seed"].corrected, found["no spread"].corrected) == (None, None)
    assert all((found[name].needed is None) == (found[name].corrected < 0.05) for name in wanted)


def test_a_corrected_p_is_at_most_1():
    found = differences({0: 0.0, 1: 0.0}, {name: {0: -1.0, 1: 1.01} for name in "abc"})
    assert {each.corrected for each in found.values()} == {1.0}


def test_without_spread_there_is_no_test():
    def tested(found):
        return [found.low, found.high, found.p, found.corrected, found.effect, found.needed]

    baseline, shifted = [0.5734, 0.9, 0.1234], [0.5834, 0.91, 0.1334]
    single = [np.float32(values).astype(float).tolist() for values in (baseline, shifted)]
    for first, second in ((baseline, shifted), single):
        assert len(set(np.subtract(second, first))) > 1, "equal but for rounding: of doubles, of single precision"
    same, apart, rounded = against(baseline, baseline), against(baseline, shifted), against(*single)
    constant = differences({0: 0.5, 1: 0.5}, {"b": {5: 0.6, 6: 0.6}})["b"]
    for found in (same, apart, rounded, constant):
        assert tested(found) == [None] * 6
    assert same.mean == 0
    assert [apart.mean, rounded.mean, constant.mean] == pytest.approx([0.01, 0.01, 0.1], rel=1e-5)
    real = against(baseline, [0.5834, 0.91, 0.1335])  # one image of 10,000
    assert real.p is not None
    assert real.p < 0.001
    half = differences({0: 0.5, 1: 0.5, 2: 0.5}, {"b": {5: 0.6, 6: 0.61}})["b"]
    t = 0.105 / 0.005  # with the one degree of freedom of the two that differ
    assert half.p == pytest.approx(1 - 2 * math.atan(t) / math.pi)


def test_values_at_the_ends_of_what_a_float_can_hold():
    """Their differences, squares or errors can't be held by one."""
    huge = against([-1e308, 1e308, 0.0], [1e308, -1e308, 0.0])
    assert (huge.mean, huge.p) == (0.0, None)
    tiny = against([0.0, 0.0, 0.0], [0.0, 5e-324, 0.0])
    assert (tiny.mean, tiny.p) == (0.0, None)
    assert summarize([1e308, -1e308], MAX).high == np.finfo(float).max


def test_advice_says_what_would_tell():
    found = differences(
        {0: 0.50, 1: 0.51, 2: 0.52},
        {
            "lr=0.05": {0: 0.504, 1: 0.52, 2: 0.519},
            "lr=9": {0: 0.1, 1: 0.11001, 2: 0.12},
            "lr=0.01": {0: 0.4},
            "lr=1": {8: 0.0, 9: 1.03},
            "flip": {0: 0.50, 1: 0.51, 2: 0.52},
            "shifted": {0: 0.60, 1: 0.61, 2: 0.62},
        },
    )
    needed = found["lr=0.05"].needed
    assert advice("lr=0.05", found["lr=0.05"], ACCURACY) == (
        "lr=0.05: +0.43 points against the baseline (3 pairs of seeds) can't be told from noise; "
        f"if the true difference is as large as this, about {needed} seeds of each would do"
    )
    assert advice("lr=9", found["lr=9"], MIN) is None
    assert advice("lr=0.01", found["lr=0.01"], MIN) == (
        "lr=0.01: -0.11 against the baseline, but with one seed no spread is known: it may be noise; "
        "run at least 2 more seeds"
    )
    assert advice("lr=1", found["lr=1"], MIN) == (
        "lr=1: +0.005 against the baseline (2 seeds) can't be told from noise; "
        "so small a one would need more than 1,000 seeds"
    )
    assert advice("flip", found["flip"], MIN) == (
        "flip: +0 against the baseline (3 pairs of seeds), but the difference is the same in all pairs, "
        "so there is no spread to test with"
    )
    assert advice("shifted", found["shifted"], MIN) == (
        "shifted: +0.1 against the baseline (3 pairs of seeds), but the difference is the same in all pairs, "
        "so there is no spread to test with"
    )


@examples(40)
@given(st.lists(FINITE, min_size=1, max_size=6))
def test_a_summary_of_any_values_is_finite_and_in_order(values):
    found = summarize(values, MAX)
    assert min(values) <= found.mean <= max(values) == found.best
    if len(values) > 1:
        assert math.isfinite(found.deviation)
        assert -math.inf < found.low <= found.mean <= found.high < math.inf


@examples(60)
@given(SEEDS, st.dictionaries(st.sampled_from("abc"), SEEDS, min_size=1))
def test_differences_of_any_values_are_finite_and_consistent(baseline, others):
    for name, found in differences(baseline, others).items():
        numbers = [found.mean, found.low, found.high, found.p, found.corrected, found.effect]
        assert all(math.isfinite(value) for value in numbers if value is not None)
        assert (found.p is None) == (found.low is None) == (found.corrected is None) == (found.effect is None)
        assert found.p is None or 0 <= found.p <= found.corrected <= 1
        assert found.needed is None or found.kind == "welch" or found.num < found.needed <= MAX_SEEDS
        assert (advice(name, found, MIN) is None) == (found.corrected is not None and found.corrected < 0.05)


@examples(40)
@given(st.lists(st.tuples(st.integers(0, 9999), st.integers(0, 9999)), min_size=2, max_size=8), st.booleans())
def test_the_interval_leaves_out_0_where_p_is_below_5_percent_and_signs_mirror(pairs, is_paired):
    """Over accuracies of 10,000 images."""
    baseline = {seed: pair[0] / 10_000 for seed, pair in enumerate(pairs)}
    values = {seed + 100 * (not is_paired): pair[1] / 10_000 for seed, pair in enumerate(pairs)}
    found, back = differences(baseline, {"b": values})["b"], differences(values, {"b": baseline})["b"]
    assert isinstance(found, Difference)
    assert (found.mean, found.p, found.needed) == (-back.mean, pytest.approx(back.p), back.needed)
    if found.p is not None and abs(found.p - 0.05) > 1e-9:
        assert (found.p < 0.05) == (not found.low <= 0 <= found.high)
