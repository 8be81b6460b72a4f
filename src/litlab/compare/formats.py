"""Text formats of a comparison: terminal, Markdown, CSV, JSON and LaTeX; the same comparison gives the same bytes."""

import csv
import io
import json
import math
import re
import textwrap
from collections.abc import Callable, Mapping
from dataclasses import fields, is_dataclass
from itertools import groupby
from typing import Any, Literal

from litlab.compare.ablation import interaction_columns, interaction_table
from litlab.compare.data_model import Comparison, Group
from litlab.compare.table import TIED, Column, Table, Value, build_table, columns_of
from litlab.statistics.student_t import CONFIDENCE

Format = Literal["table", "markdown", "csv", "json", "latex"]
WIDTH = 100  # of the text below a table, whatever the terminal: the same text everywhere
_MARKDOWN = re.compile(r"[\\`*_\[<&|~$]")  # escaped by a backslash
_LATEX = {
    "\\": r"\textbackslash{}",
    "^": r"\textasciicircum{}",
    "~": r"\textasciitilde{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    "±": r"$\pm$",
    "…": r"\dots{}",
    "[": "{[}",  # after \\ it would begin an argument, and so would a star
    "*": "{*}",
} | {character: f"\\{character}" for character in "_%&#${}"}
_LATEX_SPECIAL = re.compile("|".join(map(re.escape, _LATEX)))
_MINUS = re.compile(r"-(?=\d)")


def render(comparison: Comparison, format: Format, width: int | None = None) -> str:
    """Return the whole text, which ends with a newline.

    Args:
        comparison: Comparison to show.
        format: Name of the format.
        width: Characters of the terminal that a table is for, which may drop columns; None: it has all columns.
    """
    if format == "csv":
        return _csv(comparison)
    if format == "json":
        return _json(comparison)
    if format == "latex":
        hidden = ("never",) if comparison.baseline is None else ("never", "alone")
        lines = _latex(build_table(comparison, lambda column: column.latex in hidden))
    elif format == "markdown":
        lines = _markdown(build_table(comparison))
    else:
        lines = _text(build_table(comparison)) if width is None else _narrow_text(comparison, width)
    if (interactions := interaction_table(comparison)) is not None:
        lines += ["", *{"latex": _latex, "markdown": _markdown, "table": _text}[format](interactions)]
    return "\n".join(lines) + "\n"


def _narrow_text(comparison: Comparison, width: int) -> list[str]:
    """Drop the columns that a terminal has no room for, the least important first."""
    dropped: list[str] = []
    table = build_table(comparison)
    for column in sorted((column for column in table.columns if column.drop_rank), key=lambda column: column.drop_rank):
        if max(map(len, _rows(table)), default=0) <= width:
            break
        dropped.append(column.name)
        table = build_table(comparison, lambda column: column.name in dropped)
    left_out = f"Left out, as the terminal is too narrow: {', '.join(dropped)}; --format csv has all columns."
    return _text(table, *[left_out] * bool(dropped))


def _text(table: Table, *remarks: str) -> list[str]:
    marked = [f"*: {TIED}."] if any(table.ties) else []
    sentences = [*table.caption, *marked, *table.notes, *remarks]
    wrapped = [part for line in sentences for part in textwrap.wrap(line, WIDTH, subsequent_indent="  ")]
    return [*_rows(table), "", *wrapped]


def _rows(table: Table) -> list[str]:
    """Align the columns; neighbors with the same `over` are a block below it (which tables of rich do not have)."""
    blocks = []
    for over, pairs in groupby(zip(table.columns, table.cells, strict=True), lambda pair: pair[0].over):
        aligned = [_aligned(column, cells, table.ties) for column, cells in pairs]
        lines = ["  ".join(row) for row in zip(*aligned, strict=True)]
        width = max(len(over), len(lines[0]))
        blocks.append([over.center(width), *(line.ljust(width) for line in lines)])
    return ["  ".join(row).rstrip() for row in zip(*blocks, strict=True)]


def _aligned(column: Column, cells: tuple[str, ...], ties: tuple[bool, ...]) -> list[str]:
    texts = [column.header, *cells]
    if column.marks_ties and any(ties):
        marks = [" ", *("*" if tie else " " for tie in ties)]
        texts = [text + mark for text, mark in zip(texts, marks, strict=True)]
    width = max(map(len, texts))
    return [text.rjust(width) if column.is_number else text.ljust(width) for text in texts]


def _markdown(table: Table) -> list[str]:
    """Format a table for GitHub, with a list of remarks below it."""

    def row(cells: list[str]) -> str:
        return f"| {' | '.join(cells)} |"

    def cell(column: Column, text: str, tie: bool) -> str:
        text = text if column.is_number else _escape_markdown(text)
        return f"**{text}**" if text and tie and column.marks_ties else text

    return [
        row([_escape_markdown(column.title) for column in table.columns]),
        row(["---:" if column.is_number else ":---" for column in table.columns]),
        *map(row, _cells(table, cell)),
        "",
        *(f"- {_escape_markdown(line)}" for line in (*table.caption, *_bold(table), *table.notes)),
    ]


