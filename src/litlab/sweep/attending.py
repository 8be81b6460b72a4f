"""What signals mean to a multirun: stop, end at once, pause."""

import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

from litlab.controller import RunStopped
from litlab.signals import STOPPING, Stopped, StopRequest
from litlab.sweep.backend import Backend


@contextmanager
def attended(study: Path, backend: Backend) -> Iterator[tuple[StopRequest, Callable[[], None] | None]]:
    """The first signal stops the jobs, saved; a second one ends them; Ctrl-Z pauses them.

    Outside of the main thread there are no signals.

    Raises:
        RunStopped: at a second signal.
    """
    stop = StopRequest()
    if threading.current_thread() is not threading.main_thread():
        yield stop, None
        return
    pause = Pause(backend)
    before = {signum: signal.getsignal(signum) for signum in (*STOPPING, signal.SIGTSTP)}
    stop.install()
    signal.signal(signal.SIGTSTP, pause.ask)
    try:
        with stop.deferred():
            yield stop, pause
    except Stopped as stopped:
        signal.alarm(0)
        name = signal.Signals(stopped.signum).name
        print(f"litlab: stopped at once by {name}; the study is in {study}", file=sys.stderr)
        raise RunStopped(stopped.exit_code) from None
    finally:
        for signum, handler in before.items():
            signal.signal(signum, handler)


class Pause:
    """Ctrl-Z stops this process, and all jobs with it, until it is continued."""

    def __init__(self, backend: Backend) -> None:
        self._backend = backend
        self._asked = False

    def ask(self, signum: int, frame: FrameType | None) -> None:
        """The handler of the signal; what follows has to wait until nobody is talking to the backend."""
        self._asked = True

    def __call__(self) -> None:
        if not self._asked:
            return
        self._asked = False
        self._backend.pause()
        handler = signal.signal(signal.SIGTSTP, signal.SIG_DFL)
        os.kill(os.getpid(), signal.SIGTSTP)
        signal.signal(signal.SIGTSTP, handler)
        self._backend.go_on()
