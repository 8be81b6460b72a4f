"""Progress of a run whose metrics.csv grows, is torn at any byte, and is truncated by a resume."""

import random
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from litlab.runs.directory import RunDirectory
from litlab.runs.metrics import MetricsWriter, read_metrics
from litlab.runs.progress import Progress, ProgressReader

CONFIG: dict[str, Any] = {
    "trainer": {"max_epochs": 4, "max_steps": -1}, "objective": {"metric": "val/accuracy", "mode": "max"},
}  # fmt: skip


@pytest.fixture
def run(tmp_path: Path) -> RunDirectory:
    return RunDirectory(tmp_path)


def append(run: RunDirectory, epoch: int, step: int, values: dict[str, float]) -> None:
    with closing(MetricsWriter(run.metrics)) as writer:
        writer.append(epoch, step, values)


def text_of(run: RunDirectory) -> bytes:
    writer = MetricsWriter(run.metrics)
    for step in range(10, 41, 10):
        writer.append((step - 1) // 20, step, {"train/loss": 1 / step, "throughput/images": 3.0})
        if step % 20 == 0:
            writer.append((step - 1) // 20, step, {"val/accuracy": step / 100})
    writer.close()
    return run.metrics.read_bytes()


def test_every_row_is_read_once_wherever_the_file_is_torn(run: RunDirectory) -> None:
    text, numbers = text_of(run), random.Random(0)
    rows = read_metrics(run.metrics)
    for _ in range(30):
        places = [*sorted(numbers.sample(range(len(text)), 6)), len(text)]
        run.metrics.unlink()
        follower, found = ProgressReader(run, CONFIG), []
        for place in places:
            found += follower.read()
            run.metrics.write_bytes(text[:place])
        assert found + follower.read() == rows
        assert follower.read() == []
        assert follower.num_restarts == 0


def test_progress(run: RunDirectory) -> None:
    follower = ProgressReader(run, CONFIG)
    assert follower.progress == Progress(num_epochs=4, fraction=0.0)
    expected = [
        ((0, 10, {"train/loss": 1.0}), (1, 0.0, None)),  # how long an epoch is, nobody knows yet
        ((0, 20, {"val/accuracy": 0.1}), (1, 0.25, 0.1)),
        ((1, 30, {"lr": 1.0}), (2, 0.375, 0.1)),
        ((3, 80, {"val/accuracy": 0.3}), (4, 1.0, 0.3)),
        ((3, 40, {"test/accuracy": 0.2}), (4, 1.0, 0.3)),  # the best checkpoint was tested
    ]
    for row, (epoch, fraction, objective) in expected:
        append(run, *row)
        follower.read()
        now = follower.progress
        assert (now.epoch, now.fraction, now.objective) == (epoch, fraction, objective)
    assert now.step == 80


def test_a_limit_of_steps(run: RunDirectory) -> None:
    follower = ProgressReader(run, {"trainer": {"max_epochs": None, "max_steps": 40}, "objective": None})
    append(run, 0, 10, {"train/loss": 1.0})
    follower.read()
    assert (follower.progress.fraction, follower.progress.num_epochs) == (0.25, None)
    endless = ProgressReader(run, {"trainer": {"max_epochs": -1}})
    endless.read()
    assert endless.progress == Progress(1, 10, None, None, None)


def test_a_truncated_file_is_read_from_the_start(run: RunDirectory) -> None:
    text = text_of(run)
    follower = ProgressReader(run, CONFIG)
    num_rows = len(follower.read())
    run.metrics.write_bytes(text[: text.index(b"20,train")])
    assert len(follower.read()) == 2
    assert (follower.num_restarts, follower.progress.step) == (1, 10)
    run.metrics.write_bytes(text)
    assert len(follower.read()) == num_rows - 2
    changed = text.replace(b"images,3.0", b"images,12345.5")  # cut back, and longer than before by the next look
    run.metrics.write_bytes(changed)
    assert len(follower.read()) == num_rows
    assert follower.num_restarts == 2
    run.metrics.unlink()
    assert follower.read() == []


def test_malformed_lines_are_left_out(run: RunDirectory) -> None:
    run.metrics.write_bytes(
        b"epoch,step,metric,value\n\xff\n0,1\n0,1,a,b\n0,1,val/accuracy,0.5\n\n1,x,y,z\n"
        b"-1,1,val/accuracy,1\n0,-1,val/accuracy,1\n0," + b"9" * 400 + b",val/accuracy,1\n" + b"9" * 9999
    )
    follower = ProgressReader(run, {"trainer": 5, "objective": []})
    assert [row.value for row in follower.read()] == [0.5]
    assert ProgressReader(run, {"trainer": {"max_epochs": 10**400, "max_steps": 10**400}}).progress.num_epochs is None
