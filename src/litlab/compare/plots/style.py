"""Style of all figures: fonts, colors, scales of axes, and the texts of values and names."""

import functools
import math
import re
import textwrap
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import pairwise
from statistics import fmean, pstdev
from typing import Any, Literal, NamedTuple

import matplotlib
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter, NullLocator

from litlab.compare.data_model import Comparison, Group, Summary
from litlab.compare.setting_names import numbered
from litlab.fonts import add_to_matplotlib, find_fallbacks
from litlab.runs.metrics import Metric
from litlab.runs.terminal import printable
from litlab.statistics.student_t import CONFIDENCE

SIZE = (5.0, 3.4)  # inches: as wide as the text of a paper
MAX_GROUPS = 8  # that can be told apart in one figure
MAX_TEXT = 72  # characters of a name
# Okabe and Ito (2008), which color-blind readers can tell apart; black is for the baseline.
COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#8C564B", "#7F7F7F")
DASHES = ("-", (0, (5, 1.5)), (0, (1.2, 1.2)), (0, (5, 1.5, 1.2, 1.5)), (0, (9, 2)), (0, (3, 1, 1, 1, 1, 1)))
MARKERS = "os^Dv<>P"
FAINT = "#999999"
INTERVAL = f"{{}}: {100 * CONFIDENCE:.0f} % t intervals of means over runs"
COLOR_MAP = "cividis"  # perceptually uniform, also in gray
MAX_SHAPES = 300  # of a kind; more become pixels, also in svg and pdf, which would be large and slow otherwise
_FRACTION = re.compile(r"-?\d{1,20}\.\d{1,20}(e[+-]?\d{1,3})?")
_MIN_RATIO = 4.0  # of the largest to the smallest value; below it a logarithm changes little
_MIN_RATIO_OF_TWO = 10.0  # if there are only two values
_MAX_TICKS = 8  # with one at each value
_DIVERGED = 1000.0  # ratio of the largest to the smallest mean
_MIN_DISTANCE = 0.07  # of the axis, between two ticks
_STYLE: Any = {
    "font.family": ["DejaVu Sans"], "font.size": 8,
    "axes.labelsize": 9, "axes.linewidth": 0.6, "axes.axisbelow": True, "axes.grid": True,
    "axes.spines.top": False, "axes.spines.right": False, "grid.color": "#dddddd", "grid.linewidth": 0.5,
    "xtick.major.width": 0.6, "ytick.major.width": 0.6, "xtick.minor.width": 0.4, "ytick.minor.width": 0.4,
    "lines.linewidth": 1.4, "lines.markersize": 4,
    "legend.frameon": False, "legend.fontsize": 7, "legend.handlelength": 3.0,
    "text.parse_math": False,  # names are untrusted
    "svg.fonttype": "path", "svg.hashsalt": "litlab",
    "pdf.fonttype": 42,  # TrueType, which publishers ask for
}  # fmt: skip


Interval = Literal["log", "linear"]  # on which a search draws numbers evenly


@contextmanager
def styled(texts: Iterable[str] = ()) -> Iterator[None]:
    """Draw in this style within the context, whatever the user's matplotlib settings are.

    Args:
        texts: Texts for whose characters fonts beside DejaVu Sans are used, as far as they are installed.
    """
    with matplotlib.rc_context():
        matplotlib.rcdefaults()
        matplotlib.rcParams.update(_STYLE)
        fallbacks = map(add_to_matplotlib, find_fallbacks("".join(texts)))
        matplotlib.rcParams["font.family"] = [*matplotlib.rcParams["font.family"], *fallbacks]
        yield


def new_figure(label: str, height: float = SIZE[1]) -> Figure:
    """Create an empty figure, without pyplot and its global state.

    Args:
        label: Caption, which `get_label` of the figure returns.
        height: Height in inches.
    """
    figure = Figure(figsize=(SIZE[0], height), layout="constrained")
    figure.set_label(label)
    return figure


class LineStyle(NamedTuple):
    """Color, dashes and marker of a group: each alone tells groups apart."""

    color: str
    dashes: Any
    marker: str


StyledGroup = tuple[Group, LineStyle]
BASELINE = LineStyle("#000000", "-", "X")


def line_style(index: int) -> LineStyle:
    """Return the style of a group by its index among those that are told apart."""
    return LineStyle(COLORS[index % len(COLORS)], DASHES[index % len(DASHES)], MARKERS[index % len(MARKERS)])


def select_groups(comparison: Comparison) -> list[StyledGroup]:
    """Return the best groups with their styles, as many as can be told apart, and the baseline."""
    groups = drawable_groups(comparison)
    kept = [group for index, group in enumerate(groups) if index < MAX_GROUPS or group.name == comparison.baseline]
    return with_styles(kept, comparison.baseline)


