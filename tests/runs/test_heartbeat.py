"""The heartbeat file of a run."""

import os
import socket
import time
from pathlib import Path

import pytest

from litlab.runs.directory import RunDirectory
from litlab.runs.heartbeat import Heartbeat, file_system_time, heartbeat_time


@pytest.fixture
def run(tmp_path: Path) -> RunDirectory:
    return RunDirectory(tmp_path)


def test_it_is_renewed_in_place(run: RunDirectory) -> None:
    assert (Heartbeat.read(run), heartbeat_time(run)) == (None, None)
    for step in (1, 10**15, 2):
        beat = Heartbeat(step=step, epoch=0, time=1.5)
        beat.write(run)
        assert Heartbeat.read(run) == beat
        assert (beat.host, beat.pid) == (socket.gethostname(), os.getpid())
    assert len(list(run.path.iterdir())) == 1
    assert heartbeat_time(run) == pytest.approx(time.time(), abs=5)


@pytest.mark.parametrize(
    "text",
    ["", "{", "5", "{}", '{"step": 1}', '{"step": "a", "epoch": 0, "time": 0, "host": "x", "pid": 1}', "[" * 400],
)
def test_malformed_content_is_no_heartbeat(text: str, run: RunDirectory) -> None:
    run.heartbeat.write_text(text)
    assert Heartbeat.read(run) is None


def test_links_and_pipes_are_refused(run: RunDirectory, tmp_path: Path) -> None:
    target = tmp_path / "target"
    target.write_text("mine")
    run.heartbeat.symlink_to(target)
    with pytest.raises(OSError, match="symbolic links"):
        Heartbeat(step=1, epoch=0, time=0.0).write(run)
    assert target.read_text() == "mine"
    run.heartbeat.unlink()
    os.mkfifo(run.heartbeat)
    assert Heartbeat.read(run) is None


def test_the_clock_of_the_file_system(tmp_path: Path) -> None:
    before = tmp_path.stat().st_mtime_ns
    assert file_system_time(tmp_path) == pytest.approx(time.time(), abs=5)
    assert tmp_path.stat().st_mtime_ns == before, "asking leaves no trace"
    assert file_system_time(tmp_path / "missing") == pytest.approx(time.time(), abs=5)
