"""Import of many modules at once: in a thread, without garbage collections. No torch on its own."""

import gc
import importlib
import signal
import threading
from collections.abc import Iterable

from litlab.process.signals import STOP_SIGNALS


def import_modules(names: Iterable[str]) -> None:
    """Import modules without garbage collections, which take a seventh of the time of importing torch and Lightning."""
    gc.disable()
    try:
        for name in names:
            importlib.import_module(name)
    finally:
        gc.enable()


class ImportThread(threading.Thread):
    """Thread that imports modules, which signal handlers therefore don't interrupt: numpy can't be imported twice.

    Args:
        names: Modules to import.
    """

    def __init__(self, names: Iterable[str]) -> None:
        super().__init__(daemon=True)
        self._names = tuple(names)
        self._error: BaseException | None = None

    def run(self) -> None:
        """Import the modules."""
        signal.pthread_sigmask(signal.SIG_BLOCK, STOP_SIGNALS)  # they would not wake up the main thread
        try:
            import_modules(self._names)
            gc.freeze()  # later collections need not look through what stays
        except BaseException as error:
            self._error = error

    def finish(self) -> None:
        """Wait until all modules are imported, and raise what an import raised."""
        self.join()
        if self._error is not None:
            raise self._error
