"""Learning-rate schedules: pure functions of the step.

A schedule is a factor on the learning rate of the optimizer's config. Every factor is defined for every step, also past
the end, since the scheduler computes the rate of a step that training no longer takes.
"""

import math

from torch import Tensor
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR


def one_cycle_factor(step: int, total_steps: int, *, warmup: float, initial: float, final: float) -> float:
    """Compute the one-cycle factor of a step (Smith and Topin 2018).

    A cosine from `initial` at step 0 up to 1 at step `warmup * total_steps - 1`, then a cosine down to `final` at the
    last step: the curve of torch's OneCycleLR with two phases, without its momentum.
    """
    peak = max(warmup * total_steps - 1, 0.0)
    if step <= peak:
        return _cosine(1.0 if peak == 0 else step / peak, initial, 1.0)
    if step >= total_steps - 1:
        return final
    return _cosine((step - peak) / (total_steps - 1 - peak), 1.0, final)


def cosine_factor(step: int, total_steps: int, *, warmup: float, final: float) -> float:
    """Compute the factor of a step for linear warm-up and cosine decay (Loshchilov and Hutter 2017).

    Linear up to 1 in `num_warmup = round(warmup * total_steps)` steps, then a cosine down to `final` at the last step.
    The first step has the factor `1 / (num_warmup + 1)`. A warm-up of all steps reaches 1 at the last.
    """
    num_warmup = min(round(warmup * total_steps), total_steps - 1)
    if step <= num_warmup:
        return (step + 1) / (num_warmup + 1)
    if step >= total_steps - 1:
        return final
    return _cosine((step - num_warmup) / (total_steps - 1 - num_warmup), 1.0, final)


def linear_factor(step: int, total_steps: int, *, warmup: float, final: float) -> float:
    """Compute the factor of a step for linear warm-up and linear decay.

    The warm-up is that of `cosine_factor`. The factor reaches `final` at the step after the last.
    """
    num_warmup = min(round(warmup * total_steps), total_steps - 1)
    if step <= num_warmup:
        return (step + 1) / (num_warmup + 1)
    return 1 + (final - 1) * min((step - num_warmup) / (total_steps - num_warmup), 1.0)


def _cosine(progress: float, start: float, end: float) -> float:
    """Interpolate from `start` at progress 0 to `end` at progress 1, flat at both ends."""
    return end + (start - end) * (1 + math.cos(math.pi * progress)) / 2


class FactorSchedule(LambdaLR):
    """Multiply the learning rates by a function of the step, but for parameter groups that a callback adds later.

    A callback that adds a group, such as Lightning's `BackboneFinetuning`, sets its learning rate itself.
    """

    def get_lr(self) -> list[float | Tensor]:
        """Return the next learning rate of each group."""
        added = self.optimizer.param_groups[len(self.base_lrs) :]
        return [*super().get_lr(), *(group["lr"] for group in added)]


def one_cycle(optimizer: Optimizer, *, total_steps: int, warmup: float, initial: float, final: float) -> LambdaLR:
    """Multiply the learning rate by `one_cycle_factor`."""
    return FactorSchedule(
        optimizer, lambda step: one_cycle_factor(step, total_steps, warmup=warmup, initial=initial, final=final)
    )


def cosine(optimizer: Optimizer, *, total_steps: int, warmup: float, final: float) -> LambdaLR:
    """Multiply the learning rate by `cosine_factor`."""
    return FactorSchedule(optimizer, lambda step: cosine_factor(step, total_steps, warmup=warmup, final=final))


def linear(optimizer: Optimizer, *, total_steps: int, warmup: float, final: float) -> LambdaLR:
    """Multiply the learning rate by `linear_factor`."""
    return FactorSchedule(optimizer, lambda step: linear_factor(step, total_steps, warmup=warmup, final=final))


def constant(optimizer: Optimizer) -> LambdaLR:
    """Keep the learning rate constant."""
    return FactorSchedule(optimizer, lambda step: 1.0)
