"""Nothing more can be written: the run ends soon, says so, loses nothing that was saved, and goes on when it can.

The processes are forked workers; where a directory is read-only, new ones without root's right to write all the same.
"""

import os
import resource
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from reliability.report import times
from reliability.runs import EVERY_2, GetReference, seen, small_run
from reliability.workers import Worker, Workers
from support.processes import wait_until

from litlab.runs.directory import RunDirectory
from litlab.training.checkpoint_io import read_checkpoint

SLOWLY = {"LITLAB_TEST_SLEEP": "train_batch 0 0.1"}
ENDS_WITHIN = 30  # seconds
MiB = 1 << 20
RIGHTS = "-dac_override,-dac_read_search"  # of root, to pass over the modes of files


@contextmanager
def small_disk(path: Path) -> Iterator[None]:
    """Mount a file system of a few megabytes."""
    path.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", path], capture_output=True, text=True)
    if mounted.returncode:
        pytest.skip(f"no file system can be mounted here: {mounted.stderr.strip()}")
    try:
        yield
    finally:
        subprocess.run(["umount", "-l", path], check=True)


def fill(directory: Path) -> Path:
    """Write until there is no room left."""
    path = directory / "filler"
    with path.open("wb", buffering=0) as file:
        for size in (MiB, 4096, 1):
            try:
                while file.write(bytes(size)):
                    pass
            except OSError:
                continue
    return path


def wait_for_checkpoint(run: RunDirectory, worker: Worker) -> None:
    wait_until(lambda: run.last.exists() or worker.poll() is not None, 60, worker.stderr)
    assert worker.poll() is None, worker.stderr()


def assert_ends(worker: Worker, run: RunDirectory, cause: str) -> None:
    """Check that it ends soon, with a message that has the cause, and the checkpoint still whole."""
    started = time.monotonic()
    assert worker.wait(ENDS_WITHIN) == 1, worker.stderr()
    assert time.monotonic() - started < ENDS_WITHIN
    message = worker.stderr()
    assert f"cannot be written: {cause}" in message
    assert "Traceback" not in message
    assert 'File "' not in message
    assert read_checkpoint(run.last)["global_step"] > 0


@pytest.mark.row("disk full: ended within 30 s, checkpoint intact; identical result after resume")
@pytest.mark.parametrize("batches", [0.0, 0.15, 0.35][: times(1, 3)])
def test_a_full_disk(batches: float, workers: Workers, reference: GetReference, tmp_path: Path) -> None:
    expected = reference(*EVERY_2)
    with small_disk(tmp_path / "run"):
        run = small_run(tmp_path / "run", *EVERY_2)
        worker = workers.fork(run, **SLOWLY)
        wait_for_checkpoint(run, worker)
        time.sleep(batches)
        filler = fill(run.path)
        assert_ends(worker, run, "No space left on device")
        filler.unlink()
        workers.resume(run, expected)


@pytest.mark.row("file size limit: ended within 30 s, checkpoint intact; identical result after resume")
@pytest.mark.parametrize("limit", [16_000, 1_000][: times(1, 2)])
def test_a_limit_on_the_size_of_files(limit: int, run: RunDirectory, workers: Workers, reference: GetReference) -> None:
    worker = workers.fork(run, **SLOWLY)
    wait_for_checkpoint(run, worker)
    resource.prlimit(worker.session, resource.RLIMIT_FSIZE, (limit, limit))
    assert_ends(worker, run, "File too large")
    workers.resume(run, reference(*EVERY_2))


@pytest.mark.integrations
@pytest.mark.row("read-only directory: ended within 30 s, checkpoint intact; identical result after resume")
@pytest.mark.parametrize("which", ["checkpoints", "."][: times(1, 2)])
def test_a_read_only_directory(which: str, run: RunDirectory, workers: Workers, reference: GetReference) -> None:
    before: tuple[str, ...] = ()
    if os.geteuid() == 0:
        if shutil.which("setpriv") is None:
            pytest.skip("root may write everywhere, and there is no setpriv to take that from it")
        before = ("setpriv", f"--bounding-set={RIGHTS}", f"--inh-caps={RIGHTS}")
    worker = workers.start(run, before=before, **SLOWLY)
    wait_for_checkpoint(run, worker)
    modes = {path: path.stat().st_mode for path in (run.path / which, run.checkpoints)}
    for path in modes:
        path.chmod(0o555)
    assert_ends(worker, run, "Permission denied")
    if which == ".":  # a start is refused there, too
        assert_ends(workers.start(run, before=before), run, "Permission denied")
    for path, mode in modes.items():
        path.chmod(mode)
    workers.resume(run, reference(*EVERY_2))


@pytest.mark.row("checkpoints/ removed during the run: created again; identical result")
@pytest.mark.parametrize("batch", [4, 5, 6][: times(1, 3)])
def test_checkpoints_removed(batch: int, run: RunDirectory, workers: Workers, reference: GetReference) -> None:
    """Before the first validation: a best one that is gone is gone."""
    worker = workers.fork(run, LITLAB_TEST_SLEEP=f"train_batch {batch} 1")
    wait_until(lambda: len(seen(run).get("seen.0", [])) == batch, 60, worker.stderr)
    shutil.rmtree(run.checkpoints)
    assert worker.wait() == 0, worker.stderr()
    reference(*EVERY_2).assert_equal(run)
