"""Learning curves: the mean over the seeds of each group, epoch by epoch, with its interval."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from statistics import fmean
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from litlab.compare.metric_values import rows_of
from litlab.compare.model import Comparison, Group, Run, Summary
from litlab.compare.plots.axes import frame
from litlab.compare.plots.style import (
    INTERVAL,
    Chosen,
    Look,
    is_drawable,
    legend_below,
    measure,
    names_of,
    new_figure,
    note,
)
from litlab.compare.statistics import summarize

_MANY = 5  # bands, from which on they are fainter


@dataclass(frozen=True)
class Curve:
    """Of a group.

    Attributes:
        epochs: counted from 1; only those that all of its runs have reached.
        values: over the runs, one an epoch; None where one of them has no finite number.
        num_without: runs that have no such curve in their metrics.csv.
    """

    epochs: Sequence[int]
    values: Sequence[Summary | None]
    num_without: int

    def line(self, name: str, factor: float) -> "np.ndarray[Any, np.dtype[np.float64]]":
        """`mean`, `low` or `high` of all epochs; NaN where there is none."""
        found = [getattr(value, name, None) for value in self.values]
        return np.array([math.nan if each is None else each * factor for each in found])


def draw_curves(comparison: Comparison, chosen: Sequence[Chosen]) -> Figure | None:
    """None if no run of these groups has a curve."""
    known = [(each, curve_of(each.group, comparison.metric)) for each in chosen]
    drawn = [(each, curve) for each, curve in known if any(curve.values)]
    if not drawn:
        return None
    value = measure(comparison.metric)
    figure = new_figure(f"{value.label} against epoch")
    axes = figure.add_subplot(xlabel="epoch", ylabel=value.label)
    handles = [
        _draw(axes, curve, each.look, value.factor, 0.15 if len(drawn) < _MANY else 0.08) for each, curve in drawn
    ]
    lines = {
        name: np.concatenate([curve.line(name, value.factor) for _, curve in drawn]) for name in ("mean", "low", "high")
    }
    ends = {name: line[np.isfinite(line)].tolist() for name, line in lines.items()}
    is_cut = frame(axes, ends["mean"], ends["low"], ends["high"])
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    longest = max(curve.epochs[-1] for _, curve in drawn)
    axes.set_xlim(1 - 0.03 * longest, 1.03 * longest)
    legend_below(figure, handles, names_of(each.group.settings for each, _ in drawn))
    num_groups, num_without = len(comparison.groups), sum(curve.num_without for _, curve in known)
    note(
        figure,
        f"{len(drawn)} of {num_groups} groups" if len(drawn) < num_groups else "",
        INTERVAL.format("bands") if ends["low"] else "",
        "bands cut" if is_cut else "",
        f"left out: {num_without} runs without a curve" if num_without else "",
    )
    return figure


def curve_of(group: Group, metric: str) -> Curve:
    """Over seeds, as the table has it: where settings are put together, a seed's value is the mean over them."""
    found = [(run, curve) for run in group.runs if (curve := _read(run, metric))]
    shared = sorted(set.intersection(*(set(curve) for _, curve in found))) if found else []
    seeds = {run.seed if run.seed is not None else run.path: run for run, _ in found}
    of_seeds = [[curve for run, curve in found if key in (run.seed, run.path)] for key in seeds]
    values = [[fmean(curve[epoch] for curve in curves) for curves in of_seeds] for epoch in shared]
    summaries = [_summary(each, group) if all(map(math.isfinite, each)) else None for each in values]
    return Curve([epoch + 1 for epoch in shared], summaries, len(group.runs) - len(found))


def _summary(values: Sequence[float], group: Group) -> Summary:
    """Without an interval where the group has none: its seeds don't have the same settings."""
    found = summarize(values, "max")
    has_none = group.value is not None and group.value.num > 1 and group.value.low is None
    return replace(found, low=None, high=None) if has_none else found


def _read(run: Run, metric: str) -> dict[int, float]:
    """Epoch, from 0 -> the last value in it."""
    return {row.epoch: row.value if is_drawable(row.value) else math.nan for row in rows_of(run, [metric])}


def _draw(axes: Any, curve: Curve, look: Look, factor: float, alpha: float) -> Any:
    """Returns what stands for it in a legend."""
    low, high = curve.line("low", factor), curve.line("high", factor)
    if np.isfinite(low).any():
        axes.fill_between(curve.epochs, low, high, color=look.colour, alpha=alpha, linewidth=0)
    (line,) = axes.plot(
        curve.epochs,
        curve.line("mean", factor),
        color=look.colour,
        linestyle=look.dashes,
        marker=look.marker,
        markevery=max(1, len(curve.epochs) // 8),
    )
    return line
