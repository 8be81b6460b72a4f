"""Locks that one process at a time holds, such as that of a run directory, with the name of the holder."""

import os
import re
import socket
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Self, TextIO

from litlab.errors import InUseError
from litlab.runs.directory import RunDirectory
from litlab.runs.files import lock_file, open_regular
from litlab.runs.heartbeat import STALE_AFTER, file_system_time, heartbeat_time

TIMEOUT = 15.0  # seconds
_LOCK_FILE = ".lock"
_OWNER = re.compile(r"process (\d{1,9}) on (.*)")
_CLOCK_ADJUSTMENT = 60  # seconds that a process may seem to have started after it wrote its name


@contextmanager
def file_lock(path: Path, *, wait: bool) -> Iterator[TextIO]:
    """Hold a lock on a file, which is created where needed and open for reading and appending.

    The kernel frees the lock when its holder ends, however it ends, so it cannot be stale. The file stays: removing it
    would let two processes lock two files of one name.

    Raises:
        BlockingIOError: If another process holds it and this one does not wait.
        OSError: If the file cannot be written or locked.
    """
    is_new = not path.exists()
    with open(path, "a+", encoding="utf-8", opener=_open_no_follow) as file:
        try:
            lock_file(file, path, wait=wait)
        except OSError as error:
            if is_new and not isinstance(error, BlockingIOError):  # a file system without locks: nobody holds it
                path.unlink(missing_ok=True)
            raise
        yield file


@contextmanager
def temporary_lock(path: Path) -> Iterator[None]:
    """Wait for a lock on a file and hold it; remove the file at the end, so that nothing is left behind.

    Raises:
        OSError: If the file cannot be written.
    """
    while True:
        with file_lock(path, wait=True) as file:
            if not _is_at(path, file):  # removed by the holder that this process waited for
                continue
            try:
                yield
            finally:
                path.unlink(missing_ok=True)
            return


def _is_at(path: Path, file: TextIO) -> bool:
    try:
        return os.path.samestat(path.lstat(), os.fstat(file.fileno()))
    except FileNotFoundError:
        return False


def _open_no_follow(path: str, flags: int) -> int:
    """Refuse links: by one, an untrusted run directory would choose the file that is written."""
    return os.open(path, flags | os.O_NOFOLLOW, 0o666)


@contextmanager
def directory_lock(directory: Path, *, timeout: float = TIMEOUT) -> Iterator[TextIO]:
    """Hold the lock of a run or study directory, with the name of this process in it.

    Args:
        directory: Directory that exists.
        timeout: Seconds to wait for the children of an owner that was killed.

    Yields:
        The lock file: a child process that inherits it holds the lock, too.

    Raises:
        InUseError: If another process holds it.
    """
    path = directory / _LOCK_FILE
    with ExitStack() as stack:
        file = _acquire(path, stack, time.monotonic() + timeout)
        file.truncate(0)
        file.write(f"process {os.getpid()} on {socket.gethostname()}")
        file.flush()
        try:
            yield file
        finally:
            file.truncate(0)  # so a file that names a process was left by one that was killed


def _acquire(path: Path, stack: ExitStack, deadline: float) -> TextIO:
    """Acquire the lock, if its owner was killed as soon as the children of the owner have ended."""
    while True:
        try:
            return stack.enter_context(file_lock(path, wait=False))
        except BlockingIOError as error:
            owner = LockOwner.read(path.parent)
            if owner is None or owner.is_alive() or time.monotonic() > deadline:
                name = owner or "another process"
                raise InUseError(f"{path.parent} is in use by {name}; wait for it or stop it") from error
        time.sleep(0.1)


@dataclass(frozen=True)
class LockOwner:
    """Process that a lock file names: it holds the lock, or was killed while it did.

    Attributes:
        pid: Process id.
        host: Name of its host.
        since: Time of the lock file's last change, in seconds since 1970 by the clock of the file system.
        directory: Directory that it owns.
    """

    pid: int
    host: str
    since: float
    directory: Path

    @classmethod
    def read(cls, directory: Path) -> Self | None:
        """Read the lock file of a directory, without trying the lock: that would keep it from a process that starts.

        Returns:
            The owner; None if there is no lock file, or it names nobody.
        """
        try:
            with open_regular(directory / _LOCK_FILE) as file:
                match = _OWNER.fullmatch(file.read(1000).decode(errors="replace").strip())
                since = os.fstat(file.fileno()).st_mtime
                return None if match is None else cls(int(match[1]), match[2], since, directory)
        except OSError:
            return None

    @property
    def is_local(self) -> bool:
        """True if it is or was a process of this host."""
        return self.host == socket.gethostname()

    def is_alive(self) -> bool:
        """Tell whether it is alive: on this host by its process, on another by a heartbeat of the last minute."""
        return self._is_running() if self.is_local else self.silence() <= STALE_AFTER

    def silence(self) -> float:
        """Return the seconds since its last heartbeat, or since it took the lock, by the clock of the file system."""
        renewed = heartbeat_time(RunDirectory(self.directory))
        return file_system_time(self.directory) - max(self.since, renewed or 0.0)

    def _is_running(self) -> bool:
        """Tell whether it is a process of this host; a zombie is none."""
        import psutil  # here, since it takes 10 ms and few locks name a process

        try:
            process = psutil.Process(self.pid)
            age = process.create_time() - self.since
            if age >= _CLOCK_ADJUSTMENT:  # process ids are used again, or the clock of the file system is another
                age += file_system_time(self.directory) - time.time()
            is_same = age < _CLOCK_ADJUSTMENT
            return is_same and process.status() not in (psutil.STATUS_ZOMBIE, psutil.STATUS_DEAD)
        except psutil.NoSuchProcess:
            return False
        except psutil.AccessDenied:  # another user's
            return True

    def __str__(self) -> str:
        return f"process {self.pid} on {self.host}"


def is_locked(directory: Path) -> bool:
    """Tell whether a process that is alive, on this host or another, owns a run or study directory."""
    owner = LockOwner.read(directory)
    return owner is not None and owner.is_alive()
