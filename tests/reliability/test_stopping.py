"""Signals at every moment of a run's life: saved, the right exit code, nobody left, an equal end.

Most moments are reached by forked workers that send the signal to themselves there; at start-up a new process gets it
from outside.
"""

import random
import signal
import time
from collections import defaultdict
from pathlib import Path

import pytest
from reliability.report import in_torture, times, trials
from reliability.runs import EVERY_2, SMALL, GetReference, seen, small_run
from reliability.workers import Worker, Workers
from support.processes import wait_until

from litlab.process.signals import DUPLICATE_SECONDS
from litlab.runs.directory import RunDirectory
from litlab.runs.result import read_result
from litlab.training.checkpoint_io import read_checkpoint

SOON = 10  # seconds


# One of each kind first: the short version takes these. A moment is one of `reliability.faults`, and its number.
MOMENTS = ["start_up 0.4", "validation_batch 2", "save 2"]
MOMENTS += [f"start_up {seconds}" for seconds in (0, 0.15, 0.8, 1.5, 2.2, 3, 4, 5)]
NUM_TIMES = {
    "setup": 1, "train_start": 1, "train_batch": 12, "train_batch_end": 5, "validation_batch": 4, "validation_end": 2,
    "epoch_end": 2, "save": 6, "fit_end": 1, "test_batch": 2,
}  # fmt: skip
MOMENTS += [f"{moment} {number}" for moment, count in NUM_TIMES.items() for number in range(1, count + 1)]
MOMENTS = list(dict.fromkeys(MOMENTS))
MOMENTS += [f"any {number}" for number in range(50 - len(MOMENTS))]


def start_and_stop(moment: str, run: RunDirectory, workers: Workers) -> Worker:
    """Start a worker that is stopped by SIGTERM at this moment."""
    kind, number = moment.split()
    if kind not in ("start_up", "any"):
        return workers.stop(run, moment)
    if kind == "start_up":
        worker = workers.start(run, LITLAB_TEST_SLEEP="train_batch 0 0.3")
        time.sleep(float(number))
    else:
        worker = workers.fork(run, LITLAB_TEST_SLEEP="train_batch 0 0.1")
        time.sleep(random.Random(number).uniform(0, 0.8))
    worker.send(signal.SIGTERM)
    assert worker.wait() == 143, worker.stderr()
    return worker


@pytest.mark.integrations
@pytest.mark.row("SIGTERM in start, training, validation, saving, test: exit code 143; identical result after resume")
@pytest.mark.parametrize("moment", MOMENTS[: times(3, 50)])
def test_sigterm_at(moment: str, run: RunDirectory, workers: Workers, reference: GetReference) -> None:
    worker = start_and_stop(moment, run, workers)
    assert "Traceback" not in worker.stderr()
    # Before a worker has opened its log, the result is up to its controller.
    if run.result.exists() or run.log.exists() or not moment.startswith(("start_up", "any")):
        assert read_result(run)["status"] == "interrupted"
        assert "stopped by SIGTERM" in worker.stderr()
    workers.resume(run, reference(*EVERY_2))


@in_torture
@pytest.mark.row("SIGTERM with a torch DataLoader of two workers, which cannot seek: identical result after resume")
@pytest.mark.parametrize("moment", ["train_batch 3", "train_batch 9", "validation_batch 1", "epoch_end 1"])
def test_loader_processes(moment: str, workers: Workers, reference: GetReference, tmp_path: Path) -> None:
    overrides = (*SMALL, "data._target_=reliability.faults.Shuffled", "data.num_workers=2")
    run = small_run(tmp_path / "run", *overrides)
    workers.stop(run, moment)
    workers.resume(run, reference(*overrides))


@pytest.mark.row("SIGINT: exit code 130; SIGUSR1, SIGUSR2: 143; identical result after resume")
@pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGUSR1, signal.SIGUSR2][: times(1, 3)])
def test_other_signals(signum: signal.Signals, run: RunDirectory, workers: Workers, reference: GetReference) -> None:
    workers.stop(run, "train_batch 5", signum)
    assert read_result(run)["error"] == f"stopped by {signum.name}, saved at step 5"
    workers.resume(run, reference(*EVERY_2))


@pytest.mark.row("signal after the last batch of the test: the run completes")
def test_a_signal_too_late_to_stop(run: RunDirectory, workers: Workers, reference: GetReference) -> None:
    worker = workers.fork(run, LITLAB_TEST_SIGNAL=f"test_batch 3 {signal.SIGTERM:d}")
    assert worker.wait() == 0, worker.stderr()
    reference(*EVERY_2).assert_equal(run)


@pytest.mark.integrations
@pytest.mark.row("second signal, user code sleeps or ignores signals: ended within 10 s; identical result after resume")
@pytest.mark.parametrize("fault", ["SLEEP", "DEAF"][: times(1, 2)])
def test_a_second_signal(fault: str, run: RunDirectory, workers: Workers, reference: GetReference) -> None:
    """The fifth training batch takes a minute; the deaf one ignores all exceptions meanwhile."""
    worker = workers.fork(run, **{f"LITLAB_TEST_{fault}": "forward 5 60"})
    wait_until(lambda: (run.path / "seen.0").exists() and len(seen(run)["seen.0"]) == 5, 60, worker.stderr)
    time.sleep(0.3)
    worker.send(signal.SIGTERM)
    time.sleep(DUPLICATE_SECONDS + 0.3)
    assert worker.poll() is None
    worker.send(signal.SIGTERM)
    code = worker.wait(SOON)
    assert code == (143 if fault == "SLEEP" else -signal.SIGALRM)
    assert read_checkpoint(run.last)["global_step"] == 4
    workers.resume(run, reference(*EVERY_2))


@pytest.mark.integrations
@pytest.mark.row("preemption at the end of each epoch: no order repeated, same batches as without")
def test_preemptions_at_the_ends_of_epochs(workers: Workers, reference: GetReference, tmp_path: Path) -> None:
    preemptions = times(2, 5)
    overrides = (*SMALL, f"trainer.max_epochs={preemptions + 1}")
    run = small_run(tmp_path / "run", *overrides)
    for _ in range(preemptions):
        workers.stop(run, "epoch_end 1")
    expected = reference(*overrides)
    workers.resume(run, expected)
    assert seen(run) == expected.seen
    orders = defaultdict(list)  # epoch -> the rows of its batches
    for line in seen(run)["seen.0"]:
        epoch, _, rows = line.split(",")
        orders[epoch].append(rows)
    assert len(orders) == len(set(map(tuple, orders.values()))) == preemptions + 1


@pytest.mark.integrations
@pytest.mark.row("two workers on one directory: the second names the owner, the first is not affected")
@trials(1, 5)
def test_two_workers_on_one_directory(
    number: int, run: RunDirectory, workers: Workers, reference: GetReference
) -> None:
    first = workers.fork(run, LITLAB_TEST_SLEEP="train_batch 0 0.2", name="first")
    wait_until(lambda: (run.path / "seen.0").exists(), 60, first.stderr)
    second = workers.fork(run, name="second")
    assert second.wait(SOON) == 75
    assert second.stderr().startswith(f"litlab: {run.path} is in use by process {first.session} on ")
    assert first.poll() is None
    assert first.wait() == 0
    reference(*EVERY_2).assert_equal(run)
