"""The controller of a single run: starts its worker, passes signals and the terminal on, reads the result. No torch."""

import os
import shutil
import signal
import subprocess
import sys
import threading
from contextlib import suppress
from types import FrameType
from typing import Any, Self

from litlab.errors import InUseError, RunFailed, UserError
from litlab.process.child_process import signal_group
from litlab.process.failure import record_failure, resume_command
from litlab.process.ranks import num_devices
from litlab.process.signals import PARENT_VARIABLE, STOP_SIGNALS, blocked_signals, exit_code
from litlab.runs.directory import RunDirectory
from litlab.runs.lock import directory_lock
from litlab.runs.processor import num_cores
from litlab.runs.result import read_result
from litlab.runs.state import RunStatus

AWAIT_RUN = "--await-run"  # argument of a worker before the descriptor from which it reads its run directory
_WORKER = (sys.executable, "-P", "-m", "litlab.training.worker")
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


def thread_variables(threads: int) -> dict[str, str]:
    """Return the variables from which torch reads the number of threads when it is imported."""
    return dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS"), str(threads))


class EarlyWorker:
    """A worker that is started before its run directory exists, and imports torch and Lightning meanwhile.

    It is killed at the end of this context unless `hand_over` has given it a run, and ends by itself when this process
    ends. It trains in its own process, so no worker is started early for several devices; nor on a single core, where
    it would delay what it waits for.

    Args:
        config: The frozen config, which determines the environment of the worker.
    """

    def __init__(self, config: dict[str, Any]) -> None:
        self._is_useful = num_devices(config["trainer"]) == 1 and num_cores() > 1
        self._threads = thread_variables(config["threads"] or num_cores())
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        if self._is_useful:
            self._environment = worker_environment()
            try:
                self._start()
            except BaseException:  # such as Ctrl-C
                self._discard()
                raise
        return self

    def __exit__(self, *exception: object) -> None:
        self._discard()

    def hand_over(self, run: RunDirectory) -> "subprocess.Popen[bytes] | None":
        """Return the worker with this run.

        Returns:
            None if there is none, it has ended, or the variables of this process have changed since it was started.
        """
        if self._process is None or self._process.poll() is not None or worker_environment() != self._environment:
            self._discard()
            return None
        with suppress(BrokenPipeError):  # it has just ended, which is reported as the end of any worker
            os.write(self._writer, os.fsencode(run.path))
        os.close(self._writer)
        process, self._process = self._process, None
        return process

    def _discard(self) -> None:
        if self._process is not None:
            signal_group(self._process.pid, signal.SIGKILL)
            self._process.wait()
            os.close(self._writer)
            self._process = None

    def _start(self) -> None:
        reader, self._writer = os.pipe()
        try:
            with blocked_signals():
                self._process = subprocess.Popen(
                    [*_WORKER, AWAIT_RUN, str(reader)],
                    env=self._environment | self._threads,
                    pass_fds=[reader],
                    process_group=0,
                )
        finally:
            os.close(reader)


def await_run(descriptor: int) -> str:
    """Return the run directory of a worker that was started early; end this process if it gets none."""
    with os.fdopen(descriptor, "rb") as stream:
        directory = os.fsdecode(stream.read())
    if not directory:
        os._exit(0)  # modules are being imported in another thread
    return directory


def run_worker(
    run: RunDirectory, config: dict[str, Any], *, keep: bool, early: EarlyWorker | None = None
) -> float | None:
    """Train a run in a process of its own.

    Args:
        run: The run directory.
        config: Its frozen config.
        keep: Whether the directory stays if the config or the data forbid the run.
        early: Worker to hand the run over to, if it can take it; by default, a new one is started.

    Returns:
        The objective; None if the run has none.

    Raises:
        RunStopped: When a signal came and the run did not complete, or did and is one of several (`keep`).
        RunFailed: With the worker's exit code, when the run did not complete for another reason.
    """
    with WorkerProcess(run, early) as worker:
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
        early: Worker that was started early, if there is one.

    Attributes:
        received: The first stop signal, if one came.
        was_killed: Whether a second one came.
    """

    def __init__(self, run: RunDirectory, early: EarlyWorker | None = None) -> None:
        self._run, self._early = run, early
        self.received: int | None = None
        self.was_killed = False
        self._handlers: dict[signal.Signals, Any] = {}  # those before

    def __enter__(self) -> "WorkerProcess":
        with blocked_signals():
            process = self._early.hand_over(self._run) if self._early is not None else None
            command = [*_WORKER, str(self._run.path)]
            self._process = process or subprocess.Popen(command, env=worker_environment(), process_group=0)
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
