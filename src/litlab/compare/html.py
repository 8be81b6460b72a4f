"""HTML page of a comparison: one file with the table, figures, configs and runs, which needs no network."""

import base64
import hashlib
import io
import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby, islice, takewhile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from litlab.compare.conclusion import answer, extent, on_one_line, question
from litlab.compare.environment import MAX_RUNS, environment_of
from litlab.compare.hyperparameters import shorten, text
from litlab.compare.metric_values import value_of
from litlab.compare.model import Comparison, Group
from litlab.compare.ranking import best_group, has_interval
from litlab.compare.table import INTERVAL, Column, Value, build_table, decimals, fixed, not_completed
from litlab.config.tree import lies_under
from litlab.errors import UserError
from litlab.runs.files import write_text
from litlab.runs.metrics import Metric
from litlab.runs.state import RunStatus
from litlab.runs.terminal import headline

if TYPE_CHECKING:
    from markupsafe import Markup
    from matplotlib.figure import Figure

MAX_GROUPS = 50  # whose configs and runs are shown
MAX_LISTED = 200  # runs of a group, and runs that are not completed
MAX_LINES = 400  # of a config
MAX_SKIPPED = 200  # directories that are named
MAX_SVG = 600_000  # characters; a figure with more to draw becomes a picture
RESOLUTION = 150  # pixels an inch of these pictures
_HERE = Path(__file__).parent
_UNUSED = re.compile(r"<!--.*?-->|<metadata>.*?</metadata>|<style.*?</style>", re.DOTALL)  # the page has the style
_SVG_NAME = re.compile(r'(\bid="|href="#|url\(#)')


def write_page(comparison: Comparison, file: Path) -> None:
    """Write the page, whole or not at all.

    Raises:
        UserError: If the file cannot be written.
    """
    if file.is_dir():
        raise UserError(f"{file} is a directory; name a file: {file / 'comparison.html'}")
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        write_text(file, to_html(comparison))
    except OSError as error:
        raise UserError(f"{file} can't be written: {error.strerror}") from error


def to_html(comparison: Comparison) -> str:
    """Return the whole page. Texts from files are escaped, and no script but the page's own may run."""
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
        interval=_interval_svg,
        policy=f"{policy}; base-uri 'none'; form-action 'none'",
        script=Markup(script),
        style=Markup((_HERE / "page.css").read_text(encoding="utf-8")),
        version=version("litlab"),
    )


def _content(comparison: Comparison) -> dict[str, Any]:
    runs = [run for group in comparison.groups for run in group.runs]
    environment = environment_of(runs)
    skipped = [(on_one_line(str(entry.path)), on_one_line(entry.reason)) for entry in comparison.skipped]
    return {
        "question": question(comparison),
        "answer": answer(comparison),
        "extent": extent(comparison, environment.dates),
        "directories": [on_one_line(str(directory)) for directory in comparison.directories],
        "metric": on_one_line(comparison.metric.name),
        "test_metric": on_one_line(comparison.test_metric.name),
        "table": _page_table(comparison),
        "has_ties": len(comparison.ties) > 1,
        "notes": [on_one_line(note) for note in comparison.notes],
        "figures": _figures(comparison),
        "groups": _group_sections(comparison),
        "num_groups": len(comparison.groups),
        "num_runs": len(runs),
        "unfinished": unfinished_section(comparison),
        "skipped": skipped[:MAX_SKIPPED],
        "num_skipped_left_out": max(len(skipped) - MAX_SKIPPED, 0),
        "environment": environment,
        "max_runs": MAX_RUNS,
    }


@dataclass(frozen=True)
class _Drawn:
    """Position of a group's mean and interval, in percent of the column's width; they may reach beyond it."""

    mean: float
    low: float | None
    high: float | None


def _page_table(comparison: Comparison) -> dict[str, Any]:
    """Return the columns of every other table, with the values that they are sorted by and intervals to draw.

    `place` is the column before which intervals are drawn, `limit` the end of the best group's interval towards the
    others, in percent of the width.
    """
    table, groups = build_table(comparison), comparison.groups
    best = best_group(groups, comparison.mode)
    is_marked = has_interval(best) or len(groups) == 1
    drawn, limit = _draw_intervals(comparison, best)
    rows = [
        {
            "mark": "best" if group is best and is_marked else "tie" if table.ties[index] else "",
            "cells": [
                (cells[index], _sort_value(column, group))
                for column, cells in zip(table.columns, table.cells, strict=True)
            ],
            "drawn": drawn[index],
        }
        for index, group in enumerate(groups)
    ]
    place = next((number + 1 for number, column in enumerate(table.columns) if column.header == INTERVAL), None)
    over = [column.over for column in table.columns]
    if place is not None:
        over.insert(place, over[place - 1])  # drawn intervals stand below the same text as the column before them
    headings = [
        (column.header, column.is_number or all(_is_number(cell) for cell in cells if cell))
        for column, cells in zip(table.columns, table.cells, strict=True)
    ]
    return {
        "over": [(name, len(list(neighbors))) for name, neighbors in groupby(over)],
        "headings": headings,
        "rows": rows,
        "place": place,
        "limit": limit,
        "caption": table.caption,
    }


def _sort_value(column: Column, group: Group) -> Value:
    return column.value(group) if column.is_number else column.text(group)


def _is_number(cell: str) -> bool:
    try:
        float(cell)
    except ValueError:
        return False
    return True


