"""Damaged checkpoints: reported, left unchanged, and replaced by the one before.

The processes are forked workers.
"""

import random
import re
import shutil
from pathlib import Path

import pytest
from reliability.report import trials
from reliability.runs import EVERY_2, GetReference, small_run
from reliability.workers import Workers
from support.composed_jobs import contents

from litlab.runs.directory import RunDirectory
from litlab.runs.result import read_result
from litlab.tensorboard_session import LAST
from litlab.training.checkpoint_io import read_checkpoint


@pytest.fixture(scope="module")
def stopped(_all_workers: Workers, tmp_path_factory: pytest.TempPathFactory) -> RunDirectory:
    """Stop a run in its second epoch, with a last, a previous and a best checkpoint."""
    run = small_run(tmp_path_factory.mktemp("stopped") / "run", *EVERY_2)
    for _ in range(3):
        _all_workers.stop(run, "train_batch 3")
    return run


@pytest.fixture
def run(stopped: RunDirectory, tmp_path: Path) -> RunDirectory:
    """Copy that run, to be damaged."""
    shutil.copytree(stopped.path, tmp_path / "run")
    return RunDirectory(tmp_path / "run")


def damaged(content: bytes, number: int) -> bytes:
    """Flip a bit, truncate, append, empty, lose a page as after a power cut, or zero everything."""
    draw = random.Random(number)
    position = draw.randrange(1, len(content))
    page = position // 4096 * 4096
    versions = [
        content[:position] + bytes([content[position] ^ 1 << draw.randrange(8)]) + content[position + 1 :],
        content[:position],
        content + draw.randbytes(draw.randrange(1, 100)),
        b"",
        content[:page] + bytes(len(content[page : page + 4096])) + content[page + 4096 :],
        bytes(len(content)),
    ]
    return versions[number % len(versions)]


def damage(path: Path, number: int) -> None:
    """Damage a file in one of several ways; another name of the same file keeps its content."""
    whole = path.read_bytes()
    path.unlink()
    path.write_bytes(damaged(whole, number))
    assert path.read_bytes() != whole


@pytest.mark.integrations
@pytest.mark.row("damaged last checkpoint: reported, the previous one is used; identical result after resume")
@trials(2, 12)
def test_a_damaged_one_is_named_and_the_one_before_used(
    number: int, run: RunDirectory, workers: Workers, reference: GetReference
) -> None:
    assert read_checkpoint(run.previous)["global_step"] < read_checkpoint(run.last)["global_step"]
    damage(run.last, number)
    message = workers.resume(run, reference(*EVERY_2)).stderr()
    assert f"{run.last} is damaged" in message
    assert f"resuming from the one before it, {run.previous}" in message


@pytest.mark.row("both checkpoints damaged: resume refused, nothing overwritten")
@trials(1, 6)
def test_both_damaged(number: int, run: RunDirectory, workers: Workers) -> None:
    damage(run.last, number)
    damage(run.previous, number + 1)
    before = contents(run.path)
    worker = workers.fork(run)
    assert worker.wait() == 1
    message = worker.stderr()
    assert f"{run.last} is damaged" in message
    assert f"{run.previous} is damaged" in message
    assert "has no checkpoint to resume from" in message
    assert "Traceback" not in message
    after = contents(run.path)
    changed = {name for name in before | after if before.get(name) != after.get(name)}
    (session_end,) = changed - {"run.log", "result.json", ".lock"}
    assert session_end.startswith(LAST)
    assert read_result(run)["status"] == "failed"


@pytest.mark.row("damaged best checkpoint: reported, the search for the best restarts")
@trials(1, 3)
def test_a_damaged_best(number: int, run: RunDirectory, workers: Workers, reference: GetReference) -> None:
    """The rest of the training is unchanged, and the best of the rest is tested."""
    assert not run.best.samefile(run.last)
    damage(run.best, number)
    worker = workers.resume(run)
    assert re.search(rf"{run.best} is damaged.*the search for the best restarts", worker.stderr())
    result, undisturbed = read_result(run), reference(*EVERY_2).outcome["result"]
    assert result["weights"] == undisturbed["weights"]
    assert result["best"] == result["last"] == undisturbed["last"]


@pytest.mark.row("best checkpoint missing after training: reported, the last one is tested")
@trials(1, 4)
def test_a_best_that_is_lost_when_training_is_through(
    number: int, run: RunDirectory, workers: Workers, reference: GetReference
) -> None:
    workers.stop(run, "test_batch 1")
    assert not run.best.samefile(run.last)
    if number % 2:
        run.best.unlink()
    else:
        damage(run.best, number)
    assert f"{run.best}" in workers.resume(run).stderr()
    result, undisturbed = read_result(run), reference(*EVERY_2).outcome["result"]
    assert result["weights"] == undisturbed["weights"]
    assert result["test"].keys() == undisturbed["test"].keys()
    assert result["test"] != undisturbed["test"]
