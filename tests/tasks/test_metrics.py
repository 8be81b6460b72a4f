"""Training metrics that wait to be added up: to the bit what adding up at every step gives."""

from itertools import pairwise

import pytest
import torch
from torch import Tensor

from litlab.tasks import metrics
from litlab.tasks.metrics import LossAndAccuracy, TrainingMetrics
from litlab.training.state import find_metrics, get_metrics_state, set_metrics_state

Step = tuple[Tensor, Tensor, Tensor]


def steps(number: int) -> list[Step]:
    generator = torch.Generator().manual_seed(6)
    sizes = torch.randint(0, 40, (number,), generator=generator).tolist()  # of one rank's real rows: none, too
    return [
        (
            torch.rand(size, generator=generator) * 3,
            torch.randn(size, 5, generator=generator),
            torch.randint(0, 5, (size,), generator=generator),
        )
        for size in sizes
    ]


def added_up(each: list[Step]) -> tuple[float, float]:
    """One by one, in float32."""
    loss_sum = torch.zeros(())
    for losses, _, _ in each:
        loss_sum += losses.sum()
    correct = sum(int((logits.argmax(1) == labels).sum()) for _, logits, labels in each)
    number = sum(len(labels) for _, _, labels in each)
    return (loss_sum / number).item(), correct / number


def values(measured: TrainingMetrics) -> tuple[float, float]:
    found = measured.compute()
    return found["loss"].item(), found["accuracy"].item()


@pytest.mark.parametrize("limit", [1, 7, 10**6])
def test_it_makes_no_difference_how_long_they_wait(limit: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(metrics, "MAX_PENDING_BATCHES", limit)
    measured, all_steps = TrainingMetrics(), steps(60)
    for start, end in pairwise([0, 1, 20, 60]):
        for each in all_steps[start:end]:
            measured.update(*each)
        loss, accuracy = values(measured)
        expected = added_up(all_steps[:end])
        assert loss == expected[0]
        assert accuracy == pytest.approx(expected[1], rel=1e-6)
    measured.reset()
    measured.update(*all_steps[3])
    assert values(measured)[0] == added_up(all_steps[3:4])[0]


def test_few_logits_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(metrics, "MAX_PENDING_LOGITS", 100)
    measured = LossAndAccuracy()
    for _ in range(9):
        measured.update_later(torch.ones(8), torch.zeros(8, 5), torch.zeros(8, dtype=torch.int64))
        assert len(measured._pending) * 40 <= 100
    measured.flush()
    assert measured.num_images == 72


def test_no_graph_waits() -> None:
    measured, weight = LossAndAccuracy(), torch.ones(8, 5, requires_grad=True)
    logits = weight * 2
    measured.update_later(logits.sum(1), logits, torch.zeros(8, dtype=torch.int64))
    assert not any(each.requires_grad for each in measured._pending[0])
    measured.flush()
    assert not measured.loss_sum.requires_grad


def test_a_checkpoint_holds_what_waits() -> None:
    measured, other, all_steps = TrainingMetrics(), TrainingMetrics(), steps(30)
    for each in all_steps[:10]:
        measured.update(*each)
    set_metrics_state(find_metrics(other), get_metrics_state(find_metrics(measured)))
    for each in all_steps[10:]:
        measured.update(*each)
        other.update(*each)
    assert values(other) == values(measured)
    assert values(measured)[0] == added_up(all_steps)[0]
