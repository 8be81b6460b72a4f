"""What TensorBoard's HParams page is told of many runs at once, and the layout of its Custom Scalars page.

Without it the page would guess from the sessions of the runs: every scalar would be a column. It takes one experiment
for all that it is shown, so a study has one, and a folder of studies needs one of its own.
"""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from litlab.board.session import final_metrics
from litlab.board.settings import Setting
from litlab.compare.model import Run
from litlab.compare.settings import short_names
from litlab.runs.result import Result

if TYPE_CHECKING:
    from tensorboard.compat.proto.summary_pb2 import Summary  # type: ignore[import-untyped]
    from tensorboard.plugins.hparams.api_pb2 import HParamInfo  # type: ignore[import-untyped]

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
    (tag,) = final_metrics(Result("completed", "", **{part: {metric: 0.0}}))  # type: ignore[arg-type]
    return tag