def _draw_intervals(comparison: Comparison, best: Group | None) -> tuple[list[_Drawn | None], float | None]:
    """Place means and intervals on one scale: from the lowest mean to the highest, with room for deviations."""
    values = [group.value for group in comparison.groups]
    known = [value for value in values if value]
    if not known or best is None or best.value is None:
        return [None] * len(values), None
    lowest = min(value.mean - 2 * (value.deviation or 0.0) for value in known)
    width = max(value.mean + 2 * (value.deviation or 0.0) for value in known) - lowest
    left, width = (lowest - 0.05 * width, 1.1 * width) if width > 0 else (lowest - 0.5, 1.0)

    def position(value: float | None) -> float | None:
        return None if value is None else round(min(max(100 * (value - left) / width, -10.0), 110.0), 2)

    drawn = [
        None if value is None else _Drawn(position(value.mean) or 0.0, position(value.low), position(value.high))
        for value in values
    ]
    return drawn, position(best.value.low if comparison.mode == "max" else best.value.high)


def _interval_svg(drawn: _Drawn | None, limit: float | None) -> "Markup":
    """Draw a mean with its interval; the numbers stand beside it as text."""
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


def _figures(comparison: Comparison) -> list[tuple["Markup", str]]:
    """Return images and captions of the figures that are drawn for papers."""
    from litlab.compare.plots import figures

    images = []
    for number, figure in enumerate(figures(comparison).values()):
        label = str(figure.get_label())
        caption = label[:1].upper() + label[1:]
        images.append((_image(figure, caption, f"f{number}-"), caption))
    return images


def _image(figure: "Figure", caption: str, prefix: str) -> "Markup":
    """Return an element for the page; a prefix makes the names in it unique among all figures."""
    from markupsafe import Markup, escape

    from litlab.compare.plots.files import svg

    source = _UNUSED.sub("", svg(figure))
    if len(source) > MAX_SVG:
        content = io.BytesIO()
        figure.savefig(content, format="png", dpi=RESOLUTION)
        data = base64.b64encode(content.getvalue()).decode()
        return Markup(f'<img src="data:image/png;base64,{data}" alt="{escape(caption)}">')
    head, _, rest = _SVG_NAME.sub(rf"\g<1>{prefix}", source).partition(">")
    return Markup(f'{head} role="img" aria-label="{escape(caption)}"><title>{escape(caption)}</title>{rest}')


def _group_sections(comparison: Comparison) -> list[dict[str, Any]]:
    """Return value, settings, config and runs of the first groups."""
    metric, test, groups = comparison.metric, comparison.test_metric, comparison.groups
    short = {label: shorten(group.settings.get(label) for group in groups) for label in comparison.labels}
    places = decimals(metric, (group.value for group in groups))
    test_places = decimals(test, (group.test.get(test.name) for group in groups))
    sections = []
    for group in groups[:MAX_GROUPS]:
        value = _number(metric, group.value.mean if group.value else None, places)
        keys = [comparison.keys[label] for label in group.settings if label in comparison.keys]
        runs = [
            {
                "name": on_one_line(run.name),
                "seed": "" if run.seed is None else str(run.seed),
                "value": _number(metric, value_of(run, metric.name, comparison.at), places),
                "test": _number(test, run.test.get(test.name), test_places),
                "status": run.status.label,
            }
            for run in group.runs[:MAX_LISTED]
        ]
        sections.append(
            {
                "name": on_one_line(group.name),
                "summary": ", ".join(filter(None, [value, f"n = {len(group.runs)}", not_completed(group)])),
                "settings": [
                    (on_one_line(label), on_one_line(short[label][value])) for label, value in group.settings.items()
                ],
                "config": _config_lines(group.runs[0].settings, keys) if group.runs else [],
                "runs": runs,
                "num_left_out": len(group.runs) - len(runs),
            }
        )
    return sections


def _number(metric: Metric, value: float | None, places: int) -> str:
    return "" if value is None else f"{fixed(metric.scale * value, places)} {metric.unit}".rstrip()


def _config_lines(settings: Mapping[str, Any], keys: Collection[str]) -> Sequence[tuple[str, bool]]:
    """Return lines of a config; True for those of settings that vary between the groups."""
    lines = list(islice(_outline(settings, keys), MAX_LINES + 1))
    return lines if len(lines) <= MAX_LINES else [*lines[:MAX_LINES], ("… and more", False)]


def _outline(settings: Mapping[str, Any], keys: Collection[str]) -> Iterator[tuple[str, bool]]:
    """Yield settings as in YAML: one name a line, indented below its parents."""
    before: list[str] = []
    for key, value in settings.items():
        *parents, last = key.split(".")
        num_shared = sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], zip(parents, before, strict=False)))
        for depth in range(num_shared, len(parents)):
            yield f"{'  ' * depth}{on_one_line(parents[depth])}:", False
        is_different = lies_under(key, *keys)
        yield f"{'  ' * len(parents)}{on_one_line(last)}: {on_one_line(text(value))}", is_different
        before = parents


def unfinished_section(comparison: Comparison) -> dict[str, Any]:
    """Return the runs that are not completed, failures first, and the number of those outside of all groups."""
    order = sorted(RunStatus, key=lambda status: not status.is_failure)
    runs = sorted(comparison.unfinished, key=lambda run: order.index(run.status))
    listed = [
        {
            "name": on_one_line(run.name),
            "status": run.status.label,
            "reason": on_one_line(headline(run.message)),
            "is_failure": run.status.is_failure,
        }
        for run in runs[:MAX_LISTED]
    ]
    num_inside = sum(sum(group.others.values()) for group in comparison.groups)
    return {
        "runs": listed,
        "num_left_out": len(runs) - len(listed),
        "num_outside": max(len(runs) - num_inside, 0),
    }
