"""Mean over the seeds of a group, step by step, of every metric of the validation."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from litlab.board.events import LARGEST
from litlab.compare.model import Run
from litlab.compare.statistics import summarize
from litlab.compare.values import rows_of

_LAST_STEP = 1 << 53
Curves = Mapping[str, Mapping[int, float]]  # metric -> optimizer step -> value


@dataclass(frozen=True)
class Point:
    """After `step` optimizer steps: the mean over the runs and its interval at `litlab.compare.model.LEVEL`."""

    step: int
    mean: float
    low: float
    high: float


def mean_curves(runs: Sequence[Run]) -> dict[str, list[Point]]:
    """Metric -> its points, at the steps at which every run has a finite value; metrics without one are left out.

    A run whose metrics.csv is missing or damaged takes no part; of fewer than two there is no interval, and nothing.
    """
    found = [curves for run in runs if (curves := _read(run))]
    if len(found) < 2:
        return {}
    points = {metric: _points([curves[metric] for curves in found]) for metric in _shared(found)}
    return {metric: each for metric, each in points.items() if each}


def _shared(found: Sequence[Curves]) -> list[str]:
    return [metric for metric in found[0] if all(metric in curves for curves in found)]


def _points(curves: Sequence[Mapping[int, float]]) -> list[Point]:
    points = []
    for step in sorted(set.intersection(*map(set, curves))):
        summary = summarize([curve[step] for curve in curves], "max")
        assert summary.low is not None
        assert summary.high is not None
        points.append(Point(step, summary.mean, summary.low, summary.high))
    return points


def _read(run: Run) -> dict[str, dict[int, float]]:
    """The values of the validation that TensorBoard can show; {} for a file that can't be read."""
    curves: dict[str, dict[int, float]] = {}
    for row in rows_of(run, [metric for metric in run.last if metric.startswith("val/")]):
        if abs(row.value) <= LARGEST and 0 <= row.step <= _LAST_STEP:
            curves.setdefault(row.metric, {})[row.step] = row.value
    return curves
