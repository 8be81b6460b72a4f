"""Which files a comparison may write: never one of a run or a study, nor what is no regular file."""

import os
from collections.abc import Sequence
from pathlib import Path

from litlab.errors import UserError
from litlab.sweep.discover import is_run_or_study
from litlab.sweep.study import JOBS_FILE, STUDY_FILE

FIGURES = ("png", "svg", "pdf")
_OF_RUNS = (
    "config.yaml",
    "dataset.json",
    "provenance.json",
    "metrics.csv",
    "run.log",
    "result.json",
    STUDY_FILE,
    JOBS_FILE,
)
_OF_COMPARISONS = (".txt", ".md", ".csv", ".json", ".tex", ".html", *(f".{each}" for each in FIGURES))
_DEEPEST = 3  # folders below that of a run: summary/GROUP/


def check_outputs(texts: Sequence[Path], plots: Sequence[Path]) -> None:
    """
    Raises:
        UserError: if a file can't be written as what it is to be, may not be replaced, or is named twice.
    """
    seen: set[str] = set()
    for file in (*texts, *plots):
        check_output(file)
        if (real := os.path.realpath(file)) in seen:
            raise UserError(f"{file} is named twice; name another file for one of the two")
        seen.add(real)
    for file in plots:
        figure_kind(file)


def check_output(file: Path) -> None:
    """
    Raises:
        UserError: if what is there is no regular file, or one of a run or a study, or the file can't be written.
    """
    try:
        _refuse_to_replace(file)
    except OSError as error:  # a name that is too long, a directory that may not be searched
        raise UserError(f"{file} can't be written: {error.strerror}") from error


def _refuse_to_replace(file: Path) -> None:
    """What is written comes in place of what was there: of a pipe or a device such as /dev/null, too, and of a link."""
    if file.is_dir():
        raise UserError(f"{file} is a directory; name a file in it")
    if file.is_symlink() or (file.exists() and not file.is_file()):
        raise UserError(f"{file} is a link, a pipe or a device, which would be replaced; name a regular file")
    if _is_of_a_run(file):
        raise UserError(f"{file} is a file of a run or a study; choose another")


def _is_of_a_run(file: Path) -> bool:
    """Whether a run or a study has it; what an earlier comparison left in its directory may be replaced."""
    if file.name not in _OF_RUNS and (file.suffix in _OF_COMPARISONS or not file.exists()):
        return False
    return any(is_run_or_study(folder) for folder in Path(os.path.realpath(file)).parents[:_DEEPEST])


def figure_kind(file: Path) -> str:
    """`png`, `svg` or `pdf`.

    Raises:
        UserError: if the name of the file ends in none of these.
    """
    kind = file.suffix.removeprefix(".").lower()
    if kind not in FIGURES:
        raise UserError(f"{file}: a figure can be written as {', '.join(FIGURES)}; end its name in one of these")
    return kind
