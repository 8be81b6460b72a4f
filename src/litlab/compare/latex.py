"""The table for a paper: LaTeX that needs the package booktabs and nothing else."""

import re
from itertools import groupby

from litlab.compare.caption import TIED
from litlab.compare.table import Column, Table

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
        *(_row([_cell(column, number, tie) for column in table.columns]) for number, tie in enumerate(table.ties)),
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
    return [_row(cells), f"    {' '.join(rules)}", _row(heads)] if rules else [_row(heads)]


def _row(cells: list[str]) -> str:
    return rf"    {' & '.join(cells)} \\"


def _cell(column: Column, number: int, tie: bool) -> str:
    text = escaped(column.cells[number])
    if column.is_number:
        text = _MINUS.sub("$-$", text)
    return rf"\textbf{{{text}}}" if text and tie and column.marks else text
