"""Learning-rate schedules: pure functions of the step.

A schedule is a factor on the learning rate of the optimizer's config. Every factor is defined for every step, also past
the end, since the scheduler computes the rate of a step that training no longer takes.
"""

import math

from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR


def one_cycle_factor(step: int, total_steps: int, *, warmup: float, initial: float, final: float) -> float:
    """Cosine from `initial` at step 0 up to 1 at `warmup * total_steps - 1`, cosine down to `final` at the last step.

    The same curve as torch's OneCycleLR with two phases; momentum stays as it is.
    """
    peak = max(warmup * total_steps - 1, 0.0)
    if step <= peak:
        return _cosine(1.0 if peak == 0 else step / peak, initial, 1.0)
    if step >= total_steps - 1:
        return final
    return _cosine((step - peak) / (total_steps - 1 - peak), 1.0, final)


def cosine_factor(step: int, total_steps: int, *, warmup: float, final: float) -> float:
    """Linear up to 1 in `num_warmup = round(warmup * total_steps)` steps, then cosine down to `final` at the last step.

    The first step has the factor `1 / (num_warmup + 1)`. A warm-up of all steps reaches 1 at the last.
    """
    num_warmup = min(round(warmup * total_steps), total_steps - 1)
    if step <= num_warmup:
        return (step + 1) / (num_warmup + 1)
    if step >= total_steps - 1:
        return final
    return _cosine((step - num_warmup) / (total_steps - 1 - num_warmup), 1.0, final)


def linear_factor(step: int, total_steps: int, *, warmup: float, final: float) -> float:
    """Up to 1 in `num_warmup = round(warmup * total_steps)` steps as `cosine_factor`, then straight down to `final`.

    The last step still has a little more than `final`, which would be the factor of the step after it.
    """
    num_warmup = min(round(warmup * total_steps), total_steps - 1)
    if step <= num_warmup:
        return (step + 1) / (num_warmup + 1)
    return 1 + (final - 1) * min((step - num_warmup) / (total_steps - num_warmup), 1.0)


def _cosine(progress: float, start: float, end: float) -> float:
    """From `start` at progress 0 to `end` at progress 1, flat at both ends."""
    return end + (start - end) * (1 + math.cos(math.pi * progress)) / 2


def one_cycle(
    optimizer: Optimizer,
    *,
    total_steps: int,
    warmup: float,
    initial: float,
    final: float,
) -> LambdaLR:
    """Multiplies the learning rate by `one_cycle_factor`."""
    return LambdaLR(
        optimizer,
        lambda step: one_cycle_factor(step, total_steps, warmup=warmup, initial=initial, final=final),
    )


def cosine(optimizer: Optimizer, *, total_steps: int, warmup: float, final: float) -> LambdaLR:
    """Multiplies the learning rate by `cosine_factor`."""
    return LambdaLR(
        optimizer,
        lambda step: cosine_factor(step, total_steps, warmup=warmup, final=final),
    )


def linear(optimizer: Optimizer, *, total_steps: int, warmup: float, final: float) -> LambdaLR:
    """Multiplies the learning rate by `linear_factor`."""
    return LambdaLR(
        optimizer,
        lambda step: linear_factor(step, total_steps, warmup=warmup, final=final),
    )


def constant(optimizer: Optimizer) -> LambdaLR:
    """Leaves the learning rate as it is."""
    return LambdaLR(optimizer, lambda step: 1.0)
