"""TensorBoard summary of a study, in `STUDY/summary/`.

Each group of runs gets a summary run with the mean over its seeds or folds and its interval (`val/accuracy/mean`,
`/lower`, `/upper`). The first one also holds the layout of the Custom Scalars page, with a margin chart for each
metric, and the columns of the HParams page: on their own these would be shown as a run without curves. The same study
gives the same bytes, and files that hold them already are not rewritten.
"""

import hashlib
import math
import sys
from collections import Counter
from collections.abc import Collection, Container, Iterable, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from statistics import fmean
from typing import TYPE_CHECKING

from litlab.compare.collect import collect
from litlab.compare.data_model import Run
from litlab.compare.data_model import Summary as MeanOfRuns  # TensorBoard has another Summary
from litlab.compare.grouping import define_groups, group_by_settings
from litlab.compare.metric_values import metric_table, test_counterpart
from litlab.compare.setting_names import SEED, numbered, short_names
from litlab.compare.summaries import summarize
from litlab.config.tree import config_key, lies_under
from litlab.errors import UserError
from litlab.runs.directory import RunDirectory
from litlab.runs.metrics import is_validation, iterate_rows
from litlab.runs.terminal import printable
from litlab.statistics.student_t import CONFIDENCE
from litlab.sweep.study import STUDY_FILE, Study
from litlab.tensorboard_session import (
    FIRST,
    MAX_FLOAT32,
    HParam,
    LoggedSummary,
    final_tag,
    logs_to_tensorboard,
    scalars,
    session_hparams,
    write_events,
)

if TYPE_CHECKING:
    from tensorboard.compat.proto.summary_pb2 import Summary  # type: ignore[import-untyped]
    from tensorboard.plugins.hparams.api_pb2 import HParamInfo  # type: ignore[import-untyped]

FOLDER = "summary"  # within a study
MEANS, LAYOUT, EXPERIMENT = FIRST + ".means", FIRST + ".layout", FIRST + ".experiment"
MANY_JOBS = 200  # from here on, it takes seconds
_CATEGORY = f"mean over seeds or folds with {100 * CONFIDENCE:.0f} % interval"
_MAX_NAME = 200  # bytes of the name of a folder
NUM_TICKED = 5  # columns of settings that the HParams page shows at once
_MAX_BOXES = 9  # values that the HParams page has boxes to tick for
_LAST_STEP = 1 << 53
Curves = dict[str, dict[int, MeanOfRuns]]  # metric -> optimizer step -> mean over runs with its interval


def update_summary(study: Path) -> None:
    """Update the summary of a study whose jobs log for TensorBoard; any error, also a bug, becomes a warning."""
    try:
        loaded = Study.load(study)
        if loaded.plan is not None and logs_to_tensorboard(loaded.plan.base):
            if (num_jobs := len(loaded.records)) >= MANY_JOBS:
                print(f"litlab: bringing TensorBoard's summary of {num_jobs:,} jobs up to date", file=sys.stderr)
            write_summaries(study)
    except Exception as error:
        message = str(error) if isinstance(error, UserError | OSError) else repr(error)
        print(f"litlab: TensorBoard's summary of {printable(str(study))} is not up to date: {message}", file=sys.stderr)


def write_summaries(study: Path) -> int:
    """Update the summary of a study, which may have ended, run, or be about to start.

    Groups of fewer than two completed runs get no summary run: they have no interval.

    Returns:
        Number of summary runs.

    Raises:
        UserError: If the directory is not a study, is damaged, or something else has the name of its summary.
        OSError: If the summary cannot be written.
    """
    loaded = Study.load(study)
    if loaded.plan is None:
        raise UserError(f"{study} is no study: it has no {STUDY_FILE}")
    runs, _ = collect([study])
    start, folder = _timestamp(loaded.plan.started), _make_folder(study / FOLDER)
    means: dict[str, Curves] = {}
    for name, members in _groups(runs).items():
        completed = [run for run in members if run.is_completed]
        if curves := _mean_curves(completed):
            means[name] = curves
            write_events(_make_folder(folder / name) / MEANS, _events(curves, completed, start))
    first = folder / next(iter(means), "")
    columns = experiment(_swept_settings(loaded), metric_columns(runs), start)
    write_events(first / EXPERIMENT, [LoggedSummary(columns, 0, start)])
    if means:
        objectives = {run.objective.metric for run in runs if run.objective is not None}
        metrics = {name for curves in means.values() for name in curves}
        layout = _margin_charts(sorted(metrics, key=lambda name: (name not in objectives, name)))
        write_events(first / LAYOUT, [LoggedSummary(layout, 0, start)])
    _remove_others(folder, {first / EXPERIMENT, first / LAYOUT, *(folder / name / MEANS for name in means)})
    return len(means)


