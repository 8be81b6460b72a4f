"""What all figures share: size, type, colours, and how values and names are written."""

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

from litlab.compare.conclusion import in_words
from litlab.compare.model import LEVEL, Comparison, Group, Summary
from litlab.runs.terminal import printable

SIZE = (5.0, 3.4)  # inches: as wide as the text of a paper
MOST = 8  # groups that one can tell apart in one figure
LONGEST = 72  # characters of a name
# Of Okabe and Ito (2008), whom the colour-blind can follow; black is the baseline's.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#8C564B", "#7F7F7F")
DASHES = ("-", (0, (5, 1.5)), (0, (1.2, 1.2)), (0, (5, 1.5, 1.2, 1.5)), (0, (9, 2)), (0, (3, 1, 1, 1, 1, 1)))
MARKERS = "os^Dv<>P"
FAINT = "#999999"
INTERVAL = f"{{}}: {100 * LEVEL:.0f} % t intervals of means over runs"
COLOUR_MAP = "cividis"  # evenly lighter, also in grey
_NUMBER = re.compile(r"-?\d{1,20}\.\d{1,20}(e[+-]?\d{1,3})?")  # with a fraction
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
    "text.parse_math": False,  # names are a stranger's
    "svg.fonttype": "path",
    "svg.hashsalt": "litlab",
    "pdf.fonttype": 42,  # TrueType, which publishers ask for
}


@contextmanager
def styled() -> Iterator[None]:
    """Within it matplotlib draws as it should, whatever the user's own settings are."""
    with matplotlib.rc_context():
        matplotlib.rcdefaults()
        matplotlib.rcParams.update(_STYLE)
        yield


def new_figure(label: str, height: float = SIZE[1]) -> Figure:
    """An empty figure, `height` inches high, which makes room for what stands around its axes.

    Args:
        label: what it shows, in words: what `get_label` of the figure says.
    """
    figure = Figure(figsize=(SIZE[0], height), layout="constrained")
    figure.set_label(label)
    return figure


@dataclass(frozen=True)
class Look:
    """How a group is drawn: it differs by more than its colour."""

    colour: str
    dashes: Any
    marker: str


def look(index: int) -> Look:
    """Of the group at that place among those that are told apart."""
    return Look(COLOURS[index % len(COLOURS)], DASHES[index % len(DASHES)], MARKERS[index % len(MARKERS)])


BASELINE = Look("#000000", "-", "X")


@dataclass(frozen=True)
class Measure:
    """How values of a metric are written: by which factor, and under which label."""

    label: str
    factor: float


def measure(metric: str) -> Measure:
    """`val/accuracy` -> validation accuracy (%), of a value from 0 to 1."""
    label = printed(in_words(metric))
    return Measure(f"{label} (%)", 100.0) if "accuracy" in metric else Measure(label, 1.0)


def printed(text: str, longest: int = LONGEST) -> str:
    """A text as it can be drawn: on one line, cut in its middle, without what the font does not have."""
    known = _characters()
    text = "".join(each if ord(each) in known else "\N{REPLACEMENT CHARACTER}" for each in printable(text))
    half = (longest - 1) // 2
    return text if len(text) <= longest else f"{text[:half]}…{text[-half:]}"


def is_drawable(value: float) -> bool:
    """Whether it is a number of a size that can be on an axis; NaN is none."""
    return value == 0 or 1e-100 < abs(value) < 1e100


def names_of(groups: Iterable[Mapping[str, str]], otherwise: str = "all runs") -> list[str]:
    """What groups are called by their settings, numbers to four digits; those that became the same are counted.

    Args:
        otherwise: the name of one that has no settings.
    """
    found: list[str] = []
    for settings in groups:
        name = printed(" ".join(f"{key}={_short(text)}" for key, text in settings.items()) or otherwise)
        same = sum(each == name or each.startswith(f"{name} (") for each in found)
        found.append(f"{name} ({same + 1})" if same else name)
    return found


def _short(text: str) -> str:
    return f"{float(text):.4g}" if _NUMBER.fullmatch(text) else text


