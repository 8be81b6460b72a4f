"""The heartbeat file of a run, and the thread that renews it."""

import os
import signal
import socket
import threading
import time
from pathlib import Path

import pytest
from support.pool_jobs import endless, new_job, process_facts
from support.processes import wait_until
from support.warm import WarmProcess

from litlab.runs import heartbeat
from litlab.runs.directory import RunDirectory
from litlab.runs.heartbeat import Heartbeat, HeartbeatThread, file_system_time, heartbeat_time


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


def test_the_clock_of_the_file_system(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = tmp_path.stat().st_mtime_ns
    for directory in (tmp_path, tmp_path / "missing"):
        assert file_system_time(directory) == pytest.approx(time.time(), abs=5)
    assert tmp_path.stat().st_mtime_ns == before, "asking leaves no trace"
    monkeypatch.delattr(os, "O_TMPFILE")  # NFS does not know it
    monkeypatch.setattr(time, "time", lambda: 0.0)
    assert file_system_time(tmp_path) > 1e9
    assert list(tmp_path.iterdir()) == []


def test_the_time_of_the_progress_is_by_the_clock_of_the_file_system(
    run: RunDirectory, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A host whose clock is off would seem to have made no progress for minutes."""
    monkeypatch.setattr(heartbeat, "file_system_time", lambda directory: time.time() + 900)
    with HeartbeatThread(run):
        wait_until(lambda: Heartbeat.read(run) is not None, seconds=5)
        beat = Heartbeat.read(run)
    assert beat is not None
    assert beat.time == pytest.approx(time.time() + 900, abs=5)


def test_a_thread_renews_it_with_the_progress(run: RunDirectory, monkeypatch: pytest.MonkeyPatch) -> None:
    """The time is that of the last progress. After an orderly end there is neither file nor thread."""
    monkeypatch.setattr(heartbeat, "INTERVAL", 0.01)
    beats = []
    with HeartbeatThread(run) as thread:
        for progress in [(0, 0, 0), (7, 2, 0), (7, 2, 1)]:
            thread.read_progress = lambda progress=progress: progress
            time.sleep(0.1)
            beats.append(Heartbeat.read(run))
            renewed = heartbeat_time(run)
            wait_until(lambda renewed=renewed: heartbeat_time(run) > renewed, seconds=5)
            assert Heartbeat.read(run) == beats[-1]
    assert [(beat.step, beat.epoch) for beat in beats] == [(0, 0), (7, 2), (7, 2)]
    assert beats[0].time < beats[1].time < beats[2].time
    assert not run.heartbeat.exists()
    assert "heartbeat" not in {thread.name for thread in threading.enumerate()}


def test_a_disk_that_refuses_it_is_reported_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(heartbeat, "INTERVAL", 0.01)
    missing = RunDirectory(tmp_path / "missing")
    with HeartbeatThread(missing):
        time.sleep(0.1)
    assert [record.message for record in caplog.records] == [
        f"{missing.heartbeat} cannot be written: No such file or directory"
    ]


@pytest.mark.integrations
@pytest.mark.parametrize("num_ranks", [1, 2])
def test_a_worker_renews_it_until_it_ends_in_order(num_ranks: int, tmp_path: Path) -> None:
    """Rank 0 does. After SIGKILL the file stays."""
    job = new_job(tmp_path, 0, endless(devices=num_ranks))
    environment = dict(os.environ) | {"PYTHONPATH": str(Path(__file__).parents[1])}
    for signum in (signal.SIGTERM, signal.SIGKILL):
        process = WarmProcess(
            ["litlab.training.worker", str(job.run.path)], tmp_path, environment=environment, block_signals=True
        )
        job.run.metrics.unlink(missing_ok=True)
        wait_until(lambda: job.run.metrics.exists(), seconds=60)
        beat = Heartbeat.read(job.run)
        assert beat is not None
        assert (beat.pid == process.pid) == (num_ranks == 1)
        assert beat.pid == process_facts(job)["pid"]
        os.kill(beat.pid, signum)
        process.wait(20)
        assert job.run.heartbeat.exists() == (signum == signal.SIGKILL)
