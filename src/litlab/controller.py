"""Starts a worker on a run directory, passes the terminal and signals on, and reads its result. No torch."""

import os
import shutil
import signal
import subprocess
import sys
from types import FrameType
from typing import Any

from litlab.config.identity import identity
from litlab.errors import RunFailed
from litlab.runs.directory import RunDirectory
from litlab.runs.result import Result, read_result, write_result
from litlab.signals import PARENT, STOPPING

# Another launcher's idea of ranks: inherited, it hangs a run.
RANK_VARIABLES = ("RANK", "LOCAL_RANK", "WORLD_SIZE", "NODE_RANK", "GROUP_RANK", "LOCAL_WORLD_SIZE")
RANK_PREFIXES = ("MASTER_", "PL_", "TORCHELASTIC_", "SLURM_", "PMI_", "OMPI_")
DROPPED = ("HYDRA_FULL_ERROR",)


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
        RunFailed: with the worker's exit code, when it did not complete.
    """
    command = [sys.executable, "-m", "litlab.worker", str(run.path)]
    with subprocess.Popen(command, env=worker_environment(), process_group=0) as worker, SignalsPassedOn(worker):
        code = worker.wait()
    if code < 0:  # ended by a signal that no handler saw
        name = signal.Signals(-code).name
        message = f"the worker was ended by {name}" + (" (out of memory?)" if name == "SIGKILL" else "")
        write_result(run, Result(status="failed", identity=identity(config), error=message))
        print(f"litlab: {message}; its log is {run.log}", file=sys.stderr)
        code = 128 - code
    if code != 0:
        if not keep and run.result.exists() and read_result(run)["status"] == "refused":
            shutil.rmtree(run.path)
        raise RunFailed(code)
    objective = read_result(run)["objective"]
    return None if objective is None else float(objective)


class SignalsPassedOn:
    """While it lasts, the first SIGINT or SIGTERM goes on to the worker; a second kills its group."""

    def __init__(self, worker: "subprocess.Popen[bytes]") -> None:
        self._worker = worker
        self._received = False

    def __enter__(self) -> None:
        self._before = {signum: signal.signal(signum, self._handle) for signum in STOPPING}

    def __exit__(self, *exception: object) -> None:
        for signum, handler in self._before.items():
            signal.signal(signum, handler)

    def _handle(self, signum: int, frame: FrameType | None) -> None:
        if self._received:
            os.killpg(self._worker.pid, signal.SIGKILL)
        elif self._worker.poll() is None:
            self._received = True
            self._worker.send_signal(signum)
