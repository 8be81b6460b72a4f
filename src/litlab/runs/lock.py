"""One process at a time, over all processes of a machine: who owns a run directory, who fetches or decodes data."""

import fcntl
import os
import re
import socket
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TextIO

from litlab.errors import UserError

PATIENCE = 15.0  # seconds


@contextmanager
def file_lock(path: Path, *, wait: bool) -> Iterator[TextIO]:
    """Hold a lock on the file, which is made where needed and open for reading and appending.

    The kernel frees the lock when its holder ends, however it ends, so it can't be stale. The file stays: removing it
    would let two processes lock two files of one name.

    Raises:
        BlockingIOError: if another process holds it and this one does not wait.
        OSError: if the file can't be written.
    """
    with open(path, "a+", encoding="utf-8", opener=_no_link) as file:
        fcntl.flock(file, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        yield file


def _no_link(path: str, flags: int) -> int:
    """A link would let a run directory that came from elsewhere choose the file that is written."""
    return os.open(path, flags | os.O_NOFOLLOW, 0o666)


@contextmanager
def owning(directory: Path, *, patience: float = PATIENCE) -> Iterator[TextIO]:
    """Hold the lock of a run directory, and say in it who does. Gives the file: a child that inherits it holds it, too.

    `patience`: seconds, for the children of an owner that was killed.

    Raises:
        UserError: if another process holds it, saying which.
    """
    path = directory / ".lock"
    with ExitStack() as held:
        file = _held_at_last(path, held, directory, time.monotonic() + patience)
        file.truncate(0)
        file.write(f"process {os.getpid()} on {socket.gethostname()}")
        file.flush()
        try:
            yield file
        finally:
            file.truncate(0)  # what names a process from now on is left by one that was killed


def _held_at_last(path: Path, held: ExitStack, directory: Path, deadline: float) -> TextIO:
    """The lock; where its owner has been killed, once its children have noticed, too."""
    while True:
        try:
            return held.enter_context(file_lock(path, wait=False))
        except BlockingIOError as error:
            owner = path.read_text(encoding="utf-8").strip() or "another process"
            if not _is_gone(owner) or time.monotonic() > deadline:
                raise UserError(f"{directory} is in use by {owner}; wait for it or stop it") from error
        time.sleep(0.1)


def _is_gone(owner: str) -> bool:
    found = re.fullmatch(r"process (\d+) on (.*)", owner)
    return found is not None and found[2] == socket.gethostname() and not Path(f"/proc/{found[1]}").exists()
