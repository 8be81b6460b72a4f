"""Factory of the learning-rate schedule of a run: what it is made from, and when it is stepped."""

import math
import sys
from collections.abc import Callable
from typing import Any, Literal
from weakref import WeakKeyDictionary

from lightning.pytorch import Callback, Trainer
from lightning.pytorch.callbacks import GradientAccumulationScheduler
from lightning.pytorch.utilities.types import OptimizerLRSchedulerConfig
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler, ReduceLROnPlateau

from litlab.errors import UserError

Interval = Literal["step", "epoch"]
_intervals: WeakKeyDictionary[LRScheduler, Interval] = WeakKeyDictionary()  # that the configs give to schedulers


class ScheduleFactory:
    """Make the scheduler of an optimizer, and say when Lightning steps it.

    Args:
        make: Returns a scheduler, of torch or timm, for an `optimizer`, and for a number of `total_steps` or a `mode`
            if it takes these. The number is that of the whole training, also if a callback changes the accumulation of
            gradients. The scheduler is stepped after each optimizer step or epoch; torch's `ReduceLROnPlateau` after
            each validation, with the objective.
        interval: What the scheduler counts, as the config says; None for steps.
        needs_total_steps: Whether `make` takes `total_steps`.
        takes_mode: Whether `make` takes the `mode` of a `ReduceLROnPlateau`.
        objective: Metric and mode that a `ReduceLROnPlateau` follows; None if there is no objective.
    """

    def __init__(
        self,
        make: Callable[..., Any],
        *,
        interval: Interval | None,
        needs_total_steps: bool,
        takes_mode: bool = False,
        objective: dict[str, Any] | None = None,
    ) -> None:
        self._make, self._interval, self._needs_total_steps = make, interval, needs_total_steps
        self._takes_mode, self._objective = takes_mode, objective

    def __call__(self, optimizer: Optimizer, **arguments: Any) -> LRScheduler:
        """Make the scheduler alone, for a LightningModule that tells Lightning itself when it is stepped.

        Args:
            optimizer: Optimizer whose learning rate is scheduled.
            arguments: More arguments of the scheduler, such as `total_steps`.

        Raises:
            UserError: What the config names is no scheduler, or counts something else than its steps.
        """
        if self._takes_mode and self._objective is not None:
            arguments.setdefault("mode", self._objective["mode"])
        scheduler = self._make(optimizer=optimizer, **arguments)
        if callable(getattr(scheduler, "step_update", None)) and hasattr(scheduler, "t_in_epochs"):
            scheduler = TimmSchedule(scheduler, self._interval or "step")
        if not isinstance(scheduler, LRScheduler):
            raise UserError(
                "schedule: expected a scheduler of torch.optim.lr_scheduler or timm.scheduler, found a "
                f"{type(scheduler).__name__}"
            )
        if self._interval is not None and not isinstance(scheduler, ReduceLROnPlateau):
            _intervals[scheduler] = self._interval
        return scheduler

    def configure(self, optimizer: Optimizer, trainer: Trainer) -> OptimizerLRSchedulerConfig:
        """Make the scheduler, and return what `configure_optimizers` returns of both to Lightning.

        Raises:
            UserError: The scheduler needs a number of steps or an objective, and there is none.
        """
        arguments = {"total_steps": self._total_steps(trainer)} if self._needs_total_steps else {}
        scheduler = self(optimizer, **arguments)
        if isinstance(scheduler, ReduceLROnPlateau):
            # Lightning would step it at the end of each epoch or step, with the last value over and over.
            stepped = {"interval": "epoch", "frequency": sys.maxsize, "reduce_on_plateau": False}
            config = stepped | {"scheduler": scheduler, "monitor": self._followed(scheduler)}
        else:
            config = {"scheduler": scheduler, "interval": self._interval or "step"}
        return {"optimizer": optimizer, "lr_scheduler": config}  # type: ignore[typeddict-item]

    def _total_steps(self, trainer: Trainer) -> int:
        total = trainer.estimated_stepping_batches
        if total == math.inf:
            raise UserError(
                "this schedule needs to know where training ends, but trainer.max_epochs and trainer.max_steps are "
                "both unlimited: set one of them, or use schedule=constant"
            )
        trainer.fit_loop.setup_data()  # Lightning does it only if it has to know the number of batches
        num_batches = trainer.num_training_batches
        if num_batches == math.inf:  # it is trainer.max_steps, within one epoch without end
            return int(total) if self._interval != "epoch" else 1
        max_epochs = math.inf if trainer.max_epochs in (None, -1) else max(1, trainer.max_epochs or 0)
        max_steps = math.inf if trainer.max_steps == -1 else trainer.max_steps
        num_epochs = num_steps = 0
        while num_epochs < max_epochs and num_steps < max_steps:
            num_steps += math.ceil(max(1, num_batches) / _num_accumulated(trainer, num_epochs))
            num_epochs += 1
        return num_epochs if self._interval == "epoch" else int(min(num_steps, max_steps))

    def _followed(self, scheduler: ReduceLROnPlateau) -> str:
        if self._objective is None:
            raise UserError(
                f"schedule: {type(scheduler).__name__} follows the objective, but objective=null; "
                "choose another schedule, or set objective.metric and objective.mode"
            )
        metric, mode = self._objective["metric"], self._objective["mode"]
        if scheduler.mode != mode:
            raise UserError(
                f"schedule: {type(scheduler).__name__} has mode={scheduler.mode}, but follows the objective {metric}, "
                f"whose mode is {mode}"
            )
        return str(metric)


