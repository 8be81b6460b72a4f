"""Real processes that train, to be stopped, killed and watched: new ones, and forks of one that has torch already."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

from support.warm import WarmProcess

from litlab.process.ranks import reserve_port, store_environment
from litlab.process.signals import blocked_signals
from litlab.runs.directory import RunDirectory

TESTS = Path(__file__).parents[1]
PATIENCE = 120  # seconds; a machine may be busy


class Worker:
    """A process that leads a session of its own.

    Attributes:
        session: its id, the process's own.
        started: when, by the monotonic clock.
    """

    def __init__(self, pid: int, ended: Callable[[], int | None], said: Path) -> None:
        self.session = pid
        self.started = time.monotonic()
        self._ended = ended
        self._file = said

    def ended(self) -> int | None:
        """Its exit code; negative for a signal that killed it; None while it goes on."""
        return self._ended()

    def send(self, signum: int) -> None:
        """To this process alone."""
        with suppress(ProcessLookupError):
            os.kill(self.session, signum)

    def wait(self, seconds: float = PATIENCE) -> int:
        """Its exit code, and nobody of its session may be left."""
        wait_until(lambda: self.ended() is not None, seconds, self.said)
        wait_until(lambda: not session(self.session), 1, lambda: f"left behind: {session(self.session)}")
        code = self.ended()
        assert code is not None
        return code

    def said(self) -> str:
        """Everything on its standard error."""
        return self._file.read_text(encoding="utf-8")


class Workers:
    """Starts them; none of them outlives the test."""

    def __init__(self) -> None:
        self._sessions: list[int] = []

    def forked(
        self, run: RunDirectory, *, module: str = "litlab.training.worker", said: str = "said", **environment: str
    ) -> Worker:
        """`python -m litlab.training.worker` as a fork of a process that has imported torch and lightning."""
        file = new_file(run, said)
        process = WarmProcess(
            [module, str(run.path)],
            Path.cwd(),
            stderr=file,
            environment=variables() | environment,
            new_session=True,
            block_signals=True,
        )
        self._sessions.append(process.pid)
        return Worker(process.pid, process.poll, file)

    def forked_ranks(self, run: RunDirectory, num_ranks: int, **environment: str) -> list[Worker]:
        """As torchrun starts them: nobody above them. The environment is of the last rank alone."""
        with reserve_port() as reserved:
            everywhere = store_environment(reserved) | {
                "WORLD_SIZE": str(num_ranks),
                "LOCAL_WORLD_SIZE": str(num_ranks),
            }
        ranks = []
        for rank in range(num_ranks):
            own = {"RANK": str(rank), "LOCAL_RANK": str(rank)} | (environment if rank == num_ranks - 1 else {})
            ranks.append(self.forked(run, said=f"said-{rank}", **everywhere, **own))
        return ranks

    def new(self, run: RunDirectory, *, before: tuple[str, ...] = (), **environment: str) -> Worker:
        """`python -m litlab.training.worker`; `before`: what the command starts with, of programs that start another one."""
        file = new_file(run, "said")
        command = [*before, sys.executable, "-P", "-m", "litlab.training.worker", str(run.path)]
        with blocked_signals(), file.open("a") as said:
            process = subprocess.Popen(
                command,
                env=variables() | environment,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=said,
                start_new_session=True,
            )
        self._sessions.append(process.pid)
        return Worker(process.pid, process.poll, file)

    def end_all(self) -> None:
        """After a test that failed half-way."""
        for leader in self._sessions:
            for pid in session(leader):
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
        self._sessions.clear()


def variables() -> dict[str, str]:
    """The environment of all of them: one thread, and the classes of the tests."""
    return dict(os.environ) | {"PYTHONPATH": str(TESTS), "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}


def new_file(run: RunDirectory, name: str) -> Path:
    """Beside the run directory, empty."""
    file = run.path.with_name(f"{run.path.name}.{name}")
    file.write_bytes(b"")
    return file


def session(leader: int) -> list[int]:
    """The processes of a session that have not ended."""
    found = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            state, _, _, its_session, *_ = path.read_text().rpartition(")")[2].split()
        except (FileNotFoundError, ProcessLookupError):
            continue
        if int(its_session) == leader and state != "Z":
            found.append(int(path.parent.name))
    return found


def rank_of(leader: int, rank: int) -> int:
    """The process of a session that is this rank."""
    for pid in session(leader):
        if f"RANK={rank}".encode() in Path(f"/proc/{pid}/environ").read_bytes().split(b"\0"):
            return pid
    raise AssertionError(f"no rank {rank} among {session(leader)}")


def wait_until(condition: Callable[[], Any], seconds: float, said: Callable[[], object] = lambda: "") -> None:
    """Look every few milliseconds; fail after so many seconds, with what is `said`."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, f"not within {seconds} s: {said()}"
        time.sleep(0.003)
