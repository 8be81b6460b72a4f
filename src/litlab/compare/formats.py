"""A comparison as a text: for a terminal, Markdown, CSV, JSON and LaTeX; the same bytes for the same comparison."""

import re
import textwrap
from itertools import groupby
from typing import Literal

from litlab.compare.latex import to_latex
from litlab.compare.model import Comparison
from litlab.compare.raw import to_csv, to_json
from litlab.compare.table import TIED, Column, Table, build

Format = Literal["table", "markdown", "csv", "json", "latex"]
WIDTH = 100  # of what is said below a table, whatever the terminal: the same text everywhere
_MARKDOWN = re.compile(r"[\\`*_\[<&|~$]")  # what a backslash in front makes a plain character


def render(comparison: Comparison, format: Format) -> str:
    """The whole text; it ends with a newline."""
    if format == "csv":
        return to_csv(comparison)
    if format == "json":
        return to_json(comparison)
    lines = {"table": to_text, "markdown": to_markdown, "latex": to_latex}[format]
    return "\n".join(lines(build(comparison))) + "\n"


def to_text(table: Table) -> list[str]:
    """Aligned, for a terminal."""
    blocks = [
        _block(over, list(columns), table.ties) for over, columns in groupby(table.columns, lambda each: each.over)
    ]
    lines = ["  ".join(row).rstrip() for row in zip(*blocks, strict=True)]
    marked = [f"*: {TIED}."] if any(table.ties) else []
    said = [*table.caption, *marked, *table.notes]
    return [*lines, "", *(wrapped for line in said for wrapped in textwrap.wrap(line, WIDTH, subsequent_indent="  "))]


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
