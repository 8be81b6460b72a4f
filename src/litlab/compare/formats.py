"""A comparison as a text: for a terminal, Markdown, CSV, JSON and LaTeX; the same bytes for the same comparison."""

import re
import textwrap
from itertools import groupby
from typing import Literal

from litlab.compare.caption import TIED
from litlab.compare.latex import NO_ROOM, NO_ROOM_BESIDE_DIFFERENCES, to_latex
from litlab.compare.model import Comparison
from litlab.compare.raw import to_csv, to_json
from litlab.compare.table import Column, Table, build

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
