"""Worker processes to be stopped, killed and watched: new ones, and forks of a process that has imported torch."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterable
from contextlib import suppress
from itertools import chain
from pathlib import Path
from typing import Any

import psutil
from reliability.runs import Reference
from support.processes import session, wait_until
from support.warm import WarmProcess

from litlab.process.ranks import reserve_port, store_environment
from litlab.process.signals import blocked_signals
from litlab.runs.directory import RunDirectory

TESTS = Path(__file__).parents[1]
TIMEOUT = 120  # seconds; a machine may be busy


class Worker:
    """Process that leads a session.

    Attributes:
        session: Session id, which is its process id.
    """

    def __init__(self, process: "WarmProcess | subprocess.Popen[bytes]", stderr: Path) -> None:
        self.session = process.pid
        self.poll = process.poll
        self._stderr = stderr

    def send(self, signum: int) -> None:
        """Send a signal to this process alone."""
        with suppress(ProcessLookupError):
            os.kill(self.session, signum)

    def wait(self, seconds: float = TIMEOUT) -> int:
        """Wait for the exit code, and check that its session is empty."""
        wait_until(lambda: self.poll() is not None, seconds, self.stderr)
        wait_until(lambda: not session(self.session), 1, lambda: f"left behind: {session(self.session)}")
        code = self.poll()
        assert code is not None
        return code

    def stderr(self) -> str:
        """Return its standard error so far."""
        return self._stderr.read_text(encoding="utf-8")


class Workers:
    """Starts worker processes, none of which outlives the test."""

    def __init__(self) -> None:
        self._sessions: list[int] = []

    def fork(
        self, run: RunDirectory, *, module: str = "litlab.training.worker", name: str = "stderr", **environment: str
    ) -> Worker:
        """Fork `python -m MODULE DIR`, with its standard error in a file of this name beside the run directory."""
        file = new_file(run, name)
        options = {"environment": variables() | environment, "new_session": True, "block_signals": True}
        process = WarmProcess([module, str(run.path)], Path.cwd(), stderr=file, **options)
        self._sessions.append(process.pid)
        return Worker(process, file)

    def stop(self, run: RunDirectory, moment: str, signum: int = signal.SIGTERM) -> Worker:
        """Fork a worker that sends a signal to itself at a moment of `reliability.faults`, and wait for its end."""
        worker = self.fork(run, LITLAB_TEST_SIGNAL=f"{moment} {signum:d}")
        assert worker.wait() == (130 if signum == signal.SIGINT else 143), worker.stderr()
        return worker

    def fork_ranks(self, run: RunDirectory, num_ranks: int, **environment: str) -> list[Worker]:
        """Fork ranks as torchrun starts them, without a parent worker; the environment is for the last one alone."""
        with reserve_port() as reserved:
            common = store_environment(reserved) | {"WORLD_SIZE": str(num_ranks), "LOCAL_WORLD_SIZE": str(num_ranks)}
        ranks = []
        for rank in range(num_ranks):
            own = {"RANK": str(rank), "LOCAL_RANK": str(rank)} | (environment if rank == num_ranks - 1 else {})
            ranks.append(self.fork(run, name=f"stderr-{rank}", **common, **own))
        return ranks

    def start(self, run: RunDirectory, *, before: tuple[str, ...] = (), **environment: str) -> Worker:
        """Start `python -m litlab.training.worker DIR` anew; `before` is a program that starts it, with arguments."""
        file = new_file(run, "stderr")
        command = [*before, sys.executable, "-P", "-m", "litlab.training.worker", str(run.path)]
        with blocked_signals(), file.open("a") as stderr:
            null: Any = subprocess.DEVNULL
            streams = {"stdin": null, "stdout": null, "stderr": stderr}
            process = subprocess.Popen(command, env=variables() | environment, start_new_session=True, **streams)
        self._sessions.append(process.pid)
        return Worker(process, file)

    def resume(self, run: RunDirectory, expected: Reference | None = None) -> Worker:
        """Fork a worker that completes the run, and compare how it ends with a reference."""
        worker = self.fork(run)
        assert worker.wait() == 0, worker.stderr()
        if expected is not None:
            expected.assert_equal(run)
        return worker

    def end_all(self) -> None:
        """Kill what a failed test left behind."""
        kill_sessions(self._sessions)
        self._sessions.clear()


def kill_sessions(leaders: Iterable[int]) -> None:
    """Kill all members of some sessions."""
    for pid in chain.from_iterable(map(session, leaders)):
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


def variables() -> dict[str, str]:
    """Return the environment of all workers: one thread, and the classes of the tests."""
    return dict(os.environ) | {"PYTHONPATH": str(TESTS), "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}


def new_file(run: RunDirectory, name: str) -> Path:
    """Create an empty file beside the run directory."""
    file = run.path.with_name(f"{run.path.name}.{name}")
    file.write_bytes(b"")
    return file


def rank_of(leader: int, rank: int) -> int:
    """Find the child of a worker that is this rank: it starts them in their order."""
    ranks = sorted(psutil.Process(leader).children(), key=lambda child: (child.create_time(), child.pid))
    return ranks[rank].pid
