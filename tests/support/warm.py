"""Commands of litlab as whole processes, but without the seconds of importing: forks of `support.warm_server.py`."""

import json
import os
import select
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import IO, Any

SERVER = Path(__file__).with_name("warm_server.py")
START_UP = 120  # seconds; a machine may be busy


class WarmProcess:
    """A process that does what `python ARGUMENTS` does; used like subprocess.Popen's.

    Attributes:
        pid: its number.
        returncode: its exit code once its end was seen; negative for the signal that ended it.
    """

    def __init__(
        self,
        arguments: Sequence[str],
        folder: Path,
        *,
        streams: Sequence[int | IO[Any]] = (subprocess.DEVNULL,) * 3,
        environment: dict[str, str] | None = None,
        leads_session: bool = False,
        held_back: bool = False,
    ) -> None:
        """
        Args:
            streams: its standard input, output and errors.
            environment: all of its variables, by default ours.
            leads_session: whether it leads a session of its own, else only a group of its own in ours.
            held_back: whether signals to stop wait until it asks for them, as in a worker that a controller starts.
        """
        request = {
            "arguments": [*arguments],
            "folder": str(folder),
            "environment": dict(os.environ) if environment is None else environment,
            "leads_session": leads_session,
            "held_back": held_back,
        }
        nothing = os.open(os.devnull, os.O_RDWR)
        self._told, telling = os.pipe()
        descriptors = [nothing if each == subprocess.DEVNULL else each for each in streams]
        numbers = [each if isinstance(each, int) else each.fileno() for each in descriptors]
        socket.send_fds(_server()[0], [json.dumps(request).encode()], [*numbers, telling])
        os.close(nothing)
        os.close(telling)
        self.returncode: int | None = None
        self.pid = self._line(START_UP)

    def poll(self) -> int | None:
        """Its exit code, if it has ended."""
        with suppress(subprocess.TimeoutExpired):
            self.wait(0)
        return self.returncode

    def wait(self, timeout: float | None = None) -> int:
        """Its exit code.

        Raises:
            subprocess.TimeoutExpired: after so many seconds.
        """
        if self.returncode is None:
            self.returncode = self._line(timeout)
            os.close(self._told)
        return self.returncode

    def send_signal(self, signum: int) -> None:
        if self.poll() is None:
            os.kill(self.pid, signum)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)

    def _line(self, timeout: float | None) -> int:
        if not select.select([self._told], [], [], timeout)[0]:
            raise subprocess.TimeoutExpired(str(SERVER), timeout or 0)
        line = b""
        while not line.endswith(b"\n"):
            content = os.read(self._told, 1)
            assert content, "the server of warm processes has ended"
            line += content
        return int(line)


def run_warm(
    arguments: Sequence[str], folder: Path, *, timeout: float, environment: dict[str, str] | None = None
) -> "subprocess.CompletedProcess[str]":
    """What `python ARGUMENTS` did and said.

    Raises:
        subprocess.TimeoutExpired: after so many seconds; then it is killed.
    """
    with tempfile.TemporaryFile("w+") as output, tempfile.TemporaryFile("w+") as errors:
        streams = (subprocess.DEVNULL, output, errors)
        process = WarmProcess(arguments, folder, streams=streams, environment=environment)
        try:
            code = process.wait(timeout)
        finally:
            process.kill()
        said = []
        for file in (output, errors):
            file.seek(0)
            said.append(file.read())
    return subprocess.CompletedProcess([*arguments], code, *said)


def end_server() -> None:
    """End the server, if there is one; its forks are their callers' to end."""
    if _server.cache_info().currsize:
        connection, process = _server()
        connection.close()
        process.kill()
        process.wait()
        _server.cache_clear()


@cache
def _server() -> "tuple[socket.socket, subprocess.Popen[bytes]]":
    """The connection to the one server of this process."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    one_thread = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
    with theirs:
        process = subprocess.Popen([sys.executable, "-P", str(SERVER)], stdin=theirs, env=os.environ | one_thread)
    return ours, process