def with_styles(groups: Sequence[Group], baseline: str | None) -> list[StyledGroup]:
    """Give each group a style, the baseline its own."""
    others = [group for group in groups if group.name != baseline]
    return [(group, BASELINE if group.name == baseline else line_style(others.index(group))) for group in groups]


def drawable_groups(comparison: Comparison) -> list[Group]:
    """Return the groups with a value that can be drawn, the best first, in whatever order the table has them."""
    groups = [group for group in comparison.groups if group.value is not None and is_drawable(group.value.mean)]
    sign = -1 if comparison.mode == "max" else 1
    return sorted(groups, key=lambda group: sign * group.value.mean if group.value else 0.0)


def is_drawable(value: float) -> bool:
    """Return True for a number of a size that fits on an axis; False for NaN."""
    return value == 0 or 1e-100 < abs(value) < 1e100


def axis_label(metric: Metric) -> str:
    """Return the label of a metric with its unit: `validation accuracy (%)`."""
    label = drawable_text(metric.label)
    return f"{label} ({metric.unit})" if metric.unit else label


def drawable_text(text: str, max_length: int = MAX_TEXT) -> str:
    """Return a text on one line, cut in its middle, without characters that no font has."""
    drawable = _characters(tuple(matplotlib.rcParams["font.family"]))
    text = "".join(char if ord(char) in drawable else "\N{REPLACEMENT CHARACTER}" for char in printable(text))
    half = (max_length - 1) // 2
    return text if len(text) <= max_length else f"{text[:half]}…{text[-half:]}"


@functools.cache
def _characters(families: tuple[str, ...]) -> frozenset[int]:
    from matplotlib.font_manager import findfont, get_font

    return frozenset(code for name in families for code in get_font(findfont(name)).get_charmap())


def legend_names(groups: Iterable[Mapping[str, str]], default: str = "all runs") -> list[str]:
    """Name groups by their settings, with numbers of four digits; without settings by `default`.

    Equal names are numbered.
    """
    names: list[str] = []
    for settings in groups:
        short = {key: f"{float(text):.4g}" if _FRACTION.fullmatch(text) else text for key, text in settings.items()}
        name = drawable_text(" ".join(f"{key}={text}" for key, text in short.items()) or default)
        names.append(numbered(name, names))
    return names


def add_note(figure: Figure, *parts: str) -> None:
    """Write remarks above the axes; nothing if all parts are empty."""
    if any(parts):
        text = textwrap.fill("; ".join(filter(None, parts)), 80)
        figure.suptitle(text, x=0.99, ha="right", fontsize=7, color="#555555")


