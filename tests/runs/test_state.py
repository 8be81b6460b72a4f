"""The state of a run, read from real files, locks and processes."""

import json
import os
import random
import subprocess
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
import yaml
from support.processes import lock_owner

from litlab.runs import lock as lock_module
from litlab.runs.directory import RunDirectory
from litlab.runs.heartbeat import Heartbeat
from litlab.runs.lock import directory_lock, is_locked
from litlab.runs.metrics import MetricsWriter, read_metrics
from litlab.runs.result import Result, write_result
from litlab.runs.state import Progress, ProgressReader, RunStatus, read_state

CONFIG: dict[str, Any] = {
    "trainer": {"max_epochs": 4, "max_steps": -1}, "objective": {"metric": "val/accuracy", "mode": "max"},
}  # fmt: skip


@pytest.fixture
def run(tmp_path: Path) -> RunDirectory:
    return RunDirectory.create(tmp_path / "run", yaml.safe_dump(CONFIG), {})


@pytest.fixture
def worker(run: RunDirectory) -> Iterator["subprocess.Popen[str]"]:
    """Start a process that owns the run."""
    with lock_owner(run.path) as process:
        yield process


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
    append(run, 1, 20, {"val/accuracy": 0.25})
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


@pytest.mark.parametrize("text", ["", "process 0 on {here}", "process 999999999 on {here}", "\0\n", "process x"])
def test_a_lock_without_a_living_owner(text: str, run: RunDirectory) -> None:
    (run.path / ".lock").write_text(text.format(here=os.uname().nodename))
    assert not is_locked(run.path)
    assert read_state(run).status == "queued"


def status(run: RunDirectory) -> tuple[RunStatus, str]:
    state = read_state(run)
    return state.status, state.message


def set_age(path: Path, seconds: float) -> None:
    os.utime(path, (time.time() - seconds,) * 2)


def test_a_run_on_another_host_is_alive_as_long_as_its_heartbeat(run: RunDirectory) -> None:
    lock = run.path / ".lock"
    lock.write_text("process 1 on elsewhere")
    assert read_state(run).status is RunStatus.RUNNING, "it has some time for its first heartbeat"
    set_age(lock, 200)
    assert status(run) == ("lost", "no heartbeat from process 1 on elsewhere for 3:20")
    Heartbeat(step=20, epoch=1, time=time.time(), host="elsewhere", pid=1).write(run)
    state = read_state(run)
    assert (state.status, state.message, state.seconds) == (RunStatus.RUNNING, "", pytest.approx(200, abs=5))
    set_age(run.heartbeat, 61)
    assert status(run) == ("lost", "no heartbeat from process 1 on elsewhere for 1:01")
    set_age(run.heartbeat, 300)
    set_age(lock, 0)  # resumed elsewhere
    assert read_state(run).status is RunStatus.RUNNING


def test_a_process_that_hangs_is_reported(run: RunDirectory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lock_module, "_CLOCK_ADJUSTMENT", 10**5)  # this process is younger than the lock
    with directory_lock(run.path):
        set_age(run.path / ".lock", 3600)
        Heartbeat(step=20, epoch=1, time=time.time() - 900).write(run)
        assert status(run) == ("running", "no progress for 15:00")
        set_age(run.heartbeat, 120)
        assert status(run) == ("running", "no heartbeat for 2:00")


HOSTILE: list[tuple[Any, str]] = [
    (5, "unknown"), ([], "unknown"), ({}, "unknown"), ({"status": 5}, "unknown"), ({"status": "\x1b[2J"}, "unknown"),
    ({"status": "running"}, "unknown"), ({"status": "completed", "objective": 10**400, "seconds": 3}, "completed"),
    ({"status": "completed", "objective": True, "seconds": {"fit": "long", "test": [1]}}, "completed"),
    ({"status": "failed", "error": {"a": ["b"]}}, "failed"),
]  # fmt: skip


@pytest.mark.parametrize(("result", "status"), HOSTILE)
def test_an_untrusted_result_raises_nothing(result: Any, status: str, run: RunDirectory) -> None:
    run.result.write_text(json.dumps(result))
    assert (read_state(run).status, read_state(run).objective) == (status, None)


@pytest.mark.parametrize(("depth", "status"), [(400, "failed"), (10**5, "unknown")])
def test_a_deeply_nested_result(depth: int, status: str, run: RunDirectory) -> None:
    """The first can be read, but its message cannot be shown."""
    run.result.write_text('{"status": "failed", "error": ' + "[" * depth + "]" * depth + "}")
    assert read_state(run).status == status


@pytest.mark.parametrize("name", ["result.json", "config.yaml", "metrics.csv", ".lock"])
def test_a_pipe_does_not_block(name: str, run: RunDirectory) -> None:
    run.metrics.touch()
    (run.path / name).unlink(missing_ok=True)
    os.mkfifo(run.path / name)
    assert read_state(run).status == ("unknown" if name == "result.json" else "interrupted")


