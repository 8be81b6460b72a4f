"""A view for TensorBoard over several studies and single runs: folders of links, named so that they read as settings.

TensorBoard names a run by its folder, and takes one HParams experiment for all that it shows. So a folder of studies
gets a temporary directory in which every run has a folder with links to its event files, and a session that tells all
settings that vary over the whole: a run of a study that fixes what another sweeps shows its value. Nothing is
written into the studies, which may be a stranger's or read-only.
"""

import re
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path

from litlab.compare.collect import collect
from litlab.compare.grouping import form
from litlab.compare.hyperparameters import SEED, text
from litlab.compare.model import Run, Skipped
from litlab.compare.tensorboard import EXPERIMENT, FOLDER, experiment, file_name, metric_columns, numbered
from litlab.runs.diff import shown
from litlab.runs.result import Result
from litlab.runs.state import RunStatus
from litlab.tensorboard import (
    LAST,
    PREFIX,
    START,
    Logged,
    Setting,
    end_summary,
    final_metrics,
    scalar,
    setting,
    start_summary,
    write_events,
)

_END = LAST + ".view"
_DATED = re.compile(r"(\d{4}-\d\d-\d\d)_(\d\d)-(\d\d)-\d\d_\w+")  # as runs and multiruns without a name are called


class View:
    """The links to all runs below a directory.

    Attributes:
        skipped: what was damaged or none of ours when it was last looked at.
    """

    def __init__(self, directory: Path, place: Path) -> None:
        """`place`: an empty directory that the view is made in."""
        self.skipped: list[Skipped] = []
        self._directory, self._place = directory, place
        self._parents: dict[Path, Path] = {}  # of studies and of folders with single runs
        self._folders: dict[Path, Path] = {}  # of runs; the name that a run was given first stays
        self._taken: set[str] = set()
        self._columns: Path | None = (
            None  # the run that tells the columns: on their own they would be one without curves
        )

    def refresh(self) -> None:
        """Link what is new, and remove links to what is gone.

        Raises:
            OSError: if the view can't be written.
        """
        runs, self.skipped = collect([self._directory])
        for path in self._folders.keys() - {run.path for run in runs}:
            gone = self._folders.pop(path)
            shutil.rmtree(gone, ignore_errors=True)  # it never came to be if there were no events
            self._taken.discard(str(gone))
        if not runs:
            return
        hparams, names = _hparams(runs), _names(runs)
        for run in runs:
            if run.path not in self._folders:
                self._folders[run.path] = self._new_folder(run, names[run.path])
            self._link_run(run, hparams[run.path])
        for study in dict.fromkeys(run.study for run in runs if run.study is not None):
            self._link_summaries(study)
        self._tell_columns(runs, hparams)

    def _tell_columns(self, runs: Sequence[Run], hparams: Mapping[Path, Mapping[str, Setting]]) -> None:
        if self._columns is None or not self._columns.is_dir():
            self._columns = next((folder for run in runs if (folder := self._folders[run.path]).is_dir()), None)
        if self._columns is None:
            return
        values: dict[str, list[Setting]] = {}
        for settings in hparams.values():
            for key, value in settings.items():
                values.setdefault(key, []).append(value)
        columns = experiment(values, metric_columns(runs), 0.0)
        _write(self._columns / EXPERIMENT, [Logged(columns, 0, 0.0)])

    def _new_folder(self, run: Run, name: str) -> Path:
        """`STUDY/lr=0.1 seed=3`, `NAME/lr=0.1 2026-01-31 12:00`."""
        return self._free(self._parent(_above(run)) / file_name(name))

    def _parent(self, above: Path) -> Path:
        """The folder for the runs of a study, or of a folder."""
        if above not in self._parents:
            self._parents[above] = self._free(self._place / _below(above, self._directory))
        return self._parents[above]

    def _free(self, folder: Path) -> Path:
        """The folder, or one with a number if it is taken: by a study that began in the same minute, for one."""
        free = numbered(str(folder), self._taken)
        self._taken.add(free)
        return Path(free)

    def _link_run(self, run: Run, hparams: Mapping[str, Setting]) -> None:
        folder = self._folders[run.path]
        _link(run.path, folder, leave_out=START)
        if not folder.is_dir():
            return
        if not (folder / START).exists():
            began = (run.path / "config.yaml").stat().st_mtime
            _write(folder / START, [Logged(start_summary(dict(hparams), began), 0, began)])
        if any(run.path.glob(f"{LAST}*")) or not (run.status == RunStatus.COMPLETED or run.status.is_failure):
            (folder / _END).unlink(missing_ok=True)
        else:
            _write_end(run, folder / _END)

    def _link_summaries(self, study: Path) -> None:
        summaries, folder = study / FOLDER, self._parent(study) / FOLDER
        if summaries.is_dir() and not summaries.is_symlink():
            _link(summaries, folder, leave_out=EXPERIMENT)
            for below in summaries.iterdir():
                if below.is_dir() and not below.is_symlink():
                    _link(below, folder / below.name, leave_out=EXPERIMENT)