def add_legend(figure: Figure, handles: Sequence[Any], names: Sequence[str]) -> None:
    """Add a legend below the axes, in as many columns as fit; the figure grows by it."""
    columns = max(1, min(3, len(names), int(SIZE[0] / (0.055 * max(map(len, names)) + 0.6))))
    figure.set_figheight(figure.get_figheight() + 0.15 * -(-len(names) // columns))
    figure.legend(list(handles), list(names), loc="outside lower center", ncols=columns)


class Dot(NamedTuple):
    """Mean of a group in the unit of the axis; without an interval, `low` and `high` equal it."""

    x: float
    y: float
    low: float
    high: float


def make_dot(x: float, value: Summary, scale: float) -> Dot:
    """Place a mean with its interval."""
    low, high = value.ends
    return Dot(x, value.mean * scale, low * scale, high * scale)


def draw_dots(axes: Any, dots: Sequence[Dot], style: LineStyle, *, dashes: Any = "none", zorder: float = 3.0) -> Any:
    """Draw means with intervals, joined by a line with these dashes; return the handle for a legend."""
    is_many = len(dots) > MAX_SHAPES
    bars = [(dot.x, end) for dot in dots if dot.low < dot.high for end in (dot.low, dot.high, math.nan)]
    if bars:
        positions, ends = zip(*bars, strict=True)
        axes.plot(positions, ends, color=style.color, linewidth=1.0, zorder=zorder, rasterized=is_many)
    (line,) = axes.plot(
        [dot.x for dot in dots],
        [dot.y for dot in dots],
        color=style.color,
        linestyle=dashes,
        marker=style.marker,
        markersize=2.5 if is_many else 4,
        zorder=zorder,
        rasterized=is_many,
    )
    return line


def draw_runs(axes: Any, runs: Sequence[tuple[float, float]], style: LineStyle) -> None:
    """Draw single runs faintly, a little to the left of their mean."""
    from matplotlib.transforms import offset_copy

    look = {"linestyle": "none", "marker": "o", "markersize": 2.5, "markeredgewidth": 0, "alpha": 0.5, "zorder": 2}
    axes.plot(
        [x for x, _ in runs],
        [y for _, y in runs],
        color=style.color,
        **look,
        transform=offset_copy(axes.transData, axes.figure, x=-5, units="points"),
        rasterized=len(runs) > MAX_SHAPES,
    )


@dataclass(frozen=True)
class Scale:
    """Scale of a setting.

    Attributes:
        positions: Text of a value -> position on the axis; names have 0, 1, 2, ...
        is_numeric: True if all values are numbers.
        is_log: True if the axis is logarithmic.
        is_sampled: True if a search drew the numbers from an interval, so that none of them means anything by itself.
    """

    positions: dict[str, float]
    is_numeric: bool
    is_log: bool
    is_sampled: bool = False


def scale_of(texts: Iterable[str], interval: Interval | None = None) -> Scale:
    """Choose the scale for the values of a setting; that of an interval is the one that it was searched on."""
    values = sorted(set(texts), key=_natural_order)
    numbers = [number for text in values if (number := _number(text)) is not None]
    if len(numbers) < len(values):
        return Scale({text: float(position) for position, text in enumerate(values)}, False, False)
    positions = dict(sorted(zip(values, numbers, strict=True), key=lambda pair: pair[1]))
    if interval is not None:
        return Scale(positions, True, interval == "log" and min(numbers, default=0.0) > 0, True)
    return Scale(positions, True, is_geometric(numbers))


def is_geometric(values: Iterable[float]) -> bool:
    """Return True if the logarithms are spaced more evenly: 0.01, 0.1, 1 or 16, 32, 64, but not 1, 2, 3, ..., 10."""
    numbers = sorted(set(values))
    if len(numbers) < 2 or numbers[0] <= 0:
        return False
    ratio = numbers[-1] / numbers[0]
    if len(numbers) == 2:
        return ratio >= _MIN_RATIO_OF_TWO
    return ratio >= _MIN_RATIO and _unevenness(map(math.log, numbers)) < _unevenness(numbers)


def set_x_scale(axes: Any, scale: Scale) -> None:
    """Apply the scale of a setting to the x axis."""
    positions = list(scale.positions.values())
    if not scale.is_numeric:
        names = [drawable_text(text, 24) for text in scale.positions]
        is_long = sum(map(len, names)) > 60
        axes.set_xticks(positions, names, rotation=30 if is_long else 0, ha="right" if is_long else "center")
        axes.set_xlim(-0.6, len(positions) - 0.4)
        return
    if scale.is_log:
        set_log(axes.xaxis, positions)
    inner = sorted(map(math.log, positions) if scale.is_log else positions)
    closest = min((right - left for left, right in pairwise(inner)), default=0.0)
    if not scale.is_sampled and len(positions) <= _MAX_TICKS and closest >= _MIN_DISTANCE * (inner[-1] - inner[0]) > 0:
        axes.set_xticks(positions, [f"{position:g}" for position in positions])
        axes.xaxis.set_minor_locator(NullLocator())


def set_log(axis: Any, values: Sequence[float]) -> None:
    """Make an axis logarithmic, with plain numbers at its ticks: 0.01 instead of a power of ten."""
    axis.axes.set(**{f"{axis.axis_name}scale": "log"})
    is_short = max(values) / min(values) < 100
    axis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0) if is_short else (1.0,), numticks=9))
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axis.set_minor_formatter(NullFormatter())


def set_y_limits(axes: Any, dots: Sequence[Dot], runs: Sequence[float] = ()) -> bool:
    """Limit the y axis by means and single runs, which take at least a third of it; intervals beyond are cut.

    If the largest mean is a thousand times the smallest, for example because a loss diverged in some runs, the axis is
    logarithmic.

    Returns:
        True if an interval is cut.
    """
    values = [*runs, *(dot.y for dot in dots)]
    least, most = min(values), max(values)
    low, high = min(least, *(dot.low for dot in dots)), max(most, *(dot.high for dot in dots))
    if least > 0 and most / least >= _DIVERGED:
        set_log(axes.yaxis, values)
        axes.set_ylim(least / 2, most * 2)
        return low < least / 2 or high > most * 2
    span = most - least or max(dot.high - dot.low for dot in dots) or abs(most) / 10 or 1.0
    bottom, top = max(low, least - span), min(high, most + span)
    margin = 0.06 * (top - bottom or span)
    axes.set_ylim(bottom - margin, top + margin)
    return low < bottom - margin or high > top + margin


def _unevenness(values: Iterable[float]) -> float:
    """Return the deviation of the distances between sorted numbers, relative to their mean."""
    distances = [right - left for left, right in pairwise(values)]
    return pstdev(distances) / fmean(distances)


def _number(text: str) -> float | None:
    try:
        value = float(text)
    except ValueError:
        return None
    return value if is_drawable(value) and "_" not in text else None


def _natural_order(text: str) -> list[tuple[float, str]]:
    """Sort [6,16] before [16,32]."""
    parts = re.split(r"(\d{1,15})", text)
    return [(float(part), "") if part.isdigit() and part.isascii() else (-1.0, part) for part in parts]