def experiment(settings: Mapping[str, Collection[HParam]], metrics: Mapping[str, str], start: float) -> "Summary":
    """Return the columns of the HParams page, those of the most important settings first.

    Args:
        settings: Name -> values in the runs; none if they are not known yet.
        metrics: Tag -> display name; the page shows the first five at once.
        start: Start of the experiment, in seconds since 1970.
    """
    from tensorboard.compat.proto.summary_pb2 import Summary
    from tensorboard.plugins.hparams import api_pb2, metadata, plugin_data_pb2  # type: ignore[import-untyped]

    short, ordered = short_names(settings, settings), sorted(settings.items(), key=lambda item: _importance(*item))
    columns = api_pb2.Experiment(
        time_created_secs=start,
        hparam_infos=[
            _hparam(name, short[name], values, is_ticked=number < NUM_TICKED)
            for number, (name, values) in enumerate(ordered)
        ],
        metric_infos=[
            api_pb2.MetricInfo(name=api_pb2.MetricName(tag=tag), display_name=name) for tag, name in metrics.items()
        ],
    )
    about = metadata.create_summary_metadata(plugin_data_pb2.HParamsPluginData(experiment=columns))
    return Summary(value=[Summary.Value(tag=metadata.EXPERIMENT_TAG, metadata=about, tensor=metadata.NULL_TENSOR)])


def _importance(name: str, values: Collection[HParam]) -> tuple[bool, int]:
    """Return a key to sort settings by: what varies, and then learning rate, model, optimizer, others, seed."""
    key = config_key(name)
    parts = (key.rpartition(".")[2] == "lr", lies_under(key, "model"), lies_under(key, "optimizer"), key != SEED, True)
    return len(set(values)) == 1, parts.index(True)


def _hparam(name: str, short: str, values: Iterable[HParam], *, is_ticked: bool) -> "HParamInfo":
    """Describe a setting: boxes to tick for few values, a range for more numbers, a search field for more texts.

    Plain TensorBoard sorts columns by name, those that differ first, and ticks the first five. So only those that are
    to be ticked differ.
    """
    from tensorboard.plugins.hparams import api_pb2

    distinct = sorted(set(values), key=lambda value: (isinstance(value, str), value))
    num_bools, num_texts = (sum(isinstance(value, kind) for value in distinct) for kind in (bool, str))
    if not distinct or num_texts or 0 < num_bools < len(distinct):
        data_type = api_pb2.DATA_TYPE_STRING
    else:
        data_type = api_pb2.DATA_TYPE_BOOL if num_bools else api_pb2.DATA_TYPE_FLOAT64
    info = api_pb2.HParamInfo(name=name, display_name=short, type=data_type, differs=is_ticked and len(distinct) != 1)
    if info.type == api_pb2.DATA_TYPE_FLOAT64 and len(distinct) > _MAX_BOXES:
        info.domain_interval.min_value, info.domain_interval.max_value = distinct[0], distinct[-1]
    elif len(distinct) <= _MAX_BOXES:
        info.domain_discrete.extend(distinct)
    return info


def _margin_charts(metrics: Sequence[str]) -> "Summary":
    """Return a layout of the Custom Scalars page: `METRIC/mean` between `/lower` and `/upper` for each metric."""
    from tensorboard.compat.proto.summary_pb2 import Summary
    from tensorboard.compat.proto.tensor_pb2 import TensorProto  # type: ignore[import-untyped]
    from tensorboard.compat.proto.types_pb2 import DT_STRING  # type: ignore[import-untyped]
    from tensorboard.plugins.custom_scalar import layout_pb2, metadata  # type: ignore[import-untyped]

    margin, series = layout_pb2.MarginChartContent, layout_pb2.MarginChartContent.Series
    charts = [
        layout_pb2.Chart(
            title=metric,
            margin=margin(series=[series(value=f"{metric}/mean", lower=f"{metric}/lower", upper=f"{metric}/upper")]),
        )
        for metric in reversed(metrics)  # the page reverses them again
    ]
    layout = layout_pb2.Layout(category=[layout_pb2.Category(title=_CATEGORY, chart=charts)])
    tensor = TensorProto(dtype=DT_STRING, string_val=[layout.SerializeToString(deterministic=True)])
    about = metadata.create_summary_metadata()
    return Summary(value=[Summary.Value(tag=metadata.CONFIG_SUMMARY_TAG, metadata=about, tensor=tensor)])


def metric_columns(runs: Sequence[Run]) -> dict[str, str]:
    """Return tag -> display name of the final metrics, beginning with best, last and test of the usual objective."""
    table = metric_table(runs)
    objectives = [name for name, _ in Counter(run.objective.metric for run in runs if run.objective).most_common()]
    validated = sorted({metric for run in runs for metric in (*run.best, *run.last)} - set(objectives))
    tests = [test_counterpart(table[metric], table).name for metric in objectives]
    tests += sorted({metric for run in runs for metric in run.test} - set(tests))
    columns = [(part, metric) for metric in (*objectives, *validated) for part in ("best", "last")]
    columns[2:2] = [("test", metric) for metric in tests]
    return {final_tag(part, metric): metric if part == "test" else f"{part} {metric}" for part, metric in columns}


