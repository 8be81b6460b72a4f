"""Processes of this machine that have not ended, as the tests look for them."""

import os
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import psutil


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


def is_stopped(pid: int) -> bool:
    """Return whether a process is paused by a signal."""
    return psutil.Process(pid).status() == psutil.STATUS_STOPPED


def _find(condition: Callable[[psutil.Process], bool]) -> list[int]:
    pids = []
    for process in psutil.process_iter():
        with suppress(psutil.Error, OSError):  # it ended meanwhile, or belongs to another user
            if condition(process) and is_alive(process.pid):
                pids.append(process.pid)
    return pids
