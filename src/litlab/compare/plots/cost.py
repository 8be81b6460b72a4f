"""The metric against what it costs, and which groups are a good bargain: none is better in both."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from matplotlib.figure import Figure

from litlab.compare.model import Comparison, Group, Mode, Summary
from litlab.compare.plots.axes import by_factors, frame
from litlab.compare.plots.style import (
    FAINT,
    INTERVAL,
    MOST,
    Chosen,
    Dot,
    Look,
    by_value,
    dot,
    draw_dots,
    is_drawable,
    legend_below,
    measure,
    names_of,
    new_figure,
    note,
    with_looks,
)

_REST = Look(FAINT, "-", ".")
_DECADE = 10.0  # from the smallest to the largest, from which on the axis is logarithmic


@dataclass(frozen=True)
class Cost:
    """
    Attributes:
        label: with its unit.
        mode: whether more or less of it is better.
        of: a group; None if it is unknown.
    """

    label: str
    mode: Mode
    of: Callable[[Group], Summary | None]
    factor: float = 1.0


TIME = Cost("training time (s)", "min", lambda group: group.seconds)


def draw_cost(comparison: Comparison, cost: Cost, chosen: Sequence[Chosen] | None) -> Figure | None:
    """None if the cost of fewer than two groups is known.

    Args:
        chosen: groups that are named; None for those on the front.
    """
    value = measure(comparison.metric)
    places = {
        group.name: (group, dot(found.mean * cost.factor, group.value, value.factor))
        for group in by_value(comparison)
        if group.value is not None and (found := cost.of(group)) is not None and is_drawable(found.mean)
    }
    if len(places) < 2:
        return None
    front = front_of([each for _, each in places.values()], cost.mode, comparison.mode)
    if chosen is None:
        on_front = [group for group, each in places.values() if each in front]
        chosen = with_looks(on_front[:MOST], comparison.baseline)
    named = [each for each in chosen if each.group.name in places]
    dots = {name: each for name, (_, each) in places.items()}
    figure = new_figure(f"{value.label} against {cost.label}")
    axes = figure.add_subplot(xlabel=cost.label, ylabel=value.label)
    handles = _draw(axes, dots, named, front, "steps-post" if cost.mode == "min" else "steps-pre")
    costs, heights = [each.x for each in dots.values()], [each.y for each in dots.values()]
    if min(costs) > 0 and max(costs) / min(costs) >= _DECADE:
        by_factors(axes.xaxis, costs)
    is_cut = frame(axes, heights, [each.low for each in dots.values()], [each.high for each in dots.values()])
    legend_below(figure, list(handles.values()), list(handles))
    has_bars = any(each.low < each.high for each in dots.values())
    note(figure, INTERVAL.format("bars") if has_bars else "", "bars cut" if is_cut else "")
    return figure


def _draw(
    axes: Any, dots: Mapping[str, Dot], named: Sequence[Chosen], front: Sequence[Dot], steps: str
) -> dict[str, Any]:
    """Returns name -> what stands for it in a legend."""
    names = names_of(each.group.settings for each in named)
    handles = {
        name: draw_dots(axes, [dots[each.group.name]], each.look) for name, each in zip(names, named, strict=True)
    }
    shown = {each.group.name for each in named}
    rest = [each for name, each in dots.items() if name not in shown]
    if rest:
        handles[f"{len(rest)} other{'s' * (len(rest) > 1)}"] = draw_dots(axes, rest, _REST, zorder=2.0)
    if len(front) > 1:
        (handles["Pareto front"],) = axes.plot(
            [each.x for each in front],
            [each.y for each in front],
            color="#444444",
            linewidth=0.8,
            linestyle=":",
            drawstyle=steps,
            zorder=1.5,
        )
    return handles


def front_of(dots: Sequence[Dot], cost: Mode, value: Mode) -> list[Dot]:
    """Those than which no other is as good in both and better in one, the cheapest first."""
    sign_cost, sign = (1 if cost == "min" else -1), (1 if value == "max" else -1)
    front: list[Dot] = []
    for each in sorted(dots, key=lambda each: (sign_cost * each.x, -sign * each.y)):
        if not front or sign * each.y > sign * front[-1].y:
            front.append(each)
    return front
