"""Optimizers and schedulers of timm by their `_target_`: its rates, exact resumes, refusals."""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from optim.test_schedule_factory import BATCHES, EVERY_STEP, LR, rates
from support.exact_resume import differences, new_run, outcome, stop_and_resume, train_until
from support.runs import Command, train_here
from torch import nn
from torch.optim import SGD, Optimizer

from litlab.errors import UserError
from litlab.runs.result import read_result

pytestmark = pytest.mark.integrations
CONSTANT = (*EVERY_STEP, "schedule=constant")

OPTIMIZERS = {
    "a class": "{_target_: timm.optim.Lion, lr: 1e-3, weight_decay: 0.1}",
    "a factory": "{_target_: timm.optim.create_optimizer_v2, opt: lamb, lr: 1e-2, weight_decay: 0.1}",
    "an optimizer around another": (
        "{_target_: timm.optim.Lookahead, base_optimizer: {_target_: torch.optim.SGD, lr: 0.05, momentum: 0.9}}"
    ),
}


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_an_optimizer_trains_and_resumes_exactly(name: str, tmp_path: Path) -> None:
    settings = (*CONSTANT, "~optimizer", f"+optimizer={OPTIMIZERS[name]}", "trainer.max_epochs=3")
    whole = train_here(tmp_path / "whole", *settings)
    assert len(set(rates(whole))) == 1
    for number in (5, 8):
        stopped = stop_and_resume(tmp_path / f"stopped-{number}", number, *settings)
        assert differences(outcome(whole), outcome(stopped)) == []
    other = train_here(tmp_path / "other", *settings, "seed=1")
    assert read_result(other)["weights"] != read_result(whole)["weights"]


SCHEDULERS: dict[str, tuple[str, dict[str, Any]]] = {
    "cosine": ("CosineLRScheduler", {"t_initial": 4, "lr_min": 0.001, "warmup_t": 2, "warmup_lr_init": 0.01}),
    "steps with noise": ("StepLRScheduler", {"decay_t": 1, "decay_rate": 0.5, "noise_range_t": 1}),
}


def scheduler(name: str, *arguments: str) -> tuple[str, ...]:
    cls, keywords = SCHEDULERS[name]
    pairs = (f"{key}: {value}" for key, value in keywords.items())
    return "~schedule", f"+schedule={{_target_: timm.scheduler.{cls}, {', '.join((*pairs, *arguments))}}}"


def by_hand(make: Callable[[Optimizer], Any], num_steps: int, method: str) -> list[float]:
    optimizer = SGD([nn.Parameter(torch.zeros(1))], lr=LR)
    scheduler, values = make(optimizer), []
    for number in range(1, num_steps + 1):
        values.append(optimizer.param_groups[0]["lr"])
        getattr(scheduler, method)(number)
    return values


@pytest.mark.parametrize("interval", ["step", "epoch"])
@pytest.mark.parametrize("name", SCHEDULERS)
def test_a_scheduler_has_the_rates_of_timm_and_resumes_exactly(name: str, interval: str, tmp_path: Path) -> None:
    import timm.scheduler

    in_epochs = interval == "epoch"
    overrides = scheduler(name, f"interval: {interval}", f"t_in_epochs: {str(in_epochs).lower()}")
    settings = (*EVERY_STEP, *overrides, "trainer.max_epochs=4")
    whole = train_here(tmp_path / "whole", *settings)
    cls, keywords = SCHEDULERS[name]
    make = partial(getattr(timm.scheduler, cls), t_in_epochs=in_epochs, **keywords)
    if in_epochs:
        expected = [rate for rate in by_hand(make, 4, "step") for _ in range(BATCHES)]
    else:
        expected = by_hand(make, 4 * BATCHES, "step_update")
    assert rates(whole) == pytest.approx(expected)
    assert len(set(rates(whole))) > 2
    stopped = stop_and_resume(tmp_path / "stopped", 2 * BATCHES + 3, *settings)
    assert differences(outcome(whole), outcome(stopped)) == []


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (
            scheduler("cosine", "interval: step"),
            "schedule.interval=step: timm's CosineLRScheduler counts epochs, as its t_in_epochs is true; "
            "set schedule.interval=epoch, or change schedule.t_in_epochs",
        ),
        (
            ("~schedule", "+schedule={_target_: timm.scheduler.PlateauLRScheduler, interval: epoch}"),
            "schedule: timm's PlateauLRScheduler does not save its state; use schedule=plateau",
        ),
        (
            ("~schedule", "+schedule={_target_: timm.scheduler.create_scheduler_v2, interval: epoch}"),
            "schedule: expected a scheduler of torch.optim.lr_scheduler or timm.scheduler, found a tuple",
        ),
    ],
)
@pytest.mark.filterwarnings("ignore:PlateauLRScheduler is deprecated")
def test_schedulers_that_are_refused(overrides: tuple[str, ...], message: str, tmp_path: Path) -> None:
    run, config = new_run(tmp_path / "run", *EVERY_STEP, *overrides)
    with pytest.raises(UserError) as refused:
        train_until(run, config, None)
    assert str(refused.value) == message
    assert not run.metrics.exists()


def test_a_wrong_argument_of_an_optimizer_is_refused(tmp_path: Path, litlab: Command) -> None:
    done = litlab("train", *CONSTANT, "~optimizer", "+optimizer={_target_: timm.optim.Lion, learning_rate: 1}")
    assert done.returncode == 1
    assert done.stderr.startswith("litlab: optimizer.learning_rate: timm.optim.Lion takes no argument 'learning_rate'")
    assert list((tmp_path / "project").iterdir()) == []
