"""What TensorBoard's HParams page knows of a run: its settings, how it ended, and its final metrics.

A session is two event files of its own in the run directory, by their names the first and the last of all: who watches
has read all that a run logged before reading how it ended. When a run goes on, its end is removed; the next one has
another name, or TensorBoard's server, which gives up files that are gone, would not read it. Even so it keeps the first
status that it saw, until it is started again. A session names no group, so each run is one of its own, and a failed run
is averaged with no other.
"""

import io
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from litlab.runs.files import write_atomic
from litlab.runs.state import RunStatus

if TYPE_CHECKING:
    from tensorboard.compat.proto.summary_pb2 import Summary  # type: ignore[import-untyped]
import json
import logging
import time
from typing import TYPE_CHECKING, Any

from litlab.config.identity import VOLATILE
from litlab.config.tree import config_key, get, lies_under
from litlab.runs.directory import RunDirectory
from litlab.runs.files import open_regular
from litlab.runs.redact import is_secret, redact
from litlab.runs.result import Result

if TYPE_CHECKING:
    from tensorboard.compat.proto.summary_pb2 import Summary


PREFIX = "events.out.tfevents."  # TensorBoard takes files for its own whose names hold "tfevents"
FIRST, LAST = PREFIX + "0" * 10, PREFIX + "9" * 10  # before and after what runs append to
LARGEST = 3.4e38  # TensorBoard keeps single precision
_VERSION = "brain.Event:2"


class Logged(NamedTuple):
    """A summary at a step, at a time in seconds since 1970."""

    summary: "Summary"
    step: int
    time: float


def write_events(file: Path, logged: Iterable[Logged], *, sync: bool = True) -> bool:
    """Put an event file in place: whole, synced, in one moment; the same input gives the same bytes.

    The file is left alone, its time of change included, if it holds exactly that.

    Args:
        file: its name begins with PREFIX; its directory exists.
        logged: in the order in which TensorBoard is to see it; not empty.
        sync: False for a file that need not outlive this process.

    Returns:
        whether anything was written.

    Raises:
        OSError: if it can't be written.
    """
    content = _encoded(list(logged))
    if file.is_file() and file.read_bytes() == content:
        return False
    write_atomic(file, lambda opened: opened.write(content), sync=sync)
    return True


def scalar(tag: str, value: float) -> "Summary":
    """A point of a curve; up to LARGEST."""
    return scalars({tag: value})


def scalars(values: Mapping[str, float]) -> "Summary":
    """Points of several curves at one step."""
    from tensorboard.compat.proto.summary_pb2 import Summary

    return Summary(value=[Summary.Value(tag=tag, simple_value=value) for tag, value in values.items()])


def _encoded(logged: list[Logged]) -> bytes:
    from tensorboard.compat.proto.event_pb2 import Event  # type: ignore[import-untyped]
    from tensorboard.summary.writer.record_writer import RecordWriter  # type: ignore[import-untyped]

    buffer = io.BytesIO()
    writer = RecordWriter(buffer)
    events = [Event(wall_time=logged[0].time, file_version=_VERSION)]
    events += [Event(wall_time=each.time, step=each.step, summary=each.summary) for each in logged]
    for event in events:
        writer.write(event.SerializeToString(deterministic=True))
    return buffer.getvalue()


Setting = bool | float | str
_LONGEST = 500  # characters of a text


def settings_of(run: RunDirectory, config: dict[str, Any]) -> dict[str, Setting]:
    """Key as it was typed -> value: of a job what its study sweeps, of a single run what its command set, and the seed.

    A choice of a group is the name that was chosen. What is null is left out, since a cell can be blank, but not null;
    so are secrets.

    Args:
        config: the frozen config, which holds no values of secrets.
    """
    choices = _choices(run)
    study = config.get("study")
    keys = study.get("swept") if isinstance(study, dict) else None
    swept = [str(key) for key in keys] if isinstance(keys, list) else []
    found = {}
    for key in swept or [*(key for key in choices if not _is_elsewhere(key)), "seed"]:
        value = setting(_value(config, key, choices))
        if value is not None and not any(is_secret(part) for part in config_key(key).split(".")):
            found[key.lstrip("+")] = value
    return found


def _choices(run: RunDirectory) -> dict[str, str]:
    """Key -> text of the overrides that Hydra recorded; none if its record is gone or damaged: nothing rests on it."""
    import yaml

    try:
        with open_regular(run.path / ".hydra" / "overrides.yaml") as file:
            overrides = yaml.safe_load(file.read())
    except (OSError, ValueError, RecursionError, yaml.YAMLError):
        return {}
    pairs = [str(each).partition("=") for each in overrides] if isinstance(overrides, list) else []
    return {key.lstrip("+"): value for key, equals, value in pairs if equals and not key.startswith("~")}


def _is_elsewhere(key: str) -> bool:
    """Whether a key says where a run computes and writes, as `trainer=gpu` does, and not what it computes."""
    where = config_key(key)
    return where == "trainer" or lies_under(where, *VOLATILE, "hydra")


def _value(config: dict[str, Any], key: str, choices: dict[str, str]) -> Any:
    """The value in the config, or the text of the choice where there is a whole node or nothing."""
    value = get(config, config_key(key), {})
    return choices.get(key.lstrip("+")) if isinstance(value, dict) else value


def setting(value: Any) -> Setting | None:
    """A value in a type that the page knows; None if it is null, or nothing that can be written."""
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, int | float) and abs(value) < 1e308:  # the page's JSON has no infinity, nor longer numbers
        return value
    try:
        text = value if isinstance(value, str) else json.dumps(value, separators=(",", ":"), default=str)
    except (TypeError, ValueError, RecursionError):  # a stranger's config may hold itself
        return None
    return redact(text).encode(errors="replace").decode()[:_LONGEST]


START = FIRST + ".session"
_ENDS = LAST + ".*.session"
_LOGGER = "litlab.loggers.TensorBoard"
_log = logging.getLogger("litlab")


def start_session(run: RunDirectory, config: dict[str, Any]) -> None:
    """Tell of a run that starts or goes on. A file that can't be written is a warning: the run does without."""
    if is_shown(config):
        _write(run.path / START, [start_summary(settings_of(run, config), time.time())], step=0)


def end_session(run: RunDirectory, config: dict[str, Any], result: Result) -> None:
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
    if not (result.status is RunStatus.COMPLETED or result.status.is_failure):
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


def is_shown(config: dict[str, Any]) -> bool:
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


def end_summary(status: RunStatus, when: float) -> "Summary":
    """That a session ended, with a status of result.json that succeeded or failed."""
    from tensorboard.plugins.hparams import api_pb2, metadata, plugin_data_pb2

    success = "STATUS_SUCCESS" if status is RunStatus.COMPLETED else "STATUS_FAILURE"
    end = plugin_data_pb2.SessionEndInfo(status=api_pb2.Status.Value(success), end_time_secs=when)
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
