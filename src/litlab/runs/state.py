"""The status of a run, read from its files while others write them; the files may be untrusted."""

import math
import time
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from litlab.errors import UserError
from litlab.runs.directory import RunDirectory
from litlab.runs.heartbeat import STALE_AFTER, STALLED_AFTER, Heartbeat, file_system_time, heartbeat_time
from litlab.runs.lock import LockOwner
from litlab.runs.progress import Progress, ProgressReader
from litlab.runs.terminal import format_clock

_NESTED_PHASES = ("training", "saving")  # of the seconds in result.json: parts of another phase


class RunStatus(StrEnum):
    """Status of a run, as it stands in result.json and as every command shows it.

    Attributes:
        QUEUED: No process has worked at it yet.
        RUNNING: Its process is alive.
        COMPLETED: All epochs and the test are complete.
        FAILED: It ended with an error.
        KILLED: Its process was ended by SIGKILL, for example when memory ran out.
        CRASHED: Its process was ended by another signal, such as a segmentation fault.
        TIMED_OUT: It was stopped at its time limit.
        INTERRUPTED: It was stopped by a signal, or its process ended without a result; it can be resumed.
        CANCELLED: It was withdrawn before it started.
        LOST: Its process on another host no longer renews the heartbeat.
        DIVERGED: Its loss is no finite number any more.
        PRUNED: It was stopped by the search, since other trials were better.
        REFUSED: Its config or data were rejected before the training.
        UNKNOWN: Its files do not say.
    """

    QUEUED = "queued"
    RUNNING = "running"
    COMPLETED = "completed"
    FAILED = "failed"
    KILLED = "killed"
    CRASHED = "crashed"
    TIMED_OUT = "timed_out"
    INTERRUPTED = "interrupted"
    CANCELLED = "cancelled"
    LOST = "lost"
    DIVERGED = "diverged"
    PRUNED = "pruned"
    REFUSED = "refused"
    UNKNOWN = "unknown"

    @property
    def label(self) -> str:
        """Status as it is printed: `timed out`."""
        return self.value.replace("_", " ")

    @property
    def is_failure(self) -> bool:
        """True if it ended without a result for a reason that nobody asked for."""
        return self in _FAILURES

    @property
    def is_final(self) -> bool:
        """True if no process works at it, or will without another command."""
        return self not in (RunStatus.QUEUED, RunStatus.RUNNING, RunStatus.UNKNOWN)


_FAILURES = frozenset(
    {
        RunStatus.FAILED,
        RunStatus.KILLED,
        RunStatus.CRASHED,
        RunStatus.TIMED_OUT,
        RunStatus.LOST,
        RunStatus.DIVERGED,
        RunStatus.REFUSED,
    }
)
_FINAL = {status.value: status for status in RunStatus if status.is_final}


@dataclass(frozen=True)
class RunState:
    """State of a run.

    Attributes:
        status: Status.
        message: Reason why it is not completed; its first line is enough for a table.
        objective: Best value of a completed run, last value of another; None if there is none.
        seconds: Duration, of a running one so far; None if unknown.
        progress: Progress of a run that has begun and has no result; None for others.
    """

    status: RunStatus
    message: str = ""
    objective: float | None = None
    seconds: float | None = None
    progress: Progress | None = None


def read_state(run: RunDirectory) -> RunState:
    """Read the state of a run. Files that are damaged or cannot be read are reported in the message."""
    try:
        return _read_state(run)
    except OSError as error:
        return RunState(RunStatus.FAILED, f"{error.filename or run.path}: {error.strerror}")


def _read_state(run: RunDirectory) -> RunState:
    try:
        return state_from_result(run.read_json(run.result))
    except UserError as error:
        if run.result.exists():
            return RunState(RunStatus.FAILED, str(error))
    owner = LockOwner.read(run.path)
    if owner is not None and (owner.is_alive() or not owner.is_local):
        return _owned(run, owner)
    if run.metrics.exists() or run.checkpoints.exists():
        return _unfinished(run, RunStatus.INTERRUPTED, "its process is gone", None)
    return RunState(RunStatus.QUEUED)


def _owned(run: RunDirectory, owner: LockOwner) -> RunState:
    """Return the state of a run whose owner is alive, or on another host."""
    now = time.time() if owner.is_local else file_system_time(run.path)
    renewed = heartbeat_time(run)
    if renewed is None or renewed < owner.since:  # none yet, or that of an earlier process
        renewed, beat = owner.since, None
    else:
        beat = Heartbeat.read(run)
    silence, message = now - renewed, ""
    if silence > STALE_AFTER and not owner.is_local:
        return _unfinished(run, RunStatus.LOST, f"no heartbeat from {owner} for {format_clock(silence)}", None)
    if beat is not None and silence > STALE_AFTER:
        message = f"no heartbeat for {format_clock(silence)}"
    elif beat is not None and renewed - beat.time > STALLED_AFTER:
        message = f"no progress for {format_clock(renewed - beat.time)}"
    return _unfinished(run, RunStatus.RUNNING, message, max(now - owner.since, 0.0))


def _unfinished(run: RunDirectory, status: RunStatus, message: str, seconds: float | None) -> RunState:
    try:
        reader = ProgressReader(run, run.read_config())
        reader.read()
    except (UserError, OSError) as error:
        return RunState(status, str(error), None, seconds)
    return RunState(status, message, reader.progress.objective, seconds, reader.progress)


def state_from_result(result: Any) -> RunState:
    """Return the state of a run that has ended.

    Args:
        result: Content of its result.json, which may be untrusted.
    """
    content = result if isinstance(result, dict) else {}
    status = _FINAL.get(_text(content.get("status")))
    if status is None:
        return RunState(RunStatus.FAILED, "result.json does not say how it ended")
    seconds = content.get("seconds")
    phases = seconds.items() if isinstance(seconds, dict) else ()
    known = [number for name, value in phases if name not in _NESTED_PHASES and (number := _number(value)) is not None]
    message = "" if status is RunStatus.COMPLETED else _text(content.get("error"))
    return RunState(status, message, _number(content.get("objective")), sum(known) if known else None)


def _text(value: Any) -> str:
    return value if isinstance(value, str) else ""  # other values may be too deeply nested to be formatted


def _number(value: Any) -> float | None:
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return float(value) if is_number and abs(value) < 1e300 and math.isfinite(value) else None
