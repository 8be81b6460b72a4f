"""The other side of `litlab.server`: starts it, asks it for workers, reads what it reports."""

import json
import os
import select
import subprocess
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any, BinaryIO

from litlab.controller import worker_environment
from litlab.errors import UserError
from litlab.signals import held_back

COMMAND = (sys.executable, "-P", "-m", "litlab.server")
_LINES = 15  # of what it said before it ended
# Its own threads: a process of several can't be forked. A worker gets the number that its config says.
_ONE_THREAD = {"OPENBLAS_NUM_THREADS": "1"}


class Server:
    """A `litlab.server`; made at once, ready seconds later.

    Attributes:
        pid: of its process, the parent of all workers.
        has_ended: whether it has ended, which it never should by itself.
    """

    def __init__(self) -> None:
        """
        Raises:
            UserError: if no process can be started.
        """
        if sys.platform != "linux":
            raise UserError("hydra/launcher=pool needs Linux; expected hydra/launcher=basic")
        try:
            self._said = os.fdopen(os.memfd_create("litlab.server"), "w+b")  # /tmp may be full
            self._process = _start(self._said)
        except OSError as error:
            raise UserError(f"the process that starts the jobs can't be started: {error.strerror}") from error
        self.pid = self._process.pid
        self.has_ended = False
        self._pending = b""
        self._num_gpus: int | None = None

    def num_gpus(self) -> int:
        """Waits until it is ready, and says how many GPUs its workers can use.

        Raises:
            UserError: if it ended before, with what it said.
        """
        while self._num_gpus is None and not self.has_ended:
            for report in self.reports(60):  # one at most: it has nothing else to say yet
                self._num_gpus = int(report["ready"])
        if self._num_gpus is not None:
            return self._num_gpus
        said = self._end_of_what_it_said()
        code = self._process.returncode
        raise UserError(f"the process that starts the jobs ended with exit code {code} before the first one:\n{said}")

    def start(self, number: int, directory: Path, environment: dict[str, str]) -> None:
        """Start a worker.

        Raises:
            BrokenPipeError: if the server has ended.
        """
        self._ask({"start": number, "directory": str(directory), "environment": environment})

    def signal(self, number: int, signum: int) -> None:
        """To the worker alone; SIGKILL, SIGSTOP and SIGCONT to all its processes. Nothing happens if it has ended."""
        with suppress(BrokenPipeError):
            self._ask({"signal": signum, "job": number})

    def reports(self, seconds: float) -> list[dict[str, Any]]:
        """What it has said since the last call; waits so long for something. Notices when it has ended."""
        assert self._process.stdout is not None
        readable, _, _ = select.select([self._process.stdout], [], [], seconds)
        if not readable:
            return []
        received = os.read(self._process.stdout.fileno(), 1 << 16)
        if not received:
            self.has_ended = True
            self._process.wait()
        *lines, self._pending = (self._pending + received).split(b"\n")
        return [json.loads(line) for line in lines]

    def close(self, *, is_idle: bool) -> int:
        """End it, and with it all its workers: they may save, then they are killed. Returns its exit code.

        One that is idle, without workers, is ended at once: it may still be importing.
        """
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.close()
        if is_idle:
            self._process.kill()
        code = self._process.wait()
        self._process.stdout.close()
        self._said.close()
        return code

    def _ask(self, request: dict[str, Any]) -> None:
        assert self._process.stdin is not None
        content = memoryview(json.dumps(request).encode() + b"\n")
        while content:  # a pipe takes what fits in
            content = content[self._process.stdin.write(content) :]

    def _end_of_what_it_said(self) -> str:
        self._said.seek(0)
        return "\n".join(self._said.read().decode(errors="replace").splitlines()[-_LINES:])


def _start(said: BinaryIO) -> "subprocess.Popen[bytes]":
    with held_back():
        return subprocess.Popen(
            COMMAND,
            env=worker_environment() | _ONE_THREAD,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=said,
            bufsize=0,
            start_new_session=True,
        )
