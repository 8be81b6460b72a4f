"""The table of the page: the texts of every other table, the values that it is sorted by, and intervals to be drawn."""

import base64
import io
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import TYPE_CHECKING

from litlab.compare.model import Comparison, Group
from litlab.compare.table import INTERVAL, MEAN, Column, best_group, build, has_interval, test_metric
from litlab.runs.diff import shown
from litlab.runs.state import RunStatus

if TYPE_CHECKING:
    from markupsafe import Markup
    from matplotlib.figure import Figure
import hashlib
from collections.abc import Collection
from itertools import islice, takewhile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from litlab.compare.conclusion import answer, extent, on_one_line, question
from litlab.compare.environment import MOST_RUNS, environment_of
from litlab.compare.hyperparameters import text
from litlab.compare.metric_values import value_of
from litlab.compare.model import Run
from litlab.compare.table import decimals, fixed, not_done, shortened
from litlab.config.tree import lies_under
from litlab.errors import UserError
from litlab.runs.files import write_text
from litlab.runs.terminal import headline

if TYPE_CHECKING:
    from markupsafe import Markup


Value = float | str | None


@dataclass(frozen=True)
class Cell:
    """`value` is what it is sorted by: a number in full precision, or a text; None where there is nothing."""

    text: str
    value: Value


@dataclass(frozen=True)
class Heading:
    text: str
    is_number: bool


@dataclass(frozen=True)
class Over:
    """What stands over so many neighbouring headings; empty where nothing does."""

    text: str
    width: int


@dataclass(frozen=True)
class Drawn:
    """Where a group's mean and its interval lie, in percent of the column's width; they may reach beyond it."""

    mean: float
    low: float | None
    high: float | None


@dataclass(frozen=True)
class Row:
    """
    Attributes:
        mark: `best`, `tie`, or empty.
        drawn: None for a group without a value.
    """

    mark: str
    cells: tuple[Cell, ...]
    drawn: Drawn | None


@dataclass(frozen=True)
class PageTable:
    """
    Attributes:
        rows: one a group, in the order of the comparison.
        over: of the headings and of the drawn intervals among them.
        place: of the column before which the intervals are drawn; None if there are none.
        limit: where the interval of the best group ends towards the others, in percent of the width.
    """

    over: tuple[Over, ...]
    headings: tuple[Heading, ...]
    rows: tuple[Row, ...]
    place: int | None
    limit: float | None
    caption: tuple[str, ...]


def page_table(comparison: Comparison) -> PageTable:
    """The columns that have anything to say, as in the terminal."""
    table = build(comparison)
    values = _values(comparison)
    columns = [_cells(column, values) for column in table.columns]
    best = best_group(comparison.groups, comparison.mode)
    is_told = has_interval(best) or len(comparison.groups) == 1
    drawn, limit = _drawn(comparison, best)
    rows = []
    for index, group in enumerate(comparison.groups):
        mark = "best" if group is best and is_told else "tie" if table.ties[index] else ""
        rows.append(Row(mark, tuple(column[index] for column in columns), drawn[index]))
    intervals = [place for place, column in enumerate(table.columns) if column.header == INTERVAL and column.is_number]
    place = intervals[0] + 1 if intervals else None
    return PageTable(
        over=tuple(_over(table.columns, place)),
        headings=tuple(Heading(column.header, _is_numeric(column)) for column in table.columns),
        rows=tuple(rows),
        place=place,
        limit=limit,
        caption=table.caption,
    )


def _over(columns: Sequence[Column], place: int | None) -> Iterator[Over]:
    """The drawn intervals stand below the same as the column before them."""
    names = [column.over for column in columns]
    if place is not None:
        names.insert(place, names[place - 1])
    for name, neighbours in groupby(names):
        yield Over(name, len(list(neighbours)))


