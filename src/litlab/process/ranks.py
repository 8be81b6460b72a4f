"""Several processes for one run: started together, stopped together. No torch."""

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Protocol

from litlab.process.signals import PARENT, StopRequest, held_back

STORE_SOCKET = "LITLAB_STORE_SOCKET"  # rank 0 finds the listening socket of the ranks' store by this number
GRACE = 4.0  # seconds for the others to end once one has
POLL = 0.02  # seconds


def is_rank() -> bool:
    """Whether this process was started as one rank of several, by us or by torchrun."""
    return all(name in os.environ for name in ("RANK", "LOCAL_RANK", "WORLD_SIZE"))


def is_led() -> bool:
    """Whether another process answers for the run: for one of our ranks their parent, under torchrun rank 0."""
    return is_rank() and (PARENT in os.environ or global_rank() > 0)


def global_rank() -> int:
    return int(os.environ["RANK"]) if is_rank() else 0


def ranks_here() -> int:
    """Ranks on this machine."""
    return int(os.environ.get("LOCAL_WORLD_SIZE", "1")) if is_rank() else 1


def machines() -> int:
    """Machines of the run; torchrun starts equally many ranks on each."""
    return int(os.environ["WORLD_SIZE"]) // ranks_here() if is_rank() else 1


class Rank(Protocol):
    """A child process: a new one, or a fork."""

    returncode: int | None

    def poll(self) -> int | None: ...
    def wait(self) -> int: ...
    def send_signal(self, signum: int, /) -> None: ...
    def kill(self) -> None: ...


StartRank = Callable[[dict[str, str], Sequence[int]], Rank]  # of its own variables, and the descriptors to inherit


def run_ranks(world_size: int, stop: StopRequest, start: StartRank) -> int:
    """Start a worker for each rank and wait for all; the first that fails takes the others down.

    The first gets the socket of the port where all will meet, and is to serve them a store there.

    Returns:
        The exit code: 0 if all ended with 0, else that of the first that did not.
    """
    ranks: list[Rank] = []
    try:
        with held_back():
            with port_on_loopback() as reserved:  # closed before a second rank could inherit it by forking
                everywhere = meeting_at(reserved) | {PARENT: str(os.getpid()), "NODE_RANK": "0"}
                everywhere |= {"WORLD_SIZE": str(world_size), "LOCAL_WORLD_SIZE": str(world_size)}
                store = {STORE_SOCKET: str(reserved.fileno())}
                ranks.append(start(everywhere | _numbered(0) | store, [reserved.fileno()]))
            for rank in range(1, world_size):
                ranks.append(start(everywhere | _numbered(rank), []))
        return _wait(ranks, stop)
    finally:
        for process in ranks:
            if process.poll() is None:
                process.kill()
                process.wait()


def _numbered(rank: int) -> dict[str, str]:
    return {"RANK": str(rank), "LOCAL_RANK": str(rank)}


def new_process(directory: Path, environment: dict[str, str], passed: Sequence[int]) -> "subprocess.Popen[bytes]":
    """A rank that starts anew."""
    command = [sys.executable, "-P", "-m", "litlab.training.worker", str(directory)]
    return subprocess.Popen(command, env=dict(os.environ) | environment, pass_fds=passed)


def port_on_loopback() -> socket.socket:
    """A socket that keeps a free port of 127.0.0.1 from others; it does not listen yet."""
    reserved = socket.socket()
    reserved.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    reserved.bind(("127.0.0.1", 0))
    return reserved


def meeting_at(reserved: socket.socket) -> dict[str, str]:
    """Variables with which `torch.distributed` meets there, and opens sockets on loopback alone.

    Another choice of interfaces in the environment stays.
    """
    here = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(reserved.getsockname()[1])}
    loopback = next((name for _, name in socket.if_nameindex() if name in ("lo", "lo0")), None)  # Linux, macOS
    for name in ("GLOO_SOCKET_IFNAME", "NCCL_SOCKET_IFNAME"):
        if loopback and name not in os.environ:
            here[name] = loopback
    return here


def _wait(ranks: Sequence[Rank], stop: StopRequest) -> int:
    """Pass a signal on once; give the rest a moment when one rank has failed."""
    passed_on = False
    deadline = None
    code = 0
    with stop.deferred():
        while any(process.poll() is None for process in ranks):
            if not passed_on and (signum := stop.pending()):
                passed_on = True
                _send(ranks, signum)
            ended = [process.returncode for process in ranks if process.poll() is not None]
            failed = next((each for each in ended if each), 0)
            if failed and deadline is None:
                code, deadline = failed, time.monotonic() + GRACE
                if not passed_on:  # to those who are stopping already it would be the second signal, which ends at once
                    _send(ranks, signal.SIGTERM)
            if deadline is not None and time.monotonic() > deadline:
                break
            time.sleep(POLL)
    code = code or next((process.returncode for process in ranks if process.returncode), 0)
    return 128 - code if code < 0 else code


def _send(ranks: Sequence[Rank], signum: int) -> None:
    for process in ranks:
        if process.poll() is None:
            process.send_signal(signum)
