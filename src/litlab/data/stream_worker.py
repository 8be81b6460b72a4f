"""How a loader's worker lives and dies: with the process that it works for, and at nobody else's signal."""

import ctypes
import os
import signal
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

from litlab.signals import held_back

_PR_SET_PDEATHSIG = 1  # <linux/prctl.h>


def start_worker(number: int) -> None:
    """Called first in worker `number`.

    Signals that stop a run may come to all its processes. The one that trains has to save then, for which it needs
    its batches: so a worker listens to that one alone. It was started with those signals held back, which stay so.
    """
    parent = os.getppid()
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:  # it has ended before the kernel was told
        os._exit(0)
    threading.Thread(target=_end_when_asked, args=[parent], daemon=True).start()


def _end_when_asked(parent: int) -> None:
    """End at a SIGTERM of the parent's; others' are for the parent."""
    while signal.sigwaitinfo([signal.SIGTERM]).si_pid != parent:
        pass
    os._exit(0)


@contextmanager
def forking_quietly() -> Iterator[None]:
    """Within it workers are started, with the signals that stop a run held back, and without Python's warning of forks
    beside other threads: a worker reads and decodes, in one thread, and needs none of their locks.
    """
    with held_back(), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*multi-threaded, use of fork", category=DeprecationWarning)
        yield
