"""A comparison as a text: for a terminal, Markdown, CSV, JSON and LaTeX; the same bytes for the same comparison."""

import csv
import io
import json
import math
import re
import textwrap
from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from itertools import groupby
from typing import Any, Literal

from litlab.compare.model import LEVEL, Comparison, Difference, Group, Summary
from litlab.compare.table import TIED, Column, Table, build, test_metric
from litlab.runs.state import RunStatus
from litlab.runs.terminal import printable

NO_ROOM = ("best", "test interval", "training time", "images/s", "not done")  # on the page of a paper
NO_ROOM_BESIDE_DIFFERENCES = (*NO_ROOM, "value interval", "parameters", "compared")
_ESCAPES = {
    "\\": r"\textbackslash{}",
    "^": r"\textasciicircum{}",
    "~": r"\textasciitilde{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    "±": r"$\pm$",
    "…": r"\dots{}",
    "[": "{[}",  # after \\ it would begin an argument, and a star be one
    "*": "{*}",
} | {character: f"\\{character}" for character in "_%&#${}"}
_SPECIAL = re.compile("|".join(map(re.escape, _ESCAPES)))
_MINUS = re.compile(r"-(?=\d)")


def to_latex(table: Table) -> list[str]:
    """A floating table with caption and label, for \\input; the notes are comments above it."""
    bold = [f"Bold: {TIED}."] if any(table.ties) else []
    caption = escaped(" ".join([*table.caption, *bold]))
    name = re.sub(r"[^A-Za-z0-9]+", "-", table.name).strip("-") or "comparison"
    return [
        *(f"% {note}" for note in table.notes),
        r"\begin{table}",
        r"  \centering\footnotesize\setlength{\tabcolsep}{2.5pt}\setlength{\belowcaptionskip}{6pt}",
        rf"  \caption{{{caption}}}",
        rf"  \label{{tab:{name}}}",
        rf"  \begin{{tabular}}{{{''.join('r' if column.is_number else 'l' for column in table.columns)}}}",
        r"    \toprule",
        *_heads(table.columns),
        r"    \midrule",
        *(
            _latex_row([_latex_cell(column, number, tie) for column in table.columns])
            for number, tie in enumerate(table.ties)
        ),
        r"    \bottomrule",
        r"  \end{tabular}",
        r"\end{table}",
    ]


def escaped(text: str) -> str:
    """A text that LaTeX sets as it stands; pdfLaTeX knows most Latin letters with accents, LuaLaTeX any character."""
    return _SPECIAL.sub(lambda found: _ESCAPES[found[0]], text).replace("--", "-{}-")


def _heads(columns: tuple[Column, ...]) -> list[str]:
    """What stands over columns, the rules below it, and their own heads; the unit of a single one is with its own."""
    cells: list[str] = []
    rules: list[str] = []
    heads: list[str] = []
    start = 1
    for over, neighbours in groupby(columns, lambda column: column.over):
        own = [column.header for column in neighbours]
        if over and len(own) == 1:
            over, space, unit = over.partition(" ")
            own = [own[0] + space + unit]
        cells += [rf"\multicolumn{{{len(own)}}}{{c}}{{{escaped(over)}}}"] if over else [""] * len(own)
        rules += [rf"\cmidrule(lr){{{start}-{start + len(own) - 1}}}"] if over else []
        heads += map(escaped, own)
        start += len(own)
    return [_latex_row(cells), f"    {' '.join(rules)}", _latex_row(heads)] if rules else [_latex_row(heads)]


def _latex_row(cells: list[str]) -> str:
    return rf"    {' & '.join(cells)} \\"


def _latex_cell(column: Column, number: int, tie: bool) -> str:
    text = escaped(column.cells[number])
    if column.is_number:
        text = _MINUS.sub("$-$", text)
    return rf"\textbf{{{text}}}" if text and tie and column.marks else text


Row = list[tuple[str, object]]  # name of the column, value


def to_csv(comparison: Comparison) -> str:
    """A row a group and a column a value; accuracies are fractions, times are in seconds."""
    rows = [_raw_row(comparison, group) for group in comparison.groups]
    file = io.StringIO()
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow([name for name, _ in rows[0]] if rows else [])
    writer.writerows([value for _, value in row] for row in rows)
    return file.getvalue()


def _raw_row(comparison: Comparison, group: Group) -> Row:
    tested = test_metric(comparison.metric)
    row: Row = [("group", printable(group.name))]
    row += [(printable(label), printable(group.settings.get(label, ""))) for label in comparison.labels]
    row += _of_summary(comparison.metric, group.value)
    row += [("tied with the best", int(group.name in comparison.ties))]
    row += _of_summary(tested, group.test.get(tested))
    if comparison.baseline is not None:
        row += [(f"difference {each.name}", getattr(group.difference, each.name, None)) for each in fields(Difference)]
    row += [
        ("training seconds mean", group.seconds.mean if group.seconds else None),
        ("images per second mean", group.images_per_second.mean if group.images_per_second else None),
        ("parameters", group.parameters),
    ]
    return row + [(status, group.others.get(status, 0)) for status in RunStatus if status != RunStatus.COMPLETED]


