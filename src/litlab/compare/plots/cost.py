"""Figure of the metric against its cost, with the Pareto front."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from matplotlib.figure import Figure

from litlab.compare.model import Comparison, Group, Summary
from litlab.compare.plots.axes import set_log, set_y_limits
from litlab.compare.plots.style import (
    FAINT,
    INTERVAL,
    MAX_GROUPS,
    Dot,
    LineStyle,
    StyledGroup,
    add_legend,
    add_note,
    axis_label,
    draw_dots,
    drawable_groups,
    is_drawable,
    legend_names,
    make_dot,
    new_figure,
    with_styles,
)
from litlab.runs.metrics import Mode

_OTHERS = LineStyle(FAINT, "-", ".")
_LOG_RATIO = 10.0  # of the largest to the smallest cost, from which on the axis is logarithmic


@dataclass(frozen=True)
class Cost:
    """A quantity to weigh against the metric.

    Attributes:
        label: Label of the axis with its unit.
        mode: Direction of improvement.
        of: Returns the cost of a group; None if it is unknown.
        scale: Factor from values to the unit of the axis.
    """

    label: str
    mode: Mode
    of: Callable[[Group], Summary | None]
    scale: float = 1.0


TIME = Cost("training time (s)", "min", lambda group: group.seconds)


def draw_cost(comparison: Comparison, cost: Cost, selected: Sequence[StyledGroup] | None) -> Figure | None:
    """Draw the metric against the cost; None if the cost of fewer than two groups is known.

    Args:
        comparison: Comparison to draw.
        cost: Quantity of the x axis.
        selected: Groups that are named; None for those on the front.
    """
    metric = comparison.metric
    placed = {
        group.name: (group, make_dot(known.mean * cost.scale, group.value, metric.scale))
        for group in drawable_groups(comparison)
        if group.value is not None and (known := cost.of(group)) is not None and is_drawable(known.mean)
    }
    if len(placed) < 2:
        return None
    front = pareto_front([dot for _, dot in placed.values()], cost.mode, comparison.mode)
    if selected is None:
        on_front = [group for group, dot in placed.values() if dot in front]
        selected = with_styles(on_front[:MAX_GROUPS], comparison.baseline)
    named = [entry for entry in selected if entry.group.name in placed]
    dots = {name: dot for name, (_, dot) in placed.items()}
    figure = new_figure(f"{axis_label(metric)} against {cost.label}")
    axes = figure.add_subplot(xlabel=cost.label, ylabel=axis_label(metric))
    handles = _draw(axes, dots, named, front, "steps-post" if cost.mode == "min" else "steps-pre")
    costs, means = [dot.x for dot in dots.values()], [dot.y for dot in dots.values()]
    if min(costs) > 0 and max(costs) / min(costs) >= _LOG_RATIO:
        set_log(axes.xaxis, costs)
    is_cut = set_y_limits(axes, means, [dot.low for dot in dots.values()], [dot.high for dot in dots.values()])
    add_legend(figure, list(handles.values()), list(handles))
    has_bars = any(dot.low < dot.high for dot in dots.values())
    add_note(figure, INTERVAL.format("bars") if has_bars else "", "bars cut" if is_cut else "")
    return figure


def _draw(
    axes: Any, dots: Mapping[str, Dot], named: Sequence[StyledGroup], front: Sequence[Dot], steps: str
) -> dict[str, Any]:
    """Draw all groups and the front; return name -> handle for the legend."""
    names = legend_names(entry.group.settings for entry in named)
    handles = {
        name: draw_dots(axes, [dots[entry.group.name]], entry.style) for name, entry in zip(names, named, strict=True)
    }
    others = [dot for name, dot in dots.items() if name not in {entry.group.name for entry in named}]
    if others:
        handles[f"{len(others)} other{'s' * (len(others) > 1)}"] = draw_dots(axes, others, _OTHERS, zorder=2.0)
    if len(front) > 1:
        x, y = [dot.x for dot in front], [dot.y for dot in front]
        (handles["Pareto front"],) = axes.plot(
            x, y, color="#444444", linewidth=0.8, linestyle=":", drawstyle=steps, zorder=1.5
        )
    return handles


def pareto_front(dots: Sequence[Dot], cost: Mode, value: Mode) -> list[Dot]:
    """Return the dots that no other dot equals in both quantities and beats in one, the cheapest first."""
    sign_cost, sign = (1 if cost == "min" else -1), (1 if value == "max" else -1)
    front: list[Dot] = []
    for dot in sorted(dots, key=lambda dot: (sign_cost * dot.x, -sign * dot.y)):
        if not front or sign * dot.y > sign * front[-1].y:
            front.append(dot)
    return front
