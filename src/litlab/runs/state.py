"""The status of a run, read from its files while others write them; the files may be untrusted."""

import math
import os
import re
import socket
import time
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any

from litlab.errors import UserError
from litlab.runs.directory import RunDirectory, open_regular
from litlab.runs.progress import Progress, ProgressReader

_COUNTED_TWICE = ("training", "saving")  # of the seconds in result.json: they are within another phase
_OWNER = re.compile(r"process (\d{1,9}) on (.*)")
_CLOCK_CHANGES = 60  # seconds that a process may seem to have started after it wrote its name down


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
    lock = run.path / ".lock"
    if is_owned(lock):
        return _unfinished(run, RunStatus.RUNNING, "", time.time() - lock.stat().st_mtime)
    if run.metrics.exists() or run.checkpoints.exists():
        return _unfinished(run, RunStatus.INTERRUPTED, "its process is gone", None)
    return RunState(RunStatus.QUEUED)


def _unfinished(run: RunDirectory, status: RunStatus, message: str, seconds: float | None) -> RunState:
    try:
        reader = ProgressReader(run, run.read_config())
        reader.read()
    except (UserError, OSError) as error:
        return RunState(status, str(error), None, seconds)
    return RunState(status, message, reader.progress.objective, seconds, reader.progress)


def is_owned(lock: Path) -> bool:
    """Whether the process that a lock file names is alive on this machine.

    The lock itself is left alone: to try it would keep it from a process that starts now.
    """
    try:
        with open_regular(lock) as file:
            found = _OWNER.fullmatch(file.read().decode(errors="replace").strip())
            since = os.fstat(file.fileno()).st_mtime
        return found is not None and found[2] == socket.gethostname() and _is_alive(int(found[1]), since)
    except OSError:
        return False


def _is_alive(pid: int, since: float) -> bool:
    """Whether it runs, and ran at `since`: numbers are used again. A zombie is dead."""
    if not Path("/proc/self/stat").exists():  # no Linux
        return _exists(pid)
    try:
        fields = Path(f"/proc/{pid}/stat").read_text(errors="replace").rpartition(")")[2].split()
        up = float(Path("/proc/uptime").read_text().split()[0])
    except (OSError, ValueError):
        return False
    started = time.time() - up + int(fields[19]) / os.sysconf("SC_CLK_TCK")
    return fields[0] not in "ZX" and started < since + _CLOCK_CHANGES


def _exists(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except OSError:  # somebody else's
        return True
    return True


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
    known = [number for name, value in phases if name not in _COUNTED_TWICE and (number := _number(value)) is not None]
    message = "" if status is RunStatus.COMPLETED else _text(content.get("error"))
    return RunState(status, message, _number(content.get("objective")), sum(known) if known else None)


def _text(value: Any) -> str:
    """Of a text itself; what else there may be can be too deeply nested to be shown."""
    return value if isinstance(value, str) else ""


def _number(value: Any) -> float | None:
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return float(value) if is_number and abs(value) < 1e300 and math.isfinite(value) else None
