"""Starts a worker on a run directory, passes the terminal and signals on, and reads its result. No torch."""

import os
import shutil
import signal
import subprocess
import sys
import threading
from types import FrameType
from typing import Any

from litlab.errors import RunFailed, UserError
from litlab.process.failure import write_end
from litlab.process.signals import PARENT, STOPPING, exit_code, held_back
from litlab.runs.directory import RunDirectory
from litlab.runs.lock import owning
from litlab.runs.result import read_result
from litlab.runs.state import RunStatus

# Another launcher's idea of ranks: inherited, it hangs a run.
RANK_VARIABLES = ("RANK", "LOCAL_RANK", "WORLD_SIZE", "NODE_RANK", "GROUP_RANK", "LOCAL_WORLD_SIZE")
RANK_PREFIXES = ("MASTER_", "PL_", "TORCHELASTIC_", "SLURM_", "PMI_", "OMPI_")
DROPPED = ("HYDRA_FULL_ERROR",)


class RunStopped(RunFailed):
    """A run that ended after a signal had come: whoever would start another one does not."""


def worker_environment() -> dict[str, str]:
    """This process's environment for a worker: no inherited ranks, and this process as the one not to outlive."""
    kept = {
        name: value
        for name, value in os.environ.items()
        if name not in RANK_VARIABLES and name not in DROPPED and not name.startswith(RANK_PREFIXES)
    }
    return kept | {PARENT: str(os.getpid())}


def run_worker(run: RunDirectory, config: dict[str, Any], *, keep: bool) -> float | None:
    """Train in a process of its own; returns the objective, None where there is none.

    A run that never started, since the config or the data forbid it, leaves nothing behind, unless `keep`.

    The worker is the leader of a process group of its own: Ctrl-C in the terminal reaches this process alone, which
    passes it on once. A second one kills the group.

    Raises:
        RunStopped: when a signal came and it did not complete, or did and is one of several (`keep`).
        RunFailed: with the worker's exit code, when it did not complete for another reason.
    """
    with AttendedWorker(run) as worker:
        code = worker.wait()
    if worker.received and (code < 0 or not run.result.exists()):
        code = _interrupted(run, config, worker)
    elif code < 0:  # ended by a signal that no handler saw
        name = signal.Signals(-code).name
        _write_failed(
            run, config, f"the worker was ended by {name}" + (" (out of memory?)" if name == "SIGKILL" else "")
        )
        code = 128 - code
    elif code and not run.result.exists():
        _write_failed(run, config, f"the worker ended with exit code {code} before it could start")
    elif code == 0 and not run.result.exists():  # a user's code may do this
        _write_failed(run, config, "the worker ended with exit code 0 and no result: something called exit()")
        code = 1
    if code != 0:
        if not keep and run.result.exists() and read_result(run)["status"] == RunStatus.REFUSED:
            shutil.rmtree(run.path)
        raise RunStopped(code) if worker.received else RunFailed(code)
    if worker.received and keep:
        print(f"litlab: stopped by {signal.Signals(worker.received).name}; {run.path} is complete", file=sys.stderr)
        raise RunStopped(exit_code(worker.received))
    objective = read_result(run)["objective"]
    return None if objective is None else float(objective)


class AttendedWorker:
    """A worker process. The first signal to stop goes on to it; a second kills its group. Ctrl-Z pauses both.

    Python lets the main thread alone handle signals; in any other it is only a process.

    Attributes:
        received: the first signal, if one came.
        killed: whether a second one came.
    """

    def __init__(self, run: RunDirectory) -> None:
        self._command = [sys.executable, "-P", "-m", "litlab.training.worker", str(run.path)]
        self.received: int | None = None
        self.killed = False
        self._before: dict[signal.Signals, Any] = {}

    def __enter__(self) -> "AttendedWorker":
        with held_back():
            self._process = subprocess.Popen(self._command, env=worker_environment(), process_group=0)
            if threading.current_thread() is threading.main_thread():
                self._before = {signum: signal.signal(signum, self._handle) for signum in STOPPING}
                self._before[signal.SIGTSTP] = signal.signal(signal.SIGTSTP, self._pause)
        return self

    def __exit__(self, *exception: object) -> None:
        self._process.wait()
        for signum, handler in self._before.items():
            signal.signal(signum, handler)

    def wait(self) -> int:
        """Its exit code; negative for the signal that ended it."""
        return self._process.wait()

    def _handle(self, signum: int, frame: FrameType | None) -> None:
        if self._process.poll() is not None:
            return
        if self.received is None:
            self.received = signum
            self._process.send_signal(signum)
        else:
            self.killed = True
            os.killpg(self._process.pid, signal.SIGKILL)

    def _pause(self, signum: int, frame: FrameType | None) -> None:
        """Stop the worker's group, then this process as it would without us, until SIGCONT."""
        self._to_group(signal.SIGSTOP)
        signal.signal(signum, signal.SIG_DFL)
        os.kill(os.getpid(), signum)
        signal.signal(signum, self._pause)
        self._to_group(signal.SIGCONT)

    def _to_group(self, signum: int) -> None:
        if self._process.poll() is None:
            os.killpg(self._process.pid, signum)


def _write_failed(run: RunDirectory, config: dict[str, Any], message: str) -> None:
    """Write and say what the worker could not."""
    _write_end(run, config, RunStatus.FAILED, message)
    print(f"litlab: {message}; its log is {run.log}", file=sys.stderr)


def _interrupted(run: RunDirectory, config: dict[str, Any], worker: AttendedWorker) -> int:
    """Write and say what the worker could not: stopped while it started, or killed. Returns the exit code."""
    assert worker.received is not None
    how = "stopped at once by" if worker.killed else "stopped by"
    message = f"{how} {signal.Signals(worker.received).name}"
    _write_end(run, config, RunStatus.INTERRUPTED, message)
    print(f"litlab: {message}; the run is in {run.path}", file=sys.stderr)
    return exit_code(worker.received)


def _write_end(run: RunDirectory, config: dict[str, Any], status: RunStatus, message: str) -> None:
    """Unless another worker has the run by now: then it is not ours to tell how it ends."""
    try:
        with owning(run.path):
            write_end(run, config, status, message)
    except (UserError, OSError) as error:
        print(f"litlab: {error}", file=sys.stderr)
