"""Snippets of a page of docs/: files that a reader would write, and commands that a reader would type."""

import re
import shlex
from dataclasses import dataclass
from pathlib import Path

DOCS = Path(__file__).parents[2] / "docs"
_FILE = re.compile(r"`([\w/.-]+\.(?:py|yaml))`[^`]*?:\n\n```\w+\n(.*?)^```$", re.DOTALL | re.MULTILINE)
_BLOCK = re.compile(r"^```(\w+)\n(.*?)^```$", re.DOTALL | re.MULTILINE)
_COMMAND = re.compile(r"^    litlab (.+)$", re.MULTILINE)


@dataclass(frozen=True)
class Snippets:
    """Snippets of a section.

    Attributes:
        files: Path -> content of the blocks that follow a sentence with a file's name and a colon.
        commands: Arguments of the commands of litlab.
        blocks: Language and content of all blocks.
    """

    files: dict[str, str]
    commands: list[list[str]]
    blocks: list[tuple[str, str]]

    def write(self, project: Path) -> None:
        """Write the files into a project's folder."""
        for path, content in self.files.items():
            (project / path).parent.mkdir(parents=True, exist_ok=True)
            (project / path).write_text(content)


def read_snippets(page: str, title: str) -> Snippets:
    """Read the snippets below a heading of the second level."""
    (section,) = re.findall(
        rf"^## {re.escape(title)}\n(.*?)(?=^## |\Z)", (DOCS / page).read_text(), re.DOTALL | re.MULTILINE
    )
    commands = [shlex.split(command) for command in _COMMAND.findall(section)]
    return Snippets(dict(_FILE.findall(section)), commands, _BLOCK.findall(section))