def _is_numeric(column: Column) -> bool:
    """A setting is aligned like a number if it is one in every group that has it."""
    return column.is_number or all(_is_number(cell) for cell in column.cells if cell)


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def _values(comparison: Comparison) -> dict[tuple[str, str], Sequence[Value]]:
    """What stands over a column (without its unit) and at its head -> a value a group, behind its cells."""
    groups, metric, tested = comparison.groups, comparison.metric, test_metric(comparison.metric)
    summaries, of_test = [group.value for group in groups], [group.test.get(tested) for group in groups]
    differences = [group.difference for group in groups]
    return {
        ("", "n"): _each(summaries, "num"),
        (shown(metric), MEAN): _each(summaries, "mean"),
        (shown(metric), INTERVAL): _each(summaries, "low"),
        (shown(metric), "best"): _each(summaries, "best"),
        (shown(tested), MEAN): _each(of_test, "mean"),
        (shown(tested), INTERVAL): _each(of_test, "low"),
        ("difference", MEAN): _each(differences, "mean"),
        ("difference", INTERVAL): _each(differences, "low"),
        ("difference", "p"): _each(differences, "corrected"),
        ("difference", "effect"): _each(differences, "effect"),
        ("", "training time"): _each([group.seconds for group in groups], "mean"),
        ("", "images/s"): _each([group.images_per_second for group in groups], "mean"),
        ("", "parameters"): _each(groups, "parameters"),
    }


def _each(known: Sequence[object], name: str) -> Sequence[Value]:
    return [getattr(each, name, None) for each in known]


def _cells(column: Column, values: Mapping[tuple[str, str], Sequence[Value]]) -> list[Cell]:
    """A cell without a value of ours is sorted by what it shows."""
    known = values.get((column.over.partition(" (")[0], column.header)) if column.is_number else None
    return [Cell(text, value) for text, value in zip(column.cells, known or column.cells, strict=True)]


def _drawn(comparison: Comparison, best: Group | None) -> tuple[list[Drawn | None], float | None]:
    """On one scale: from the lowest mean to the highest, with room for the deviations."""
    values = [group.value for group in comparison.groups]
    known = [each for each in values if each]
    if not known or best is None or best.value is None:
        return [None] * len(values), None
    lowest = min(each.mean - 2 * (each.deviation or 0.0) for each in known)
    width = max(each.mean + 2 * (each.deviation or 0.0) for each in known) - lowest
    left, width = (lowest - 0.05 * width, 1.1 * width) if width > 0 else (lowest - 0.5, 1.0)

    def position(value: float | None) -> float | None:
        return None if value is None else round(min(max(100 * (value - left) / width, -10.0), 110.0), 2)

    drawn = [
        None if each is None else Drawn(position(each.mean) or 0.0, position(each.low), position(each.high))
        for each in values
    ]
    return drawn, position(best.value.low if comparison.mode == "max" else best.value.high)


LARGEST_SVG = 600_000  # characters; a figure with more than that to draw is a picture of pixels
RESOLUTION = 150  # of these pixels, an inch
_UNUSED = re.compile(r"<!--.*?-->|<metadata>.*?</metadata>|<style.*?</style>", re.DOTALL)  # the page has the style
_NAME = re.compile(r'(\bid="|href="#|url\(#)')


@dataclass(frozen=True)
class FigurePart:
    image: "Markup"
    caption: str


def figure_parts(comparison: Comparison) -> list[FigurePart]:
    """All figures that make sense for the comparison, as they are drawn for papers."""
    from litlab.compare.plots import figures

    found = figures(comparison)
    captions = [said[:1].upper() + said[1:] for said in (str(figure.get_label()) for figure in found.values())]
    return [
        FigurePart(_image(figure, caption, f"f{number}-"), caption)
        for number, (figure, caption) in enumerate(zip(found.values(), captions, strict=True))
    ]


def _image(figure: "Figure", caption: str, prefix: str) -> "Markup":
    """An element for the page; the names within it get a prefix, since those of all figures stand in one page."""
    from markupsafe import Markup, escape

    from litlab.compare.plots import svg

    text = _UNUSED.sub("", svg(figure))
    if len(text) > LARGEST_SVG:
        return _pixels(figure, caption)
    head, _, rest = _NAME.sub(rf"\g<1>{prefix}", text).partition(">")
    return Markup(f'{head} role="img" aria-label="{escape(caption)}"><title>{escape(caption)}</title>{rest}')


