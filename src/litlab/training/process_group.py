"""Process-group store of the ranks that litlab starts; torch's own would listen on every network interface."""

import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta

from torch.distributed import TCPStore  # type: ignore[attr-defined]  # public, but not marked so

from litlab.process.ranks import STORE_SOCKET, is_rank, reserve_port, store_environment

_TIMEOUT = timedelta(minutes=5)  # for the other ranks, which may still be importing torch
_USE_EXISTING_STORE = {"TORCHELASTIC_USE_AGENT_STORE": "True"}  # torch's switch for a store that it does not start


@contextmanager
def store_on_loopback(*, strategy: object) -> Iterator[None]:
    """Serve the ranks a store that listens on loopback alone, around all that uses `torch.distributed`.

    The first rank that litlab started serves it, and so does a single process with another strategy than `auto`. Other
    ranks need nothing, and under torchrun the agent has a store.

    Args:
        strategy: `trainer.strategy` of the config.
    """
    if STORE_SOCKET in os.environ:
        reserved = socket.socket(fileno=int(os.environ.pop(STORE_SOCKET)))
        variables, world_size = _USE_EXISTING_STORE, int(os.environ["WORLD_SIZE"])
    elif strategy != "auto" and not is_rank():
        reserved = reserve_port()
        variables, world_size = store_environment(reserved) | _USE_EXISTING_STORE, 1
    else:
        yield
        return
    os.environ |= variables  # for the rest of this process
    host, port = reserved.getsockname()
    store = TCPStore(host, port, world_size, True, _TIMEOUT, wait_for_workers=False, master_listen_fd=reserved.detach())
    try:
        yield
    finally:
        del store
