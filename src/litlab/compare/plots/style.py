"""Style of all figures: sizes, fonts, colors, and the texts of values and names."""

import functools
import math
import re
import textwrap
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib
from matplotlib.figure import Figure

from litlab.compare.model import CONFIDENCE, Comparison, Group, Summary
from litlab.runs.metrics import Metric
from litlab.runs.terminal import printable

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
_STYLE: Any = {
    "font.family": ["DejaVu Sans"],
    "font.size": 8,
    "axes.labelsize": 9,
    "axes.linewidth": 0.6,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "axes.grid": True,
    "grid.color": "#dddddd",
    "grid.linewidth": 0.5,
    "xtick.major.width": 0.6,
    "ytick.major.width": 0.6,
    "xtick.minor.width": 0.4,
    "ytick.minor.width": 0.4,
    "lines.linewidth": 1.4,
    "lines.markersize": 4,
    "legend.frameon": False,
    "legend.fontsize": 7,
    "legend.handlelength": 3.0,
    "text.parse_math": False,  # names are untrusted
    "svg.fonttype": "path",
    "svg.hashsalt": "litlab",
    "pdf.fonttype": 42,  # TrueType, which publishers ask for
}


@contextmanager
def styled() -> Iterator[None]:
    """Draw in this style within the context, whatever the user's matplotlib settings are."""
    with matplotlib.rc_context():
        matplotlib.rcdefaults()
        matplotlib.rcParams.update(_STYLE)
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


@dataclass(frozen=True)
class LineStyle:
    """Color, dashes and marker of a group: each alone tells groups apart."""

    color: str
    dashes: Any
    marker: str


BASELINE = LineStyle("#000000", "-", "X")


def line_style(index: int) -> LineStyle:
    """Return the style of the group at a place among those that are told apart."""
    return LineStyle(COLORS[index % len(COLORS)], DASHES[index % len(DASHES)], MARKERS[index % len(MARKERS)])


@dataclass(frozen=True)
class StyledGroup:
    """A group with its style."""

    group: Group
    style: LineStyle


def select_groups(comparison: Comparison) -> list[StyledGroup]:
    """Return the best groups, as many as can be told apart, and the baseline."""
    groups = drawable_groups(comparison)
    kept = [group for place, group in enumerate(groups) if place < MAX_GROUPS or group.name == comparison.baseline]
    return with_styles(kept, comparison.baseline)


def with_styles(groups: Sequence[Group], baseline: str | None) -> list[StyledGroup]:
    """Give each group a style, the baseline its own."""
    others = [group for group in groups if group.name != baseline]
    return [
        StyledGroup(group, BASELINE if group.name == baseline else line_style(others.index(group))) for group in groups
    ]


def drawable_groups(comparison: Comparison) -> list[Group]:
    """Return the groups with a value that can be drawn, the best first, in whatever order the table has them."""
    known = [group for group in comparison.groups if group.value is not None and is_drawable(group.value.mean)]
    sign = -1 if comparison.mode == "max" else 1
    return sorted(known, key=lambda group: sign * group.value.mean if group.value else 0.0)


def is_drawable(value: float) -> bool:
    """Return True for a number of a size that fits on an axis; False for NaN."""
    return value == 0 or 1e-100 < abs(value) < 1e100


def axis_label(metric: Metric) -> str:
    """Return the label of a metric with its unit: `validation accuracy (%)`."""
    label = drawable_text(metric.label)
    return f"{label} ({metric.unit})" if metric.unit else label


def drawable_text(text: str, max_length: int = MAX_TEXT) -> str:
    """Return a text on one line, cut in its middle, without characters that the font does not have."""
    known = _characters()
    text = "".join(
        character if ord(character) in known else "\N{REPLACEMENT CHARACTER}" for character in printable(text)
    )
    half = (max_length - 1) // 2
    return text if len(text) <= max_length else f"{text[:half]}…{text[-half:]}"


@functools.cache
def _characters() -> frozenset[int]:
    from matplotlib.font_manager import get_font

    return frozenset(get_font(str(Path(matplotlib.get_data_path()) / "fonts/ttf/DejaVuSans.ttf")).get_charmap())


def legend_names(groups: Iterable[Mapping[str, str]], default: str = "all runs") -> list[str]:
    """Name groups by their settings, with numbers of four digits; without settings by `default`.

    Equal names are numbered.
    """
    names: list[str] = []
    for settings in groups:
        parts = (
            f"{key}={float(value):.4g}" if _FRACTION.fullmatch(value) else f"{key}={value}"
            for key, value in settings.items()
        )
        name = drawable_text(" ".join(parts) or default)
        num_equal = sum(other == name or other.startswith(f"{name} (") for other in names)
        names.append(f"{name} ({num_equal + 1})" if num_equal else name)
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


@dataclass(frozen=True)
class Dot:
    """Mean of a group in the unit of the axis; without an interval, `low` and `high` equal it."""

    x: float
    y: float
    low: float
    high: float


def make_dot(x: float, value: Summary, scale: float) -> Dot:
    """Place a mean with its interval."""
    low, high = (value.mean if end is None else end for end in (value.low, value.high))
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

    axes.plot(
        [x for x, _ in runs],
        [y for _, y in runs],
        linestyle="none",
        marker="o",
        markersize=2.5,
        color=style.color,
        alpha=0.5,
        markeredgewidth=0,
        zorder=2,
        transform=offset_copy(axes.transData, axes.figure, x=-5, units="points"),
        rasterized=len(runs) > MAX_SHAPES,
    )
