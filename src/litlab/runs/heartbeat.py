"""The heartbeat of a run: a file that its worker renews every few seconds, with its progress.

It tells a run that is alive from one that was lost, also from another host that shares the file system.
"""

import json
import logging
import os
import signal
import socket
import threading
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from tempfile import mkstemp
from typing import Self

from litlab.runs.directory import RunDirectory
from litlab.runs.files import open_regular

INTERVAL = 5.0  # seconds between two renewals
STALE_AFTER = 60.0  # seconds without a renewal after which a run counts as lost
STALLED_AFTER = 600.0  # seconds without progress that are worth a message
_SIZE = 512  # bytes of the file
_JOIN_SECONDS = 2.0  # a file system that hangs does not keep the process from ending


@dataclass(frozen=True)
class Heartbeat:
    """Content of `.heartbeat`.

    Attributes:
        step: Optimizer steps so far.
        epoch: Current epoch, counted from 0.
        time: Time of the last progress in seconds since 1970, by the clock of the file system. The file's own time of
            change is that of the last renewal: a process that hangs still renews it.
        host: Host of the worker.
        pid: Process id of the worker.
    """

    step: int
    epoch: int
    time: float
    host: str = field(default_factory=socket.gethostname)
    pid: int = field(default_factory=os.getpid)

    def write(self, run: RunDirectory) -> None:
        """Renew the file, in place and in one write of constant length.

        Raises:
            OSError: If it cannot be written.
        """
        content = json.dumps(asdict(self)).encode().ljust(_SIZE - 1) + b"\n"
        descriptor = os.open(run.heartbeat, os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o666)
        try:
            os.pwrite(descriptor, content, 0)
        finally:
            os.close(descriptor)

    @classmethod
    def read(cls, run: RunDirectory) -> Self | None:
        """Read the file, which may be untrusted; None if it is missing or malformed."""
        try:
            with open_regular(run.heartbeat) as file:
                beat = cls(**json.loads(file.read(_SIZE)))
        except (OSError, ValueError, TypeError, RecursionError):
            return None
        numbers = (beat.step, beat.epoch, beat.pid)
        is_valid = all(type(number) is int and 0 <= number < 1 << 53 for number in numbers)
        return beat if is_valid and isinstance(beat.time, int | float) and isinstance(beat.host, str) else None


class HeartbeatThread:
    """Context within which a thread renews the heartbeat of a run. The file is removed at its end.

    Ranks are forked before. The thread takes no signals from the main thread, whose system calls they interrupt.

    Args:
        run: The run directory.

    Attributes:
        read_progress: Returns step, epoch and the evaluation batches so far; called in the thread.
    """

    def __init__(self, run: RunDirectory) -> None:
        self.read_progress: Callable[[], tuple[int, int, int]] = lambda: (0, 0, 0)
        self._run = run
        self._is_over = threading.Event()
        self._has_failed = False
        self._thread = threading.Thread(target=self._renew, name="heartbeat", daemon=True)

    def __enter__(self) -> "HeartbeatThread":
        mask = signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())  # the thread inherits it
        try:
            self._thread.start()
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        return self

    def __exit__(self, *exception: object) -> None:
        self._is_over.set()
        self._thread.join(_JOIN_SECONDS)
        self._run.heartbeat.unlink(missing_ok=True)

    def _renew(self) -> None:
        last, last_time = None, 0.0
        offset = file_system_time(self._run.path) - time.time()  # of its clock
        while True:
            progress = self.read_progress()
            if progress != last:
                last, last_time = progress, time.time() + offset
            try:
                Heartbeat(step=progress[0], epoch=progress[1], time=last_time).write(self._run)
            except OSError as error:  # a full disk, for example: training may continue, and so does this
                if not self._has_failed:
                    logging.getLogger("litlab").warning("%s cannot be written: %s", self._run.heartbeat, error.strerror)
                self._has_failed = True
            if self._is_over.wait(INTERVAL):
                return


def heartbeat_time(run: RunDirectory) -> float | None:
    """Return the time of the last renewal, by the clock of the file system; None without a heartbeat."""
    try:
        with open_regular(run.heartbeat) as file:  # NFS may keep the attributes of a file that is not opened
            return os.fstat(file.fileno()).st_mtime
    except OSError:
        return None


def file_system_time(directory: Path) -> float:
    """Return the current time by the clock that stamps the files of a directory: a server's may differ from ours.

    Where nothing can be written, it is the time of this host.
    """
    try:
        descriptor = os.open(directory, os.O_TMPFILE | os.O_WRONLY, 0o600)  # has no name, so it leaves no trace
    except (OSError, AttributeError):  # O_TMPFILE is known to Linux alone, and not to all file systems, such as NFS
        try:
            descriptor, path = mkstemp(dir=directory, prefix=".clock", suffix=".tmp")
            Path(path).unlink()
        except OSError:
            return time.time()
    try:
        os.write(descriptor, b"\n")
        return os.fstat(descriptor).st_mtime
    except OSError:
        return time.time()
    finally:
        os.close(descriptor)
