"""`litlab tensorboard`: it serves the run, and leaves nothing behind."""

import json
import os
import signal
import socket
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import psutil
import pytest
from support.processes import is_alive
from support.studies import make_study

from litlab.cli import tensorboard
from litlab.errors import UserError
from litlab.runs.directory import RunDirectory
from litlab.tensorboard_session import PREFIX, LoggedSummary, scalars, write_events


class Served(NamedTuple):
    """TensorBoard with its address and the names of the runs that it shows."""

    process: "subprocess.Popen[str]"
    address: str
    runs: list[str]

    def end(self, signum: signal.Signals) -> tuple[int, str, str]:
        """Send a signal, and return the exit code with the output and errors that followed."""
        self.process.send_signal(signum)
        return self.process.wait(timeout=20), *self.process.communicate()


@contextmanager
def served(directory: Path, **options: Any) -> Iterator[Served]:
    """Start `litlab tensorboard`; kill it if it does not end."""
    command = [sys.executable, "-m", "litlab", "tensorboard", str(directory)]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    with subprocess.Popen(command, **pipes, **options) as process:
        try:
            address = process.stdout.readline().split()[3]
            with urllib.request.urlopen(f"{address}data/runs") as answer:
                yield Served(process, address, json.load(answer))
        finally:
            process.kill()


@pytest.mark.integrations
def test_it_serves_on_loopback_until_ctrl_c(tiny_run: RunDirectory) -> None:
    with served(tiny_run.path.parent) as server:
        assert server.address.startswith("http://127.0.0.1:")
        assert server.runs == [f"{tiny_run.path.parent.name}/{tiny_run.path.name}"]
        children = psutil.Process(server.process.pid).children(recursive=True)
        assert server.end(signal.SIGINT) == (0, "\n", "")
    psutil.wait_procs(children, timeout=5)
    assert not any(is_alive(child.pid) for child in children)


def test_directories_with_nothing_to_show(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match=r"^outputs: no such directory; name one with runs, or train first"):
        tensorboard.main([])
    with pytest.raises(UserError, match="holds no TensorBoard events"):
        tensorboard.main([str(tmp_path)])


def test_a_port_in_use_is_reported(tiny_run: RunDirectory) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        command = [sys.executable, "-m", "litlab", "tensorboard", str(tiny_run.path), "--port", port]
        done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.returncode == 1
    assert done.stderr.startswith("litlab: TensorBoard did not start:")
    assert port in done.stderr


@pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGHUP])
def test_a_folder_of_studies_is_shown_as_a_view_until_a_signal(signum: signal.Signals, tmp_path: Path) -> None:
    for name in ("first", "second"):
        for run in make_study(tmp_path / "outputs" / name, {"optimizer.lr": [0.01, 0.1]}, lambda point: 0.5):
            events = [LoggedSummary(scalars({"val/accuracy": 0.5}), 1, 0.0)]
            write_events(run.path / f"{PREFIX}1795436227.host.1.0", events)
    (tmp_path / "outputs" / "notes").mkdir()
    (tmp_path / "temporary").mkdir()
    environment = os.environ | {"TMPDIR": str(tmp_path / "temporary")}
    not_ignored = partial(signal.signal, signum, signal.SIG_DFL)  # under nohup it would be ignored
    with served(tmp_path / "outputs", env=environment, preexec_fn=not_ignored) as server:
        expected = {f"{study}/lr={lr}" for study in ("first", "second") for lr in ("0.01", "0.1")}
        assert {name for name in server.runs if name != "."} == expected
        assert [path.name[:19] for path in (tmp_path / "temporary").glob("litlab-*")] == ["litlab-tensorboard-"]
        code, _, errors = server.end(signum)
    assert (code, errors) == (128 + signum, f"litlab: left out: {tmp_path}/outputs/notes: holds no runs\n")
    assert not list((tmp_path / "temporary").glob("litlab-*"))
