"""Learning curves: the mean over the seeds of each group, epoch by epoch, with its interval."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from litlab.compare.model import Comparison, Group, Run, Summary
from litlab.compare.plots.chosen import Chosen
from litlab.compare.plots.scales import frame
from litlab.compare.plots.style import INTERVAL, Look, legend_below, measure, names_of, new_figure, note
from litlab.compare.statistics import summarize
from litlab.compare.values import rows_of


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
    handles = [_draw(axes, curve, each.look, value.factor) for each, curve in drawn]
    lines = {
        name: np.concatenate([curve.line(name, value.factor) for _, curve in drawn]) for name in ("mean", "low", "high")
    }
    ends = {name: line[np.isfinite(line)].tolist() for name, line in lines.items()}
    is_cut = frame(axes, ends["mean"], ends["low"], ends["high"])
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, nbins="auto"))
    legend_below(figure, handles, names_of([each.group.name for each, _ in drawn]))
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
    found = [curve for run in group.runs if (curve := _read(run, metric))]
    shared = sorted(set.intersection(*map(set, found))) if found else []
    values = [[curve[epoch] for curve in found] for epoch in shared]
    summaries = [summarize(each, "max") if all(map(math.isfinite, each)) else None for each in values]
    return Curve([epoch + 1 for epoch in shared], summaries, len(group.runs) - len(found))


def _read(run: Run, metric: str) -> dict[int, float]:
    """Epoch, from 0 -> the last value in it."""
    return {row.epoch: row.value for row in rows_of(run, [metric])}


def _draw(axes: Any, curve: Curve, look: Look, factor: float) -> Any:
    """Returns what stands for it in a legend."""
    low, high = curve.line("low", factor), curve.line("high", factor)
    if np.isfinite(low).any():
        axes.fill_between(curve.epochs, low, high, color=look.colour, alpha=0.15, linewidth=0)
    (line,) = axes.plot(
        curve.epochs,
        curve.line("mean", factor),
        color=look.colour,
        linestyle=look.dashes,
        marker=look.marker,
        markevery=max(1, len(curve.epochs) // 8),
    )
    return line
