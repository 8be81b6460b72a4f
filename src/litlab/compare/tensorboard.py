"""What a study writes for TensorBoard as a whole, in `STUDY/summary/`.

A summary run for each group of runs, with the mean over its seeds and an interval (`val/accuracy/mean`, `/lower`,
`/upper`); a layout of the Custom Scalars page with a margin chart for each metric; and the columns of the HParams page.
These two stand in the first summary run, if there is one: on their own they would be a run without curves.
The same study gives the same bytes, and files that hold them already are left alone.
"""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from litlab.compare.hyperparameters import short_names
from litlab.compare.model import Run
from litlab.runs.result import Result
from litlab.runs.state import RunStatus
from litlab.tensorboard import Setting, final_metrics

if TYPE_CHECKING:
    from tensorboard.compat.proto.summary_pb2 import Summary  # type: ignore[import-untyped]
    from tensorboard.plugins.hparams.api_pb2 import HParamInfo  # type: ignore[import-untyped]
import hashlib
import sys
from collections.abc import Container
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from litlab.compare.collect import collect
from litlab.compare.grouping import form
from litlab.compare.metric_values import rows_of
from litlab.compare.model import LEVEL
from litlab.compare.statistics import summarize
from litlab.errors import UserError
from litlab.runs.terminal import printable
from litlab.sweep.study import STUDY_FILE, Plan, Study
from litlab.tensorboard import FIRST, LARGEST, Logged, is_shown, scalars, settings_of, write_events

_MOST_BOXES = 9  # values that the page has boxes to tick for


def experiment(settings: Mapping[str, Iterable[Setting]], metrics: Mapping[str, str], time: float) -> "Summary":
    """The columns of the HParams page.

    Args:
        settings: name -> the values that it takes in the runs; none if they are not known yet.
        metrics: tag -> what to call it; the page shows the first five at once.
        time: when it began, in seconds since 1970.
    """
    from tensorboard.compat.proto.summary_pb2 import Summary
    from tensorboard.plugins.hparams import api_pb2, metadata, plugin_data_pb2  # type: ignore[import-untyped]

    short = short_names(settings, settings)
    found = api_pb2.Experiment(
        time_created_secs=time,
        hparam_infos=[_hparam(name, short[name], values) for name, values in settings.items()],
        metric_infos=[
            api_pb2.MetricInfo(name=api_pb2.MetricName(tag=tag), display_name=shown) for tag, shown in metrics.items()
        ],
    )
    about = metadata.create_summary_metadata(plugin_data_pb2.HParamsPluginData(experiment=found))
    return Summary(value=[Summary.Value(tag=metadata.EXPERIMENT_TAG, metadata=about, tensor=metadata.NULL_TENSOR)])


def _hparam(name: str, short: str, values: Iterable[Setting]) -> "HParamInfo":
    """With boxes to tick for a few values, a range for more numbers, a search field for more texts."""
    from tensorboard.plugins.hparams import api_pb2

    distinct = sorted(set(values), key=lambda value: (isinstance(value, str), value))
    info = api_pb2.HParamInfo(name=name, display_name=short, type=_type(distinct), differs=len(distinct) != 1)
    if info.type == api_pb2.DATA_TYPE_FLOAT64 and len(distinct) > _MOST_BOXES:
        info.domain_interval.min_value, info.domain_interval.max_value = distinct[0], distinct[-1]
    elif len(distinct) <= _MOST_BOXES:
        info.domain_discrete.extend(distinct)
    return info


def _type(values: Sequence[Setting]) -> Any:
    from tensorboard.plugins.hparams import api_pb2

    if values and all(isinstance(value, bool) for value in values):
        return api_pb2.DATA_TYPE_BOOL
    if values and all(isinstance(value, int | float) and not isinstance(value, bool) for value in values):
        return api_pb2.DATA_TYPE_FLOAT64
    return api_pb2.DATA_TYPE_STRING


