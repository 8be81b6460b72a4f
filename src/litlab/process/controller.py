"""The controller of a single run: starts its worker, passes signals and the terminal on, reads the result. No torch."""

import os
import shutil
import signal
import subprocess
import sys
import threading
from types import FrameType
from typing import Any

from litlab.errors import InUseError, RunFailed, UserError
from litlab.process.failure import record_failure, resume_command
from litlab.process.signals import PARENT_VARIABLE, STOP_SIGNALS, blocked_signals, exit_code
from litlab.runs.directory import RunDirectory
from litlab.runs.lock import directory_lock
from litlab.runs.result import read_result
from litlab.runs.state import RunStatus

_RANK_VARIABLES = ("RANK", "LOCAL_RANK", "WORLD_SIZE", "NODE_RANK", "GROUP_RANK", "LOCAL_WORLD_SIZE")
_RANK_PREFIXES = ("MASTER_", "PL_", "TORCHELASTIC_", "SLURM_", "PMI_", "OMPI_")


class RunStopped(RunFailed):
    """A run that ended after a stop signal. No further run is started."""


def is_rank_variable(name: str) -> bool:
    """Return whether a launcher tells its ranks about one another by this variable: inherited, it hangs a run."""
    return name in _RANK_VARIABLES or name.startswith(_RANK_PREFIXES)


def environment_without_ranks() -> dict[str, str]:
    """Return the variables of this process without those of ranks, and without its parent."""
    return {name: value for name, value in os.environ.items() if not is_rank_variable(name) and name != PARENT_VARIABLE}


def worker_environment() -> dict[str, str]:
    """Return the variables of this process for a worker: without ranks, and with this process as its parent."""
    variables = environment_without_ranks()
    variables.pop("HYDRA_FULL_ERROR", None)
    return variables | {PARENT_VARIABLE: str(os.getpid())}


def run_worker(run: RunDirectory, config: dict[str, Any], *, keep: bool) -> float | None:
    """Train a run in a process of its own.

    Args:
        run: The run directory.
        config: Its frozen config.
        keep: Whether the directory stays if the config or the data forbid the run.

    Returns:
        The objective; None if the run has none.

    Raises:
        RunStopped: When a signal came and the run did not complete, or did and is one of several (`keep`).
        RunFailed: With the worker's exit code, when the run did not complete for another reason.
    """
    with WorkerProcess(run) as worker:
        code = worker.wait()
    if code != InUseError.exit_code and (code < 0 or not run.result.exists()):
        code = _record_end(run, config, worker, code)
    if code != 0:
        message = ""
        if not keep and run.result.exists() and (result := read_result(run))["status"] == RunStatus.REFUSED:
            shutil.rmtree(run.path)
            message = str(result["error"])
        raise RunStopped(code) if worker.received else RunFailed(code, message)
    if worker.received and keep:
        print(f"litlab: stopped by {signal.Signals(worker.received).name}; {run.path} is complete", file=sys.stderr)
        raise RunStopped(exit_code(worker.received))
    objective = read_result(run)["objective"]
    return None if objective is None else float(objective)


class WorkerProcess:
    """A worker process, which leads a process group of its own: Ctrl-C in the terminal reaches the controller alone.

    The first stop signal is passed on to the worker, a second one kills its group. Ctrl-Z pauses group and controller.
    Python lets only the main thread handle signals; in another thread nothing is passed on.

    Args:
        run: The run directory.

    Attributes:
        received: The first stop signal, if one came.
        was_killed: Whether a second one came.
    """

    def __init__(self, run: RunDirectory) -> None:
        self._command = [sys.executable, "-P", "-m", "litlab.training.worker", str(run.path)]
        self.received: int | None = None
        self.was_killed = False
        self._handlers: dict[signal.Signals, Any] = {}  # those before

    def __enter__(self) -> "WorkerProcess":
        with blocked_signals():
            self._process = subprocess.Popen(self._command, env=worker_environment(), process_group=0)
            if threading.current_thread() is threading.main_thread():
                self._handlers = {signum: signal.signal(signum, self._stop) for signum in STOP_SIGNALS}
                self._handlers[signal.SIGTSTP] = signal.signal(signal.SIGTSTP, self._pause)
        return self

    def __exit__(self, *exception: object) -> None:
        self._process.wait()
        for signum, handler in self._handlers.items():
            signal.signal(signum, handler)

    def wait(self) -> int:
        """Wait for its end and return the exit code; negative for the signal that ended it."""
        return self._process.wait()

    def _stop(self, signum: int, frame: FrameType | None) -> None:
        if self._process.poll() is not None:
            return
        if self.received is None:
            self.received = signum
            self._process.send_signal(signum)
        else:
            self.was_killed = True
            self._signal_group(signal.SIGKILL)

    def _pause(self, signum: int, frame: FrameType | None) -> None:
        """Stop the worker's group, then this process as without a handler, until SIGCONT."""
        self._signal_group(signal.SIGSTOP)
        signal.signal(signum, signal.SIG_DFL)
        os.kill(os.getpid(), signum)
        signal.signal(signum, self._pause)
        self._signal_group(signal.SIGCONT)

    def _signal_group(self, signum: int) -> None:
        if self._process.poll() is None:
            os.killpg(self._process.pid, signum)


def _record_end(run: RunDirectory, config: dict[str, Any], worker: WorkerProcess, code: int) -> int:
    """Write and print the end of a worker that could not do so itself. Returns the controller's exit code."""
    status, hint = RunStatus.FAILED, f"its log is {run.log}"
    if worker.received:
        status, hint = RunStatus.INTERRUPTED, f"to continue: {resume_command(run)}"
        message = f"{'stopped at once' if worker.was_killed else 'stopped'} by {signal.Signals(worker.received).name}"
        code = exit_code(worker.received)
    elif code < 0:
        name = signal.Signals(-code).name
        message = f"the worker was ended by {name}" + (" (out of memory?)" if name == "SIGKILL" else "")
        code = 128 - code
    elif code:
        message = f"the worker ended with exit code {code} before it could start"
    else:
        message = "the worker ended with exit code 0 and no result: the code called exit()"
        code = 1
    try:
        with directory_lock(run.path):  # if another worker owns the run by now, it is the one to record an end
            record_failure(run, config, status, message)
    except (UserError, OSError) as error:
        print(f"litlab: {error}", file=sys.stderr)
    print(f"litlab: {message}; {hint}", file=sys.stderr)
    return code
