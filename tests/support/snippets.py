"""Snippets of a page of docs/: files that a reader would write, commands that a reader would type, and their output."""

import re
import shlex
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

DOCS = Path(__file__).parents[2] / "docs"
_FILE = re.compile(r"`([\w/.-]+\.(?:py|yaml))`[^`]*?:\n\n```\w+\n(.*?)^```$", re.DOTALL | re.MULTILINE)
_BLOCK = re.compile(r"^```(\w+)\n(.*?)^```$", re.DOTALL | re.MULTILINE)
_COMMAND = re.compile(r"^    litlab (.+)$", re.MULTILINE)
_SESSION = re.compile(r"^    \$ ((?:.*\\\n    )*.+)\n((?:(?:    (?!\$ ).*)?\n)*)", re.MULTILINE)
_OMITTED = "..."
_NUMBER = re.compile(r"((?<![\w.])[+-]?\d[\d,]*(?:\.\d+)?(?![\w]))")
_JOB = re.compile(r"(?:[\d.]+ % )?(\d{4}_[^\s:]+)(?::|$)")  # with its progress, or in the order of results
_PROGRESS = re.compile(r"\[\d+ completed.*\]")  # printed every few seconds
_VARYING = [  # what differs each time that a command is called, with the name that replaces it
    (re.compile(r"\d{4}-\d\d-\d\d_\d\d-\d\d-\d\d_[0-9a-f]{6}"), "DATE_ID"),
    (re.compile(r"(http://[\w.]+:)\d+"), r"\1PORT"),
    (re.compile(r"(events\.out\.tfevents)\S+"), r"\1"),
    (re.compile(r"\b[0-9a-f]{12}\b"), "HASH"),
    (re.compile(r"\b\d+:\d\d\b( +[\d,]+(?= |$))?"), "TIME"),  # in a table with the images per second after it
    (re.compile(r"[\d,.]+ (s|images/s)\b|images per second [\d,.]+"), "TIME"),
    (re.compile(r"^(\d{4}_\S+: \w+.*?)  \[.*\]$"), r"\1"),  # numbers of jobs that run and wait
    (re.compile(r"< (0\.001)\b"), r"\1"),  # a p-value
    (re.compile(r"\btraining time TIME, "), ""),  # below a table, if all groups have the same
]
_COST_COLUMNS = re.compile(r"(?:  +(?:training time|images/s))+$")


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


@dataclass(frozen=True)
class Session:
    """Command after a `$`, with the output below it.

    Attributes:
        command: The command, in one line.
        output: What it prints; without the first or last lines if it begins or ends with a line of `...`.
    """

    command: str
    output: str

    def shorten(self, printed: str) -> str:
        """Leave out those lines of what the command prints that `output` leaves out."""
        shown, lines = self.output.splitlines(), printed.splitlines()
        if shown[:1] == [_OMITTED]:
            lines = [_OMITTED, *lines[1 - len(shown) :]]
        elif shown[-1:] == [_OMITTED]:
            lines = [*lines[: len(shown) - 1], _OMITTED]
        return "\n".join(lines)


def read_snippets(page: str, title: str | None = None) -> Snippets:
    """Read the snippets of a page, or those below one of its headings of the second level."""
    section = (DOCS / page).read_text()
    if title is not None:
        (section,) = re.findall(rf"^## {re.escape(title)}\n(.*?)(?=^## |\Z)", section, re.DOTALL | re.MULTILINE)
    commands = [shlex.split(command) for command in _COMMAND.findall(section)]
    return Snippets(dict(_FILE.findall(section)), commands, _BLOCK.findall(section))


def read_sessions(page: str) -> list[Session]:
    """Read the commands of a page with their outputs, in order."""
    return [
        Session(command.replace("\\\n    ", ""), re.sub("^    ", "", output, flags=re.MULTILINE).strip("\n"))
        for command, output in _SESSION.findall((DOCS / page).read_text())
    ]


def write_outputs(page: str, outputs: Iterable[str]) -> None:
    """Replace the outputs of the commands of a page."""
    remaining = iter(outputs)

    def replace(match: re.Match[str]) -> str:
        lines = [f"    {line}".rstrip() for line in next(remaining).splitlines()]
        end = match[2][len(match[2].rstrip("\n")) :] if match[2].strip() else f"\n{match[2]}"
        return "\n".join([f"    $ {match[1]}", *lines]) + end

    (DOCS / page).write_text(_SESSION.sub(replace, (DOCS / page).read_text()))


def different_lines(expected: str, printed: str, tolerance: float) -> list[str]:
    """Compare the output of a command with that of a page.

    Times, dates and ids are left out, and so is the order of jobs, which run at the same time or lead by little.

    Args:
        expected: Output on the page.
        printed: Output of the command.
        tolerance: Largest difference of decimal numbers. Whole numbers have to be equal.

    Returns:
        Differing lines, before and after; empty if the outputs agree.
    """
    old, new = _normalize(expected), _normalize(printed)
    if len(old) != len(new):
        return [f"{len(old)} lines on the page, {len(new)} printed:", *printed.splitlines()]
    return [
        text
        for before, after in zip(old, new, strict=True)
        if not _agree(before, after, tolerance)
        for text in (f"- {before}", f"+ {after}")
    ]


def _normalize(output: str) -> list[str]:
    lines = []
    for line in _without_costs(output):
        if _PROGRESS.fullmatch(line):
            continue
        for pattern, name in _VARYING:
            line = pattern.sub(name, line)
        lines.append(" ".join(line.split()))
    return list(_with_jobs_sorted(lines))


def _without_costs(output: str) -> Iterator[str]:
    """Yield the lines, those of a comparison's table without its last columns, which a machine of equal times lacks."""
    end = None
    for line in output.splitlines():
        if match := _COST_COLUMNS.search(line):
            end = match.start()
        elif not line.strip():
            end = None
        yield line[:end]


def _with_jobs_sorted(lines: list[str]) -> Iterator[str]:
    """Yield the lines, consecutive lines on jobs in the order of their names."""
    jobs: list[tuple[str, str]] = []
    for line in [*lines, ""]:
        if match := _JOB.match(line):
            jobs.append((match[1], line))
            continue
        yield from (text for _, text in sorted(jobs))
        jobs.clear()
        yield line


def _agree(before: str, after: str, tolerance: float) -> bool:
    old, new = _NUMBER.split(before), _NUMBER.split(after)
    return len(old) == len(new) and all(
        first == second or (index % 2 == 1 and "." in first and abs(_value(first) - _value(second)) <= tolerance)
        for index, (first, second) in enumerate(zip(old, new, strict=True))
    )


def _value(number: str) -> float:
    return float(number.replace(",", ""))
