"""Signal handling of a multirun: stop, stop at once, pause."""

import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

from litlab.process.controller import RunStopped
from litlab.process.signals import STOP_SIGNALS, Stopped, StopRequest
from litlab.sweep.backends.base import Backend


@contextmanager
def handle_signals(study: Path, backend: Backend) -> Iterator[tuple[StopRequest, Callable[[], None] | None]]:
    """Handle signals: the first one lets the jobs save and stop, a second one ends them; Ctrl-Z pauses them.

    Outside of the main thread no signal is handled.

    Args:
        study: Directory of the study, for the message.
        backend: Backend whose jobs are paused.

    Yields:
        The request to stop, and the function that pauses if it was asked for; None outside of the main thread.

    Raises:
        RunStopped: At a second signal.
    """
    stop = StopRequest()
    if threading.current_thread() is not threading.main_thread():
        yield stop, None
        return
    pause = _Pause(backend)
    handlers = {signum: signal.getsignal(signum) for signum in (*STOP_SIGNALS, signal.SIGTSTP)}
    stop.install()
    signal.signal(signal.SIGTSTP, pause.request)
    try:
        with stop.deferred():
            yield stop, pause
    except Stopped as stopped:
        signal.alarm(0)
        name = signal.Signals(stopped.signum).name
        print(f"litlab: stopped at once by {name}; the study is in {study}", file=sys.stderr)
        raise RunStopped(stopped.exit_code) from None
    finally:
        for signum, handler in handlers.items():
            signal.signal(signum, handler)


class _Pause:
    """Stops all jobs and this process, until it is continued."""

    def __init__(self, backend: Backend) -> None:
        self._backend = backend
        self._is_requested = False

    def request(self, signum: int, frame: FrameType | None) -> None:
        """Handle the signal; the pause has to wait until no other call to the backend is in progress."""
        self._is_requested = True

    def __call__(self) -> None:
        if not self._is_requested:
            return
        self._is_requested = False
        self._backend.pause()
        handler = signal.signal(signal.SIGTSTP, signal.SIG_DFL)
        os.kill(os.getpid(), signal.SIGTSTP)
        signal.signal(signal.SIGTSTP, handler)
        self._backend.resume()
