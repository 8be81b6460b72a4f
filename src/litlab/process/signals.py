"""Stopping at a sound moment: the first signal asks, the second ends."""

import os
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

PARENT = "LITLAB_PARENT"  # the process that a worker or rank must not outlive
STOPPING = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2)  # the last two are what schedulers warn with
GRACE = 8  # seconds to end in, after a second signal
COPIES = (
    2.0  # seconds in which copies of one signal come: a scheduler sends its own to each process, parents pass it on
)


def exit_code(signum: int) -> int:
    """130 for Ctrl-C, by the shell's convention; 143, that of SIGTERM, for all others."""
    return 130 if signum == signal.SIGINT else 143


class Stopped(BaseException):
    """The run was asked to stop. No Exception, so that no handler of errors takes it for one."""

    def __init__(self, signum: int, saved_at: int | None = None) -> None:
        """`saved_at`: the optimizer step that last.ckpt continues from, if it was saved for this."""
        name = signal.Signals(signum).name
        super().__init__(name if saved_at is None else f"{name}, saved at step {saved_at}")
        self.signum = signum

    @property
    def exit_code(self) -> int:
        return exit_code(self.signum)


@contextmanager
def held_back() -> Iterator[None]:
    """Within it the signals that stop a run wait; in a process started within it, until it installs a `StopRequest`."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, STOPPING)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def ignore_signals() -> None:
    """For a process that is ending anyway: its last cleaning up is not to be interrupted."""
    for signum in STOPPING:
        signal.signal(signum, signal.SIG_IGN)


class StopRequest:
    """Remembers the first signal while `deferred`; otherwise, and at a second one, raises `Stopped` on the spot."""

    def __init__(self) -> None:
        self.received: int | None = None
        self._since = 0.0
        self._deferring = False
        parent = os.environ.get(PARENT)
        self._parent = int(parent) if parent else None

    def install(self) -> None:
        """Take over the signals in this process, and let in those that were held back while it started."""
        for signum in STOPPING:
            signal.signal(signum, self._handle)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, STOPPING)

    @contextmanager
    def deferred(self) -> Iterator[None]:
        """Within it a signal is only noted; whoever runs the loop asks `pending` at sound moments."""
        self._deferring = True
        try:
            yield
        finally:
            self._deferring = False

    def pending(self) -> int:
        """The number of the signal to stop for; SIGTERM if the parent has died; 0 to go on."""
        if self.received is None and self._parent is not None and os.getppid() != self._parent:
            self.received, self._since = signal.SIGTERM, time.monotonic()
        return self.received or 0

    def _handle(self, signum: int, frame: FrameType | None) -> None:
        again = self.received is not None and time.monotonic() - self._since > COPIES
        if self.received is None:
            self.received, self._since = signum, time.monotonic()
        if again:  # should something keep it from ending by itself, the kernel does it
            signal.signal(signal.SIGALRM, signal.SIG_DFL)
            signal.alarm(GRACE)
        if again or not self._deferring:
            raise Stopped(self.received)