@functools.cache
def _characters() -> frozenset[int]:
    from matplotlib.font_manager import get_font

    return frozenset(get_font(str(Path(matplotlib.get_data_path()) / "fonts/ttf/DejaVuSans.ttf")).get_charmap())


def note(figure: Figure, *parts: str) -> None:
    """Say above the axes what a reader has to know; nothing where all parts are empty."""
    if any(parts):
        text = textwrap.fill("; ".join(filter(None, parts)), 80)
        figure.suptitle(text, x=0.99, ha="right", fontsize=7, color="#555555")


def legend_below(figure: Figure, handles: Sequence[Any], names: Sequence[str]) -> None:
    """A legend that hides no data, in as many columns as fit; the figure grows by it."""
    columns = max(1, min(3, len(names), int(SIZE[0] / (0.055 * max(map(len, names)) + 0.6))))
    figure.set_figheight(figure.get_figheight() + 0.15 * -(-len(names) // columns))
    figure.legend(list(handles), list(names), loc="outside lower center", ncols=columns)


@dataclass(frozen=True)
class Chosen:
    group: Group
    look: Look


def choose(comparison: Comparison) -> list[Chosen]:
    """The best that have a value, as many as one can tell apart; the baseline besides."""
    ranked = by_value(comparison)
    kept = [group for place, group in enumerate(ranked) if place < MOST or group.name == comparison.baseline]
    return with_looks(kept, comparison.baseline)


def with_looks(groups: Sequence[Group], baseline: str | None) -> list[Chosen]:
    others = [group for group in groups if group.name != baseline]
    return [Chosen(group, BASELINE if group.name == baseline else look(others.index(group))) for group in groups]


def by_value(comparison: Comparison) -> list[Group]:
    """The groups that have a value which can be drawn, the best first, in whatever order the table has them."""
    sign = -1 if comparison.mode == "max" else 1
    means = [(group.value.mean, group) for group in comparison.groups if group.value is not None]
    known = [(sign * mean, group) for mean, group in means if is_drawable(mean)]
    return [group for _, group in sorted(known, key=lambda each: each[0])]


MOST_SHAPES = 300  # of a kind; more become pixels, also in svg and pdf, which would be large and slow otherwise


@dataclass(frozen=True)
class Dot:
    """A group's mean; `low` and `high` are the mean itself where there is no interval. In the unit of the axis."""

    x: float
    y: float
    low: float
    high: float


def dot(x: float, value: Summary, factor: float) -> Dot:
    low, high = (value.mean if end is None else end for end in (value.low, value.high))
    return Dot(x, value.mean * factor, low * factor, high * factor)


def draw_dots(axes: Any, dots: Sequence[Dot], look: Look, *, dashes: Any = "none", zorder: float = 3.0) -> Any:
    """Returns what stands for them in a legend; `dashes` is of the line that joins them."""
    is_many = len(dots) > MOST_SHAPES
    bars = [(each.x, end) for each in dots if each.low < each.high for end in (each.low, each.high, math.nan)]
    if bars:
        places, ends = zip(*bars, strict=True)
        axes.plot(places, ends, color=look.colour, linewidth=1.0, zorder=zorder, rasterized=is_many)
    (line,) = axes.plot(
        [each.x for each in dots],
        [each.y for each in dots],
        color=look.colour,
        linestyle=dashes,
        marker=look.marker,
        markersize=2.5 if is_many else 4,
        zorder=zorder,
        rasterized=is_many,
    )
    return line


def draw_runs(axes: Any, runs: Sequence[tuple[float, float]], look: Look) -> None:
    """Single runs, faintly, a little to the left of their mean."""
    from matplotlib.transforms import offset_copy

    axes.plot(
        [x for x, _ in runs],
        [y for _, y in runs],
        linestyle="none",
        marker="o",
        markersize=2.5,
        color=look.colour,
        alpha=0.5,
        markeredgewidth=0,
        zorder=2,
        transform=offset_copy(axes.transData, axes.figure, x=-5, units="points"),
        rasterized=len(runs) > MOST_SHAPES,
    )
