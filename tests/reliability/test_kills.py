"""kill -9: of a run at any moment, and of a process that does nothing but save. The processes are forked workers."""

import itertools
import random
import signal
import sys
import time
from pathlib import Path

import pytest
import torch
from reliability.report import trials
from reliability.runs import SMALL, GetReference, seen, small_run
from reliability.workers import Worker, Workers
from support.processes import wait_until

from litlab.runs.directory import RunDirectory
from litlab.runs.files import remove_temporary_files
from litlab.training.checkpoint_io import AtomicCheckpointIO, find_newest_checkpoint, read_checkpoint, verify_checkpoint

ANOTHER_DEVICE = Path("/dev/shm")
SIZE = 1_000_000  # numbers in a checkpoint
KILLS = 3


@pytest.mark.integrations
@pytest.mark.row("kill -9 at random moments of a run: identical result after resume")
@trials(2, 21)
def test_kill_at_a_random_moment(number: int, workers: Workers, reference: GetReference, tmp_path: Path) -> None:
    """Each run is killed up to three times, at moments drawn from the time that its training takes."""
    every_steps = 1 + number % 3
    overrides = (*SMALL, f"checkpoint.every_steps={every_steps}")
    run = small_run(tmp_path / "run", *overrides)
    draw = random.Random(number)
    codes: list[int] = []
    while len(codes) < KILLS and 0 not in codes:
        worker = workers.fork(run, LITLAB_TEST_SLEEP="train_batch 0 0.03")
        wait_until(lambda worker=worker: seen(run) or worker.poll() is not None, 60, worker.stderr)
        time.sleep(draw.uniform(0, 0.3))
        worker.send(signal.SIGKILL)
        codes.append(worker.wait())
        (run.path / "seen.0").unlink(missing_ok=True)
    assert codes[0] == -signal.SIGKILL
    workers.resume(run, reference(*overrides))


@pytest.mark.row("kill -9 during a save, TMPDIR on another device: newest checkpoint intact, one of the last two")
@trials(3, 100)
def test_kill_while_saving(number: int, workers: Workers, tmp_path: Path) -> None:
    if not ANOTHER_DEVICE.is_dir() or ANOTHER_DEVICE.stat().st_dev == tmp_path.stat().st_dev:
        pytest.skip("there is no second device here")
    run = RunDirectory(tmp_path / "run")
    run.checkpoints.mkdir(parents=True)
    worker = workers.fork(run, module="reliability.test_kills", TMPDIR=str(ANOTHER_DEVICE))
    wait_until(lambda: saved(worker) >= 2, 60, worker.stderr)
    time.sleep(random.Random(number).uniform(0, 0.2))
    worker.send(signal.SIGKILL)
    assert worker.wait() == -signal.SIGKILL
    path, problems = find_newest_checkpoint(run)
    assert path == run.last
    assert problems == []
    verify_checkpoint(run.previous)
    checkpoint = read_checkpoint(path)
    done = saved(worker)
    assert checkpoint["step"] in (done, done + 1)
    assert torch.equal(checkpoint["values"], torch.full((SIZE,), checkpoint["step"]))
    remove_temporary_files(run.checkpoints)
    assert {file.name for file in run.checkpoints.iterdir()} == {"last.ckpt", "previous.ckpt"}


def save_until_killed() -> None:
    """Save one step after the other and print each; runs in a process of its own."""
    run = RunDirectory(Path(sys.argv[1]))
    writer = AtomicCheckpointIO()
    for step in itertools.count(1):
        checkpoint = {"step": step, "values": torch.full((SIZE,), step)}
        writer.save_checkpoint(checkpoint, run.last, storage_options=run.previous)
        print(step, file=sys.stderr, flush=True)


def saved(worker: Worker) -> int:
    """Return the last step that the process has printed as saved."""
    lines = worker.stderr().splitlines()
    return int(lines[-1]) if lines else 0


if __name__ == "__main__":
    save_until_killed()