def _num_accumulated(trainer: Trainer, epoch: int) -> int:
    """Return how many batches an optimizer step of an epoch has, which a callback may schedule."""
    callbacks: list[Callback] = trainer.callbacks  # type: ignore[attr-defined]  # Lightning gives it no type
    for callback in callbacks:
        if isinstance(callback, GradientAccumulationScheduler):
            return callback.get_accumulate_grad_batches(epoch)
    return trainer.accumulate_grad_batches


class TimmSchedule(LRScheduler):
    """Scheduler of timm with the interface of torch's: it counts the steps, which timm's takes as an argument.

    Args:
        scheduler: Instance of a subclass of `timm.scheduler.scheduler.Scheduler`.
        interval: What its steps are, which has to be what it counts by `t_in_epochs`.

    Raises:
        UserError: It counts something else, or follows a metric.
    """

    def __init__(self, scheduler: Any, interval: Interval) -> None:
        name = type(scheduler).__name__
        if isinstance(getattr(scheduler, "lr_scheduler", None), ReduceLROnPlateau):
            raise UserError(f"schedule: timm's {name} does not save its state; use schedule=plateau")
        if scheduler.t_in_epochs != (interval == "epoch"):
            counted, other = ("epochs", "true") if scheduler.t_in_epochs else ("steps", "false")
            raise UserError(
                f"schedule.interval={interval}: timm's {name} counts {counted}, as its t_in_epochs is {other}; "
                f"set schedule.interval={counted.removesuffix('s')}, or change schedule.t_in_epochs"
            )
        self.optimizer = scheduler.optimizer
        self.last_epoch = 0
        self._scheduler = scheduler

    def step(self, epoch: int | None = None) -> None:
        """Set the learning rates after one more step or epoch."""
        self.last_epoch += 1
        (self._scheduler.step if self._scheduler.t_in_epochs else self._scheduler.step_update)(self.last_epoch)

    def get_last_lr(self) -> list[Any]:
        """Return the present learning rate of each parameter group."""
        return [group["lr"] for group in self.optimizer.param_groups]

    def state_dict(self) -> dict[str, Any]:
        """Return the count and the state of timm's scheduler."""
        return {"last_epoch": self.last_epoch, "scheduler": self._scheduler.state_dict()}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore the state of `state_dict`."""
        self.last_epoch = state_dict["last_epoch"]
        self._scheduler.load_state_dict(state_dict["scheduler"])


def check_intervals(trainer: Trainer) -> None:
    """Check that a LightningModule steps the schedule of the config as the config says.

    Raises:
        UserError: It tells Lightning another interval, or leaves it Lightning's default, `epoch`.
    """
    for config in trainer.lr_scheduler_configs if trainer.lightning_module.automatic_optimization else ():
        interval = _intervals.get(config.scheduler)
        if interval not in (None, config.interval):
            name = type(trainer.lightning_module).__name__
            raise UserError(
                f"schedule.interval={interval}: {name}.configure_optimizers has it stepped after each "
                f"{config.interval}; let it return schedule.configure(optimizer, self.trainer), or set "
                f"schedule.interval={config.interval}"
            )


def step_plateaus(trainer: Trainer, value: float) -> None:
    """Step the schedules that follow the objective, after a validation with this value."""
    for config in trainer.lr_scheduler_configs:
        # Only `ScheduleFactory.configure` takes it from Lightning but leaves it a metric.
        if isinstance(config.scheduler, ReduceLROnPlateau) and not config.reduce_on_plateau and config.monitor:
            config.scheduler.step(value)