def test_damaged_files_are_reported(run: RunDirectory) -> None:
    run.config.write_text("{{")
    run.metrics.write_bytes(b"\xff\xfe\x00")
    assert "config.yaml is damaged" in read_state(run).message
    run.result.write_text('{"status": ')
    assert read_state(run).status is RunStatus.UNKNOWN
    assert (RunStatus.UNKNOWN.is_final, RunStatus.UNKNOWN.is_failure) == (True, False)
    assert "result.json is damaged" in read_state(run).message


def append(run: RunDirectory, epoch: int, step: int, values: dict[str, float]) -> None:
    with closing(MetricsWriter(run.metrics)) as writer:
        writer.append(epoch, step, values)


def write_rows(run: RunDirectory) -> bytes:
    """Write the rows of two epochs of 20 steps; return the content of metrics.csv."""
    for step in range(10, 41, 10):
        append(run, (step - 1) // 20, step, {"train/loss": 1 / step, "throughput/images": 3.0})
        if step % 20 == 0:
            append(run, (step - 1) // 20, step, {"val/accuracy": step / 100})
    return run.metrics.read_bytes()


def test_every_row_is_read_once_wherever_the_file_is_torn(run: RunDirectory) -> None:
    text, numbers = write_rows(run), random.Random(0)
    rows = read_metrics(run.metrics)
    for _ in range(30):
        places = [*sorted(numbers.sample(range(len(text)), 6)), len(text)]
        run.metrics.unlink()
        reader, rows_read = ProgressReader(run, CONFIG), []
        for place in places:
            rows_read += reader.read()
            run.metrics.write_bytes(text[:place])
        assert rows_read + reader.read() == rows
        assert reader.read() == []


def test_progress(run: RunDirectory) -> None:
    reader = ProgressReader(run, CONFIG)
    assert reader.progress == Progress(num_epochs=4, fraction=0.0)
    expected = [
        ((0, 10, {"train/loss": 1.0}), (1, 0.0, None)),  # how long an epoch is, nobody knows yet
        ((0, 20, {"val/accuracy": 0.1}), (1, 0.25, 0.1)),
        ((1, 30, {"lr": 1.0}), (2, 0.375, 0.1)),
        ((3, 80, {"val/accuracy": 0.3}), (4, 1.0, 0.3)),
        ((3, 40, {"test/accuracy": 0.2}), (4, 1.0, 0.3)),  # the best checkpoint was tested
    ]
    for row, (epoch, fraction, objective) in expected:
        append(run, *row)
        reader.read()
        progress = reader.progress
        assert (progress.epoch, progress.fraction, progress.objective) == (epoch, fraction, objective)
    assert progress.step == 80


def test_a_limit_of_steps(run: RunDirectory) -> None:
    reader = ProgressReader(run, {"trainer": {"max_epochs": None, "max_steps": 40}, "objective": None})
    append(run, 0, 10, {"train/loss": 1.0})
    reader.read()
    assert (reader.progress.fraction, reader.progress.num_epochs) == (0.25, None)
    endless = ProgressReader(run, {"trainer": {"max_epochs": -1}})
    endless.read()
    assert endless.progress == Progress(1, 10, None, None, None)


def test_a_truncated_file_is_read_from_the_start(run: RunDirectory) -> None:
    text = write_rows(run)
    reader = ProgressReader(run, CONFIG)
    num_rows = len(reader.read())
    run.metrics.write_bytes(text[: text.index(b"20,train")])
    assert len(reader.read()) == 2
    assert reader.progress.step == 10
    run.metrics.write_bytes(text)
    assert len(reader.read()) == num_rows - 2
    changed = text.replace(b"images,3.0", b"images,12345.5")  # truncated, and longer than before at the next read
    run.metrics.write_bytes(changed)
    assert len(reader.read()) == num_rows
    run.metrics.unlink()
    assert reader.read() == []


def test_malformed_lines_are_left_out(run: RunDirectory) -> None:
    run.metrics.write_bytes(
        b"epoch,step,metric,value\n\xff\n0,1\n0,1,a,b\n0,1,val/accuracy,0.5\n\n1,x,y,z\n"
        b"-1,1,val/accuracy,1\n0,-1,val/accuracy,1\n0," + b"9" * 400 + b",val/accuracy,1\n" + b"9" * 9999
    )
    reader = ProgressReader(run, {"trainer": 5, "objective": []})
    assert [row.value for row in reader.read()] == [0.5]
    assert ProgressReader(run, {"trainer": {"max_epochs": 10**400, "max_steps": 10**400}}).progress.num_epochs is None
