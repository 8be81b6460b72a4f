"""Two settings and the metric: a cell a group, with its mean written in."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from litlab.compare.model import Comparison
from litlab.compare.plots.axes import scale_of
from litlab.compare.plots.style import COLOUR_MAP, by_value, measure, new_figure, note, printed
from litlab.compare.table import decimals, fixed

_LEAST = 0.75  # of all cells, that have a group
_MOST_CELLS = 40  # a side
_MOST_WRITTEN = 8  # columns in which there is room for a number


@dataclass(frozen=True)
class Grid:
    """The mean of the metric at each row and column, in the unit of the axis; NaN where there is no group."""

    columns: Sequence[str]
    rows: Sequence[str]
    means: "np.ndarray[Any, np.dtype[np.float64]]"


def draw_heatmap(comparison: Comparison) -> Figure | None:
    """None unless exactly two settings vary and their grid is nearly full."""
    grid = _grid(comparison) if len(comparison.labels) == 2 else None
    if grid is None:
        return None
    across, up = map(printed, comparison.labels)
    value, columns, rows = measure(comparison.metric), grid.columns, grid.rows
    figure = new_figure(f"{value.label} by {across} and {up}", height=min(4.6, max(2.7, 0.9 + 0.42 * len(rows))))
    axes = figure.add_subplot(xlabel=across, ylabel=up)
    axes.grid(visible=False)
    axes.spines[:].set_visible(False)
    axes.set_facecolor("#eeeeee")  # of cells without a group
    cells = axes.pcolormesh(grid.means, cmap=COLOUR_MAP, edgecolors="white", linewidth=1)
    figure.colorbar(cells, ax=axes, label=value.label).outline.set_visible(False)
    axes.set_xticks(np.arange(len(columns)) + 0.5, [printed(text, 16) for text in columns])
    axes.set_yticks(np.arange(len(rows)) + 0.5, [printed(text, 24) for text in rows])
    axes.tick_params(length=0)
    if max(map(len, columns)) * len(columns) > 50:
        axes.tick_params("x", rotation=40)
    if len(columns) <= _MOST_WRITTEN and len(rows) <= 2 * _MOST_WRITTEN:
        _write_means(cells, grid.means, decimals(comparison.metric, [group.value for group in comparison.groups]))
    num_empty = np.isnan(grid.means).sum()
    note(figure, "means over runs", f"{num_empty} cells without a result" if num_empty else "")
    return figure


def _grid(comparison: Comparison) -> Grid | None:
    """None if cells are too few or too many, too many of them are empty, or two groups have the same one."""
    across, up = comparison.labels
    groups = [group for group in by_value(comparison) if across in group.settings and up in group.settings]
    columns, rows = ([*scale_of(group.settings[label] for group in groups).places] for label in (across, up))
    if min(len(columns), len(rows)) < 2 or max(len(columns), len(rows)) > _MOST_CELLS:
        return None
    is_taken_twice = len({(group.settings[across], group.settings[up]) for group in groups}) < len(groups)
    if is_taken_twice or len(groups) < _LEAST * len(columns) * len(rows):
        return None
    means, factor = np.full((len(rows), len(columns)), np.nan), measure(comparison.metric).factor
    for group in groups:
        assert group.value is not None
        means[rows.index(group.settings[up]), columns.index(group.settings[across])] = group.value.mean * factor
    return Grid(columns, rows, means)


def _write_means(cells: Any, means: "np.ndarray[Any, np.dtype[np.float64]]", places: int) -> None:
    """Into each cell, black where it is light."""
    for (row, column), mean in np.ndenumerate(means):
        if np.isfinite(mean):
            red, green, blue, _ = cells.to_rgba(mean)
            colour = "black" if 0.299 * red + 0.587 * green + 0.114 * blue > 0.5 else "white"
            cells.axes.text(column + 0.5, row + 0.5, fixed(float(mean), places), ha="center", va="center", color=colour)
