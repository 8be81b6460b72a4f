"""The jobs of a multirun, composed, checked and frozen before the first starts; everything that is wrong at once."""

import sys
import time
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePath

from hydra.core.config_loader import ConfigLoader
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf, open_dict

from litlab.config.compose import Composer, in_users_words, plain_key, set_output_dir
from litlab.config.freeze import freeze_but_threads, hydra_record, identity
from litlab.config.secrets import with_secrets
from litlab.config.targets import foreign_problems
from litlab.config.tree import Config
from litlab.errors import UserError
from litlab.runs.redact import mask_command

_MOST_LINES = 20
_SOON = 2.0  # seconds: what takes less needs no progress bar


@dataclass(frozen=True)
class Point:
    """What is asked of one job.

    Attributes:
        overrides: in Hydra's grammar, fixed ones and swept ones.
        swept: the swept keys with their values as texts.
        number: of the job that the study has there already; None where it has none, or nobody has looked.
    """

    overrides: tuple[str, ...]
    swept: dict[str, str]
    number: int | None = None

    @classmethod
    def of(cls, overrides: Iterable[str], swept: Collection[str]) -> "Point":
        """Which of the overrides are swept is told by their keys, without plus."""
        pairs = [(plain_key(each.partition("=")[0]), each.partition("=")[2]) for each in overrides]
        return cls(tuple(overrides), {key: value for key, value in pairs if key in swept})

    def __str__(self) -> str:
        return " ".join(mask_command([f"{key}={value}" for key, value in self.swept.items()] or [*self.overrides]))


