"""Processes that go on from where this one is: what it has imported, they need not import. No torch.

Only a process of one thread may fork, and none that has run an operation of torch's in parallel: its forks hang.
"""

import atexit
import os
import signal
import sys
import threading
import traceback
from collections.abc import Callable
from contextlib import suppress
from typing import NoReturn

from litlab.process.signals import ignore_signals

FAILED = 70  # exit code of a fork whose work let an error out


class Fork:
    """A child that does some work and ends with the exit code that it returns; otherwise like subprocess.Popen.

    Attributes:
        returncode: its exit code once `poll` or `wait` has seen its end; negative for the signal that ended it.
    """

    def __init__(self, work: Callable[[], int]) -> None:
        sys.stdout.flush()  # or both would write what is buffered
        sys.stderr.flush()
        self.returncode: int | None = None
        self.pid = os.fork()
        if self.pid == 0:
            _do(work)

    def poll(self) -> int | None:
        return self._look(os.WNOHANG)

    def wait(self) -> int:
        code = self._look(0)
        assert code is not None
        return code

    def send_signal(self, signum: int, /) -> None:
        if self.poll() is None:
            os.kill(self.pid, signum)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)

    def _look(self, options: int) -> int | None:
        if self.returncode is None:
            found, status = os.waitpid(self.pid, options)
            self.returncode = os.waitstatus_to_exitcode(status) if found else None
        return self.returncode


def _do(work: Callable[[], int]) -> NoReturn:
    """Do it, and end as Python ends a process, but at once: freeing all objects would copy the shared memory."""
    code = FAILED
    try:
        code = _exit_code(work)
        ignore_signals()
        threading._shutdown()  # type: ignore[attr-defined]  # waits for threads that are no daemons
        atexit._run_exitfuncs()
    except BaseException:
        traceback.print_exc()
    finally:
        for stream in (sys.stdout, sys.stderr):
            with suppress(OSError, ValueError):  # a full disk; a stream that somebody closed
                stream.flush()
        os._exit(code)


def _exit_code(work: Callable[[], int]) -> int:
    try:
        return work()
    except SystemExit as left:  # as Python reads it
        if left.code is None or isinstance(left.code, int):
            return (left.code or 0) & 0xFF
        print(left.code, file=sys.stderr)
        return 1


def is_anybody_in(group: int) -> bool:
    """Whether there are processes of this group, also such that have ended and that nobody has reaped."""
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return False
    except PermissionError:  # all of them are another user's
        return True
    return True


def signal_group(group: int, signum: int) -> None:
    """To all who are in it, if anybody is."""
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(group, signum)
