"""Where runs are below a directory: a run itself, the jobs of a study, or folders of both."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from litlab.errors import UserError
from litlab.runs.directory import RunDirectory
from litlab.sweep.study import FILE, RECORDS, Study

LEVELS = 2  # below the directory that is named: outputs/NAME/RUN


@dataclass(frozen=True)
class Found:
    """A run, and of a job the directory of its study and the values that were swept, as they were typed."""

    run: RunDirectory
    study: Path | None = None
    point: Mapping[str, str] = field(default_factory=dict)


def places(directory: Path, levels: int = LEVELS) -> Iterator[Path]:
    """The runs and studies at a directory, or up to so many levels below; links are not followed.

    Raises:
        OSError: if a directory can't be read.
    """
    if is_place(directory):
        yield directory
    elif levels:
        for below in folders(directory):
            yield from places(below, levels - 1)


def is_place(directory: Path) -> bool:
    """Whether it is a run or a study."""
    return (directory / "config.yaml").is_file() or (directory / FILE).is_file()


def folders(directory: Path) -> list[Path]:
    """Those in a directory, by name; links are left out.

    Raises:
        OSError: if it can't be read.
    """
    return [below for below in sorted(directory.iterdir()) if below.is_dir() and not below.is_symlink()]


def runs_at(place: Path) -> list[Found]:
    """The run at a place, or the jobs of the study there: what stands in a study beside its jobs, such as a job that
    was run again, is none of them.

    Raises:
        UserError: if the files of a study are damaged.
    """
    if (place / "config.yaml").is_file():
        return [Found(RunDirectory(place))]
    if (records := place / RECORDS).exists() and not records.is_file():
        raise UserError(f"{records} is damaged: it is no regular file")
    return [Found(run, place, record.point) for record, run in Study.look(place).jobs()]