def _pixels(figure: "Figure", caption: str) -> "Markup":
    from markupsafe import Markup, escape

    content = io.BytesIO()
    figure.savefig(content, format="png", dpi=RESOLUTION)
    data = base64.b64encode(content.getvalue()).decode()
    return Markup(f'<img src="data:image/png;base64,{data}" alt="{escape(caption)}">')


MOST_GROUPS = 50  # whose configs and runs are shown
MOST_LISTED = 200  # of a group, and of those that are not done
MOST_LINES = 400  # of a config
_WORST_FIRST = sorted(RunStatus, key=lambda status: (not status.is_failure, not status.is_final))


@dataclass(frozen=True)
class Line:
    """Of a config; `differs` if it is of a setting that varies between the groups."""

    text: str
    differs: bool


@dataclass(frozen=True)
class RunRow:
    """A run that is done; values as texts."""

    name: str
    seed: str
    value: str
    test: str
    status: str


@dataclass(frozen=True)
class GroupPart:
    """
    Attributes:
        said: its value, and what is not done.
        settings: that vary, label -> value.
        config: that all of its runs share; empty for a group without runs that are done.
        num_left_out: runs that are not listed.
    """

    name: str
    said: str
    settings: Mapping[str, str]
    config: tuple[Line, ...]
    runs: tuple[RunRow, ...]
    num_left_out: int


def group_parts(comparison: Comparison) -> list[GroupPart]:
    """The first groups of the comparison."""
    short = {label: shortened(group.settings.get(label) for group in comparison.groups) for label in comparison.labels}
    return [_part(comparison, group, short) for group in comparison.groups[:MOST_GROUPS]]


def _part(comparison: Comparison, group: Group, short: Mapping[str, Mapping[str, str]]) -> GroupPart:
    tested = test_metric(comparison.metric)
    places = decimals(comparison.metric, (each.value for each in comparison.groups))
    of_test = decimals(tested, (each.test.get(tested) for each in comparison.groups))
    rows = [
        RunRow(
            name=on_one_line(run.name),
            seed="" if run.seed is None else str(run.seed),
            value=_number(comparison.metric, value_of(run, comparison.metric, comparison.at), places),
            test=_number(tested, run.test.get(tested), of_test),
            status=run.status.label,
        )
        for run in group.runs[:MOST_LISTED]
    ]
    value = _number(comparison.metric, group.value.mean if group.value else None, places)
    keys = [comparison.keys[label] for label in group.settings if label in comparison.keys]
    return GroupPart(
        name=on_one_line(group.name),
        said=", ".join(filter(None, [value, f"n = {len(group.runs)}", not_done(group)])),
        settings={on_one_line(label): on_one_line(short[label][setting]) for label, setting in group.settings.items()},
        config=tuple(_config(group.runs[0], keys)) if group.runs else (),
        runs=tuple(rows),
        num_left_out=len(group.runs) - len(rows),
    )


def _number(metric: str, value: float | None, places: int) -> str:
    if value is None:
        return ""
    return f"{fixed(100 * value, places)} %" if "accuracy" in metric else fixed(value, places)


def _config(run: Run, keys: Collection[str]) -> list[Line]:
    lines = list(islice(_outline(run.settings, keys), MOST_LINES + 1))
    return lines if len(lines) <= MOST_LINES else [*lines[:MOST_LINES], Line("… and more", False)]


def _outline(settings: Mapping[str, Any], keys: Collection[str]) -> Iterator[Line]:
    """Settings like YAML: a name a line, indented below the one that it belongs to."""
    before: list[str] = []
    for key, value in settings.items():
        *parents, last = key.split(".")
        num_shared = sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], zip(parents, before, strict=False)))
        for depth in range(num_shared, len(parents)):
            yield Line(f"{'  ' * depth}{on_one_line(parents[depth])}:", False)
        differs = lies_under(key, *keys)
        yield Line(f"{'  ' * len(parents)}{on_one_line(last)}: {on_one_line(text(value))}", differs)
        before = parents


@dataclass(frozen=True)
class Unfinished:
    """A run that is not done; `why` is one line."""

    name: str
    status: str
    why: str


