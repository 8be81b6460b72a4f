"""How many digits a table shows."""

import pytest

from litlab.compare.model import Summary
from litlab.compare.table import decimals, fixed
from litlab.runs.metrics import Metric


def summary(mean: float, deviation: float | None = None) -> Summary:
    return Summary(3, mean, deviation, None, None, mean)


@pytest.mark.parametrize(
    ("metric", "summaries", "expected"),
    [
        ("val/accuracy", [summary(0.9, 0.0043)], 2),  # 0.43 points
        ("val/accuracy", [summary(0.9, 0.04)], 1),
        ("val/accuracy", [summary(0.9, 0.00996)], 1),  # rounds to 1.0
        ("val/accuracy", [summary(0.9, 0.01), summary(0.9, 0.012), summary(0.5, 0.3)], 1),
        ("val/accuracy", [summary(0.9, 1e-17)], 4),
        ("val/accuracy", [summary(0.9), None], 2),
        ("val/loss", [summary(1.5, 0.0321)], 3),
        ("val/loss", [summary(1234.0, 250.0)], 0),
        ("val/loss", [summary(0.0123)], 5),
        ("val/loss", [summary(0.0, 0.0)], 2),
        ("val/loss", [summary(1e-30)], 8),
        ("val/loss", [None], 2),
    ],
)
def test_decimals(metric: str, summaries: list[Summary | None], expected: int) -> None:
    assert decimals(Metric(metric, "%" if "accuracy" in metric else ""), summaries) == expected


def test_fixed() -> None:
    assert [fixed(-0.001, 2), fixed(-0.001, 2, "+"), fixed(1.005e300, 3), fixed(12.345, 0)] == [
        "0.00", "+0.00", "1.005e+300", "12"
    ]  # fmt: skip
