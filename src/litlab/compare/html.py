"""HTML page of a comparison: one file with the table, figures, configs and runs, which needs no network."""

import base64
import hashlib
import re
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from datetime import date
from itertools import groupby, islice, takewhile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from litlab.compare.ablation import interaction_table
from litlab.compare.conclusion import answer, extent, on_one_line, question
from litlab.compare.data_model import Comparison, Run, Summary
from litlab.compare.metric_values import value_of
from litlab.compare.output_files import encode, svg
from litlab.compare.plots import figures, missing_figures
from litlab.compare.setting_names import parsed, shorten, text
from litlab.compare.table import INTERVAL, build_table, decimals, not_completed, with_unit
from litlab.config.tree import lies_under
from litlab.errors import UserError
from litlab.runs.directory import RunDirectory
from litlab.runs.files import as_mapping
from litlab.runs.metrics import Metric
from litlab.runs.state import RunStatus
from litlab.runs.terminal import headline

if TYPE_CHECKING:
    from markupsafe import Markup
    from matplotlib.figure import Figure

MAX_GROUPS = 50  # whose configs and runs are shown
MAX_LISTED = 200  # runs of a group, runs that are not completed, and skipped directories
MAX_LINES = 400  # of a config
MAX_PROVENANCES = 200  # runs whose provenance.json is read
MAX_PROVENANCE = 1 << 26  # bytes; the file holds some thousand, and the code that was not committed
MAX_VALUES = 8  # of one fact in the environment
MAX_PACKAGES = 500
MAIN_PACKAGES = ("litlab", "torch", "lightning", "torchmetrics", "torchvision", "numpy", "hydra-core", "optuna")
MAX_DEVIATIONS = 4  # of a drawn interval on either side; that of three seeds has 2.5, that of two has 9
MAX_SVG = 600_000  # characters; a figure with more to draw becomes a picture
RESOLUTION = 150  # pixels an inch of these pictures
_MACHINE_FACTS = ("device", "processor", "cores", "ranks", "threads", "precision", "system", "python")
_HERE = Path(__file__).parent
_UNUSED = re.compile(r"<!--.*?-->|<metadata>.*?</metadata>|<style.*?</style>", re.DOTALL)  # the page has the style
_SVG_NAME = re.compile(r'(\bid="|href="#|url\(#)')


def to_html(comparison: Comparison) -> str:
    """Return the whole page. Texts from files are escaped, and no script but the page's own may run."""
    from importlib.metadata import version

    from jinja2 import Environment, StrictUndefined
    from markupsafe import Markup

    script = (_HERE / "page.js").read_text(encoding="utf-8")
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    environment.filters |= {"line": on_one_line, "headline": headline}
    template = environment.from_string((_HERE / "page.html.jinja").read_text(encoding="utf-8"))
    # The styles that matplotlib gives to lines stand in attributes, which can't be listed by their digests.
    policy = f"default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'sha256-{digest}'"
    return template.render(
        **_content(comparison),
        policy=f"{policy}; base-uri 'none'; form-action 'none'",
        script=Markup(script),
        style=Markup((_HERE / "page.css").read_text(encoding="utf-8")),
        version=version("litlab"),
    )


def _content(comparison: Comparison) -> dict[str, Any]:
    runs = [run for group in comparison.all_groups for run in group.runs]
    environment = environment_of(runs)
    order = sorted(RunStatus, key=lambda status: not status.is_failure)
    unfinished = sorted(comparison.unfinished, key=lambda run: order.index(run.status))
    num_inside = sum(sum(group.others.values()) for group in comparison.all_groups)
    return {
        "comparison": comparison,
        "question": question(comparison),
        "answer": answer(comparison),
        "extent": extent(comparison, environment["dates"]),
        "table": _page_table(comparison),
        "interactions": interaction_table(comparison),
        "figures": _figures(comparison),
        "missing_figures": missing_figures(comparison),
        "groups": _group_sections(comparison),
        "num_runs": len(runs),
        "unfinished": unfinished,
        "max_listed": MAX_LISTED,
        "num_outside": len(unfinished) - num_inside,
        "environment": environment,
        "max_runs": MAX_PROVENANCES,
    }