@dataclass(frozen=True)
class UnfinishedPart:
    """
    Attributes:
        runs: those that are listed, the failed first.
        num_left_out: more that are not listed.
        num_outside: how many of all are in no group, since they were filtered out.
    """

    runs: tuple[Unfinished, ...]
    num_left_out: int
    num_outside: int


def unfinished_part(comparison: Comparison) -> UnfinishedPart:
    """The runs in the directories that are not done."""
    runs = sorted(comparison.unfinished, key=lambda run: _WORST_FIRST.index(run.status))
    listed = [
        Unfinished(on_one_line(run.name), run.status.label, on_one_line(headline(run.message)))
        for run in runs[:MOST_LISTED]
    ]
    num_inside = sum(sum(group.others.values()) for group in comparison.groups)
    return UnfinishedPart(tuple(listed), len(runs) - len(listed), max(len(runs) - num_inside, 0))


MOST_SKIPPED = 200  # directories that are named
_HERE = Path(__file__).parent


def write_page(comparison: Comparison, file: Path) -> None:
    """Write the page, whole or not at all.

    Raises:
        UserError: if the file can't be written.
    """
    if file.is_dir():
        raise UserError(f"{file} is a directory; name a file: {file / 'comparison.html'}")
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        write_text(file, to_html(comparison))
    except OSError as error:
        raise UserError(f"{file} can't be written: {error.strerror}") from error


def to_html(comparison: Comparison) -> str:
    """The whole page. What comes from files is escaped, and no script but the page's own may run."""
    from importlib.metadata import version

    from jinja2 import Environment, StrictUndefined
    from markupsafe import Markup

    script = (_HERE / "page.js").read_text(encoding="utf-8")
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    template = environment.from_string((_HERE / "page.html.jinja").read_text(encoding="utf-8"))
    # The styles that matplotlib gives to lines stand in attributes, which can't be listed by their digests.
    policy = f"default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'sha256-{digest}'"
    return template.render(
        **_content(comparison),
        interval=_interval,
        policy=f"{policy}; base-uri 'none'; form-action 'none'",
        script=Markup(script),
        style=Markup((_HERE / "page.css").read_text(encoding="utf-8")),
        version=version("litlab"),
    )


def _content(comparison: Comparison) -> dict[str, Any]:
    runs = [run for group in comparison.groups for run in group.runs]
    environment = environment_of(runs)
    return {
        "question": question(comparison),
        "answer": answer(comparison),
        "extent": extent(comparison, environment.dates),
        "directories": [on_one_line(str(directory)) for directory in comparison.directories],
        "metric": on_one_line(comparison.metric),
        "tested": on_one_line(test_metric(comparison.metric)),
        "table": page_table(comparison),
        "has_ties": len(comparison.ties) > 1,
        "notes": [on_one_line(note) for note in comparison.notes],
        "figures": figure_parts(comparison),
        "groups": group_parts(comparison),
        "num_groups": len(comparison.groups),
        "num_runs": len(runs),
        "unfinished": unfinished_part(comparison),
        "skipped": [(on_one_line(str(each.path)), on_one_line(each.why)) for each in comparison.skipped[:MOST_SKIPPED]],
        "num_skipped_left_out": max(len(comparison.skipped) - MOST_SKIPPED, 0),
        "environment": environment,
        "most_read": MOST_RUNS,
    }


def _interval(drawn: Drawn | None, limit: float | None) -> "Markup":
    """A point with its interval on the scale that all rows share; what it shows stands in words beside it."""
    from markupsafe import Markup

    if drawn is None:
        return Markup("")
    parts = []
    if limit is not None:
        parts.append(f'<line class="guide" x1="{limit}%" x2="{limit}%" y1="0" y2="100%"/>')
    if drawn.low is not None and drawn.high is not None:
        parts.append(f'<line x1="{drawn.low}%" x2="{drawn.high}%" y1="50%" y2="50%"/>')
    parts.append(f'<circle cx="{drawn.mean}%" cy="50%" r="3"/>')
    return Markup(f'<svg class="interval" aria-hidden="true">{"".join(parts)}</svg>')  # numbers alone
