"""What a study writes for TensorBoard as a whole, in `STUDY/summary/`.

A summary run for each group of runs, with the mean over its seeds and an interval (`val/accuracy/mean`, `/lower`,
`/upper`); a layout of the Custom Scalars page with a margin chart for each metric; and the columns of the HParams page.
These two stand in the first summary run, if there is one: on their own they would be a run without curves.
The same study gives the same bytes, and files that hold them already are left alone.
"""

import hashlib
import sys
from collections.abc import Container, Mapping, Sequence
from datetime import datetime
from pathlib import Path

from litlab.board.events import FIRST, Logged, scalars, write_events
from litlab.board.session import is_shown
from litlab.board.settings import Setting, settings_of
from litlab.compare.collect import collect
from litlab.compare.experiment import experiment, margin_charts, metric_columns
from litlab.compare.forming import form
from litlab.compare.mean_curves import Point, mean_curves
from litlab.compare.model import LEVEL, Run
from litlab.errors import UserError
from litlab.sweep.study import FILE, Plan, Study
from litlab.sweep.summary import printable

FOLDER = "summary"  # within a study
MEANS, LAYOUT, EXPERIMENT = FIRST + ".means", FIRST + ".layout", FIRST + ".experiment"
_CATEGORY = f"mean over seeds with {100 * LEVEL:.0f} % interval"
MANY_JOBS = 200  # from here on, it takes seconds
_LONGEST = 200  # bytes of the name of a folder


def write_summaries(study: Path) -> int:
    """Bring the summary of a study up to date, whether it has ended, runs, or is about to.

    Groups of fewer than two finished runs get no summary run: they have no interval, and the mean of one is the run.

    Returns:
        the number of summary runs.

    Raises:
        UserError: if it is no study, is damaged, or something else stands where its summary would.
        OSError: if it can't be written.
    """
    found = Study.look(study)
    if found.plan is None:
        raise UserError(f"{study} is no study: it has no {FILE}")
    runs, _ = collect([study])
    began, folder = _seconds(found.plan), _made(study / FOLDER)
    curves: dict[str, Mapping[str, Sequence[Point]]] = {}
    for name, members in _groups(runs).items():
        done = [run for run in members if run.word == "done"]
        if means := mean_curves(done):
            curves[name] = means
            write_events(_made(folder / name) / MEANS, _logged(means, done, began))
    first = folder / next(iter(curves), "")
    columns = experiment(_settings(found), metric_columns(runs), began)
    write_events(first / EXPERIMENT, [Logged(columns, 0, began)])
    if curves:
        write_events(first / LAYOUT, [Logged(margin_charts(_CATEGORY, _ordered(curves, runs)), 0, began)])
    _remove_others(folder, {first / EXPERIMENT, first / LAYOUT, *(folder / name / MEANS for name in curves)})
    return len(curves)


def tell_tensorboard(study: Path) -> None:
    """Bring the summary of a study up to date whose jobs log for TensorBoard.

    A study is as good without: whatever goes wrong, our own errors included, is said in a line.
    """
    try:
        found = Study.look(study)
        if found.plan is not None and is_shown(found.plan.base):
            if (num_jobs := len(found.records)) >= MANY_JOBS:
                print(f"litlab: bringing TensorBoard's summary of {num_jobs:,} jobs up to date", file=sys.stderr)
            write_summaries(study)
    except Exception as error:
        said = str(error) if isinstance(error, UserError | OSError) else repr(error)
        print(f"litlab: TensorBoard's summary of {printable(str(study))} is not up to date: {said}", file=sys.stderr)


def file_name(words: str) -> str:
    """A name for a folder that reads as the words do; it is cut where it would be too long."""
    name = "".join(character if character.isprintable() and character != "/" else "_" for character in words)
    if len(name.encode()) > _LONGEST:
        number = hashlib.sha256(name.encode()).hexdigest()[:8]
        name = f"{name.encode()[: _LONGEST - 9].decode(errors='ignore')}_{number}"
    return name if name.strip(". ") else f"_{name}"


def numbered(name: str, taken: Container[str]) -> str:
    """The name, or `NAME (2)` where it is taken."""
    number, free = 1, name
    while free in taken:
        number += 1
        free = f"{name} ({number})"
    return free


def _seconds(plan: Plan) -> float:
    """When the study began, since 1970; 0 if its file does not say so in our way."""
    try:
        return datetime.fromisoformat(plan.started).timestamp()
    except (ValueError, OverflowError):
        return 0.0


def _made(folder: Path) -> Path:
    """A folder for our event files.

    Raises:
        UserError: if it would be a run, or lead elsewhere.
    """
    if folder.is_symlink() or (folder.exists() and not folder.is_dir()) or (folder / "config.yaml").exists():
        raise UserError(f"{folder} is in the way: TensorBoard's summary of the study would stand there; move it away")
    folder.mkdir(exist_ok=True)
    return folder


def _groups(runs: Sequence[Run]) -> dict[str, tuple[Run, ...]]:
    """The name of a folder, which reads as what varies among the runs but for the seed -> the runs that are alike."""
    named: dict[str, tuple[Run, ...]] = {}
    for each in form(runs, (), None).members if runs else ():
        named[numbered(file_name(each.name), named)] = each.runs
    return named


def _logged(curves: Mapping[str, Sequence[Point]], runs: Sequence[Run], began: float) -> list[Logged]:
    """As if a run with the mean speed of these had begun with the study."""
    speeds = [run.training_seconds / run.steps for run in runs if run.training_seconds and run.steps]
    seconds = sum(speeds) / len(speeds) if speeds else 0.0
    values: dict[int, dict[str, float]] = {}
    for metric, points in curves.items():
        for point in points:
            named = (("mean", point.mean), ("lower", point.low), ("upper", point.high))
            values.setdefault(point.step, {}).update({f"{metric}/{what}": value for what, value in named})
    return [Logged(scalars(values[step]), step, began + step * seconds) for step in sorted(values)]


def _ordered(curves: Mapping[str, Mapping[str, Sequence[Point]]], runs: Sequence[Run]) -> list[str]:
    """The metrics of all groups, first those that runs are judged by."""
    judged = {run.objective.metric for run in runs if run.objective is not None}
    return sorted({name for means in curves.values() for name in means}, key=lambda name: (name not in judged, name))


def _remove_others(folder: Path, kept: Container[Path]) -> None:
    """What was written for groups that are there no more, or stands in another summary run now."""
    below = [each for each in folder.iterdir() if each.is_dir() and not each.is_symlink()]
    for place in (*below, folder):
        for name in (MEANS, LAYOUT, EXPERIMENT):
            if place / name not in kept:
                (place / name).unlink(missing_ok=True)
        if not any(place.iterdir()):
            place.rmdir()


def _settings(study: Study) -> dict[str, list[Setting]]:
    """What the study sweeps -> the values in its jobs; of jobs that add no value the config is not read."""
    assert study.plan is not None
    values: dict[str, list[Setting]] = {key.lstrip("+"): [] for key in study.plan.axes} if not study.records else {}
    seen: set[tuple[str, str]] = set()
    for record, run in study.jobs():
        new = set(record.point.items()) - seen
        if not new:
            continue
        seen |= new
        try:
            found = settings_of(run, run.read_config())
        except UserError:
            continue  # collecting has named it
        for key, value in found.items():
            values.setdefault(key, []).append(value)
    return values
