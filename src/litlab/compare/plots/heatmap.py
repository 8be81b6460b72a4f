"""Figure of the metric over two settings: a cell for each group, with its mean."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from litlab.compare.model import Comparison
from litlab.compare.plots.axes import scale_of
from litlab.compare.plots.style import COLOR_MAP, add_note, axis_label, drawable_groups, drawable_text, new_figure
from litlab.compare.table import decimals, fixed

_MIN_FILLED = 0.75  # share of cells with a group
_MAX_CELLS = 40  # a side
_MAX_WRITTEN = 8  # columns with room for a number
Means = np.ndarray[Any, np.dtype[np.float64]]  # [rows, columns], in the unit of the axis; NaN without a group


def draw_heatmap(comparison: Comparison) -> Figure | None:
    """Draw the grid of two settings; None unless exactly two vary and their grid is nearly full."""
    grid = _grid(comparison) if len(comparison.labels) == 2 else None
    if grid is None:
        return None
    columns, rows, means = grid
    across, up = map(drawable_text, comparison.labels)
    label = axis_label(comparison.metric)
    figure = new_figure(f"{label} by {across} and {up}", height=min(4.6, max(2.7, 0.9 + 0.42 * len(rows))))
    axes = figure.add_subplot(xlabel=across, ylabel=up)
    axes.grid(visible=False)
    axes.spines[:].set_visible(False)
    axes.set_facecolor("#eeeeee")  # of cells without a group
    cells = axes.pcolormesh(means, cmap=COLOR_MAP, edgecolors="white", linewidth=1)
    figure.colorbar(cells, ax=axes, label=label).outline.set_visible(False)
    axes.set_xticks(np.arange(len(columns)) + 0.5, [drawable_text(text, 16) for text in columns])
    axes.set_yticks(np.arange(len(rows)) + 0.5, [drawable_text(text, 24) for text in rows])
    axes.tick_params(length=0)
    if max(map(len, columns)) * len(columns) > 50:
        axes.tick_params("x", rotation=40)
    if len(columns) <= _MAX_WRITTEN and len(rows) <= 2 * _MAX_WRITTEN:
        _write_means(cells, means, decimals(comparison.metric, [group.value for group in comparison.groups]))
    num_empty = np.isnan(means).sum()
    add_note(figure, "means over runs", f"{num_empty} cells without a result" if num_empty else "")
    return figure


def _grid(comparison: Comparison) -> tuple[Sequence[str], Sequence[str], Means] | None:
    """Return columns, rows and means; None if there are too few or many cells, many empty ones, or a shared one."""
    across, up = comparison.labels
    groups = [group for group in drawable_groups(comparison) if across in group.settings and up in group.settings]
    columns, rows = ([*scale_of(group.settings[label] for group in groups).positions] for label in (across, up))
    if min(len(columns), len(rows)) < 2 or max(len(columns), len(rows)) > _MAX_CELLS:
        return None
    is_shared = len({(group.settings[across], group.settings[up]) for group in groups}) < len(groups)
    if is_shared or len(groups) < _MIN_FILLED * len(columns) * len(rows):
        return None
    means = np.full((len(rows), len(columns)), np.nan)
    for group in groups:
        assert group.value is not None
        place = rows.index(group.settings[up]), columns.index(group.settings[across])
        means[place] = group.value.mean * comparison.metric.scale
    return columns, rows, means


def _write_means(cells: Any, means: Means, places: int) -> None:
    """Write the mean into each cell, in black on light ones."""
    for (row, column), mean in np.ndenumerate(means):
        if np.isfinite(mean):
            red, green, blue, _ = cells.to_rgba(mean)
            color = "black" if 0.299 * red + 0.587 * green + 0.114 * blue > 0.5 else "white"
            cells.axes.text(column + 0.5, row + 0.5, fixed(float(mean), places), ha="center", va="center", color=color)
