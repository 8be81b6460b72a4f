"""Capture and restoration of random numbers and metrics."""

import random
from pathlib import Path

import numpy as np
import torch
from torchmetrics import MeanMetric, Metric

from litlab.training.random_state import get_random_state, set_random_state
from litlab.training.train_state import get_metrics_state, merge_metrics_states, set_metrics_state

CPU = torch.device("cpu")


def _draws() -> list[float]:
    gauss = [random.gauss(0, 1), np.random.randn(), torch.randn(()).item()]
    return [*gauss, random.random(), np.random.rand(), torch.rand(()).item()]


def test_random_numbers_continue(tmp_path: Path) -> None:
    _draws()  # leaves half a pair of normal numbers in Python's and NumPy's generators
    torch.save(get_random_state(CPU), tmp_path / "state.pt")
    expected = _draws()
    random.seed(1)
    np.random.seed(1)
    torch.manual_seed(1)
    assert _draws() != expected
    set_random_state(torch.load(tmp_path / "state.pt", weights_only=True), CPU)
    assert _draws() == expected


def _measured(*values: float) -> dict[str, Metric]:
    module: dict[str, Metric] = {"mean": MeanMetric(), "unused": MeanMetric()}
    for value in values:
        module["mean"].update(value)
    return module


def test_unfinished_metrics_continue() -> None:
    measured = _measured(1.0, 2.0)
    state = get_metrics_state(measured)
    assert list(state) == ["mean"], "a metric without updates has no state"
    measured["mean"].update(9.0)  # the state is a copy
    other = _measured(50.0)
    set_metrics_state(other, state)
    other["mean"].update(6.0)
    assert other["mean"].compute() == 3
    assert other["mean"]._update_count == 3


def test_sums_of_several_ranks_become_those_of_one() -> None:
    module = _measured()
    states = [get_metrics_state(_measured(1.0, 2.0)), get_metrics_state(_measured(6.0))]
    set_metrics_state(module, merge_metrics_states(states, module))
    assert module["mean"].compute() == 3
