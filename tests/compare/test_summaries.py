"""Summaries over seeds: against scipy.stats, against values by hand, and in simulated studies."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats
from support.studies import accuracy_interval
from support.thorough import examples

from litlab.compare.summaries import interval_method, summarize
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


@pytest.mark.parametrize("values", DATA)
def test_summary_matches_scipy(values):
    summary = summarize(values, MAX)
    low, high = stats.t.interval(0.95, len(values) - 1, loc=np.mean(values), scale=stats.sem(values))
    assert summary.num == len(values)
    assert summary.mean == pytest.approx(np.mean(values), rel=1e-12)
    assert summary.deviation == pytest.approx(np.std(values, ddof=1), rel=1e-9)
    assert (summary.low, summary.high) == pytest.approx((low, high), rel=1e-9)


def test_single_value_has_no_spread_and_best_follows_the_mode():
    assert summarize([0.25], MAX) == summarize([0.25], MIN)
    single = summarize([0.25], MAX)
    assert (single.mean, single.deviation, single.low, single.high, single.best) == (0.25, None, None, None, 0.25)
    assert (summarize([1.0, 3.0], MAX).best, summarize([1.0, 3.0], MIN).best) == (3.0, 1.0)


@pytest.mark.parametrize("num", range(2, 60))
def test_equal_values_have_no_spread(num):
    for value in (0.1, 1 / 3, 1e308, -1.1e-300):
        summary = summarize([value] * num, MAX)
        assert (summary.mean, summary.deviation, summary.low, summary.high) == (value, 0.0, value, value)
    full = summarize([1.0] * num, ACCURACY)
    assert (full.low, full.high) == (1.0, 1.0)


def test_nothing_cancels_beside_a_large_mean():
    """1 / 1024 is exact beside 1e9; the mean of squares less the square of the mean would lose all digits."""
    summary = summarize([1e9 - 1 / 1024, 1e9, 1e9 + 1 / 1024], MAX)
    assert (summary.mean, summary.deviation) == (1e9, pytest.approx(1 / 1024, rel=1e-12))


@pytest.mark.parametrize("values", [[0.5734, 0.5811, 0.5699], [0.9, 0.1], [0.99, 1.0], [0.999, 0.9991, 0.9987]])
def test_interval_of_a_bounded_metric_is_on_the_logit_scale(values):
    summary = summarize(values, ACCURACY)
    assert (summary.low, summary.high) == pytest.approx(accuracy_interval(values), rel=1e-9)
    assert 0 < summary.low < summary.mean < summary.high < 1
    percent = summarize([100 * value for value in values], Metric("x", "", "max", (0.0, 100.0)))
    assert (percent.low, percent.high) == pytest.approx((100 * summary.low, 100 * summary.high))


def test_method_is_named_after_the_scale():
    assert [interval_method(Metric("x", bounds=bounds)) for bounds in (None, (0.0, math.inf), (0.0, 1.0))] == [
        "Student's t", "Student's t on the log scale", "Student's t on the logit scale",
    ]  # fmt: skip


@pytest.mark.parametrize(("mean", "deviation"), [(0.5, 0.05), (0.9, 0.03), (0.97, 0.01), (0.99, 0.005), (0.995, 0.003)])
@pytest.mark.parametrize("num", [2, 3, 5])
def test_coverage_of_bounded_intervals(mean, deviation, num):
    """Near the bound, plain t intervals leave the bounds and miss the truth in up to 8 % of studies."""
    random = np.random.default_rng(num)
    size = mean * (1 - mean) / deviation**2 - 1
    studies = random.beta(mean * size, (1 - mean) * size, (2000, num))
    intervals = [summarize(values, ACCURACY) for values in studies.tolist()]
    assert all(0 <= summary.low <= summary.mean <= summary.high <= 1 for summary in intervals)
    covered = sum(summary.low <= mean <= summary.high for summary in intervals) / len(intervals)
    assert 0.935 <= covered <= 0.965


@examples(40)
@given(st.lists(FINITE, min_size=1, max_size=6), st.sampled_from([None, (0.0, 1.0), (0.0, math.inf), (-1e6, 1e6)]))
def test_summaries_of_any_values_are_finite_and_ordered(values, bounds):
    summary = summarize(values, Metric("x", "", "max", bounds))
    assert min(values) <= summary.mean <= max(values) == summary.best
    if len(values) > 1:
        assert math.isfinite(summary.deviation)
        assert -math.inf < summary.low <= summary.mean <= summary.high < math.inf