def margin_charts(category: str, metrics: Sequence[str]) -> "Summary":
    """A layout of the Custom Scalars page: a chart of `METRIC/mean` between `/lower` and `/upper` for each metric.

    `metrics` are in the order in which they are to be shown; the page turns that of a layout around.
    """
    from tensorboard.compat.proto.summary_pb2 import Summary
    from tensorboard.compat.proto.tensor_pb2 import TensorProto  # type: ignore[import-untyped]
    from tensorboard.compat.proto.types_pb2 import DT_STRING  # type: ignore[import-untyped]
    from tensorboard.plugins.custom_scalar import layout_pb2, metadata  # type: ignore[import-untyped]

    charts = [
        layout_pb2.Chart(
            title=metric,
            margin=layout_pb2.MarginChartContent(
                series=[
                    layout_pb2.MarginChartContent.Series(
                        value=f"{metric}/mean", lower=f"{metric}/lower", upper=f"{metric}/upper"
                    )
                ]
            ),
        )
        for metric in reversed(metrics)
    ]
    layout = layout_pb2.Layout(category=[layout_pb2.Category(title=category, chart=charts)])
    tensor = TensorProto(dtype=DT_STRING, string_val=[layout.SerializeToString(deterministic=True)])
    about = metadata.create_summary_metadata()
    return Summary(value=[Summary.Value(tag=metadata.CONFIG_SUMMARY_TAG, metadata=about, tensor=tensor)])


def metric_columns(runs: Sequence[Run]) -> dict[str, str]:
    """The final metrics of runs: tag -> what to call it. First best, last and test of what most are judged by."""
    objectives = [name for name, _ in Counter(run.objective.metric for run in runs if run.objective).most_common()]
    validated = sorted({metric for run in runs for metric in (*run.best, *run.last)} - set(objectives))
    tests = [metric.replace("val/", "test/", 1) for metric in objectives]
    tests += sorted({metric for run in runs for metric in run.test} - set(tests))
    columns = [(part, metric) for metric in (*objectives, *validated) for part in ("best", "last")]
    columns[2:2] = [("test", metric) for metric in tests]
    return {_tag(part, metric): metric if part == "test" else f"{part} {metric}" for part, metric in columns}


def _tag(part: str, metric: str) -> str:
    """Under which a session has a final metric."""
    (tag,) = final_metrics(Result(RunStatus.COMPLETED, "", **{part: {metric: 0.0}}))  # type: ignore[arg-type]
    return tag


_LAST_STEP = 1 << 53
Curves = Mapping[str, Mapping[int, float]]  # metric -> optimizer step -> value


@dataclass(frozen=True)
class Point:
    """After `step` optimizer steps: the mean over the runs and its interval at `litlab.compare.model.LEVEL`."""

    step: int
    mean: float
    low: float
    high: float


def mean_curves(runs: Sequence[Run]) -> dict[str, list[Point]]:
    """Metric -> its points, at the steps at which every run has a finite value; metrics without one are left out.

    A run whose metrics.csv is missing or damaged takes no part; of fewer than two there is no interval, and nothing.
    """
    found = [curves for run in runs if (curves := _read(run))]
    if len(found) < 2:
        return {}
    points = {metric: _points([curves[metric] for curves in found]) for metric in _shared(found)}
    return {metric: each for metric, each in points.items() if each}


def _shared(found: Sequence[Curves]) -> list[str]:
    return [metric for metric in found[0] if all(metric in curves for curves in found)]


def _points(curves: Sequence[Mapping[int, float]]) -> list[Point]:
    points = []
    for step in sorted(set.intersection(*map(set, curves))):
        summary = summarize([curve[step] for curve in curves], "max")
        assert summary.low is not None
        assert summary.high is not None
        points.append(Point(step, summary.mean, summary.low, summary.high))
    return points


def _read(run: Run) -> dict[str, dict[int, float]]:
    """The values of the validation that TensorBoard can show; {} for a file that can't be read."""
    curves: dict[str, dict[int, float]] = {}
    for row in rows_of(run, [metric for metric in run.last if metric.startswith("val/")]):
        if abs(row.value) <= LARGEST and 0 <= row.step <= _LAST_STEP:
            curves.setdefault(row.metric, {})[row.step] = row.value
    return curves


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
    found = Study.load(study)
    if found.plan is None:
        raise UserError(f"{study} is no study: it has no {STUDY_FILE}")
    runs, _ = collect([study])
    began, folder = _seconds(found.plan), _made(study / FOLDER)
    curves: dict[str, Mapping[str, Sequence[Point]]] = {}
    for name, members in _groups(runs).items():
        done = [run for run in members if run.status == RunStatus.COMPLETED]
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
        found = Study.load(study)
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
    for each in form(runs).members if runs else ():
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
