"""Where the ranks that litlab starts meet: on loopback alone. Torch's own store would listen on every interface."""

import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta

from torch.distributed import TCPStore  # type: ignore[attr-defined]  # public, but not marked so

from litlab.process.ranks import STORE_SOCKET, is_rank, reserve_port, store_environment

_PATIENCE = timedelta(minutes=5)  # for the other ranks, which may still be importing torch
_SERVED = {"TORCHELASTIC_USE_AGENT_STORE": "True"}  # what torch calls it when somebody else serves the store


@contextmanager
def store_on_loopback(*, strategy: object) -> Iterator[None]:
    """Around all that uses `torch.distributed`: the first of the ranks that litlab started serves the others a store.

    A lone process makes a process group, too, where its strategy is another than `auto`. In other ranks, and under
    torchrun, whose agent has a store of its own, this does nothing.
    """
    if STORE_SOCKET in os.environ:
        reserved = socket.socket(fileno=int(os.environ.pop(STORE_SOCKET)))
        with _environment(_SERVED), _serving(reserved, int(os.environ["WORLD_SIZE"])):
            yield
    elif strategy != "auto" and not is_rank():
        reserved = reserve_port()
        with _environment(store_environment(reserved) | _SERVED), _serving(reserved, 1):
            yield
    else:
        yield


@contextmanager
def _serving(reserved: socket.socket, world_size: int) -> Iterator[None]:
    """A store that listens on this socket, and closes it."""
    host, port = reserved.getsockname()
    descriptor = reserved.detach()
    store = TCPStore(host, port, world_size, True, _PATIENCE, wait_for_workers=False, master_listen_fd=descriptor)
    try:
        yield
    finally:
        del store


@contextmanager
def _environment(changes: dict[str, str]) -> Iterator[None]:
    before = {name: os.environ.get(name) for name in changes}
    os.environ |= changes
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value
