"""A view for TensorBoard over several studies and single runs: folders of links with names that read as settings.

TensorBoard names a run by its folder, and uses one HParams experiment for everything that it shows. So `litlab
tensorboard` on a folder of studies makes a temporary directory in which every run has a folder with links to its event
files, and a session with all settings that vary in the whole: a run of a study that fixes what another one sweeps shows
its value. Nothing is written into the studies, which may be read-only.
"""

import re
import shutil
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path

from litlab.compare.collect import collect
from litlab.compare.data_model import Run, Skipped
from litlab.compare.grouping import define_groups, group_by_settings
from litlab.compare.setting_names import FOLD, SEED, text
from litlab.compare.tensorboard_summary import EXPERIMENT, FOLDER, experiment, folder_name, metric_columns
from litlab.runs.terminal import format_value
from litlab.tensorboard_session import (
    PREFIX,
    SESSION_START,
    HParam,
    LoggedSummary,
    session_start_summary,
    to_hparam,
    write_events,
)

MAX_RUNS = 500  # with more, TensorBoard ticks none
MAX_NAME = 60  # characters of the name of a run, with its study
_MAX_PARENT = 34  # of them, of the study or folder
_DATED = re.compile(r"(\d{4}-\d\d-\d\d)_(\d\d)-(\d\d)-\d\d_\w+")  # names of runs and multiruns that were given none


class View:
    """Links to all runs below a directory.

    Attributes:
        skipped: Directories that could not be used at the last refresh.
        num_left_out: Number of older runs that were left out at the last refresh, of those that logged anything.
    """

    def __init__(self, directory: Path, folder: Path) -> None:
        """Start with an empty view.

        Args:
            directory: Directory of studies and runs.
            folder: Empty directory for the view.
        """
        self.skipped: list[Skipped] = []
        self.num_left_out = 0
        self._directory, self._folder = directory, folder
        self._parents: dict[Path, Path] = {}  # of studies and of folders with single runs
        self._folders: dict[Path, Path] = {}  # of runs, which keep the first name that they were given
        self._summaries: dict[Path, Path] = {}  # of groups of a study
        self._taken: set[str] = set()
        self._first: Path | None = None  # holds the columns, which on their own would be a run without curves

    def refresh(self) -> None:
        """Link new runs, and remove links to runs that are gone.

        Raises:
            OSError: If the view cannot be written.
        """
        all_runs, self.skipped = collect([self._directory])
        summaries = list(_summaries(dict.fromkeys(run.study for run in all_runs if run.study is not None)))
        runs = self._newest(all_runs, MAX_RUNS - len(summaries))
        for path in self._folders.keys() - {run.path for run in runs}:
            folder = self._folders.pop(path)
            shutil.rmtree(folder, ignore_errors=True)  # a run without events has no folder
            self._taken.discard(str(folder))
        if not runs:
            return
        hparams, names = _hparams(runs), _names(all_runs)
        for run in runs:
            if run.path not in self._folders:
                self._folders[run.path] = self._reserve(self._parent(_parent_of(run)), folder_name(names[run.path]))
            self._link_run(run, hparams[run.path])
        for study, group in summaries:
            if group not in self._summaries:
                self._summaries[group] = self._reserve(self._parent(study) / FOLDER, group.name)
            _link(group, self._summaries[group], leave_out=EXPERIMENT)
        self._write_columns(runs, hparams)

    def _newest(self, runs: Sequence[Run], limit: int) -> Sequence[Run]:
        """Return the runs that logged last, in their order; all of them if they are not too many."""
        self.num_left_out = 0
        if len(runs) <= limit:
            return runs
        times = _last_changes(file for run in runs for file in run.path.glob(f"{PREFIX}*"))
        self.num_left_out = max(len(times) - limit, 0)
        newest = set(sorted(times, key=lambda path: times[path])[-limit:])
        return [run for run in runs if run.path in newest]

    def _write_columns(self, runs: Sequence[Run], hparams: Mapping[Path, Mapping[str, HParam]]) -> None:
        if self._first is None or not self._first.is_dir():
            self._first = next((folder for run in runs if (folder := self._folders[run.path]).is_dir()), None)
        if self._first is None:
            return
        values: dict[str, list[HParam]] = {}
        for settings in hparams.values():
            for key, value in settings.items():
                values.setdefault(key, []).append(value)
        _write(self._first / EXPERIMENT, experiment(values, metric_columns(runs), 0.0))

    def _parent(self, original: Path) -> Path:
        """Return the folder for the runs of a study or of a folder."""
        if original not in self._parents:
            self._parents[original] = self._reserve(self._folder, _path_below(original, self._directory), _MAX_PARENT)
        return self._parents[original]

    def _reserve(self, parent: Path, name: str, max_length: int = MAX_NAME) -> Path:
        """Return a folder of this name, cut so that the whole is not too long, and numbered if it is taken.

        Args:
            parent: Folder in the view.
            name: Name, or path, below it.
            max_length: Characters of the path below the view.
        """
        below = parent.relative_to(self._folder)
        room = max_length - (len(f"{below}/") if below.parts else 0)
        number, end, free = 1, "", parent / _cut(name, room)
        while str(free) in self._taken:
            number += 1
            end = f" ({number})"
            free = parent / (_cut(name, room - len(end)) + end)
        self._taken.add(str(free))
        return free

    def _link_run(self, run: Run, hparams: Mapping[str, HParam]) -> None:
        folder = self._folders[run.path]
        _link(run.path, folder, leave_out=SESSION_START)
        if folder.is_dir() and not (folder / SESSION_START).exists():
            start = (run.path / "config.yaml").stat().st_mtime
            _write(folder / SESSION_START, session_start_summary(dict(hparams), start), start)


