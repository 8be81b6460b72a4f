"""Commands of litlab as whole processes without the seconds of importing: forks of the product's fork server."""

import os
import signal
import subprocess
import tempfile
import time
from collections.abc import Sequence
from contextlib import suppress
from functools import cache
from itertools import count
from pathlib import Path
from unittest import mock

from litlab.process.fork_server import WORKER_MODULES, ForkRequest, ForkServer

MODULES = (
    "litlab.cli.*", "litlab.config.*", "litlab.inference.*", "litlab.sweep.*", "support.composed_once",
    "support.forked_popen",
)  # fmt: skip
START_UP = 120  # seconds; a machine may be busy
_ids = count()
_pids: dict[int, int] = {}  # of each fork that has started
_codes: dict[int, int] = {}  # exit code of each fork that has ended


class WarmProcess:
    """A process that does what `python -P -m MODULE ARGUMENTS` does. Used like `subprocess.Popen`.

    Args:
        command: Module and arguments.
        folder: Working directory.
        stdout, stderr, new_session, block_signals: As in `ForkRequest`.
        environment: All environment variables; by default those of this process.

    Attributes:
        pid: Process id.
        returncode: Exit code once its end was seen; negative for the signal that ended it.
    """

    def __init__(
        self,
        command: Sequence[str],
        folder: Path,
        *,
        stdout: Path | str = os.devnull,
        stderr: Path | str = os.devnull,
        environment: dict[str, str] | None = None,
        new_session: bool = False,
        block_signals: bool = False,
    ) -> None:
        request = ForkRequest(
            module=command[0],
            arguments=command[1:],
            environment=dict(os.environ) if environment is None else environment,
            directory=str(folder),
            stdout=str(Path(stdout).absolute()),
            stderr=str(Path(stderr).absolute()),
            new_session=new_session,
            block_signals=block_signals,
            kill_group=False,  # a process that leaves others behind is an error that tests look for
        )
        self._id = next(_ids)
        self.returncode: int | None = None
        _server().fork(self._id, request)
        self.pid = _wait_for(_pids, self._id, START_UP)

    def poll(self) -> int | None:
        """Return the exit code, or None while it runs."""
        with suppress(subprocess.TimeoutExpired):
            self.wait(0)
        return self.returncode

    def wait(self, timeout: float = 3600) -> int:
        """Return the exit code.

        Raises:
            subprocess.TimeoutExpired: After so many seconds.
        """
        if self.returncode is None:
            self.returncode = _wait_for(_codes, self._id, timeout)
        return self.returncode

    def send_signal(self, signum: int) -> None:
        """Send a signal, unless it has ended."""
        if self.poll() is None:
            os.kill(self.pid, signum)

    def kill(self) -> None:
        """Send SIGKILL, unless it has ended."""
        self.send_signal(signal.SIGKILL)


def run_warm(
    command: Sequence[str], folder: Path, *, timeout: float, environment: dict[str, str] | None = None
) -> "subprocess.CompletedProcess[str]":
    """Run `python -P -m MODULE ARGUMENTS` and return its exit code and output.

    Raises:
        subprocess.TimeoutExpired: After so many seconds. The process is killed then.
    """
    with tempfile.TemporaryDirectory() as directory:
        stdout, stderr = Path(directory, "stdout"), Path(directory, "stderr")
        process = WarmProcess(command, folder, stdout=stdout, stderr=stderr, environment=environment)
        try:
            code = process.wait(timeout)
        finally:
            process.kill()
        return subprocess.CompletedProcess(command, code, stdout.read_text(), stderr.read_text())


def end_server() -> None:
    """End the server, if there is one. Forks that still run get SIGTERM."""
    if _server.cache_info().currsize:
        _server().close(is_idle=True)
        _server.cache_clear()


@cache
def _server() -> ForkServer:
    """Start the one fork server of this process. Libraries read the number of threads when it imports them: one."""
    tests = str(Path(__file__).parents[1])
    with mock.patch.dict(os.environ, {"PYTHONPATH": tests, "OMP_NUM_THREADS": "1"}):
        server = ForkServer((*WORKER_MODULES, *MODULES))
    server.num_gpus()  # waits until it is ready
    return server


def _wait_for(reported: dict[int, int], fork_id: int, timeout: float) -> int:
    deadline = time.monotonic() + timeout
    while True:
        remaining = max(0.0, deadline - time.monotonic())
        for report in _server().reports(0 if fork_id in reported else remaining):
            if "started" in report:
                _pids[report["started"]] = report["pid"]
            else:
                _codes[report["ended"]] = report["code"]
        if fork_id in reported:
            return reported[fork_id]
        assert not _server().has_ended, "the fork server of the tests was killed"
        assert reported is _codes or fork_id not in _codes, "the fork could not be started"
        if not remaining:
            raise subprocess.TimeoutExpired("a warm process", timeout)
