"""Figure of the metric against its cost, the time or another objective of a search, with the Pareto front."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from matplotlib.figure import Figure

from litlab.compare.data_model import Comparison, Group, Run, Summary
from litlab.compare.metric_values import metric_table
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
    set_log,
    set_y_limits,
    with_styles,
)
from litlab.compare.summaries import summarize
from litlab.runs.metrics import Metric, Mode, split_of
from litlab.sweep.study import Plan

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
_QUANTITIES: dict[str, tuple[str, Callable[[Run], float | None]]] = {  # objectives that are not metrics
    "seconds.training": (TIME.label, lambda run: run.training_seconds),
    "parameters": ("parameters", lambda run: run.parameters),
    "images_per_second": ("images per second of training", lambda run: run.images_per_second),
}


def search_cost(comparison: Comparison, plans: Iterable[Plan]) -> Cost:
    """Return the first other objective of the searches that is not measured on the test split, or else the time."""
    for plan in plans:
        for objective in plan.search.get("objectives") or ():
            entry: dict[str, Any] = objective if isinstance(objective, dict) else {}
            name, mode = entry.get("metric"), entry.get("mode")
            is_other = isinstance(name, str) and name != comparison.metric.name and split_of(name) != "test"
            if is_other and mode in ("max", "min"):
                return _cost(comparison, str(name), mode)
    return TIME


def _cost(comparison: Comparison, name: str, mode: Mode) -> Cost:
    table = metric_table([run for group in comparison.groups for run in group.runs])
    metric = Metric(name, mode=mode) if name in _QUANTITIES else table[name]
    label, value = _QUANTITIES.get(name, (axis_label(metric), lambda run: run.best.get(name)))

    def of(group: Group) -> Summary | None:
        values = [number for run in group.runs if (number := value(run)) is not None]
        return summarize(values, metric) if values else None

    return Cost(label, mode, of, metric.scale)


def draw_cost(comparison: Comparison, cost: Cost, selected: Sequence[StyledGroup] | None) -> Figure | None:
    """Draw the metric against the cost; None if the cost of fewer than two groups is known.

    Args:
        comparison: Comparison to draw.
        cost: Quantity of the x axis.
        selected: Groups that are named; None for those on the front.
    """
    metric = comparison.metric
    groups: dict[str, Group] = {}
    dots: dict[str, Dot] = {}
    for group in drawable_groups(comparison):
        summary = cost.of(group)
        if group.value is not None and summary is not None and is_drawable(summary.mean):
            groups[group.name] = group
            dots[group.name] = make_dot(summary.mean * cost.scale, group.value, metric.scale)
    if len(dots) < 2:
        return None
    front = pareto_front(list(dots.values()), cost.mode, comparison.mode)
    if selected is None:
        on_front = [group for name, group in groups.items() if dots[name] in front]
        selected = with_styles(on_front[:MAX_GROUPS], comparison.baseline)
    named = [(group, style) for group, style in selected if group.name in dots]
    figure = new_figure(f"{axis_label(metric)} against {cost.label}")
    axes = figure.add_subplot(xlabel=cost.label, ylabel=axis_label(metric))
    handles = _draw(axes, dots, named, front, "steps-post" if cost.mode == "min" else "steps-pre")
    costs = [dot.x for dot in dots.values()]
    if min(costs) > 0 and max(costs) / min(costs) >= _LOG_RATIO:
        set_log(axes.xaxis, costs)
    is_cut = set_y_limits(axes, list(dots.values()))
    add_legend(figure, list(handles.values()), list(handles))
    has_bars = any(dot.low < dot.high for dot in dots.values())
    add_note(figure, INTERVAL.format("bars") if has_bars else "", "bars cut" if is_cut else "")
    return figure


def _draw(
    axes: Any, dots: Mapping[str, Dot], named: Sequence[StyledGroup], front: Sequence[Dot], steps: str
) -> dict[str, Any]:
    """Draw all groups and the front; return name -> handle for the legend."""
    names = legend_names(group.settings for group, _ in named)
    handles = {
        name: draw_dots(axes, [dots[group.name]], style) for name, (group, style) in zip(names, named, strict=True)
    }
    others = [dot for name, dot in dots.items() if name not in {group.name for group, _ in named}]
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