def _write(file: Path, summary: object, time: float = 0.0) -> None:
    write_events(file, [LoggedSummary(summary, 0, time)], sync=False)  # the view is temporary


def newest_runs(directory: Path) -> list[str]:
    """Return the names that TensorBoard gives the runs below a directory: means of studies, then the newest runs."""
    times = _last_changes(directory.rglob(f"{PREFIX}*"))
    folders = sorted(times, key=lambda folder: (folder.parent.name != FOLDER, -times[folder], folder))
    return [str(folder.relative_to(directory)) for folder in folders]


def _last_changes(files: Iterable[Path]) -> dict[Path, float]:
    """Return folder -> time at which values were last logged there, in seconds since 1970; 0 if there are none yet."""
    times: dict[Path, float] = {}
    for file in files:
        time = 0.0 if file.name in (SESSION_START, EXPERIMENT) else file.stat().st_mtime  # a view writes these itself
        times[file.parent] = max(times.get(file.parent, 0.0), time)
    return times


def _summaries(studies: Iterable[Path]) -> Iterator[tuple[Path, Path]]:
    """Yield the folders with the means of studies, each after its study; at most half of what can be shown."""
    groups = (
        (study, group)
        for study in studies
        if (study / FOLDER).is_dir() and not (study / FOLDER).is_symlink()
        for group in sorted((study / FOLDER).iterdir())
        if group.is_dir() and not group.is_symlink()
    )
    return islice(groups, MAX_RUNS // 2)


def _parent_of(run: Run) -> Path:
    """Return the study of a run, or the folder of a single run."""
    return run.study or run.path.parent


def _hparams(runs: Sequence[Run]) -> dict[Path, dict[str, HParam]]:
    """Return for each run the settings that vary over all runs, by full names, and seed and fold."""
    hparams: dict[Path, dict[str, HParam]] = {}
    grouping = define_groups(group_by_settings(runs))
    keys = {format_value(label): key for label, key in grouping.keys.items()}
    for group in grouping.groups:
        for run in group.runs:
            hparams[run.path] = {} if (seed := to_hparam(run.seed)) is None else {SEED: seed}
            if run.fold is not None:
                hparams[run.path][FOLD] = run.fold.number
            for label, shown in group.settings.items():
                value = to_hparam(run.settings.get(keys[label]))
                # A number or a truth value goes as itself, unless the study has a name for it.
                is_itself = isinstance(value, bool | int | float) and text(value) == shown
                hparams[run.path][keys[label]] = value if is_itself and value is not None else shown
    return hparams


def _names(runs: Sequence[Run]) -> dict[Path, str]:
    """Name each run by the settings that vary in its study or folder; a single run also by its start."""
    names = {}
    for parent in dict.fromkeys(map(_parent_of, runs)):
        siblings = [run for run in runs if _parent_of(run) == parent]
        has_seeds, has_folds = len({run.seed for run in siblings}) > 1, len({run.fold for run in siblings}) > 1
        for group in define_groups(group_by_settings(siblings)).groups:
            settings = [f"{label}={value}" for label, value in group.settings.items()]
            for run in group.runs:
                unit = [f"{SEED}={run.seed}"] if has_seeds and run.seed is not None else []
                if has_folds and run.fold is not None:
                    unit.append(f"fold={run.fold.number}")
                start = [_format_date(run.path.name)] if run.study is None else []
                names[run.path] = " ".join([*settings, *unit, *start]) or run.path.name
    return names


def _link(source: Path, folder: Path, *, leave_out: str) -> None:
    """Link the event files of a directory; without any, no folder is made."""
    files = {file.name: file for file in source.glob(f"{PREFIX}*") if file.is_file() and file.name != leave_out}
    if files:
        folder.mkdir(parents=True, exist_ok=True)
    for link in folder.glob(f"{PREFIX}*"):
        if link.is_symlink() and link.name not in files:
            link.unlink()
    for name, file in files.items():
        if not (folder / name).is_symlink():
            (folder / name).symlink_to(file.resolve())


def _cut(name: str, max_length: int) -> str:
    """Cut a name in its middle; the settings at its start and the seed or fold at its end tell runs apart."""
    if len(name) <= max_length:
        return name
    end = (max_length - 2) // 2
    return f"{name[: max_length - 2 - end]}..{name[-end:]}"


def _path_below(path: Path, directory: Path) -> str:
    """Return the path of a study or folder below the directory that is shown, with readable dates."""
    parts = path.relative_to(directory).parts if path.is_relative_to(directory) else ()
    parts = parts or (path.resolve().name,)
    return "/".join(folder_name(_format_date(part)) for part in parts)


def _format_date(name: str) -> str:
    """Return `2026-01-31 12:00` for `2026-01-31_12-00-00_ab12`."""
    match = _DATED.search(name)
    return name if match is None else name[: match.start()] + f"{match[1]} {match[2]}:{match[3]}" + name[match.end() :]
