"""Stop signals: the first requests a stop at the next safe point, a second one stops at once. No torch."""

import os
import signal
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

PARENT_VARIABLE = "LITLAB_PARENT"  # environment variable: id of the process that a worker or rank must not outlive
STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2)  # schedulers warn with the last two
GRACE = 8  # seconds to end in after a second signal
RAISE_AGAIN_AFTER = 0.01  # seconds
DUPLICATE_SECONDS = 2.0  # for copies of one signal: a scheduler signals every process, and parents pass it on as well


def exit_code(signum: int) -> int:
    """Return 130 for SIGINT, by the shell's convention; 143, that of SIGTERM, for all others."""
    return 130 if signum == signal.SIGINT else 143


class Stopped(BaseException):
    """Raised to stop a run. No Exception, so that error handlers don't catch it.

    Args:
        signum: Signal that requested the stop.
        saved_at: Optimizer step that last.ckpt continues from, if it was saved for this stop.

    Attributes:
        exit_code: Exit code of the process.
    """

    def __init__(self, signum: int, saved_at: int | None = None) -> None:
        name = signal.Signals(signum).name
        super().__init__(name if saved_at is None else f"{name}, saved at step {saved_at}")
        self.signum = signum
        self.exit_code = exit_code(signum)


@contextmanager
def blocked_signals() -> Iterator[None]:
    """Block the stop signals within the context; in processes started there, until they install a `StopRequest`."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, STOP_SIGNALS)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def ignore_signals() -> None:
    """Ignore the stop signals in a process that is ending, so that they don't interrupt its cleaning up."""
    for signum in STOP_SIGNALS:
        signal.signal(signum, signal.SIG_IGN)


class StopRequest:
    """Signal handler that remembers the first stop signal while `deferred`; otherwise it raises `Stopped` at once.

    Attributes:
        received: The first signal, if one came.
        was_raised: Whether it was raised as `Stopped`.
    """

    def __init__(self) -> None:
        self.received: int | None = None
        self.was_raised = False
        self._received_at = 0.0
        self._is_deferred = False
        self._other_hook = sys.unraisablehook
        parent = os.environ.get(PARENT_VARIABLE)
        self._parent = int(parent) if parent else None

    def install(self) -> None:
        """Handle the stop signals of this process from now on, those included that were blocked while it started."""
        for signum in STOP_SIGNALS:
            signal.signal(signum, self._handle)
        self._other_hook, sys.unraisablehook = sys.unraisablehook, self._raise_again
        signal.pthread_sigmask(signal.SIG_UNBLOCK, STOP_SIGNALS)

    @contextmanager
    def deferred(self) -> Iterator[None]:
        """Only remember a signal within the context, whose loop calls `pending` at safe points."""
        self._is_deferred = True
        try:
            yield
        finally:
            self._is_deferred = False

    def raise_if_received(self) -> None:
        """Raise the signal that came while it was deferred.

        Raises:
            Stopped: If one came.
        """
        if self.received is not None:
            self.was_raised = True
            raise Stopped(self.received)

    def pending(self) -> int:
        """Return the signal to stop for; SIGTERM if the parent has died; 0 to continue."""
        if self.received is None and self._parent is not None and os.getppid() != self._parent:
            self.received, self._received_at = signal.SIGTERM, time.monotonic()
        return self.received or 0

    def _handle(self, signum: int, frame: FrameType | None) -> None:
        is_second = self.received is not None and time.monotonic() - self._received_at > DUPLICATE_SECONDS
        if self.received is None:
            self.received, self._received_at = signum, time.monotonic()
        if is_second:  # the kernel ends the process if something catches the exception
            signal.signal(signal.SIGALRM, signal.SIG_DFL)
            signal.alarm(GRACE)
        self._raise_unless_deferred(is_second)

    def _raise_unless_deferred(self, is_second: bool = False) -> None:
        if is_second or not self._is_deferred:
            self.raise_if_received()

    def _raise_again(self, ignored: "sys.UnraisableHookArgs") -> None:
        """Raise a `Stopped` again soon that Python ignored: in `__del__`, or in the callback of a weak reference."""
        if not isinstance(ignored.exc_value, Stopped):
            self._other_hook(ignored)
        elif not signal.getitimer(signal.ITIMER_REAL)[0]:  # after a second signal the kernel ends the process anyway
            signal.signal(signal.SIGALRM, lambda signum, frame: self._raise_unless_deferred())
            signal.setitimer(signal.ITIMER_REAL, RAISE_AGAIN_AFTER)
