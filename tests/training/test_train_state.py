"""Capture, merging and restoration of unfinished metrics."""

from torchmetrics import MeanMetric, Metric

from litlab.training.train_state import get_metrics_state, merge_metrics_states, set_metrics_state


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