def _of_summary(metric: str, summary: Summary | None) -> Row:
    row: Row = [("num", summary.num if summary else 0)]
    row += [(name, getattr(summary, name, None)) for name in ("mean", "deviation", "low", "high", "best")]
    return [(f"{printable(metric)} {name}", value) for name, value in row]


def to_json(comparison: Comparison) -> str:
    """All that a comparison holds, with its runs; nothing but ASCII, and neither NaN nor infinity."""
    whole = {"format": 1, "level": LEVEL} | _plain(comparison)
    return json.dumps(whole, indent=2, allow_nan=False) + "\n"


def _plain(value: Any) -> Any:
    """What JSON has."""
    if is_dataclass(value):
        return {each.name: _plain(getattr(value, each.name)) for each in fields(value)}
    if isinstance(value, Mapping):
        return {str(key): _plain(each) for key, each in sorted(value.items())}
    if isinstance(value, frozenset):
        return sorted(value)
    if isinstance(value, list | tuple):
        return [_plain(each) for each in value]
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    return value if value is None or isinstance(value, str | int | bool) else str(value)


Format = Literal["table", "markdown", "csv", "json", "latex"]
WIDTH = 100  # of what is said below a table, whatever the terminal: the same text everywhere
SPARE = ("images/s", "parameters", "training time", "test interval", "best")  # the first is left out first
_MARKDOWN = re.compile(r"[\\`*_\[<&|~$]")  # what a backslash in front makes a plain character


def render(comparison: Comparison, format: Format, width: int | None = None) -> str:
    """The whole text; it ends with a newline.

    Args:
        width: characters of the terminal that a table is for, which then may lack columns; None: it has all of them.
    """
    if format == "csv":
        return to_csv(comparison)
    if format == "json":
        return to_json(comparison)
    if format == "latex":
        lines = to_latex(build(comparison, NO_ROOM if comparison.baseline is None else NO_ROOM_BESIDE_DIFFERENCES))
    elif format == "markdown":
        lines = to_markdown(build(comparison))
    else:
        lines = to_text(build(comparison)) if width is None else _narrow(comparison, width)
    return "\n".join(lines) + "\n"


def _narrow(comparison: Comparison, width: int) -> list[str]:
    """Without the columns that a terminal has no room for, the least needed first."""
    table, left_out = build(comparison), []
    for key in SPARE:
        if max(map(len, _rows(table)), default=0) <= width:
            break
        if any(column.key == key for column in table.columns):
            left_out.append(key)
            table = build(comparison, left_out)
    said = f"Left out, as the terminal is too narrow: {', '.join(left_out)}; --format csv has all columns."
    return [*to_text(table), *(textwrap.wrap(said, WIDTH, subsequent_indent="  ") if left_out else [])]


def to_text(table: Table) -> list[str]:
    """Aligned, for a terminal."""
    marked = [f"*: {TIED}."] if any(table.ties) else []
    said = [*table.caption, *marked, *table.notes]
    wrapped = (part for line in said for part in textwrap.wrap(line, WIDTH, subsequent_indent="  "))
    return [*_rows(table), "", *wrapped]


def _rows(table: Table) -> list[str]:
    blocks = [
        _block(over, list(columns), table.ties) for over, columns in groupby(table.columns, lambda each: each.over)
    ]
    return ["  ".join(row).rstrip() for row in zip(*blocks, strict=True)]


def _block(over: str, columns: list[Column], ties: tuple[bool, ...]) -> list[str]:
    """Neighbours, with what stands over them in the middle."""
    lines = ["  ".join(row) for row in zip(*(_aligned(column, ties) for column in columns), strict=True)]
    width = max(len(over), len(lines[0]))
    return [over.center(width), *(line.ljust(width) for line in lines)]


def _aligned(column: Column, ties: tuple[bool, ...]) -> list[str]:
    texts = [column.header, *column.cells]
    if column.marks and any(ties):
        marks = [" ", *("*" if tie else " " for tie in ties)]
        texts = [text + mark for text, mark in zip(texts, marks, strict=True)]
    width = max(map(len, texts))
    return [text.rjust(width) if column.is_number else text.ljust(width) for text in texts]


def to_markdown(table: Table) -> list[str]:
    """A table as GitHub has it; below it a list of what there is to say."""
    lines = [
        _row([_escaped(column.name) for column in table.columns]),
        _row(["---:" if column.is_number else ":---" for column in table.columns]),
    ]
    for number, tie in enumerate(table.ties):
        lines.append(_row([_cell(column, number, tie) for column in table.columns]))
    bold = [f"Bold: {TIED}."] if any(table.ties) else []
    said = [*table.caption, *bold, *table.notes]
    return [*lines, "", *(f"- {_escaped(line)}" for line in said)]


def _row(cells: list[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _cell(column: Column, number: int, tie: bool) -> str:
    text = column.cells[number] if column.is_number else _escaped(column.cells[number])
    return f"**{text}**" if text and tie and column.marks else text


def _escaped(text: str) -> str:
    return _MARKDOWN.sub(r"\\\g<0>", text)
