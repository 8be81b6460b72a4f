"""What TensorBoard's HParams page knows of a run: its settings, how it ended, and its final metrics.

A session is two event files of its own in the run directory, by their names the first and the last of all: who watches
has read all that a run logged before reading how it ended. When a run goes on, its end is removed; the next one has
another name, or TensorBoard's server, which gives up files that are gone, would not read it. Even so it keeps the first
status that it saw, until it is started again. A session names no group, so each run is one of its own, and a failed run
is averaged with no other.
"""

import logging
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from litlab.board.events import FIRST, LARGEST, LAST, Logged, scalar, write_events
from litlab.board.settings import Setting, settings_of
from litlab.runs.directory import RunDirectory
from litlab.runs.result import Result

if TYPE_CHECKING:
    from tensorboard.compat.proto.summary_pb2 import Summary  # type: ignore[import-untyped]

Config = dict[str, Any]
START = FIRST + ".session"
_ENDS = LAST + ".*.session"
_STATUSES = {"completed": "STATUS_SUCCESS", "failed": "STATUS_FAILURE", "refused": "STATUS_FAILURE"}
_LOGGER = "litlab.loggers.TensorBoard"
_log = logging.getLogger("litlab")


def start_session(run: RunDirectory, config: Config) -> None:
    """Tell of a run that starts or goes on. A file that can't be written is a warning: the run does without."""
    if is_shown(config):
        _write(run.path / START, [start_summary(settings_of(run, config), time.time())], step=0)


def end_session(run: RunDirectory, config: Config, result: Result) -> None:
    """Tell how a run ended, in place of what was told before; of one that never came to start, that it did as well.

    A run that was interrupted or pruned has neither succeeded nor failed: it has no end, and to TensorBoard its status
    is unknown, like that of a run at work.
    """
    if not is_shown(config):
        return
    try:
        forget_end(run)
    except OSError as error:
        _warn(error)
    if result.status not in _STATUSES:
        return
    if not (run.path / START).exists():
        start_session(run, config)
    scalars = [scalar(tag, value) for tag, value in final_metrics(result).items()]
    file = run.path / _ENDS.replace("*", str(time.time_ns()))
    _write(file, [end_summary(result.status, time.time()), *scalars], result.steps)


def forget_end(run: RunDirectory) -> None:
    """Remove what was told of an end, as the run goes on.

    Raises:
        OSError: if it can't be removed.
    """
    for file in run.path.glob(_ENDS):
        file.unlink(missing_ok=True)


def is_shown(config: Config) -> bool:
    """Whether the run logs for TensorBoard, and by litlab's logger."""
    loggers = config.get("logger")
    nodes = loggers.values() if isinstance(loggers, dict) else ()
    return any(isinstance(node, dict) and node.get("_target_") == _LOGGER for node in nodes)


def final_metrics(result: Result) -> dict[str, float]:
    """Tag -> value: `result/best/val/loss`, `result/last/val/loss`, `result/test/loss`; the finite ones.

    They have tags of their own, since curves may hold NaN, and go on where a run failed; in one group, which
    TensorBoard's page of scalars folds up.
    """
    tagged = {f"result/best/{name}": value for name, value in result.best.items()}
    tagged |= {f"result/last/{name}": value for name, value in result.last.items()}
    tagged |= {f"result/test/{name.removeprefix('test/')}": value for name, value in result.test.items()}
    return {tag: value for tag, value in tagged.items() if abs(value) <= LARGEST}


def start_summary(settings: dict[str, Setting], when: float) -> "Summary":
    """That a session with these settings started at a time in seconds since 1970."""
    from tensorboard.plugins.hparams import metadata, plugin_data_pb2  # type: ignore[import-untyped]

    start = plugin_data_pb2.SessionStartInfo(start_time_secs=when)
    for key, value in settings.items():
        kind = "bool_value" if isinstance(value, bool) else "string_value" if isinstance(value, str) else "number_value"
        setattr(start.hparams[key], kind, value)
    return _summary(metadata.SESSION_START_INFO_TAG, plugin_data_pb2.HParamsPluginData(session_start_info=start))


def end_summary(status: str, when: float) -> "Summary":
    """That a session ended, with a status of result.json that succeeded or failed."""
    from tensorboard.plugins.hparams import api_pb2, metadata, plugin_data_pb2

    end = plugin_data_pb2.SessionEndInfo(status=api_pb2.Status.Value(_STATUSES[status]), end_time_secs=when)
    return _summary(metadata.SESSION_END_INFO_TAG, plugin_data_pb2.HParamsPluginData(session_end_info=end))


def _summary(tag: str, content: Any) -> "Summary":
    from tensorboard.compat.proto.summary_pb2 import Summary
    from tensorboard.plugins.hparams import metadata

    described = metadata.create_summary_metadata(content)
    return Summary(value=[Summary.Value(tag=tag, metadata=described, tensor=metadata.NULL_TENSOR)])


def _write(file: Path, summaries: "list[Summary]", step: int) -> None:
    now = time.time()
    try:
        write_events(file, [Logged(summary, step, now) for summary in summaries])
    except OSError as error:
        _warn(error)


def _warn(error: OSError) -> None:
    file = error.filename2 or error.filename  # the second is where a temporary file was to go
    _log.warning("TensorBoard's HParams page will not be right: %s cannot be written: %s", file, error.strerror)
