"""Processes of this machine that have not ended, and a process that holds a lock."""

import ctypes
import os
import struct
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import psutil

PATIENCE = 90  # seconds; a machine may be busy
_HOLD_LOCK = """
import sys, time
from pathlib import Path
from litlab.runs.lock import directory_lock

with directory_lock(Path(sys.argv[1])):
    print("locked", flush=True)
    time.sleep(100)
"""


def processes_in(folder: Path) -> list[int]:
    """Return the processes that work in a folder: of a project's, its commands, their workers and ranks."""
    return _find(lambda process: process.cwd() == str(folder.resolve()))


def group(leader: int) -> list[int]:
    """Return the members of a process group."""
    return _find(lambda process: os.getpgid(process.pid) == leader)


def session(leader: int) -> list[int]:
    """Return the members of a session."""
    return _find(lambda process: os.getsid(process.pid) == leader)


def is_alive(pid: int) -> bool:
    """Return whether a process has not ended. A zombie has: process 1 of a container may not reap it."""
    with suppress(psutil.NoSuchProcess):
        return psutil.Process(pid).status() not in (psutil.STATUS_ZOMBIE, psutil.STATUS_DEAD)
    return False


def obey_modes() -> None:
    """Take from this process, if it is root's, the right to write where the modes of files and folders forbid it."""
    if os.geteuid() == 0:
        libc, header = ctypes.CDLL(None, use_errno=True), struct.pack("Ii", 0x20080522, 0)  # of this process
        rights = (ctypes.c_uint32 * 6)()  # effective, permitted, inheritable; twice
        assert libc.capget(header, rights) == 0
        for which in range(2):
            rights[which] &= ~0b110  # CAP_DAC_OVERRIDE and CAP_DAC_READ_SEARCH
        assert libc.capset(header, rights) == 0


def is_stopped(pid: int) -> bool:
    """Return whether a process is paused by a signal."""
    return psutil.Process(pid).status() == psutil.STATUS_STOPPED


@contextmanager
def lock_owner(directory: Path) -> Iterator["subprocess.Popen[str]"]:
    """Start a process that holds the lock of a directory; kill it at the end of the context."""
    command = [sys.executable, "-c", _HOLD_LOCK, str(directory)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == "locked\n"
            yield process
        finally:
            process.kill()


def wait_until(
    condition: Callable[[], Any], seconds: float = PATIENCE, message: Callable[[], object] = lambda: ""
) -> None:
    """Poll a condition every few milliseconds, and fail with the message after so many seconds."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, f"not within {seconds} s: {message()}"
        time.sleep(0.003)


def _find(condition: Callable[[psutil.Process], bool]) -> list[int]:
    pids = []
    for process in psutil.process_iter():
        with suppress(psutil.Error, OSError):  # it ended meanwhile, or belongs to another user
            if condition(process) and is_alive(process.pid):
                pids.append(process.pid)
    return pids