def _cells(table: Table, format: Callable[[Column, str, bool], str]) -> list[list[str]]:
    """Return the rows of formatted cells; the function gets a column, its text, and True for a tied group."""
    rows = zip(table.ties, zip(*table.cells, strict=True), strict=True)
    return [[format(column, text, tie) for column, text in zip(table.columns, row, strict=True)] for tie, row in rows]


def _bold(table: Table) -> list[str]:
    return [f"Bold: {TIED}."] if any(table.ties) else []


def _escape_markdown(text: str) -> str:
    return _MARKDOWN.sub(r"\\\g<0>", text)


def _latex(table: Table) -> list[str]:
    r"""Format a floating table with caption and label, for \input; the notes are comments above it."""
    name = re.sub(r"[^A-Za-z0-9]+", "-", table.name).strip("-") or "comparison"
    return [
        *(f"% {note}" for note in table.notes),
        r"\begin{table}",
        r"  \centering\footnotesize\setlength{\tabcolsep}{2.5pt}\setlength{\belowcaptionskip}{6pt}",
        rf"  \caption{{{escape_latex(' '.join([*table.caption, *_bold(table)]))}}}",
        rf"  \label{{tab:{name}}}",
        rf"  \begin{{tabular}}{{{''.join('r' if column.is_number else 'l' for column in table.columns)}}}",
        r"    \toprule",
        *_latex_header(table.columns),
        r"    \midrule",
        *map(_latex_row, _cells(table, _latex_cell)),
        r"    \bottomrule",
        r"  \end{tabular}",
        r"\end{table}",
    ]


def escape_latex(text: str) -> str:
    """Escape a text; pdfLaTeX knows most Latin letters with accents, LuaLaTeX any character."""
    return _LATEX_SPECIAL.sub(lambda match: _LATEX[match[0]], text).replace("--", "-{}-")


def _latex_header(columns: tuple[Column, ...]) -> list[str]:
    """Return texts over columns, the rules below them, and headers; a single column has the unit in its header."""
    cells: list[str] = []
    rules: list[str] = []
    headers: list[str] = []
    start = 1
    for over, neighbors in groupby(columns, lambda column: column.over):
        own = [column.header for column in neighbors]
        if over and len(own) == 1:
            over, space, unit = over.partition(" ")
            own = [own[0] + space + unit]
        cells += [rf"\multicolumn{{{len(own)}}}{{c}}{{{escape_latex(over)}}}"] if over else [""] * len(own)
        rules += [rf"\cmidrule(lr){{{start}-{start + len(own) - 1}}}"] if over else []
        headers += map(escape_latex, own)
        start += len(own)
    return [_latex_row(cells), f"    {' '.join(rules)}", _latex_row(headers)] if rules else [_latex_row(headers)]


def _latex_row(cells: list[str]) -> str:
    return rf"    {' & '.join(cells)} \\"


def _latex_cell(column: Column, text: str, tie: bool) -> str:
    text = escape_latex(text)
    if column.is_number:
        text = _MINUS.sub("$-$", text)
    return rf"\textbf{{{text}}}" if text and tie and column.marks_ties else text


def _csv(comparison: Comparison) -> str:
    """Write a row for each group and pair, and a column for each value; percentages are fractions, times in seconds."""
    columns = [*columns_of(comparison), *interaction_columns(comparison)]
    rows = [_values(columns, group) for group in comparison.all_groups]
    file = io.StringIO()
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow([name for name, _ in rows[0]] if rows else [])
    writer.writerows([value for _, value in row] for row in rows)
    return file.getvalue()


def _values(columns: list[Column], group: Group) -> list[tuple[str, Value]]:
    return [pair for column in columns for pair in column.values(group).items()]


def _json(comparison: Comparison) -> str:
    """Write the whole comparison with its runs, and the columns of each group; ASCII without NaN and infinity."""
    content = {"format": 1, "level": CONFIDENCE} | _plain(comparison)
    columns = [*columns_of(comparison), *interaction_columns(comparison)]
    for key, groups in (("groups", comparison.groups), ("pairs", comparison.pairs)):
        for entry, group in zip(content[key], groups, strict=True):
            entry["columns"] = _plain(dict(_values(columns, group)))
    return json.dumps(content, indent=2, allow_nan=False) + "\n"


def _plain(value: Any) -> Any:
    """Convert a value to types that JSON has."""
    if is_dataclass(value):
        return {field.name: _plain(getattr(value, field.name)) for field in fields(value)}
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in sorted(value.items())}
    if isinstance(value, frozenset):
        return sorted(value)
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    return value if value is None or isinstance(value, str | int | bool) else str(value)
