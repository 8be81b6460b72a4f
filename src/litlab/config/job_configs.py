"""Job configs of a multirun: composed, checked and frozen before the first job starts."""

import sys
import time
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePath

from hydra.core.config_loader import ConfigLoader
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, open_dict

from litlab.config.ablation_changes import ABLATION
from litlab.config.compose import Composer, set_output_dir, set_swept_overrides
from litlab.config.freeze import freeze, hydra_record
from litlab.config.hydra_errors import explain_error
from litlab.config.identity import identity
from litlab.config.secrets import resolve_secrets
from litlab.config.targets import foreign_problems
from litlab.config.tree import Config, bare_key
from litlab.errors import UserError
from litlab.runs.redact import mask_command

_MAX_LINES = 20  # of an error message
_BAR_DELAY = 2.0  # seconds; composing that takes less shows no progress bar


@dataclass(frozen=True)
class Point:
    """Point of a grid or search space: fixed and swept overrides, the swept keys with their values as texts.

    Attributes:
        number: Number of the job that the study already has there; None if it has none, or that is not known.
    """

    overrides: tuple[str, ...]
    swept: dict[str, str]
    number: int | None = None

    @classmethod
    def of(cls, overrides: Iterable[str], swept: Collection[str]) -> "Point":
        """Return the point with overrides in Hydra's grammar; `swept` are the keys that vary, without plus."""
        pairs = [(bare_key(line.partition("=")[0]), line.partition("=")[2]) for line in overrides]
        return cls(tuple(overrides), {key: value for key, value in pairs if key in swept})

    def __str__(self) -> str:
        return " ".join(mask_command([f"{key}={value}" for key, value in self.swept.items()] or [*self.overrides]))


@dataclass(frozen=True)
class ComposedJob:
    """Job of a multirun that can be started.

    Attributes:
        point: Swept key -> value as text.
        config: Frozen config; `threads` is None where it was left open.
        number: Number in the study: that of the existing job with this identity, else the next free one.
        directory: Name inside the study: that of the existing job, else as `hydra.sweep.subdir` says.
        hydra: File name -> text, for `.hydra/`.
    """

    overrides: tuple[str, ...]
    point: dict[str, str]
    config: Config
    identity: str
    number: int
    directory: str
    hydra: dict[str, str]


def compose_jobs(
    loader: ConfigLoader,
    master: DictConfig,
    points: Sequence[Point],
    existing: Mapping[str, tuple[int, str]],
    next_number: int,
    *,
    progress: bool,
) -> list[ComposedJob]:
    """Compose, check and freeze the config of each point. Nothing is written.

    Args:
        loader: Hydra's config loader.
        master: Config of the multirun, as Hydra passes it to a launcher.
        points: Points to compose.
        existing: Identity -> number and directory of the jobs that the study has.
        next_number: First free number.
        progress: Whether to show a progress bar on a terminal.

    Returns:
        A job for each point. Points with the same identity share a job.

    Raises:
        UserError: With all problems of all jobs, each once.
    """
    composer = Composer(loader, master)
    problems, jobs = _Problems(points), _NumberedJobs(existing, next_number)
    before = HydraConfig.instance().cfg
    try:
        for index in _with_progress(len(points)) if progress else range(len(points)):
            try:
                jobs.add(_compose_numbered(composer, points[index], existing, jobs.next_number))
            except Exception as error:
                problems.add(index, error)
    finally:
        HydraConfig.instance().cfg = before
    problems.raise_any()
    for index, lines in enumerate(foreign_problems([job.config for job in jobs.by_point])):
        problems.add_lines(index, lines)
    problems.raise_any()
    return jobs.by_point


def match_existing_jobs(
    points: Sequence[Point], existing: Mapping[int, Sequence[str]], axes: Collection[str]
) -> list[Point]:
    """Return the points with the numbers of the existing jobs that have the same values on all axes.

    Args:
        points: Points of the multirun.
        existing: Number -> overrides of the jobs that the study has.
        axes: Keys that the study has ever swept; a key that was fixed may have become an axis.
    """
    keys = {*axes, *(key for point in points for key in point.swept)}

    def axis_values(overrides: Iterable[str]) -> frozenset[tuple[str, str]]:
        return frozenset(Point.of(overrides, keys).swept.items())

    numbers = {axis_values(overrides): number for number, overrides in existing.items()}
    return [replace(point, number=numbers.get(axis_values(point.overrides))) for point in points]


def _compose_numbered(composer: Composer, point: Point, existing: Collection[str], next_number: int) -> ComposedJob:
    """Compose a job with the number of its point if the study has that job, since a config may refer to its number."""
    if point.number is not None:
        job = _compose(composer, point, point.number)
        if job.identity in existing:
            return job
    return _compose(composer, point, next_number)


