"""TensorBoard event files of a run, with its HParams session: hyperparameters, status, final metrics.

A session is two event files in the run directory whose names sort before and after those of the logger, so that a
reader has read all values of a run before its end. When a run is resumed, the file with its end is removed; the next
one gets another name, since TensorBoard's server never reads a file again that was gone. Even so it keeps the first
status that it read until it is restarted. A session names no group: each run is one of its own, so TensorBoard averages
no failed run with others.
"""

import io
import json
import logging
import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from litlab.config.identity import volatile_keys
from litlab.config.tree import config_key, get, lies_under
from litlab.runs.directory import RunDirectory
from litlab.runs.files import open_regular, write_atomic
from litlab.runs.redact import is_secret_key, redact
from litlab.runs.result import Result
from litlab.runs.state import RunStatus

if TYPE_CHECKING:
    from tensorboard.compat.proto.summary_pb2 import Summary  # type: ignore[import-untyped]

HParam = bool | float | str

PREFIX = "events.out.tfevents."  # TensorBoard reads files whose names contain "tfevents"
FIRST, LAST = PREFIX + "0" * 10, PREFIX + "9" * 10  # sort before and after the files that loggers append to
SESSION_START = FIRST + ".session"
MAX_FLOAT32 = 3.4e38  # TensorBoard stores values in single precision

_SESSION_ENDS = LAST + ".*.session"
_VERSION = "brain.Event:2"
_MAX_TEXT = 500  # characters of a hyperparameter
_LOGGER = "litlab.loggers.TensorBoard"
_log = logging.getLogger("litlab")


def start_session(run: RunDirectory, config: dict[str, Any]) -> None:
    """Write the start of the session of a run that starts or is resumed.

    A file that cannot be written is a warning, since the run can do without it.
    """
    if logs_to_tensorboard(config):
        _write(run.path / SESSION_START, [session_start_summary(session_hparams(run, config), time.time())], step=0)


def end_session(run: RunDirectory, config: dict[str, Any], result: Result) -> None:
    """Replace the end of the session of a run; write its start, too, if the run failed before it.

    A run that was interrupted or pruned neither succeeded nor failed: it gets no end, so that its status is unknown to
    TensorBoard, as that of a running one.
    """
    if not logs_to_tensorboard(config):
        return
    try:
        remove_session_end(run)
    except OSError as error:
        _warn(error)
    if not (result.status is RunStatus.COMPLETED or result.status.is_failure):
        return
    if not (run.path / SESSION_START).exists():
        start_session(run, config)
    file = run.path / _SESSION_ENDS.replace("*", str(time.time_ns()))
    _write(file, [_session_end_summary(result.status, time.time()), scalars(final_metrics(result))], result.steps)


def remove_session_end(run: RunDirectory) -> None:
    """Remove the end of the session of a run that is resumed.

    Raises:
        OSError: If it cannot be removed.
    """
    for file in run.path.glob(_SESSION_ENDS):
        file.unlink(missing_ok=True)


def logs_to_tensorboard(config: dict[str, Any]) -> bool:
    """Return whether a run logs to TensorBoard by litlab's logger."""
    loggers = config.get("logger")
    nodes = loggers.values() if isinstance(loggers, dict) else ()
    return any(isinstance(node, dict) and node.get("_target_") == _LOGGER for node in nodes)


def final_metrics(result: Result) -> dict[str, float]:
    """Return the finite final metrics by tag: `result/best/val/loss`, `result/last/val/loss`, `result/test/loss`.

    They have tags of their own, since curves may end in NaN and go on where a run failed; and one prefix, so that
    TensorBoard's page of scalars can fold them up.
    """
    parts = {"best": result.best, "last": result.last, "test": result.test}
    tags = {final_tag(part, name): value for part, values in parts.items() for name, value in values.items()}
    return {tag: value for tag, value in tags.items() if abs(value) <= MAX_FLOAT32}


def final_tag(part: str, metric: str) -> str:
    """Return the tag of a final metric, whose part is `best`, `last` or `test`."""
    return f"result/{part}/{metric.removeprefix('test/') if part == 'test' else metric}"


def session_hparams(run: RunDirectory, config: dict[str, Any]) -> dict[str, HParam]:
    """Return the hyperparameters of a run: what its study sweeps, or else what its command set, with the seed.

    The value of a config group is the name of the option that was chosen. Null is left out, since a cell can be blank
    but not null; so are secrets.

    Args:
        run: Directory of the run, with Hydra's record of the overrides.
        config: Frozen config, which holds no values of secrets.

    Returns:
        Value by key as it was typed.
    """
    overrides = _read_overrides(run)
    keys = get(config, "study.swept")
    swept = [str(key) for key in keys] if isinstance(keys, list) else []
    hparams = {}
    for key in swept or [*(key for key in overrides if not _is_volatile(key, config)), "seed"]:
        value = to_hparam(_value(config, key, overrides))
        if value is not None and not is_secret_key(config_key(key)):
            hparams[key.lstrip("+")] = value
    return hparams