@dataclass(frozen=True)
class ComposedJob:
    """
    Attributes:
        overrides: of the task, as Hydra was given them.
        point: the swept keys with their values as texts.
        config: frozen, but `threads` is None where it was left open.
        identity: of the config.
        number: in the study; of a known identity its own, else the next free one.
        directory: its name inside the study; of a known identity its own, else as `hydra.sweep.subdir` says.
        hydra: file name -> text, for `.hydra/`.
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
    known: Mapping[str, tuple[int, str]],
    next_number: int,
    *,
    progress: bool,
) -> list[ComposedJob]:
    """Compose, check and freeze each point; writes nothing.

    Args:
        master: the config of the multirun, as Hydra gives it to a launcher.
        known: identity -> number and directory, of the jobs that the study has.
        next_number: the first free one.
        progress: whether to show a bar on a terminal.

    Returns:
        A job for each point; points that are the same experiment share one.

    Raises:
        UserError: with all that is wrong with any of them, each problem once.
    """
    composer = Composer(loader, master)
    problems, jobs = _Problems(points), _Numbered(known, next_number)
    before = HydraConfig.instance().cfg
    try:
        for index in _shown(len(points)) if progress else range(len(points)):
            try:
                jobs.add(_numbered(composer, points[index], known, jobs.next_number))
            except Exception as error:
                problems.add(index, error)
    finally:
        HydraConfig.instance().cfg = before
    problems.refuse_any()
    for index, lines in enumerate(foreign_problems([job.config for job in jobs.of_points])):
        problems.add_lines(index, lines)
    problems.refuse_any()
    return jobs.of_points


def _numbered(composer: Composer, point: Point, known: Collection[str], next_number: int) -> ComposedJob:
    """The job, with its known number where it comes out as before: its config may refer to the number."""
    if point.number is not None:
        job = _composed(composer, point, point.number)
        if job.identity in known:
            return job
    return _composed(composer, point, next_number)


def _composed(composer: Composer, point: Point, number: int) -> ComposedJob:
    """One job, as if it had this number."""
    composed = composer.compose(point.overrides)
    with open_dict(composed):
        composed.hydra.job.id = composed.hydra.job.num = number
    OmegaConf.get_cache(composed)["litlab.study"]["swept"] = list(point.swept)
    HydraConfig.instance().set_config(composed)
    directory = _inside(str(composed.hydra.sweep.subdir))
    set_output_dir(Path(composed.hydra.sweep.dir) / directory)
    with open_dict(composed):
        del composed["hydra"]
    config = freeze_but_threads(composed)
    config["study"]["swept"] = list(point.swept)
    with_secrets(config)  # the environment has them
    return ComposedJob(
        overrides=point.overrides,
        point=point.swept,
        config=config,
        identity=identity(config),
        number=number,
        directory=directory,
        hydra=hydra_record(composed),
    )


def _inside(directory: str) -> str:
    path = PurePath(directory)
    if path.is_absolute() or ".." in path.parts or not path.parts:
        raise UserError(f"hydra.sweep.subdir={directory}: expected a folder inside the study's")
    return directory


class _Numbered:
    """The jobs of the points so far. Points that are one experiment share a job; a known one keeps its number."""

    def __init__(self, known: Mapping[str, tuple[int, str]], next_number: int) -> None:
        self.next_number = next_number
        self.of_points: list[ComposedJob] = []
        self._known = known
        self._found: dict[str, ComposedJob] = {}
        self._taken = {directory for _, directory in known.values()}

    def add(self, job: ComposedJob) -> None:
        if job.identity in self._known:
            number, directory = self._known[job.identity]
            self._found[job.identity] = replace(job, number=number, directory=directory)
        elif job.identity not in self._found:
            if job.directory in self._taken:
                raise UserError(
                    f"hydra.sweep.subdir: two jobs would share the folder {job.directory}; "
                    "let it begin with ${hydra:job.num}"
                )
            self._taken.add(job.directory)
            self._found[job.identity] = job
            self.next_number += 1
        self.of_points.append(self._found[job.identity])


class _Problems:
    """What is wrong with jobs: each problem once, with the first job that has it and how many more do."""

    def __init__(self, points: Sequence[Point]) -> None:
        self._points = points
        self._found: dict[str, list[int]] = {}
        self._said: dict[str, str | None] = {}

    def add(self, index: int, error: Exception) -> None:
        """An error of one job; one that is no user's is raised."""
        if isinstance(error, UserError):
            self.add_lines(index, str(error).splitlines())
        elif (said := self._in_words(error, self._points[index].overrides)) is not None:
            self.add_lines(index, [said])
        else:
            raise error

    def add_lines(self, index: int, problems: Iterable[str]) -> None:
        for problem in problems:
            self._found.setdefault(problem, []).append(index)

    def refuse_any(self) -> None:
        """
        Raises:
            UserError: if there is any problem.
        """
        if not self._found:
            return
        lines = [self._told(problem, indices) for problem, indices in self._found.items()]
        more = len(lines) - _MOST_LINES
        raise UserError("\n".join(lines[:_MOST_LINES] + ([f"and {more} more problems"] if more > 0 else [])))

    def _told(self, problem: str, indices: list[int]) -> str:
        first, num_jobs = self._points[indices[0]], len(set(indices))
        if num_jobs == len(self._points):
            return problem
        more = f" and {num_jobs - 1} more" if num_jobs > 1 else ""
        return f"{problem} (in {num_jobs} of {len(self._points)} jobs: {first}{more})"

    def _in_words(self, error: Exception, overrides: Sequence[str]) -> str | None:
        """Looking up what was meant takes as long as composing: once for each error."""
        key = f"{error!r} {error.__cause__!r}"
        if key not in self._said:
            self._said[key] = in_users_words(error, list(overrides))
        return self._said[key]


def _shown(number: int) -> Iterator[int]:
    """Counts up; on a terminal with a bar, once it has taken a while."""
    started = time.monotonic()
    for done in range(number):
        if time.monotonic() - started > _SOON and sys.stderr.isatty():
            from rich.console import Console  # here, since few need it
            from rich.progress import track

            rest = range(done, number)
            console = Console(stderr=True)
            yield from track(
                rest, f"composing {number} jobs", total=number, completed=done, console=console, transient=True
            )
            return
        yield done


def located(points: Sequence[Point], known: Mapping[int, Sequence[str]], axes: Collection[str]) -> list[Point]:
    """The points with the numbers of the known jobs that have the same values of all axes.

    Args:
        known: number -> overrides, of the jobs that the study has.
        axes: that it has ever had; what was fixed may have become one.
    """
    keys = {*axes, *(key for point in points for key in point.swept)}
    numbers = {_values(overrides, keys): number for number, overrides in known.items()}
    return [replace(point, number=numbers.get(_values(point.overrides, keys))) for point in points]


def _values(overrides: Iterable[str], keys: Collection[str]) -> frozenset[tuple[str, str]]:
    return frozenset(Point.of(overrides, keys).swept.items())
