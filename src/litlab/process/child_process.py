"""Forks of this process, which inherit the modules that it has imported. No torch.

Only a process of one thread may fork, and only one that has run no parallel operation of torch: its forks would hang.
"""

import atexit
import os
import runpy
import signal
import sys
import threading
import traceback
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import NoReturn

from litlab.process.signals import ignore_signals

FAILED = 70  # exit code of a fork that ended with an uncaught exception
_GPU_FILES = ("/dev/nvidiactl", "/dev/dxg", "/dev/nvmap", "/dev/kfd")  # CUDA; in WSL; on Tegra; ROCm

_is_fork = False


def is_fork() -> bool:
    """Return whether this process, or one above it, was forked here: it imported its modules as another process."""
    return _is_fork


class Fork:
    """A child process that calls a function and ends with the exit code it returns. Used like `subprocess.Popen`.

    Args:
        function: Called in the child. An uncaught exception ends the child with `FAILED`.

    Attributes:
        pid: Process id.
        returncode: Exit code once `poll` or `wait` has seen the end; negative for the signal that ended it.
    """

    def __init__(self, function: Callable[[], int]) -> None:
        sys.stdout.flush()  # or both processes would write what is buffered
        sys.stderr.flush()
        self.returncode: int | None = None
        self.pid = os.fork()
        if self.pid == 0:
            run_and_exit(function)

    def poll(self) -> int | None:
        """Return the exit code, or None while it runs."""
        return self._wait(os.WNOHANG)

    def wait(self) -> int:
        """Wait for its end and return the exit code."""
        code = self._wait(0)
        assert code is not None
        return code

    def send_signal(self, signum: int, /) -> None:
        """Send a signal, unless it has ended."""
        if self.poll() is None:
            os.kill(self.pid, signum)

    def kill(self) -> None:
        """Send SIGKILL, unless it has ended."""
        self.send_signal(signal.SIGKILL)

    def _wait(self, options: int) -> int | None:
        if self.returncode is None:
            pid, status = os.waitpid(self.pid, options)
            self.returncode = os.waitstatus_to_exitcode(status) if pid else None
        return self.returncode


def run_and_exit(function: Callable[[], int]) -> NoReturn:
    """Call a function in a new fork and end the process with the exit code it returns."""
    global _is_fork
    _is_fork = True
    code = FAILED
    try:
        code = _exit_code(function)
    except BaseException:
        traceback.print_exc()
    exit_process(code)


def exit_process(code: int) -> NoReturn:
    """End this process as Python ends one, but without freeing its objects.

    With torch imported, freeing them takes a second of computing; in a fork, it would copy the shared memory.
    """
    try:
        ignore_signals()
        threading._shutdown()  # type: ignore[attr-defined]  # waits for the threads that are not daemons
        atexit._run_exitfuncs()
    except BaseException:
        traceback.print_exc()
    finally:
        for stream in (sys.stdout, sys.stderr):
            with suppress(OSError, ValueError):  # a full disk; a closed stream
                stream.flush()
        os._exit(code)


def _exit_code(function: Callable[[], int]) -> int:
    try:
        return function()
    except SystemExit as error:  # interpreted as Python does
        if error.code is None or isinstance(error.code, int):
            return (error.code or 0) & 0xFF
        print(error.code, file=sys.stderr)
        return 1


def run_module(module: str, arguments: Sequence[str]) -> int:
    """Run a module in this process as `python -P -m MODULE ARGUMENTS` does.

    Returns:
        Exit code 0. A module that ends otherwise raises SystemExit.
    """
    sys.argv = [module, *arguments]
    sys.modules.pop(module, None)  # if imported before, it runs as another copy, as in a new interpreter
    runpy.run_module(module, run_name="__main__", alter_sys=True)
    return 0


def count_gpus() -> int:
    """Count the GPUs in a fork: a process that counts them itself may be unable to fork others that use them."""
    code = Fork(_count_gpus).wait()
    return 0 if code < 0 or code == FAILED else code


def may_have_gpu() -> bool:
    """Return whether torch may find a GPU here; counting, which takes 3 s, only confirms that there is no driver."""
    return sys.platform == "linux" and (any(map(os.path.exists, _GPU_FILES)) or count_gpus() > 0)


def _count_gpus() -> int:
    import torch

    return torch.cuda.device_count()


def group_exists(group: int) -> bool:
    """Return whether a process group has members, those included that have ended and were not reaped."""
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return False
    except PermissionError:  # all of them belong to another user
        return True
    return True


def signal_group(group: int, signum: int) -> None:
    """Send a signal to all members of a process group, if there are any."""
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(group, signum)
