"""Event files for TensorBoard that are written once and whole, without torch and without TensorFlow.

TensorBoard reads the event files of a directory in the order of their names, and goes on to the next one when one has
no more to say. So the files here are complete when they appear, and their names say where they stand among those that
a run appends to, which go by the seconds since 1970.
"""

import io
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from litlab.runs.files import write_atomic

if TYPE_CHECKING:
    from tensorboard.compat.proto.summary_pb2 import Summary  # type: ignore[import-untyped]

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
