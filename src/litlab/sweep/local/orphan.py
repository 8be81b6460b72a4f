"""A worker whose server has ended: the kernel has asked it to save and stop, and nobody here can wait for it."""

import signal
import time
from pathlib import Path

from litlab.forks import is_anybody_in, signal_group
from litlab.signals import exit_code

GRACE = 10.0  # seconds to save in
PATIENCE = 5.0  # seconds for killed processes to be gone
POLL = 0.05  # seconds between two looks at it


class Orphan:
    """To be looked at until it has ended."""

    def __init__(self, pid: int) -> None:
        self._pid = pid
        self._born = _born(pid)
        self._code: int | None = None
        self._deadline = time.monotonic() + GRACE

    def kill(self) -> None:
        """End all processes of its group."""
        self._end(-signal.SIGKILL)

    def code(self) -> int | None:
        """An exit code such as it may have had; None while anybody of its group is there. Kills it in the end."""
        if self._code is None:
            if self._born is None or _born(self._pid) != self._born:
                self._end(exit_code(signal.SIGTERM))
            elif time.monotonic() >= self._deadline:
                self.kill()
        is_over = not is_anybody_in(self._pid) or time.monotonic() >= self._deadline
        return self._code if is_over else None

    def _end(self, code: int) -> None:
        """Also whom it has left behind."""
        self._code = code
        self._deadline = time.monotonic() + PATIENCE
        signal_group(self._pid, signal.SIGKILL)


def _born(pid: int) -> str | None:
    """When a process started, in the kernel's ticks: its number may be another's by now. None if it has ended."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return None
    return None if fields[0] in ("Z", "X") else fields[19]
