"""Summaries of a metric over seeds or folds, with confidence intervals for the mean."""

import math
from collections.abc import Sequence

from litlab.compare.data_model import Summary
from litlab.runs.metrics import Metric
from litlab.statistics.student_t import deviation_of, mean_interval, mean_of


def summarize(values: Sequence[float], metric: Metric) -> Summary:
    """Compute mean, sample deviation, confidence interval and best of values.

    Equal values have a deviation of 0 and an interval of width 0.

    Args:
        values: One or more finite values.
        metric: Its mode tells the best value; its bounds, if there are any, hold the interval.
    """
    assert values
    num, mean, deviation = len(values), mean_of(values), deviation_of(values)
    low, high = None, None
    if deviation is not None:
        low, high = mean_interval(mean, deviation / math.sqrt(num), num - 1, metric.bounds)
    return Summary(num, mean, deviation, low, high, best=min(values) if metric.mode == "min" else max(values))


def interval_method(metric: Metric) -> str:
    """Name the method of `mean_interval` for a metric."""
    num_bounds = sum(map(math.isfinite, metric.bounds or ()))
    scale = {0: "", 1: " on the log scale", 2: " on the logit scale"}[num_bounds]
    return f"Student's t{scale}"