def _mean_curves(runs: Sequence[Run]) -> Curves:
    """Return the means of each metric at the steps at which every run has a finite value, if there are any.

    Runs without readable values in metrics.csv are left out; fewer than two runs have no interval, and no means.
    """
    of_runs = [(run, curves) for run in runs if (curves := _read_curves(run))]
    by_unit: dict[object, list[dict[str, dict[int, float]]]] = {}
    for run, curves in of_runs:  # the seeds of a fold are one value
        by_unit.setdefault(run.path if run.fold is None else run.fold, []).append(curves)
    if len(by_unit) < 2:
        return {}
    table = metric_table(runs)
    means: Curves = {}
    for name in of_runs[0][1]:
        values = [[curves.get(name, {}) for curves in members] for members in by_unit.values()]
        if steps := sorted(set.intersection(*(set(curve) for members in values for curve in members))):
            means[name] = {
                step: summarize([fmean(curve[step] for curve in members) for members in values], table[name])
                for step in steps
            }
    return means


def _read_curves(run: Run) -> dict[str, dict[int, float]]:
    """Read the validation values that TensorBoard can show."""
    curves: dict[str, dict[int, float]] = {}
    metrics = [metric for metric in run.last if is_validation(metric)]
    for row in iterate_rows(RunDirectory(run.path).metrics, metrics):
        if math.isfinite(row.value) and abs(row.value) <= MAX_FLOAT32 and row.step <= _LAST_STEP:
            curves.setdefault(row.metric, {})[row.step] = row.value
    return curves


def folder_name(text: str) -> str:
    """Return a readable folder name for a text; a long one is cut and gets a hash.

    An ellipsis becomes two dots: TensorBoard can't store which runs are ticked if a name is not in Latin-1.
    """
    name = "".join(character if character.isprintable() and character != "/" else "_" for character in text)
    name = name.replace("…", "..")
    if len(name.encode()) > _MAX_NAME:
        digest = hashlib.sha256(name.encode()).hexdigest()[:8]
        name = f"{name.encode()[: _MAX_NAME - 9].decode(errors='ignore')}_{digest}"
    return name if name.strip(". ") else f"_{name}"


def _timestamp(started: str) -> float:
    """Return seconds since 1970; 0 if the text is malformed."""
    try:
        return datetime.fromisoformat(started).timestamp()
    except (ValueError, OverflowError):
        return 0.0


def _make_folder(folder: Path) -> Path:
    """Make a folder for event files.

    Raises:
        UserError: If it is a run, or leads elsewhere.
    """
    if folder.is_symlink() or (folder.exists() and not folder.is_dir()) or (folder / "config.yaml").exists():
        raise UserError(f"{folder} has the name of TensorBoard's summary of the study; move it away")
    folder.mkdir(exist_ok=True)
    return folder


def _groups(runs: Sequence[Run]) -> dict[str, tuple[Run, ...]]:
    """Return the runs of each group by the name of its folder, which reads as its settings."""
    named: dict[str, tuple[Run, ...]] = {}
    for group in define_groups(group_by_settings(runs)).groups:
        named[numbered(folder_name(group.name), named)] = group.runs
    return named


def _events(curves: Curves, runs: Sequence[Run], start: float) -> list[LoggedSummary]:
    """Log the means with the times of a run of mean speed that started with the study."""
    speeds = [run.training_seconds / run.steps for run in runs if run.training_seconds and run.steps]
    seconds = sum(speeds) / len(speeds) if speeds else 0.0
    values: dict[int, dict[str, float]] = {}
    for metric, curve in curves.items():
        for step, value in curve.items():
            lower, upper = value.ends
            named = {f"{metric}/mean": value.mean, f"{metric}/lower": lower, f"{metric}/upper": upper}
            values.setdefault(step, {}).update(named)
    return [LoggedSummary(scalars(values[step]), step, start + step * seconds) for step in sorted(values)]


def _remove_others(folder: Path, kept: Container[Path]) -> None:
    """Remove files of groups that no longer exist, and those that moved to another summary run."""
    below = [entry for entry in folder.iterdir() if entry.is_dir() and not entry.is_symlink()]
    for directory in (*below, folder):
        for name in (MEANS, LAYOUT, EXPERIMENT):
            if directory / name not in kept:
                (directory / name).unlink(missing_ok=True)
        if not any(directory.iterdir()):
            directory.rmdir()


def _swept_settings(study: Study) -> dict[str, list[HParam]]:
    """Return the values of each swept key; configs of jobs that add no value are not read."""
    assert study.plan is not None
    values: dict[str, list[HParam]] = {key.lstrip("+"): [] for key in study.plan.axes} if not study.records else {}
    seen: set[tuple[str, str]] = set()
    for record, run in study.jobs():
        new = set(record.point.items()) - seen
        if not new:
            continue
        seen |= new
        try:
            settings = session_hparams(run, run.read_config())
        except UserError:
            continue  # collecting has reported it
        for key, value in settings.items():
            values.setdefault(key, []).append(value)
    return values
