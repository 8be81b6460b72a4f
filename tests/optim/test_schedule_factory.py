"""Schedules of torch in real runs: stepped as the config says, with the rates of torch itself, and resumed exactly."""

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import LightningModule
from lightning.pytorch.callbacks import GradientAccumulationScheduler
from support.exact_resume import differences, new_run, outcome, stop_and_resume, train_until
from support.foreign import pair
from support.runs import TINY, Command, train_here
from torch import Tensor, nn
from torch.optim import SGD, Optimizer
from torch.optim import lr_scheduler as lr
from torch.optim.lr_scheduler import LRScheduler

from litlab.errors import UserError
from litlab.optim.schedule_factory import ScheduleFactory
from litlab.optim.schedules import cosine_factor, one_cycle
from litlab.runs.directory import RunDirectory
from litlab.runs.metrics import read_metrics
from litlab.runs.result import read_result

HERE = "optim.test_schedule_factory"
TORCH = "torch.optim.lr_scheduler"
EVERY_STEP = (*TINY, "trainer.log_every_n_steps=1", "data.num_train=88")
BATCHES, LR = 3, 0.05  # of 16 of the 48 images in an epoch; of the config


def halved(step: int, every: int) -> float:
    return 0.5 ** (step // every)


def halved_every_second(step: int) -> float:
    return halved(step, every=2)


def node(name: str, *arguments: str) -> str:
    return "{" + ", ".join((f"_target_: {TORCH}.{name}", *arguments)) + "}"


SCHEDULES: dict[str, tuple[str, Callable[[Optimizer], LRScheduler]]] = {
    "steps": (node("StepLR", "step_size: 1", "gamma: 0.5"), partial(lr.StepLR, step_size=1, gamma=0.5)),
    "milestones": (node("MultiStepLR", "milestones: [1, 2]"), partial(lr.MultiStepLR, milestones=[1, 2])),
    "warm restarts": (node("CosineAnnealingWarmRestarts", "T_0: 2"), partial(lr.CosineAnnealingWarmRestarts, T_0=2)),
    "a sequence": (
        node(
            "SequentialLR",
            "milestones: [2]",
            f"schedulers: [{node('LinearLR', 'start_factor: 0.25', 'total_iters: 2')}, "
            f"{node('ExponentialLR', 'gamma: 0.5')}]",
        ),
        lambda optimizer: lr.SequentialLR(
            optimizer,
            [lr.LinearLR(optimizer, start_factor=0.25, total_iters=2), lr.ExponentialLR(optimizer, gamma=0.5)],
            milestones=[2],
        ),
    ),
    "a chain": (
        node(
            "ChainedScheduler",
            f"schedulers: [{node('ConstantLR', 'factor: 0.1', 'total_iters: 1')}, "
            f"{node('ExponentialLR', 'gamma: 0.5')}]",
        ),
        lambda optimizer: lr.ChainedScheduler(
            [lr.ConstantLR(optimizer, factor=0.1, total_iters=1), lr.ExponentialLR(optimizer, gamma=0.5)]
        ),
    ),
    "a function with arguments": (
        node("LambdaLR", f"lr_lambda: {{_target_: {HERE}.halved, _partial_: true, every: 2}}"),
        partial(lr.LambdaLR, lr_lambda=halved_every_second),
    ),
    "a function by its name": (
        node("LambdaLR", f"lr_lambda: {{_target_: hydra.utils.get_method, path: {HERE}.halved_every_second}}"),
        partial(lr.LambdaLR, lr_lambda=halved_every_second),
    ),
}


def schedule(text: str, interval: str) -> tuple[str, ...]:
    return "~schedule", f"+schedule={text}", f"+schedule.interval={interval}"


def rates(run: RunDirectory) -> list[float]:
    """Return the learning rate of each step."""
    return [row.value for row in read_metrics(run.metrics) if row.metric == "lr"]


def expected(make: Callable[[Optimizer], LRScheduler], num_steps: int) -> list[float]:
    """Return the rates of a loop by hand."""
    optimizer = SGD([nn.Parameter(torch.zeros(1))], lr=LR)
    scheduler, values = make(optimizer), []
    for _ in range(num_steps):
        values.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    return values


@pytest.mark.integrations
@pytest.mark.parametrize(
    ("name", "interval"), [*((name, "step") for name in SCHEDULES), ("steps", "epoch"), ("a sequence", "epoch")]
)
def test_rates_are_those_of_torch_and_a_resume_is_exact(name: str, interval: str, tmp_path: Path) -> None:
    text, make = SCHEDULES[name]
    settings = (*EVERY_STEP, *schedule(text, interval), "trainer.max_epochs=4")
    whole = train_here(tmp_path / "whole", *settings)
    by_hand = expected(make, 4 * BATCHES)
    if interval == "epoch":
        by_hand = [rate for rate in by_hand[:4] for _ in range(BATCHES)]
    assert rates(whole) == pytest.approx(by_hand)
    stopped = stop_and_resume(tmp_path / "stopped", 2 * BATCHES + 3, *settings)
    assert differences(outcome(whole), outcome(stopped)) == []


def test_a_schedule_of_litlab_by_epoch_gets_the_number_of_epochs(tmp_path: Path) -> None:
    settings = ("schedule=cosine", "schedule.interval=epoch", "schedule.warmup=0", "trainer.max_epochs=4")
    run = train_here(tmp_path / "run", *EVERY_STEP, *settings)
    factors = [cosine_factor(epoch, 4, warmup=0.0, final=0.0) for epoch in range(4) for _ in range(BATCHES)]
    assert rates(run) == pytest.approx([LR * factor for factor in factors])


@pytest.mark.integrations
@pytest.mark.parametrize(
    ("settings", "interval", "total_steps"),
    [
        (["trainer.max_epochs=3"], "step", 6),
        (["trainer.max_epochs=3"], "epoch", 3),
        (["trainer.max_epochs=3", "trainer.max_steps=4"], "step", 4),
        (["trainer.max_epochs=3", "trainer.max_steps=3"], "epoch", 2),
        (["trainer.max_epochs=-1", "trainer.max_steps=3"], "epoch", 2),
    ],
)
def test_the_number_of_steps_counts_those_of_the_optimizer(
    settings: list[str], interval: str, total_steps: int, tmp_path: Path
) -> None:
    """Three batches, two at a time, are two steps an epoch; the last one is of a single batch."""
    accumulate = ("trainer.accumulate_grad_batches=2", "schedule=linear", f"schedule.interval={interval}")
    run = train_here(tmp_path / "run", *EVERY_STEP, *accumulate, "schedule.warmup=0", *settings)
    steps = rates(run)
    per_epoch = 2 if interval == "epoch" else 1
    factors = [1 - (number // per_epoch) / total_steps for number in range(len(steps))]
    assert steps == pytest.approx([LR * factor for factor in factors])


class AccumulatesLater(GradientAccumulationScheduler):
    """Accumulate over two batches from the second epoch on: epochs of three steps, then of two."""

    def __init__(self) -> None:
        super().__init__({1: 2})


@pytest.mark.parametrize(("interval", "total_steps"), [("step", 7), ("epoch", 3)])
def test_the_number_of_steps_follows_a_scheduled_accumulation(interval: str, total_steps: int, tmp_path: Path) -> None:
    callback = f"+callbacks.accumulates._target_={HERE}.AccumulatesLater"
    settings = ("schedule=linear", f"schedule.interval={interval}", "schedule.warmup=0", "trainer.max_epochs=3")
    run = train_here(tmp_path / "run", *EVERY_STEP, *settings, callback)
    counts = range(7) if interval == "step" else (0, 0, 0, 1, 1, 2, 2)
    assert rates(run) == pytest.approx([LR * (1 - count / total_steps) for count in counts])


PLATEAU = ("schedule=plateau", "schedule.patience=0", "schedule.factor=0.5", "optimizer.lr=0.05")


def plateau_rates(run: RunDirectory, metric: str, mode: str, batches_between: int) -> list[float]:
    """Return the rates of torch's ReduceLROnPlateau by hand, for the validations of a run."""
    optimizer = SGD([nn.Parameter(torch.zeros(1))], lr=rates(run)[0])
    scheduler, values = lr.ReduceLROnPlateau(optimizer, mode=mode, factor=0.5, patience=0), []
    for row in read_metrics(run.metrics):
        if row.metric == metric:
            values += [optimizer.param_groups[0]["lr"]] * batches_between
            scheduler.step(row.value)
    return values


@pytest.mark.integrations
@pytest.mark.parametrize(
    ("settings", "batches_between"),
    [
        (["trainer.max_epochs=6"], BATCHES),
        (["trainer.max_epochs=3", "trainer.val_check_interval=1"], 1),
        (["trainer.max_epochs=8", "trainer.check_val_every_n_epoch=2"], 2 * BATCHES),
        (["trainer.max_epochs=6", "objective={metric: val/loss, mode: min}", "optimizer.lr=0.5"], BATCHES),
    ],
)
def test_a_plateau_follows_the_objective_at_each_validation(
    settings: list[str], batches_between: int, tmp_path: Path
) -> None:
    whole, config = new_run(tmp_path / "whole", *EVERY_STEP, *PLATEAU, *settings)
    looks = train_until(whole, config, None)
    assert looks is not None
    metric, mode = ("val/loss", "min") if "optimizer.lr=0.5" in settings else ("val/accuracy", "max")
    by_hand = plateau_rates(whole, metric, mode, batches_between)
    assert rates(whole) == by_hand
    assert 1 < len(set(by_hand)) < len(by_hand) // batches_between, "it was reduced, but not after each validation"
    for number in (looks // 2, looks // 2 + 1):  # before a step, or within a validation
        stopped = stop_and_resume(tmp_path / f"stopped-{number}", number, *EVERY_STEP, *PLATEAU, *settings)
        for part in ("rows", "result"):  # with its weights
            assert outcome(whole)[part] == outcome(stopped)[part]


def test_a_plateau_can_be_trained_longer(tmp_path: Path) -> None:
    settings = (*EVERY_STEP, *PLATEAU)
    whole = train_here(tmp_path / "whole", *settings, "trainer.max_epochs=5")
    run, config = new_run(tmp_path / "run", *settings, "trainer.max_epochs=2")
    train_until(run, config, None)
    config["trainer"]["max_epochs"] = 5
    train_until(run, config, None)
    assert differences(outcome(whole)["rows"], outcome(run)["rows"]) == []
    assert read_result(run)["weights"] == read_result(whole)["weights"]


REFUSED = [
    (
        schedule(node("StepLR", "step_size: 1"), "epoch")[:2],
        f"schedule: {TORCH}.StepLR counts its steps; set +schedule.interval=epoch to step it after each epoch, or "
        "+schedule.interval=step to step it after each optimizer step",
    ),
    (
        schedule(node("StepLR", "step_size: 1"), "batch"),
        "schedule.interval=batch: expected 'step' or 'epoch'",
    ),
    (["schedule.interval=steps"], "schedule.interval=steps: expected 'step' or 'epoch'"),
    (
        ["schedule=plateau", "objective=null"],
        "schedule: ReduceLROnPlateau follows the objective, but objective=null; choose another schedule",
    ),
    (
        ["schedule=plateau", "+schedule.mode=min"],
        "schedule.mode=min: ReduceLROnPlateau follows val/accuracy, whose mode is max; leave out schedule.mode",
    ),
    (
        ["schedule=plateau", "data.val_size=0"],
        "schedule: ReduceLROnPlateau follows the objective, but there is no validation, since data.val_size=0; "
        "change it, or choose another schedule",
    ),
    (
        ["schedule=plateau", "trainer.limit_val_batches=0"],
        "schedule: ReduceLROnPlateau follows the objective, but there is no validation, since "
        "trainer.limit_val_batches=0; change it, or choose another schedule",
    ),
    (["schedule=plateau", "schedule.factor=2"], "schedule.factor=2: expected less than 1"),
    (
        schedule(node("SequentialLR", "milestones: [1]", f"schedulers: [{node('StepLR')}]"), "epoch"),
        f"schedule.schedulers.0: {TORCH}.StepLR needs step_size; set schedule.schedulers.0.step_size=...",
    ),
    (
        schedule(node("SequentialLR", "milestones: [1]", f"schedulers: [{node('StepLR', 'interval: step')}]"), "epoch"),
        f"schedule.schedulers.0.interval: {TORCH}.StepLR takes no argument 'interval'",
    ),
]


@pytest.mark.parametrize(("overrides", "message"), REFUSED, ids=[message.partition(":")[0] for _, message in REFUSED])
def test_a_wrong_schedule_is_refused_before_anything_is_written(
    overrides: Sequence[str], message: str, tmp_path: Path, litlab: Command
) -> None:
    done = litlab("train", *TINY, *overrides)
    assert (done.returncode, done.stderr.strip()) == (1, f"litlab: {message}")
    assert list((tmp_path / "project").iterdir()) == []


class Own(LightningModule):
    """A module of a user's own with the optimizer and schedule of the config.

    Args:
        way: `configure` to let litlab tell Lightning when to step the schedule; else the module does, or does not.
    """

    def __init__(self, optimizer: Any, schedule: Any, way: str) -> None:
        super().__init__()
        self.layer = nn.Linear(4, 1)
        self._make_optimizer, self._schedule, self._way = optimizer, schedule, way

    def training_step(self, batch: Tensor) -> Tensor:
        return self.layer(batch).square().mean()

    def validation_step(self, batch: Tensor) -> None:
        self.log("val/loss", self.training_step(batch))

    def configure_optimizers(self) -> Any:
        optimizer = self._make_optimizer(params=self.parameters())
        if self._way == "configure":
            return self._schedule.configure(optimizer, self.trainer)
        scheduler = self._schedule(optimizer)
        if self._way == "list":
            return [optimizer], [scheduler]
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": self._way}}


def own(way: str, *schedule: str) -> tuple[str, ...]:
    named = (override for override in pair(f"{HERE}.Own", "support.foreign.Numbers") if "_target_" in override)
    overrides = ("~model", "~data", "~task", *named, f"+task.way={way}", "name=own", "trainer=cpu", "threads=1")
    settings = ("trainer.max_epochs=3", "trainer.log_every_n_steps=1", "objective={metric: val/loss, mode: min}")
    return (*overrides, *settings, *schedule)


@pytest.mark.filterwarnings("ignore:.*does not have many workers")
@pytest.mark.parametrize(
    ("way", "interval"), [("configure", "step"), ("configure", "epoch"), ("list", "epoch"), ("step", "step")]
)
def test_a_module_of_ones_own_takes_the_schedule(way: str, interval: str, tmp_path: Path) -> None:
    text, make = SCHEDULES["a sequence"]
    run = train_here(tmp_path / "run", *own(way, *schedule(text, interval)))
    by_hand = expected(make, 12)
    if interval == "epoch":
        by_hand = [rate for rate in by_hand[:3] for _ in range(4)]
    assert rates(run) == pytest.approx(by_hand)


@pytest.mark.filterwarnings("ignore:.*does not have many workers")
@pytest.mark.parametrize(("way", "interval", "stepped"), [("list", "step", "epoch"), ("step", "epoch", "step")])
def test_a_module_that_steps_it_otherwise_is_refused(way: str, interval: str, stepped: str, tmp_path: Path) -> None:
    run, config = new_run(tmp_path / "run", *own(way, *schedule(SCHEDULES["steps"][0], interval)))
    with pytest.raises(UserError) as refused:
        train_until(run, config, None)
    assert str(refused.value) == (
        f"schedule.interval={interval}: Own.configure_optimizers has it stepped after each {stepped}; let it return "
        f"schedule.configure(optimizer, self.trainer), or set schedule.interval={stepped}"
    )
    assert not run.metrics.exists()


@pytest.mark.filterwarnings("ignore:.*does not have many workers")
def test_a_plateau_follows_the_objective_of_a_module_of_ones_own(tmp_path: Path) -> None:
    run = train_here(tmp_path / "run", *own("configure", *PLATEAU, "optimizer.lr=2.5", "trainer.max_epochs=6"))
    assert rates(run) == plateau_rates(run, "val/loss", "min", batches_between=4)
    assert len(set(rates(run))) > 1


def make_plateau(optimizer: Optimizer) -> LRScheduler:
    return lr.ReduceLROnPlateau(optimizer, mode="min")


def test_a_plateau_of_another_mode_is_refused(tmp_path: Path) -> None:
    text = f"{{_target_: {HERE}.make_plateau}}"
    run, config = new_run(tmp_path / "run", *TINY, *schedule(text, "epoch"))
    with pytest.raises(UserError) as refused:
        train_until(run, config, None)
    assert str(refused.value) == (
        "schedule: ReduceLROnPlateau has mode=min, but follows the objective val/accuracy, whose mode is max"
    )


def test_what_is_no_scheduler_is_refused() -> None:
    factory = ScheduleFactory(lambda optimizer: 0.1, interval="step", needs_total_steps=False)
    with pytest.raises(UserError, match=r"schedule: expected a scheduler of .*, found a float"):
        factory(SGD([nn.Parameter(torch.zeros(1))], lr=LR))


def test_the_factory_makes_the_scheduler_alone() -> None:
    make = partial(one_cycle, warmup=0.5, initial=0.1, final=0.0)
    factory = ScheduleFactory(make, interval="step", needs_total_steps=True)
    scheduler = factory(SGD([nn.Parameter(torch.zeros(1))], lr=LR), total_steps=10)
    assert scheduler.get_last_lr() == pytest.approx([LR * 0.1])