def _page_table(comparison: Comparison) -> dict[str, Any]:
    """Return the columns of every other table, with the values that they are sorted by and intervals to draw.

    `drawing_index` is the index of the column before which intervals are drawn.
    """
    table, groups, best = build_table(comparison), comparison.groups, comparison.best
    is_marked = best is not None and (best.has_interval or len(groups) == 1) and not comparison.is_ablation
    drawn, has_limit = _draw_intervals(comparison)
    pairs = list(zip(table.columns, table.cells, strict=True))
    rows = [
        {
            "mark": "best" if group is best and is_marked else "tie" if table.ties[index] else "",
            "cells": [
                (cells[index], column.value(group) if column.is_number else cells[index]) for column, cells in pairs
            ],
            "drawn": drawn[index],
        }
        for index, group in enumerate(groups)
    ]
    drawing_index = next((number + 1 for number, column in enumerate(table.columns) if column.header == INTERVAL), None)
    over = [column.over for column in table.columns]
    if drawing_index is not None:
        over.insert(
            drawing_index, over[drawing_index - 1]
        )  # drawn intervals stand below the same text as the column before them
    return {
        "over": [(name, len(list(neighbors))) for name, neighbors in groupby(over)],
        "headings": [
            (column.header, column.is_number or all(type(parsed(cell or "0")) in (int, float) for cell in cells))
            for column, cells in pairs
        ],
        "rows": rows,
        "drawing_index": drawing_index,
        "has_limit": has_limit,
        "caption": table.caption,
    }


def _draw_intervals(comparison: Comparison) -> tuple[list["Markup"], bool]:
    """Draw each mean with its interval; also return True if the end of the best group's interval is drawn.

    All have one scale, from the lowest end of an interval to the highest; an interval that is much wider than the
    deviation, as that of two seeds, is cut.
    """
    from markupsafe import Markup

    values = [group.value for group in comparison.groups]
    best = comparison.best
    if best is None or best.value is None:
        return [Markup("")] * len(values), False
    ends = [_visible_ends(value) for value in values if value]
    lowest = min(low for low, _ in ends)
    width = max(high for _, high in ends) - lowest
    left, width = (lowest - 0.05 * width, 1.1 * width) if width > 0 else (lowest - 0.5, 1.0)

    def position(value: float) -> float:
        return round(min(max(100 * (value - left) / width, -10.0), 110.0), 2)  # in percent; beyond the width, cut

    def image(value: Summary) -> "Markup":
        low, high = map(position, value.ends)
        interval = f'<line x1="{low}%" x2="{high}%" y1="50%" y2="50%"/>' if low < high else ""
        circle = f'<circle cx="{position(value.mean)}%" cy="50%" r="3"/>'
        return Markup(f'<svg class="interval" aria-hidden="true">{guide}{interval}{circle}</svg>')  # numbers alone

    limit = best.value.low if comparison.mode == "max" else best.value.high
    limit = None if comparison.is_ablation else limit  # its question is not which is best
    guide = (
        ""
        if limit is None
        else f'<line class="guide" x1="{position(limit)}%" x2="{position(limit)}%" y1="0" y2="100%"/>'
    )
    return [image(value) if value else Markup("") for value in values], limit is not None


def _visible_ends(value: Summary) -> tuple[float, float]:
    """Return the ends of an interval, at most MAX_DEVIATIONS from the mean."""
    (low, high), room = value.ends, MAX_DEVIATIONS * (value.deviation or 0.0)
    return max(low, value.mean - room), min(high, value.mean + room)


def _figures(comparison: Comparison) -> list[tuple["Markup", str]]:
    """Return images and captions of the figures that are drawn for papers."""
    images = []
    for number, figure in enumerate(figures(comparison).values()):
        label = str(figure.get_label())
        caption = label[:1].upper() + label[1:]
        images.append((_image(figure, caption, f"f{number}-"), caption))
    return images


def _image(figure: "Figure", caption: str, prefix: str) -> "Markup":
    """Return an element for the page; a prefix makes the names in it unique among all figures."""
    from markupsafe import Markup, escape

    source = _UNUSED.sub("", svg(figure))
    if len(source) > MAX_SVG:
        data = base64.b64encode(encode(figure, "png", RESOLUTION)).decode()
        return Markup(f'<img src="data:image/png;base64,{data}" alt="{escape(caption)}">')
    head, _, rest = _SVG_NAME.sub(rf"\g<1>{prefix}", source).partition(">")
    return Markup(f'{head} role="img" aria-label="{escape(caption)}"><title>{escape(caption)}</title>{rest}')


