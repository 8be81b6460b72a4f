"""An exception in a user's code: the message shows the user's frames and the last checkpoint, and a resume is exact.

The environment variable that causes the fault is what the user repairs. The processes are forked workers.
"""

from pathlib import Path

import pytest
from reliability.report import times
from reliability.runs import BATCHES, EVERY_2, SMALL, GetReference, seen, small_run
from reliability.workers import Workers

from litlab.runs.result import read_result
from litlab.training.checkpoint_io import read_checkpoint

FILE = Path(__file__).with_name("faults.py")
MESSAGE = "ArithmeticError: a fault of the user's own"


def fail_and_resume(
    fault: str, overrides: tuple[str, ...], workers: Workers, reference: GetReference, path: Path
) -> int:
    """Run into the fault, then resume to an equal end.

    Returns:
        The step of the last checkpoint after the fault, 0 for none.
    """
    run = small_run(path, *overrides)
    worker = workers.fork(run, LITLAB_TEST_FAULT=fault)
    assert worker.wait() == 1
    message = worker.stderr()
    assert MESSAGE in message
    frames = [line for line in message.splitlines() if line.startswith("  File ")]
    assert frames
    assert all(line.startswith(f'  File "{FILE}"') for line in frames)
    assert "Traceback" not in message
    assert read_result(run)["status"] == "failed"
    assert "Traceback" in run.log.read_text()
    assert "site-packages" in run.log.read_text()
    step: int = read_checkpoint(run.last)["global_step"] if run.last.exists() else 0
    assert ("(the last checkpoint is of step" in message) == (step > 0)
    assert not step or f"(the last checkpoint is of step {step}; `litlab resume` continues there)" in message
    expected = reference(*overrides)
    workers.resume(run, expected)
    assert set(seen(run)["seen.0"]) == set(expected.seen["seen.0"])
    return step


FORWARD = ["forward 8", "forward 1", "forward 2", "forward 3", "forward 6", "forward 7", "forward 12"]


@pytest.mark.row("error in a training step: the message names the last checkpoint; identical result after resume")
@pytest.mark.parametrize("fault", FORWARD[: times(1, len(FORWARD))])
def test_in_a_training_step(fault: str, workers: Workers, reference: GetReference, tmp_path: Path) -> None:
    done = int(fault.split()[1]) - 1
    assert fail_and_resume(fault, EVERY_2, workers, reference, tmp_path / "run") == done - done % 2


@pytest.mark.row("error in a step that draws from Python's generators: identical result after resume")
@pytest.mark.parametrize("fault", ["noise 12", "noise 11"][: times(1, 2)])
def test_in_a_step_that_draws_random_numbers(
    fault: str, workers: Workers, reference: GetReference, tmp_path: Path
) -> None:
    overrides = (*SMALL, "model._target_=reliability.faults.Noisy", "checkpoint.every_steps=5")
    assert fail_and_resume(fault, overrides, workers, reference, tmp_path / "run") == 10


@pytest.mark.row("error while gradients accumulate: the whole step is repeated; identical result after resume")
@pytest.mark.parametrize("fault", ["forward 4", "forward 5", "forward 9"][: times(1, 3)])
def test_while_gradients_are_accumulated(fault: str, workers: Workers, reference: GetReference, tmp_path: Path) -> None:
    overrides = (*SMALL, "trainer.accumulate_grad_batches=2", "checkpoint.every_steps=1")
    done = (int(fault.split()[1]) - 1) // 2
    assert fail_and_resume(fault, overrides, workers, reference, tmp_path / "run") == done


@pytest.mark.row("error in a validation: the state before it is saved; identical result after resume")
@pytest.mark.parametrize("fault", [4, 1, 2, 3][: times(1, 4)])
def test_in_a_validation(fault: int, workers: Workers, reference: GetReference, tmp_path: Path) -> None:
    """A validation has two batches."""
    step = fail_and_resume(f"forward_evaluating {fault}", SMALL, workers, reference, tmp_path / "run")
    assert step == (BATCHES if fault <= 2 else 2 * BATCHES)


HOOKS = ["train_batch_end 9", "train_batch 9", "validation_end 2", "epoch_end 2", "save 2", "fit_end 1", "test_batch 2"]


@pytest.mark.row("error in a callback's hook: resumed from the newest checkpoint; identical result after resume")
@pytest.mark.parametrize("fault", HOOKS[: times(1, len(HOOKS))])
def test_in_a_hook(fault: str, workers: Workers, reference: GetReference, tmp_path: Path) -> None:
    fail_and_resume(fault, EVERY_2, workers, reference, tmp_path / "run")
