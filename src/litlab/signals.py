"""Stopping at a sound moment: the first signal asks, the second ends."""

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

PARENT = "LITLAB_PARENT"  # the process that a worker or rank must not outlive
STOPPING = (signal.SIGINT, signal.SIGTERM)


class Stopped(BaseException):
    """The run was asked to stop. No Exception, so that no handler of errors takes it for one."""

    def __init__(self, signum: int) -> None:
        super().__init__(signal.Signals(signum).name)
        self.signum = signum

    @property
    def exit_code(self) -> int:
        """By the shell's convention: 130 for Ctrl-C, 143 for SIGTERM."""
        return 128 + self.signum


class StopRequest:
    """Remembers the first signal while `deferred`; otherwise, and at a second one, raises `Stopped` on the spot."""

    def __init__(self) -> None:
        self.received: int | None = None
        self._deferring = False
        parent = os.environ.get(PARENT)
        self._parent = int(parent) if parent else None

    def install(self) -> None:
        """Take over SIGINT and SIGTERM in this process."""
        for signum in STOPPING:
            signal.signal(signum, self._handle)

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
            self.received = signal.SIGTERM
        return self.received or 0

    def _handle(self, signum: int, frame: FrameType | None) -> None:
        again = self.received is not None
        self.received = signum
        if again or not self._deferring:
            raise Stopped(signum)
