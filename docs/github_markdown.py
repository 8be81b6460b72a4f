"""Sphinx extension for Markdown that GitHub shows, too: with lists for toctrees, and blocks without a language."""

import re
from collections.abc import Iterable, Iterator
from typing import Any

from docutils import nodes
from pygments.lexer import RegexLexer
from pygments.token import Comment, Generic, Keyword, String, Text
from sphinx.application import Sphinx

# Pages that group others: what they list, as `- [title](page.md)`, are their subpages.
GROUPS = ("index", "how_to", "explanations", "reference", "results", "examples/README")
PROGRAMS = ("litlab", "make", "pip", "uv", "git", "source", "cd", "python", ".venv/bin/python", "sbatch", "srun", "ssh")
_LISTED = re.compile(r"^- \[([^\]]+)\]\((\S+)\.md\)", re.MULTILINE)
_PROGRAM = rf"(?:{'|'.join(map(re.escape, PROGRAMS))})(?= |$)"


class CommandLexer(RegexLexer):
    """Lexer of commands with comments; where some begin with `$`, all else is their output."""

    name = "commands"
    tokens = {  # noqa: RUF012
        "root": [(rf"^{_PROGRAM}", Keyword, "command"), (r".*\n", Generic.Output)],
        "session": [(r"^\$ ", Generic.Prompt, "command"), (r".*\n", Generic.Output)],
        "command": [
            (r"\\\n", Text),
            (r"\n(?=    \S)", Text),  # a continuation
            (r"\n", Text, "#pop"),
            (_PROGRAM, Keyword),
            (r"(?<=\s)#.*", Comment),
            (r"'[^'\n]*'|\"[^\"\n]*\"", String),
            (r"\S+|[^\S\n]+", Text),
        ],
    }

    def get_tokens_unprocessed(self, text: str, stack: Iterable[str] = ("root",)) -> Iterator[Any]:
        """Yield the tokens of a block."""
        return super().get_tokens_unprocessed(text, ("session",) if text.startswith("$ ") else stack)


def is_commands(text: str) -> bool:
    """Return whether a block begins with a command."""
    return text.startswith("$ ") or re.match(_PROGRAM, text) is not None


def listed_pages(text: str) -> list[tuple[str, str]]:
    """Return title and name of each page that a group lists."""
    return _LISTED.findall(text)


def list_to_toctree(app: Sphinx, docname: str, source: list[str]) -> None:
    """Append a toctree of the pages that a group lists."""
    if docname in GROUPS:
        entries = [f"{title} <{page}>" for title, page in listed_pages(source[0])]
        source[0] = "\n".join([source[0], "", "```{toctree}", ":hidden:", "", *entries, "```", ""])


def color_commands(app: Sphinx, doctree: nodes.document) -> None:
    """Color indented blocks that begin with a command."""
    for block in doctree.findall(nodes.literal_block):
        if block.get("language") == "none" and is_commands(block.astext()):
            block["language"] = CommandLexer.name


def setup(app: Sphinx) -> dict[str, bool]:
    """Register the lexer and what changes pages."""
    app.add_lexer(CommandLexer.name, CommandLexer)
    app.connect("source-read", list_to_toctree)
    app.connect("doctree-read", color_commands)
    return {"parallel_read_safe": True}
