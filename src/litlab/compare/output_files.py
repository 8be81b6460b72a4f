"""Checks of the files that a comparison writes: never a file of a run or a study, and only regular files."""

import os
from collections.abc import Sequence
from pathlib import Path

from litlab.errors import UserError
from litlab.sweep.discover import is_run_or_study
from litlab.sweep.study import JOBS_FILE, STUDY_FILE

FIGURE_FORMATS = ("png", "svg", "pdf")
_RUN_FILES = ("config.yaml", "dataset.json", "provenance.json", "metrics.csv", "metrics.json", "run.log", "result.json")
_STUDY_FILES = (STUDY_FILE, JOBS_FILE)
_COMPARISON_SUFFIXES = (".txt", ".md", ".csv", ".json", ".tex", ".html", *(f".{name}" for name in FIGURE_FORMATS))
_MAX_DEPTH = 3  # folders below that of a run: summary/GROUP/


def check_outputs(texts: Sequence[Path], plots: Sequence[Path]) -> None:
    """Check all files before anything is computed.

    Raises:
        UserError: If a file cannot be written in its format, may not be replaced, or is named twice.
    """
    seen: set[str] = set()
    for file in (*texts, *plots):
        check_output(file)
        if (real := os.path.realpath(file)) in seen:
            raise UserError(f"{file} is named twice; name another file for one of the two")
        seen.add(real)
    for file in plots:
        figure_format(file)


def check_output(file: Path) -> None:
    """Check that a file may be written; what it replaces may not be a link, a pipe or a device such as /dev/null.

    Raises:
        UserError: If it is not a regular file, belongs to a run or a study, or cannot be written.
    """
    try:
        if file.is_dir():
            raise UserError(f"{file} is a directory; name a file in it")
        if file.is_symlink() or (file.exists() and not file.is_file()):
            raise UserError(f"{file} is a link, a pipe or a device, which would be replaced; name a regular file")
        if _is_of_a_run(file):
            raise UserError(f"{file} is a file of a run or a study; choose another")
    except OSError as error:  # a name that is too long, a directory that may not be searched
        raise UserError(f"{file} can't be written: {error.strerror}") from error


def _is_of_a_run(file: Path) -> bool:
    """Return True for files of runs and studies; outputs of an earlier comparison in their folders are not."""
    if file.name not in (*_RUN_FILES, *_STUDY_FILES) and (file.suffix in _COMPARISON_SUFFIXES or not file.exists()):
        return False
    return any(is_run_or_study(folder) for folder in Path(os.path.realpath(file)).parents[:_MAX_DEPTH])


def figure_format(file: Path) -> str:
    """Return `png`, `svg` or `pdf`.

    Raises:
        UserError: If the name of the file ends in none of these.
    """
    suffix = file.suffix.removeprefix(".").lower()
    if suffix not in FIGURE_FORMATS:
        raise UserError(f"{file}: a figure can be written as {', '.join(FIGURE_FORMATS)}; end its name in one of these")
    return suffix