def _group_sections(comparison: Comparison) -> list[dict[str, Any]]:
    """Return value, settings, config and runs of the first groups."""
    metric, test, groups = comparison.metric, comparison.test_metric, comparison.all_groups
    short = {label: shorten(group.settings.get(label) for group in groups) for label in comparison.labels}
    places = decimals(metric, (group.value for group in groups))
    test_places = decimals(test, (group.test.get(test.name) for group in groups))
    sections = []
    for group in groups[:MAX_GROUPS]:
        value = with_unit(metric, group.value.mean, places) if group.value else ""
        keys = [comparison.keys[label] for label in group.settings if label in comparison.keys]
        runs = [
            (
                run,
                _number(metric, value_of(run, metric.name, comparison.at), places),
                _number(test, run.test.get(test.name), test_places),
            )
            for run in group.runs[:MAX_LISTED]
        ]
        sections.append(
            {
                "name": group.name,
                "summary": ", ".join(
                    filter(None, [value, f"n = {group.value.num if group.value else 0}", not_completed(group)])
                ),
                "settings": [(label, short[label][value]) for label, value in group.settings.items()],
                "config": _config_lines(group.runs[0].settings, keys) if group.runs else [],
                "runs": runs,
                "has_folds": any(run.fold is not None for run in group.runs),
                "num_left_out": len(group.runs) - len(runs),
            }
        )
    return sections


def _number(metric: Metric, value: float | None, places: int) -> str:
    return "" if value is None else with_unit(metric, value, places)


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


def environment_of(runs: Sequence[Run]) -> dict[str, Any]:
    """Return the environment of runs by their provenance.json: each value once, with the number of runs that have it.

    Files that are missing, damaged or too large are left out.
    """
    records = [record for run in runs[:MAX_PROVENANCES] if (record := _read_record(run))]
    machines = [as_mapping(machine) for _, machine, _ in records]
    facts = {"commit": _values(commit for commit, _, _ in records)}
    facts |= {name: _values(machine.get(name) for machine in machines) for name in _MACHINE_FACTS}
    versions: dict[str, Counter[str]] = {}
    for machine in machines:
        for package, version in list(as_mapping(machine.get("packages")).items())[:MAX_PACKAGES]:
            versions.setdefault(on_one_line(package), Counter())[_text(version)] += 1
    shown = {name for name, counts in versions.items() if len(counts) > 1} | set(MAIN_PACKAGES)
    order = [*MAIN_PACKAGES, *sorted(versions.keys() - set(MAIN_PACKAGES), key=str.lower)][:MAX_PACKAGES]
    return {
        "num_read": len(records),
        "facts": {name: values for name, values in facts.items() if values},
        "packages": {name: _counted(versions[name]) for name in order if name in versions and name in shown},
        "other_packages": [f"{name} {next(iter(versions[name]))}" for name in order if name not in shown],
        "dates": [started for _, _, started in records if started],
    }


def _read_record(run: Run) -> tuple[str | None, Any, date | None] | None:
    """Return commit, machine and date only: the file may hold megabytes of code."""
    directory = RunDirectory(run.path)
    try:
        if directory.provenance.stat().st_size > MAX_PROVENANCE:
            return None
        record = as_mapping(directory.read_json(directory.provenance))
    except (UserError, OSError):
        return None
    return (_commit(record), record.get("machine"), _date(record.get("started"))) if record else None


def _date(value: Any) -> date | None:
    try:
        return date.fromisoformat(value[:10]) if isinstance(value, str) else None
    except ValueError:
        return None


def _commit(record: Mapping[str, Any]) -> str | None:
    code = as_mapping(record.get("code"))
    if not isinstance(code.get("commit"), str):
        return None
    is_changed = bool(code.get("diff") or code.get("untracked"))
    return on_one_line(code["commit"])[:12] + " with uncommitted changes" * is_changed


def _values(values: Iterable[Any]) -> tuple[str, ...]:
    return _counted(Counter(_text(value) for value in values if value is not None))


def _text(value: Any) -> str:
    """Format a scalar; untrusted files may have values of other types."""
    return on_one_line(str(value)) if isinstance(value, str | int | float) else "?"


def _counted(counts: Counter[str]) -> tuple[str, ...]:
    """Return `A100 (20)`, the most frequent first; a single value without its number."""
    if len(counts) < 2:
        return tuple(counts)
    values = [f"{value} ({num})" for value, num in counts.most_common(MAX_VALUES)]
    num_left_out = len(counts) - MAX_VALUES
    return (*values, f"and {num_left_out} more") if num_left_out > 0 else tuple(values)