def to_hparam(value: Any) -> HParam | None:
    """Convert a value to a type of the HParams page; None if it is null or cannot be written."""
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, int | float) and abs(value) < 1e308:  # the page's JSON has no infinity, nor longer numbers
        return value
    try:
        text = value if isinstance(value, str) else json.dumps(value, separators=(",", ":"), default=str)
    except (TypeError, ValueError, RecursionError):  # an untrusted config may contain itself
        return None
    return redact(text).encode(errors="replace").decode()[:_MAX_TEXT]


def session_start_summary(hparams: Mapping[str, HParam], start_time: float) -> "Summary":
    """Return the start of a session with its hyperparameters by key, at a time in seconds since 1970."""
    from tensorboard.plugins.hparams import metadata, plugin_data_pb2  # type: ignore[import-untyped]

    start = plugin_data_pb2.SessionStartInfo(start_time_secs=start_time)
    for key, value in hparams.items():
        name = "bool_value" if isinstance(value, bool) else "string_value" if isinstance(value, str) else "number_value"
        setattr(start.hparams[key], name, value)
    return _summary(metadata.SESSION_START_INFO_TAG, plugin_data_pb2.HParamsPluginData(session_start_info=start))


def _session_end_summary(status: RunStatus, end_time: float) -> "Summary":
    """Return the end of a session that succeeded (COMPLETED) or failed, at a time in seconds since 1970."""
    from tensorboard.plugins.hparams import api_pb2, metadata, plugin_data_pb2

    name = "STATUS_SUCCESS" if status is RunStatus.COMPLETED else "STATUS_FAILURE"
    end = plugin_data_pb2.SessionEndInfo(status=api_pb2.Status.Value(name), end_time_secs=end_time)
    return _summary(metadata.SESSION_END_INFO_TAG, plugin_data_pb2.HParamsPluginData(session_end_info=end))


def scalars(values: Mapping[str, float]) -> "Summary":
    """Return a point of several curves at one step; values are at most MAX_FLOAT32."""
    from tensorboard.compat.proto.summary_pb2 import Summary

    return Summary(value=[Summary.Value(tag=tag, simple_value=value) for tag, value in values.items()])


class LoggedSummary(NamedTuple):
    """A summary at a step, at a time in seconds since 1970."""

    summary: "Summary"
    step: int
    time: float


def write_events(file: Path, events: Iterable[LoggedSummary], *, sync: bool = True) -> None:
    """Write an event file atomically; the same input gives the same bytes.

    A file that has this content already is left alone, with its time of change.

    Args:
        file: Path whose name begins with PREFIX, in a directory that exists.
        events: Summaries in the order in which TensorBoard is to read them; at least one.
        sync: False for a file that need not outlive this process.

    Raises:
        OSError: If it cannot be written.
    """
    from tensorboard.compat.proto.event_pb2 import Event  # type: ignore[import-untyped]
    from tensorboard.summary.writer.record_writer import RecordWriter  # type: ignore[import-untyped]

    records = [Event(wall_time=event.time, step=event.step, summary=event.summary) for event in events]
    buffer = io.BytesIO()
    writer = RecordWriter(buffer)
    for record in (Event(wall_time=records[0].wall_time, file_version=_VERSION), *records):
        writer.write(record.SerializeToString(deterministic=True))
    content = buffer.getvalue()
    if not (file.is_file() and file.read_bytes() == content):
        write_atomic(file, lambda opened: opened.write(content), sync=sync)


def _summary(tag: str, content: Any) -> "Summary":
    from tensorboard.compat.proto.summary_pb2 import Summary
    from tensorboard.plugins.hparams import metadata

    plugin_metadata = metadata.create_summary_metadata(content)
    return Summary(value=[Summary.Value(tag=tag, metadata=plugin_metadata, tensor=metadata.NULL_TENSOR)])


def _write(file: Path, summaries: "list[Summary]", step: int) -> None:
    now = time.time()
    try:
        write_events(file, [LoggedSummary(summary, step, now) for summary in summaries])
    except OSError as error:
        _warn(error)


def _warn(error: OSError) -> None:
    file = error.filename2 or error.filename  # a rename has two; the second is the file that was to be written
    _log.warning("TensorBoard's HParams page will not be right: %s cannot be written: %s", file, error.strerror)


def _read_overrides(run: RunDirectory) -> dict[str, str]:
    """Return the overrides that Hydra recorded; nothing if the record is missing or damaged, since it is only shown."""
    import yaml

    try:
        with open_regular(run.path / ".hydra" / "overrides.yaml") as file:
            overrides = yaml.safe_load(file.read())
    except (OSError, ValueError, RecursionError, yaml.YAMLError):
        return {}
    pairs = [str(override).partition("=") for override in overrides] if isinstance(overrides, list) else []
    return {key.lstrip("+"): value for key, equals, value in pairs if equals and not key.startswith("~")}


def _is_volatile(key: str, config: dict[str, Any]) -> bool:
    """Return whether an override sets where a run computes and writes, as `trainer=gpu`, not what it computes."""
    path = config_key(key)
    return path == "trainer" or lies_under(path, *volatile_keys(get(config, "data._target_")), "hydra")


def _value(config: dict[str, Any], key: str, overrides: Mapping[str, str]) -> Any:
    """Return the value in the config, or the text of the override where there is a mapping or nothing."""
    value = get(config, config_key(key), {})
    return overrides.get(key.lstrip("+")) if isinstance(value, dict) else value
