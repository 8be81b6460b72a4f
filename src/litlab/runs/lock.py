"""One owner of a run directory at a time."""

import fcntl
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from litlab.errors import UserError


@contextmanager
def owning(directory: Path) -> Iterator[None]:
    """Hold the lock of a run directory; the kernel frees it when the process ends, however it ends.
    The file stays: removing it would let two processes lock two files of one name.

    Raises:
        UserError: if another process holds it, saying which.
    """
    path = directory / ".lock"
    with path.open("a+", encoding="utf-8") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            file.seek(0)
            raise UserError(
                f"{directory} is in use by {file.read().strip() or 'another process'}; wait for it or stop it"
            ) from error
        file.truncate(0)
        file.write(f"process {os.getpid()} on {socket.gethostname()}")
        file.flush()
        yield
