"""Runs and studies below a directory."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from litlab.errors import UserError
from litlab.runs.directory import RunDirectory
from litlab.sweep.study import JOBS_FILE, STUDY_FILE, Study

MAX_DEPTH = 2  # levels below the named directory: outputs/NAME/RUN


@dataclass(frozen=True)
class DiscoveredRun:
    """A run found on disk, with the directory of its study if it has one, and the swept keys with their values."""

    run: RunDirectory
    study: Path | None = None
    point: Mapping[str, str] = field(default_factory=dict)


def discover(directory: Path, depth: int = MAX_DEPTH) -> Iterator[Path]:
    """Find the directories of runs and studies at most `depth` levels below; links are not followed.

    Raises:
        OSError: If a directory can't be read.
    """
    if is_run_or_study(directory):
        yield directory
    elif depth:
        for child in subdirectories(directory):
            yield from discover(child, depth - 1)


def is_run_or_study(directory: Path) -> bool:
    """Check for the file that makes a directory a run or a study."""
    return (directory / "config.yaml").is_file() or (directory / STUDY_FILE).is_file()


def subdirectories(directory: Path) -> list[Path]:
    """List the directories in a directory by name, without links.

    Raises:
        OSError: If it can't be read.
    """
    return [child for child in sorted(directory.iterdir()) if child.is_dir() and not child.is_symlink()]


def runs_at(path: Path) -> list[DiscoveredRun]:
    """Return the run at a path, or the recorded jobs of the study there.

    Other directories in a study, such as a job that was run again, are not among its jobs.

    Raises:
        UserError: If the files of the study are damaged.
    """
    if (path / "config.yaml").is_file():
        return [DiscoveredRun(RunDirectory(path))]
    if (jobs_file := path / JOBS_FILE).exists() and not jobs_file.is_file():
        raise UserError(f"{jobs_file} is damaged: it is no regular file")
    return [DiscoveredRun(run, path, record.point) for record, run in Study.load(path).jobs()]
