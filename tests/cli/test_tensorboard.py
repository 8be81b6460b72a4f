"""`litlab tensorboard`: it serves the run, and leaves nothing behind."""

import json
import os
import signal
import subprocess
import sys
import urllib.request
from pathlib import Path

import pytest
from support.studies import make_study

from litlab.cli import tensorboard
from litlab.errors import UserError
from litlab.runs.directory import RunDirectory
from litlab.tensorboard_session import PREFIX, LoggedSummary, scalars, write_events


def processes_below(number: int) -> set[int]:
    """Those whose parent has this number (Linux)."""
    found = set()
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            parent = int(path.read_text().rpartition(")")[2].split()[1])
        except OSError:  # ended meanwhile
            continue
        if parent == number:
            found.add(int(path.parent.name))
    return found


def test_it_serves_on_loopback_until_ctrl_c(tiny_run: RunDirectory) -> None:
    command = [sys.executable, "-m", "litlab", "tensorboard", str(tiny_run.path.parent)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as server:
        try:
            assert server.stdout is not None
            line = server.stdout.readline()
            address = line.split()[3]
            assert address.startswith("http://127.0.0.1:")
            with urllib.request.urlopen(f"{address}data/runs") as answer:
                assert json.load(answer) == [f"{tiny_run.path.parent.name}/{tiny_run.path.name}"]
            children = processes_below(server.pid)
            server.send_signal(signal.SIGINT)
            assert server.wait(timeout=20) == 0
            assert server.communicate() == ("\n", "")
        finally:
            server.kill()
    for child in children:
        assert _gone(child)


def _gone(number: int) -> bool:
    """Whether a process has ended, or does so within seconds."""
    import time

    for _ in range(100):
        stat = Path(f"/proc/{number}/stat")
        if not stat.exists() or stat.read_text().rpartition(")")[2].split()[0] == "Z":
            return True
        time.sleep(0.05)
    return False


def test_directories_with_nothing_to_show(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no such directory; name one with runs, or train first"):
        tensorboard.main([str(tmp_path / "nothing")])
    with pytest.raises(UserError, match="holds no TensorBoard events"):
        tensorboard.main([str(tmp_path)])


def test_outputs_is_the_default(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match=r"^outputs: no such directory"):
        tensorboard.main([])


def test_a_port_in_use_is_said(tiny_run: RunDirectory) -> None:
    import socket

    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        command = [sys.executable, "-m", "litlab", "tensorboard", str(tiny_run.path), "--port", str(port)]
        done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.returncode == 1
    assert done.stderr.startswith("litlab: TensorBoard did not start:")
    assert str(port) in done.stderr


@pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGHUP])
def test_a_folder_of_studies_is_shown_as_a_view_that_is_gone_after_a_signal(
    signum: signal.Signals, tmp_path: Path
) -> None:
    for name in ("first", "second"):
        for run in make_study(tmp_path / "outputs" / name, {"optimizer.lr": [0.01, 0.1]}, lambda point: 0.5):
            write_events(
                run.path / f"{PREFIX}1795436227.host.1.0", [LoggedSummary(scalars({"val/accuracy": 0.5}), 1, 0.0)]
            )
    (tmp_path / "outputs" / "notes").mkdir()
    (tmp_path / "temporary").mkdir()
    command = [sys.executable, "-m", "litlab", "tensorboard", str(tmp_path / "outputs")]
    environment = os.environ | {"TMPDIR": str(tmp_path / "temporary")}
    with subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment,
        preexec_fn=lambda: signal.signal(signum, signal.SIG_DFL),  # under nohup it would be ignored
    ) as server:
        try:
            assert server.stdout is not None
            address = server.stdout.readline().split()[3]
            with urllib.request.urlopen(f"{address}data/runs") as answer:
                names = {name for name in json.load(answer) if name != "."}
            assert names == {f"{study}/lr={lr}" for study in ("first", "second") for lr in ("0.01", "0.1")}
            assert [path.name[:19] for path in (tmp_path / "temporary").glob("litlab-*")] == ["litlab-tensorboard-"]
            server.send_signal(signum)
            assert server.wait(timeout=20) == 128 + signum
            assert server.communicate()[1] == f"litlab: left out: {tmp_path}/outputs/notes: holds no runs\n"
        finally:
            server.kill()
    assert not list((tmp_path / "temporary").glob("litlab-*"))
