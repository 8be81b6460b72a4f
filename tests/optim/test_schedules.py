"""Schedules by value."""

import math
from functools import partial

import pytest
import torch
from torch import nn
from torch.optim import SGD
from torch.optim.lr_scheduler import LambdaLR, OneCycleLR

from litlab.optim.schedules import constant, cosine, cosine_factor, linear_factor, one_cycle, one_cycle_factor


def make_optimizer(lr: float = 1.0) -> SGD:
    return SGD([nn.Parameter(torch.zeros(1))], lr=lr)


def rates(schedule: LambdaLR, num_steps: int) -> list[float]:
    values = []
    for _ in range(num_steps):
        values.append(schedule.get_last_lr()[0])
        schedule.optimizer.step()
        schedule.step()
    return values


@pytest.mark.parametrize("total_steps", [10, 100, 101])
def test_one_cycle_equals_that_of_torch(total_steps: int) -> None:
    settings = {"pct_start": 0.3, "div_factor": 20, "final_div_factor": 50, "cycle_momentum": False}
    expected = OneCycleLR(make_optimizer(), max_lr=0.3, total_steps=total_steps, **settings)
    schedule = one_cycle(make_optimizer(0.3), total_steps=total_steps, warmup=0.3, initial=1 / 20, final=1 / 1000)
    assert rates(schedule, total_steps) == pytest.approx(rates(expected, total_steps), abs=1e-12)


def test_cosine_values() -> None:
    factor = partial(cosine_factor, total_steps=11, warmup=2 / 11, final=0.1)
    assert [factor(step) for step in range(3)] == pytest.approx([1 / 3, 2 / 3, 1])
    assert factor(6) == pytest.approx(0.55)  # half-way between the peak and the last step
    assert factor(4) == pytest.approx(0.1 + 0.9 * (1 + math.cos(math.pi / 4)) / 2)
    assert factor(10) == factor(11) == factor(500) == 0.1
    assert rates(cosine(make_optimizer(2), total_steps=11, warmup=2 / 11, final=0.1), 11) == pytest.approx(
        [2 * factor(step) for step in range(11)]
    )


def test_constant() -> None:
    assert rates(constant(make_optimizer(0.25)), 5) == [0.25] * 5


@pytest.mark.parametrize("warmup", [0.0, 0.25, 1.0])
@pytest.mark.parametrize("total_steps", [1, 2, 3, 7])
def test_factors_of_short_trainings_peak_near_one(total_steps: int, warmup: float) -> None:
    for factor in (
        partial(one_cycle_factor, warmup=warmup, initial=0.1, final=0.0),
        partial(cosine_factor, warmup=warmup, final=0.0),
        partial(linear_factor, warmup=warmup, final=0.0),
    ):
        values = [factor(step, total_steps) for step in range(total_steps + 3)]
        assert max(values[:total_steps]) > 0.99  # the peak may lie between two steps
        assert all(0 <= value <= 1 for value in values)