def _compose(composer: Composer, point: Point, number: int) -> ComposedJob:
    composed = composer.compose(point.overrides)
    with open_dict(composed):
        composed.hydra.job.id = composed.hydra.job.num = number
    set_swept_overrides(composed, list(point.swept))
    HydraConfig.instance().set_config(composed)
    directory = str(composed.hydra.sweep.subdir)
    path = PurePath(directory)
    if path.is_absolute() or ".." in path.parts or not path.parts:
        raise UserError(f"hydra.sweep.subdir={directory}: expected a folder inside the study's")
    set_output_dir(Path(composed.hydra.sweep.dir) / directory)
    with open_dict(composed):
        del composed["hydra"]
    config = freeze(composed, fill_threads=False)
    config["study"]["swept"] = [key for key in point.swept if key != ABLATION]  # a name is of no effect
    resolve_secrets(config)  # raises an error if the environment lacks one
    record = hydra_record(composed)
    return ComposedJob(point.overrides, point.swept, config, identity(config), number, directory, record)


class _NumberedJobs:
    """Jobs of the points so far. Points with one identity share a job; an existing job keeps its number."""

    def __init__(self, existing: Mapping[str, tuple[int, str]], next_number: int) -> None:
        self.next_number = next_number
        self.by_point: list[ComposedJob] = []
        self._existing = existing
        self._by_identity: dict[str, ComposedJob] = {}
        self._taken = {directory for _, directory in existing.values()}

    def add(self, job: ComposedJob) -> None:
        """Assign a number to a job; the same job of the study keeps its own."""
        if job.identity in self._existing:
            number, directory = self._existing[job.identity]
            self._by_identity[job.identity] = replace(job, number=number, directory=directory)
        elif job.identity not in self._by_identity:
            if job.directory in self._taken:
                raise UserError(
                    f"hydra.sweep.subdir: two jobs would share the folder {job.directory}; "
                    "let it begin with ${hydra:job.num}"
                )
            self._taken.add(job.directory)
            self._by_identity[job.identity] = job
            self.next_number += 1
        self.by_point.append(self._by_identity[job.identity])


class _Problems:
    """Problems of jobs: each once, with the first job that has it and the number of others."""

    def __init__(self, points: Sequence[Point]) -> None:
        self._points = points
        self._indices: dict[str, list[int]] = {}
        self._explained: dict[str, str | None] = {}

    def add(self, index: int, error: Exception) -> None:
        """Add an error of one job; raise one that the user can't mend."""
        if isinstance(error, UserError):
            self.add_lines(index, str(error).splitlines())
        elif (message := self._explain(error, self._points[index].overrides)) is not None:
            self.add_lines(index, [message])
        else:
            raise error

    def add_lines(self, index: int, problems: Iterable[str]) -> None:
        for problem in problems:
            self._indices.setdefault(problem, []).append(index)

    def raise_any(self) -> None:
        """Raise a UserError if there is any problem."""
        if not self._indices:
            return
        lines = [self._line(problem, indices) for problem, indices in self._indices.items()]
        more = len(lines) - _MAX_LINES
        raise UserError("\n".join(lines[:_MAX_LINES] + ([f"and {more} more problems"] if more > 0 else [])))

    def _line(self, problem: str, indices: list[int]) -> str:
        first, num_jobs = self._points[indices[0]], len(set(indices))
        if num_jobs == len(self._points):
            return problem
        more = f" and {num_jobs - 1} more" if num_jobs > 1 else ""
        return f"{problem} (in {num_jobs} of {len(self._points)} jobs: {first}{more})"

    def _explain(self, error: Exception, overrides: Sequence[str]) -> str | None:
        """Explain each error once: finding the nearest key takes as long as composing."""
        key = f"{error!r} {error.__cause__!r}"
        if key not in self._explained:
            self._explained[key] = explain_error(error, list(overrides))
        return self._explained[key]


def _with_progress(num_jobs: int) -> Iterator[int]:
    """Count up; on a terminal show a progress bar once it has taken a while."""
    started = time.monotonic()
    for index in range(num_jobs):
        if time.monotonic() - started > _BAR_DELAY and sys.stderr.isatty():
            from rich.console import Console  # slow to import, and rarely needed
            from rich.progress import track

            console = Console(stderr=True)
            jobs, text = range(index, num_jobs), f"composing {num_jobs} jobs"
            yield from track(jobs, text, total=num_jobs, completed=index, console=console, transient=True)
            return
        yield index
