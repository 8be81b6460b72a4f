"""In what state a run is, from its files alone: read while others write them, and whoever has made them."""

import math
import os
import re
import socket
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from litlab.errors import UserError
from litlab.runs.directory import RunDirectory, open_regular
from litlab.runs.progress import Follower, Progress

Word = Literal["done", "running", "failed", "refused", "interrupted", "pruned", "waiting"]
_OF_STATUS: dict[str, Word] = {
    "completed": "done",
    "failed": "failed",
    "refused": "refused",
    "interrupted": "interrupted",
    "pruned": "pruned",
}
_COUNTED_TWICE = ("training", "saving")  # of the seconds in result.json: they are within another phase
_OWNER = re.compile(r"process (\d{1,9}) on (.*)")
_CLOCK_CHANGES = 60  # seconds that a process may seem to have started after it wrote its name down


@dataclass(frozen=True)
class State:
    """
    Attributes:
        word: `waiting` for a run that no process has worked at yet.
        message: why it is not done; its first line is enough for a table.
        objective: of a finished run its best value, of another the last one.
        seconds: that it took, of a running one so far; None if unknown.
        progress: of a run that is not finished but has begun.
    """

    word: Word
    message: str = ""
    objective: float | None = None
    seconds: float | None = None
    progress: Progress | None = None


def state_of(run: RunDirectory) -> State:
    """Read the state; what can't be read or is damaged is said in the message."""
    try:
        return _state_of(run)
    except OSError as error:
        return State("failed", f"{error.filename or run.path}: {error.strerror}")


def _state_of(run: RunDirectory) -> State:
    try:
        return ended(run.read_json(run.result))
    except UserError as error:
        if run.result.exists():
            return State("failed", str(error))
    lock = run.path / ".lock"
    if is_owned(lock):
        return _unfinished(run, "running", "", time.time() - lock.stat().st_mtime)
    if run.metrics.exists() or run.checkpoints.exists():
        return _unfinished(run, "interrupted", "its process is gone", None)
    return State("waiting")


def _unfinished(run: RunDirectory, word: Word, message: str, seconds: float | None) -> State:
    try:
        follower = Follower(run, run.read_config())
        follower.read()
    except (UserError, OSError) as error:
        return State(word, str(error), None, seconds)
    return State(word, message, follower.progress.objective, seconds, follower.progress)


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


def ended(result: Any) -> State:
    """Of a run that has ended, from its result.json, which may be a stranger's."""
    known = result if isinstance(result, dict) else {}
    word = _OF_STATUS.get(_text(known.get("status")))
    if word is None:
        return State("failed", "result.json does not say how it ended")
    seconds = known.get("seconds")
    phases = seconds.items() if isinstance(seconds, dict) else ()
    taken = [value for name, each in phases if name not in _COUNTED_TWICE and (value := _number(each)) is not None]
    message = "" if word == "done" else _text(known.get("error"))
    return State(word, message, _number(known.get("objective")), sum(taken) if taken else None)


def _text(value: Any) -> str:
    """Of a text itself; what else there may be can be too deeply nested to be shown."""
    return value if isinstance(value, str) else ""


def _number(value: Any) -> float | None:
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return float(value) if is_number and abs(value) < 1e300 and math.isfinite(value) else None
