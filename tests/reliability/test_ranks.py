"""Two ranks: one decision, one end, and the same stream of samples on one device.

Where it matters who starts the ranks, a worker does, in torture a new process; else the ranks are forked workers, with
the variables that torchrun would set.
"""

import itertools
import math
import os
import signal
from pathlib import Path

import pytest
from reliability.report import in_torture, times, trials
from reliability.runs import SMALL, Reference, seen, small_run
from reliability.workers import TIMEOUT, Worker, Workers, rank_of
from support.exact_resume import outcome
from support.hparams_page import sessions
from support.processes import session, wait_until
from support.thorough import THOROUGH

from litlab.config.config_file import from_yaml, to_yaml
from litlab.config.resume_overrides import change_config
from litlab.runs.directory import RunDirectory
from litlab.runs.files import write_text
from litlab.runs.result import read_result
from litlab.runs.signature import sign
from litlab.training.checkpoint_io import read_checkpoint

TWO = (
    *SMALL, "trainer.strategy=ddp", "trainer.devices=2", "checkpoint.every_steps=2",
    "callbacks=ema", "callbacks.ema.decay=0.8", "data.hard_fraction=0.75",
)  # fmt: skip
SOON = 5  # seconds
SLOWLY = {"LITLAB_TEST_SLEEP": "train_batch 0 0.15"}  # ranks agree four times a second: a shorter run would be over


@pytest.fixture(scope="module")
def undisturbed(_all_workers: Workers, tmp_path_factory: pytest.TempPathFactory) -> Reference:
    run = small_run(tmp_path_factory.mktemp("ranks") / "run", *TWO)
    complete(_all_workers, run)
    return Reference.of(run)


def complete(workers: Workers, run: RunDirectory) -> None:
    """Run two ranks until the run is complete."""
    for worker in workers.fork_ranks(run, 2):
        assert worker.wait() == 0, worker.stderr()


def start_and_signal(run: RunDirectory, workers: Workers, num_batches: int, rank: int, signum: int) -> Worker:
    """Start a worker with its own ranks, and send a signal to one of them after so many batches."""
    worker = (workers.start if THOROUGH else workers.fork)(run, **SLOWLY)
    wait_until(
        lambda: len(seen(run).get("seen.1", [])) >= num_batches or worker.poll() is not None, TIMEOUT, worker.stderr
    )
    assert len(session(worker.session)) == 3
    os.kill(rank_of(worker.session, rank), signum)
    return worker


MOMENTS = ["train_batch 7", "validation_batch 1", "train_batch 4", "epoch_end 1", "save 3"]


@pytest.mark.integrations
@pytest.mark.row("SIGTERM to one of 2 ranks: both end, exit code 143; identical result after resume")
@pytest.mark.parametrize("moment", MOMENTS[: times(1, 5)])
def test_stop_and_resume(moment: str, workers: Workers, undisturbed: Reference, tmp_path: Path) -> None:
    run = small_run(tmp_path / "run", *TWO)
    ranks = workers.fork_ranks(run, 2, LITLAB_TEST_SIGNAL=f"{moment} {signal.SIGTERM:d}", **SLOWLY)
    assert [worker.wait() for worker in ranks] == [143, 143]
    assert read_result(run)["error"].startswith("stopped by SIGTERM, saved at step ")
    complete(workers, run)
    undisturbed.assert_equal(run)


@pytest.mark.integrations
@pytest.mark.row("2 ranks draw the same images by the losses of both")
def test_images_drawn_by_their_losses(undisturbed: Reference) -> None:
    epochs: dict[str, list[int]] = {}
    for batch, rows in samples(undisturbed.run).items():
        epochs.setdefault(batch.partition(",")[0], []).extend(rows)
    assert [(len(rows), len(set(rows))) for rows in epochs.values()] == [(33, 33), (33, 33)]  # of 44
    assert len(set().union(*epochs.values())) == 44, "an image without a loss comes first"
    saved = read_checkpoint(undisturbed.run.last)["litlab"]["image_losses"]
    assert (saved["known"] > -math.inf).sum() == (saved["latest"] > -math.inf).sum() == 33


@pytest.mark.row("SIGTERM to one of 2 ranks started by litlab: all end, exit code 143; identical result after resume")
@in_torture
@trials(1, 3)
def test_a_started_rank_gets_sigterm(number: int, workers: Workers, undisturbed: Reference, tmp_path: Path) -> None:
    run = small_run(tmp_path / "run", *TWO)
    worker = start_and_signal(run, workers, 1 + 3 * number, number % 2, signal.SIGTERM)
    assert worker.wait(10) == 143, worker.stderr()
    assert "stopped by SIGTERM, saved at step " in worker.stderr()
    complete(workers, run)
    undisturbed.assert_equal(run)


@pytest.mark.integrations
@pytest.mark.row("rank killed: all processes end within 5 s, status failed; identical result after resume")
@trials(1, 10)
def test_a_rank_is_killed(number: int, workers: Workers, undisturbed: Reference, tmp_path: Path) -> None:
    run = small_run(tmp_path / "run", *TWO)
    worker = start_and_signal(run, workers, 3 + number % 6, 1 - number % 2, signal.SIGKILL)
    wait_until(lambda: not session(worker.session), SOON, worker.stderr)
    assert worker.wait() == 128 + signal.SIGKILL
    assert "Traceback" not in worker.stderr()
    assert read_result(run)["status"] == "failed"
    assert [shown.status for shown in sessions(run.path).values()] == ["STATUS_FAILURE"]
    assert read_checkpoint(run.last)["global_step"] > 0
    complete(workers, run)
    undisturbed.assert_equal(run)


@pytest.mark.integrations
@pytest.mark.row("2 ranks, resumed on 1 device: same samples in each step, values within 1e-5")
@trials(1, 3)
def test_resumed_on_one_device(number: int, workers: Workers, tmp_path: Path) -> None:
    """Without batch norm and dropout, which are up to the ranks, and images that are drawn by the bits of losses."""
    kept = (override for override in TWO if "model" not in override and "hard_fraction" not in override)
    overrides = (*kept, "model.widths=[2,4]", "model.hidden=[8]")
    whole, run = (small_run(tmp_path / name, *overrides) for name in ("whole", "run"))
    complete(workers, whole)
    ranks = workers.fork_ranks(run, 2, LITLAB_TEST_SIGNAL=f"train_batch {3 + 2 * number} {signal.SIGTERM:d}", **SLOWLY)
    assert [worker.wait() for worker in ranks] == [143, 143]
    on_one = ["trainer.devices=1", "trainer.strategy=auto"]
    changed = change_config(from_yaml(run.config.read_text()), on_one, dict)
    assert changed.notes[0].startswith("on other devices or threads the stream of samples stays the same, but")
    write_text(run.config, to_yaml(changed.config))
    sign(run)
    assert workers.fork(run).wait() == 0
    assert samples(run) == samples(whole)
    expected, actual = outcome(whole)["rows"], outcome(run)["rows"]
    assert [row.metric for row in actual] == [row.metric for row in expected]
    assert [row.value for row in actual] == pytest.approx([row.value for row in expected], rel=1e-5)


def samples(run: RunDirectory) -> dict[str, list[int]]:
    """Return the rows of the data set in each batch, of all ranks together, by epoch and batch."""
    together: dict[str, list[int]] = {}
    for line in itertools.chain(*seen(run).values()):
        epoch, batch, rows = line.split(",")
        together.setdefault(f"{epoch},{batch}", []).extend(map(int, rows.split()))
    return together
