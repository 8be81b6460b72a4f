"""An error in a user's own code: what was sound is saved first, the user's frames are shown, and a resumption is exact.

The environment variable that makes the fault is what the user mends. The processes are forked workers.
"""

from collections.abc import Callable
from pathlib import Path

import pytest
from reliability.counting import times
from reliability.runs import BATCHES, SMALL, Reference, seen, small_run
from reliability.workers import Worker, Workers

from litlab.runs.directory import RunDirectory
from litlab.runs.result import read_result
from litlab.training.checkpoint_io import read_checkpoint

FILE = Path(__file__).with_name("disturbed.py")
MESSAGE = "ArithmeticError: a fault of the user's own"
Make = Callable[..., Reference]


def assert_users_words(worker: Worker, run: RunDirectory) -> None:
    """The frames are the user's alone; the whole traceback is in the log."""
    said = worker.said()
    assert MESSAGE in said
    assert {line for line in said.splitlines() if line.startswith("  File ")} == {
        line for line in said.splitlines() if line.startswith(f'  File "{FILE}"')
    }
    assert f'  File "{FILE}"' in said
    assert "Traceback" not in said
    assert read_result(run)["status"] == "failed"
    assert "Traceback" in run.log.read_text()
    assert "site-packages" in run.log.read_text()


FORWARD = ["forward 8", "forward 1", "forward 2", "forward 6", "forward 7", "forward 12"]


@pytest.mark.row("an error in a training step: the step before is saved, resumed to an equal end")
@pytest.mark.parametrize("fault", FORWARD[: times(1, len(FORWARD))])
def test_in_a_training_step(fault: str, workers: Workers, reference: Make, tmp_path: Path) -> None:
    run = small_run(tmp_path / "run", *SMALL)
    worker = workers.forked(run, LITLAB_TEST_FAULT=fault)
    assert worker.wait() == 1
    assert_users_words(worker, run)
    done = int(fault.split()[1]) - 1
    if done:
        assert read_checkpoint(run.last)["global_step"] == done
        assert f"(the state at step {done} is saved; `litlab resume` goes on from it)" in worker.said()
    else:
        assert not run.last.exists()
    again = workers.forked(run)
    assert again.wait() == 0, again.said()
    reference(*SMALL).assert_equal(run)
    assert [line for line in seen(run)["seen.0"] if line not in reference(*SMALL).seen["seen.0"]] == []


@pytest.mark.row("an error in a step that draws from Python's generators: the last regular checkpoint, to an equal end")
@pytest.mark.parametrize("fault", ["noise 12", "noise 11"][: times(1, 2)])
def test_in_a_step_that_cannot_be_undone(fault: str, workers: Workers, reference: Make, tmp_path: Path) -> None:
    overrides = (*SMALL, "model._target_=reliability.disturbed.Noisy", "checkpoint.every_steps=5")
    run = small_run(tmp_path / "run", *overrides)
    worker = workers.forked(run, LITLAB_TEST_FAULT=fault)
    assert worker.wait() == 1
    assert_users_words(worker, run)
    assert read_checkpoint(run.last)["global_step"] == 10
    assert workers.forked(run).wait() == 0
    reference(*overrides).assert_equal(run)


@pytest.mark.row("an error in the middle of accumulated gradients: the whole step is repeated, to an equal end")
@pytest.mark.parametrize("fault", ["forward 4", "forward 5", "forward 9"][: times(1, 3)])
def test_while_gradients_are_accumulated(fault: str, workers: Workers, reference: Make, tmp_path: Path) -> None:
    overrides = (*SMALL, "trainer.accumulate_grad_batches=2")
    run = small_run(tmp_path / "run", *overrides)
    worker = workers.forked(run, LITLAB_TEST_FAULT=fault)
    assert worker.wait() == 1
    assert_users_words(worker, run)
    again = workers.forked(run)
    assert again.wait() == 0, again.said()
    reference(*overrides).assert_equal(run)


@pytest.mark.row("an error in a validation: the state before it is saved, resumed to an equal end")
@pytest.mark.parametrize("fault", [4, 1, 2, 3][: times(1, 4)])
def test_in_a_validation(fault: int, workers: Workers, reference: Make, tmp_path: Path) -> None:
    """Two batches each."""
    run = small_run(tmp_path / "run", *SMALL)
    worker = workers.forked(run, LITLAB_TEST_FAULT=f"forward_evaluating {fault}")
    assert worker.wait() == 1
    assert_users_words(worker, run)
    assert read_checkpoint(run.last)["global_step"] == (BATCHES if fault <= 2 else 2 * BATCHES)
    assert workers.forked(run).wait() == 0
    reference(*SMALL).assert_equal(run)


HOOKS = ["train_batch_end 9", "train_batch 9", "validation_end 2", "epoch_end 2", "save 2", "fit_end 1", "test_batch 2"]


@pytest.mark.row("an error in a callback's hook: resumed from the newest checkpoint to an equal end")
@pytest.mark.parametrize("fault", HOOKS[: times(1, len(HOOKS))])
def test_in_a_hook(fault: str, workers: Workers, reference: Make, tmp_path: Path) -> None:
    """Where the state is not sound any more, that is the last regular one."""
    overrides = (*SMALL, "checkpoint.every_steps=2")
    run = small_run(tmp_path / "run", *overrides)
    worker = workers.forked(run, LITLAB_TEST_FAULT=fault)
    assert worker.wait() == 1
    assert_users_words(worker, run)
    assert workers.forked(run).wait() == 0
    reference(*overrides).assert_equal(run)
