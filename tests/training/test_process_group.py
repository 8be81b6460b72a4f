"""Sockets of litlab listen on loopback alone, where no other machine can reach them."""

import ipaddress
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest
from support.processes import wait_until
from support.runs import TINY
from support.warm import WarmProcess

from litlab.process.ranks import reserve_port, store_environment
from litlab.runs.directory import RunDirectory

Address = ipaddress.IPv4Address | ipaddress.IPv6Address


def listening(pid: int) -> list[Address]:
    """Return the addresses at which a process, or one below it, waits for connections."""
    process = psutil.Process(pid)
    return [
        ipaddress.ip_address(connection.laddr.ip)
        for member in (process, *process.children(recursive=True))
        for connection in member.net_connections("tcp")
        if connection.status == psutil.CONN_LISTEN
    ]


def outside(addresses: list[Address]) -> list[str]:
    """Return the addresses that others can reach; an IPv4 address may be written as an IPv6 one."""
    return [str(address) for address in addresses if not (getattr(address, "ipv4_mapped", None) or address).is_loopback]


@contextmanager
def training(project: Path, *overrides: str) -> Iterator[int]:
    """Train until the first row of metrics, and interrupt the run afterwards."""
    command = ["litlab", "train", *TINY, "trainer.max_epochs=10000", "hydra.run.dir=run", *overrides]
    metrics, stderr = project / "run" / "metrics.csv", project / "stderr"
    process = WarmProcess(command, project, stderr=stderr)
    try:
        wait_until(lambda: metrics.exists() or process.poll() is not None, 120, stderr.read_text)
        assert process.poll() is None, stderr.read_text()
        yield process.pid
        process.send_signal(signal.SIGTERM)
        assert process.wait(60) == 143
    finally:
        process.kill()


@pytest.mark.integrations
@pytest.mark.parametrize("num_ranks", [1, 2])
def test_ranks_meet_on_loopback(tmp_path: Path, num_ranks: int) -> None:
    with training(tmp_path, "trainer.strategy=ddp", f"trainer.devices={num_ranks}") as number:
        addresses = listening(number)
    assert len(addresses) >= 1 + num_ranks, "the store, and one of each rank"
    assert outside(addresses) == []


def test_tensorboard_and_its_reader_listen_on_loopback(tiny_run: RunDirectory) -> None:
    command = [sys.executable, "-m", "litlab", "tensorboard", str(tiny_run.path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as server:
        try:
            assert server.stdout is not None
            assert "http://127.0.0.1:" in server.stdout.readline()
            addresses = listening(server.pid)
        finally:
            server.send_signal(signal.SIGINT)
            server.wait(20)
    assert addresses
    assert outside(addresses) == []


def test_a_port_is_reserved_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """The port stays reserved until the ranks use it; an interface that the user chose stays."""
    monkeypatch.delenv("GLOO_SOCKET_IFNAME", raising=False)
    monkeypatch.setenv("NCCL_SOCKET_IFNAME", "eth7")
    with reserve_port() as one, reserve_port() as other:
        assert one.getsockname()[0] == "127.0.0.1"
        assert one.getsockname()[1] != other.getsockname()[1]
        variables = store_environment(one)
        assert variables["MASTER_PORT"] == str(one.getsockname()[1])
        assert "NCCL_SOCKET_IFNAME" not in variables
        assert variables.get("GLOO_SOCKET_IFNAME") in ("lo", "lo0")
        with socket.socket() as another, pytest.raises(OSError, match="in use"):
            another.bind(one.getsockname())


def test_this_test_would_see_a_socket_that_is_open_to_all() -> None:
    with socket.create_server(("0.0.0.0", 0)), socket.create_server(("::", 0), family=socket.AF_INET6):
        assert {"0.0.0.0", "::"} <= set(outside(listening(os.getpid())))
