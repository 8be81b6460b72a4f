"""The state of a run, read from real files, locks and processes."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
import yaml

from litlab.runs import lock as lock_module
from litlab.runs.directory import RunDirectory
from litlab.runs.heartbeat import Heartbeat
from litlab.runs.lock import directory_lock, is_locked
from litlab.runs.metrics import MetricsWriter
from litlab.runs.result import Result, write_result
from litlab.runs.state import RunStatus, read_state

CONFIG = {"trainer": {"max_epochs": 4}, "objective": {"metric": "val/accuracy", "mode": "max"}}
OWNER = """
import sys, time
from pathlib import Path
from litlab.runs import lock as lock_module
from litlab.runs.heartbeat import Heartbeat
from litlab.runs.lock import directory_lock, is_locked
with directory_lock(Path(sys.argv[1])):
    print("owns", flush=True)
    time.sleep(60)
"""


@pytest.fixture
def run(tmp_path: Path) -> RunDirectory:
    return RunDirectory.create(tmp_path / "run", yaml.safe_dump(CONFIG), {})


@pytest.fixture
def worker(run: RunDirectory) -> Iterator["subprocess.Popen[str]"]:
    """Start a process that owns the run."""
    command = [sys.executable, "-c", OWNER, str(run.path)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "owns\n"
    yield process
    process.kill()
    process.communicate()


def test_a_new_run_is_queued(run: RunDirectory) -> None:
    assert read_state(run).status == "queued"


def test_the_result_determines_the_state(run: RunDirectory) -> None:
    seconds = {"start": 1.0, "fit": 5.0, "training": 4.0, "saving": 0.5}
    write_result(run, Result(RunStatus.COMPLETED, "", objective=0.5, seconds=seconds, error="none"))
    state = read_state(run)
    assert (state.status, state.message, state.objective, state.seconds) == ("completed", "", 0.5, 6.0)
    for status in (RunStatus.FAILED, RunStatus.REFUSED, RunStatus.INTERRUPTED, RunStatus.PRUNED):
        write_result(run, Result(status, "", error="why\nand where"))
        state = read_state(run)
        assert (state.status, state.message, state.objective, state.seconds) == (status, "why\nand where", None, None)


def test_a_running_process_and_a_killed_one(run: RunDirectory, worker: "subprocess.Popen[str]") -> None:
    state = read_state(run)
    assert (state.status, state.progress and state.progress.epoch) == ("running", None)
    with closing(MetricsWriter(run.metrics)) as writer:
        writer.append(1, 20, {"val/accuracy": 0.25})
    state = read_state(run)
    assert state.progress is not None
    assert (state.progress.epoch, state.progress.num_epochs, state.objective) == (2, 4, 0.25)
    assert state.seconds is not None
    assert 0 <= state.seconds < 60
    worker.kill()
    os.waitid(os.P_PID, worker.pid, os.WEXITED | os.WNOWAIT)  # it stays a zombie
    state = read_state(run)
    assert (state.status, state.message, state.objective) == ("interrupted", "its process is gone", 0.25)
    run.metrics.unlink()
    assert read_state(run).status == "queued"


def test_reading_leaves_the_lock_alone(run: RunDirectory, worker: "subprocess.Popen[str]") -> None:
    worker.kill()
    worker.wait()
    before = (run.path / ".lock").read_text()
    read_state(run)
    assert (run.path / ".lock").read_text() == before
    with directory_lock(run.path):
        assert read_state(run).status == "running"


def test_a_process_id_that_is_used_again(run: RunDirectory) -> None:
    lock = run.path / ".lock"
    with directory_lock(run.path):
        assert is_locked(run.path)
        long_ago = time.time() - 10**7  # before this process, perhaps before the machine, started
        os.utime(lock, (long_ago, long_ago))
        assert not is_locked(run.path)


@pytest.mark.parametrize("text", ["", "process 0 on {here}", "process 999999999 on {here}", "\0\n", "process x"])
def test_a_lock_without_a_living_owner(text: str, run: RunDirectory) -> None:
    (run.path / ".lock").write_text(text.format(here=os.uname().nodename))
    assert not is_locked(run.path)
    assert read_state(run).status == "queued"


def set_age(path: Path, seconds: float) -> None:
    os.utime(path, (time.time() - seconds,) * 2)


def test_a_run_on_another_host_is_alive_as_long_as_its_heartbeat(run: RunDirectory) -> None:
    lock = run.path / ".lock"
    lock.write_text("process 1 on elsewhere")
    assert read_state(run).status is RunStatus.RUNNING, "it has some time for its first heartbeat"
    set_age(lock, 200)
    assert (read_state(run).status, read_state(run).message) == (
        RunStatus.LOST, "no heartbeat from process 1 on elsewhere for 3:20",
    )  # fmt: skip
    Heartbeat(step=20, epoch=1, time=time.time(), host="elsewhere", pid=1).write(run)
    state = read_state(run)
    assert (state.status, state.message, state.seconds) == (RunStatus.RUNNING, "", pytest.approx(200, abs=5))
    set_age(run.heartbeat, 61)
    assert (read_state(run).status, read_state(run).message) == (
        RunStatus.LOST, "no heartbeat from process 1 on elsewhere for 1:01",
    )  # fmt: skip
    set_age(run.heartbeat, 300)
    set_age(lock, 0)  # resumed elsewhere
    assert read_state(run).status is RunStatus.RUNNING


def test_a_process_that_hangs_is_reported(run: RunDirectory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lock_module, "_CLOCK_ADJUSTMENT", 10**5)  # this process is younger than the lock
    with directory_lock(run.path):
        set_age(run.path / ".lock", 3600)
        Heartbeat(step=20, epoch=1, time=time.time() - 900).write(run)
        assert (read_state(run).status, read_state(run).message) == (RunStatus.RUNNING, "no progress for 15:00")
        set_age(run.heartbeat, 120)
        assert (read_state(run).status, read_state(run).message) == (RunStatus.RUNNING, "no heartbeat for 2:00")


HOSTILE: list[Any] = [
    5, [], {}, {"status": 5}, {"status": "\x1b[2J"}, {"status": "completed", "objective": 10**400, "seconds": 3},
    {"status": "completed", "objective": True, "seconds": {"fit": "long", "test": [1]}},
    {"status": "failed", "error": {"a": ["b"]}},
]  # fmt: skip


@pytest.mark.parametrize("hostile", HOSTILE)
def test_an_untrusted_result_raises_nothing(hostile: Any, run: RunDirectory) -> None:
    run.result.write_text(json.dumps(hostile))
    state = read_state(run)
    assert state.status == (
        "completed" if isinstance(hostile, dict) and hostile.get("status") == "completed" else "failed"
    )
    assert state.objective is None


def test_a_deeply_nested_result_has_failed(run: RunDirectory) -> None:
    for depth in (400, 10**5):  # the first can be read, but not be shown
        run.result.write_text('{"status": "failed", "error": ' + "[" * depth + "]" * depth + "}")
        assert read_state(run).status == "failed"


@pytest.mark.parametrize("name", ["result.json", "config.yaml", "metrics.csv", ".lock"])
def test_a_pipe_does_not_block(name: str, run: RunDirectory) -> None:
    run.metrics.touch()
    (run.path / name).unlink(missing_ok=True)
    os.mkfifo(run.path / name)
    assert read_state(run).status == ("failed" if name == "result.json" else "interrupted")


def test_damaged_files_are_reported(run: RunDirectory) -> None:
    run.config.write_text("{{")
    run.metrics.write_bytes(b"\xff\xfe\x00")
    assert "config.yaml is damaged" in read_state(run).message
    run.result.write_text('{"status": ')
    assert "result.json is damaged" in read_state(run).message