def _write(file: Path, logged: Sequence[Logged]) -> None:
    write_events(file, logged, sync=False)  # it goes with this process


def _write_end(run: Run, file: Path) -> None:
    """What runs write themselves, for one of a version of litlab that did not."""
    ended = (run.path / "result.json").stat().st_mtime
    status = run.status
    metrics = final_metrics(Result(status, "", best=dict(run.best), last=dict(run.last), test=dict(run.test)))
    summaries = [end_summary(status, ended), *(scalar(tag, value) for tag, value in metrics.items())]
    _write(file, [Logged(each, run.steps, ended) for each in summaries])


def _above(run: Run) -> Path:
    """The study, or the folder in which a single run stands."""
    return run.study if run.study is not None else run.path.parent


def _hparams(runs: Sequence[Run]) -> dict[Path, dict[str, Setting]]:
    """Of each run what varies over all of them, by its full name, and the seed."""
    found: dict[Path, dict[str, Setting]] = {}
    formed = form(runs)
    keys = {shown(label): key for label, key in formed.keys.items()}
    for members in formed.members:
        for run in members.runs:
            found[run.path] = {keys[label]: _typed(run, keys[label], said) for label, said in members.settings.items()}
            if (seed := setting(run.seed)) is not None:
                found[run.path][SEED] = seed
    return found


def _typed(run: Run, key: str, said: str) -> Setting:
    """The value itself where it is a number or a truth value and not what a study calls a choice."""
    value = setting(run.settings.get(key))
    return value if isinstance(value, bool | int | float) and text(value) == said else said


def _names(runs: Sequence[Run]) -> dict[Path, str]:
    """Of each run what varies within its study or folder; of single runs also when they began."""
    names = {}
    for above in dict.fromkeys(map(_above, runs)):
        beside = [run for run in runs if _above(run) == above]
        has_seeds = len({run.seed for run in beside}) > 1
        for members in form(beside).members:
            words = [f"{label}={said}" for label, said in members.settings.items()]
            for run in members.runs:
                seed = [f"{SEED}={run.seed}"] if has_seeds and run.seed is not None else []
                when = [_dated(run.path.name)] if run.study is None else []
                names[run.path] = " ".join([*words, *seed, *when]) or run.path.name
    return names


def _link(source: Path, folder: Path, *, leave_out: str) -> None:
    """Links in a folder to the event files of a directory; a folder without any is not made."""
    files = {file.name: file for file in source.glob(f"{PREFIX}*") if file.is_file() and file.name != leave_out}
    if files:
        folder.mkdir(parents=True, exist_ok=True)
    for link in folder.glob(f"{PREFIX}*"):
        if link.is_symlink() and link.name not in files:
            link.unlink()
    for name, file in files.items():
        if not (folder / name).is_symlink():
            (folder / name).symlink_to(file.resolve())


def _below(path: Path, directory: Path) -> Path:
    """Where a study, or the folder of a run, is below the directory that is shown; dates are written as such."""
    parts = path.relative_to(directory).parts if path.is_relative_to(directory) else ()
    parts = parts or (path.resolve().name,)
    return Path(*(file_name(_dated(part)) for part in parts))


def _dated(name: str) -> str:
    """`2026-01-31_12-00-00_ab12` -> `2026-01-31 12:00`."""
    found = _DATED.search(name)
    return name if found is None else name[: found.start()] + f"{found[1]} {found[2]}:{found[3]}" + name[found.end() :]
